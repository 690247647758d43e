//! The column types in which the databases differ.

use sea_orm_migration::sea_orm::DbBackend;

/// Text that is compared byte by byte, so that both databases sort and page alike.
pub(crate) fn text(backend: DbBackend) -> &'static str {
    match backend {
        DbBackend::Postgres => "TEXT COLLATE \"C\"",
        _ => "TEXT",
    }
}
