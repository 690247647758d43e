//! The schema of the migrator's own database, one migration per file, for PostgreSQL and SQLite.
