//! The control database's schema, one migration per file.
