//! The control database's schema, one migration per file, for PostgreSQL and SQLite.
//!
//! Migrations are frozen once released and import nothing of the services that use the tables. There are no foreign
//! keys: every write goes through one command path that holds the log's head row and checks the rules itself.

#![allow(elided_lifetimes_in_paths, reason = "the trait of sea-orm-migration elides them")]

mod column;
mod m20261123_100000_create_log;
mod m20261123_100100_create_tenants;
mod m20261123_100200_create_catalog;
mod m20261123_100300_create_pins;
mod m20261123_100400_create_databases;
mod m20261123_100500_create_routers;
mod m20261130_100000_create_checkpoints;
mod m20261201_100000_add_run_of_routers;
mod m20261201_100100_add_published_epoch;

use sea_orm_migration::prelude::{ConnectionTrait, DbErr, MigrationTrait, MigratorTrait};
use sea_orm_migration::sea_orm::{
    DatabaseConnection, DbBackend, SqliteTransactionMode, TransactionOptions, TransactionTrait,
};

/// Every migration, oldest first.
#[derive(Debug)]
pub struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261123_100000_create_log::Migration),
            Box::new(m20261123_100100_create_tenants::Migration),
            Box::new(m20261123_100200_create_catalog::Migration),
            Box::new(m20261123_100300_create_pins::Migration),
            Box::new(m20261123_100400_create_databases::Migration),
            Box::new(m20261123_100500_create_routers::Migration),
            Box::new(m20261130_100000_create_checkpoints::Migration),
            Box::new(m20261201_100000_add_run_of_routers::Migration),
            Box::new(m20261201_100100_add_published_epoch::Migration),
        ]
    }
}

/// Brings the database to the newest schema: all missing migrations in one transaction, or none.
///
/// Any number of replicas may call it at once: on PostgreSQL an advisory lock, on SQLite the write lock lets one of
/// them through, and the others find nothing left to do.
///
/// # Errors
/// When the database is away, stays locked, or has been migrated by a newer release.
pub async fn migrate(database: &DatabaseConnection) -> Result<(), DbErr> {
    let immediate = Some(SqliteTransactionMode::Immediate);
    let options = TransactionOptions { sqlite_transaction_mode: immediate, ..TransactionOptions::default() };
    let transaction = database.begin_with_options(options).await?;
    if transaction.get_database_backend() == DbBackend::Postgres {
        // Released by the commit. The number is "grey" in ASCII.
        transaction.execute_unprepared("SELECT pg_advisory_xact_lock(1735550329)").await?;
    }
    Migrator::up(&transaction, None).await?;
    transaction.commit().await
}
