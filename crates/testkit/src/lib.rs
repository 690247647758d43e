//! Real servers for tests: private Redis, PostgreSQL and MariaDB on free ports, gone when the test ends.
