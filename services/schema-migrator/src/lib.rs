//! Plans, runs, verifies and undoes the schema migrations of tenant databases.
