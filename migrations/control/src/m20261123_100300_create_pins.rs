//! What ties a tenant to a service: its pin, the schema seen in its database, and the hold of a strict move.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

use crate::column;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let database = manager.get_connection();
        let text = column::text(database.get_database_backend());
        // Half of each page is left for the next form of its rows: a pin that changes then leaves the indexes alone.
        let room = match database.get_database_backend() {
            DbBackend::Postgres => " WITH (fillfactor = 50)",
            _ => "",
        };
        let statements = [
            format!(
                "CREATE TABLE pins (tenant {text} NOT NULL, service {text} NOT NULL, version {text} NOT NULL, \
                 locked BOOLEAN NOT NULL, revision BIGINT NOT NULL, PRIMARY KEY (tenant, service)){room}"
            ),
            // The pins of a service in order. None names the version: it would be written with every pin that changes.
            "CREATE INDEX pins_by_service ON pins (service, tenant)".to_owned(),
            format!(
                "CREATE TABLE observed_schemas (tenant {text} NOT NULL, service {text} NOT NULL, \
                 schema_version {text} NOT NULL, at_ms BIGINT NOT NULL, revision BIGINT NOT NULL, \
                 PRIMARY KEY (tenant, service))"
            ),
            format!(
                "CREATE TABLE holds (tenant {text} NOT NULL, service {text} NOT NULL, to_version {text} NOT NULL, \
                 until_ms BIGINT NOT NULL, revision BIGINT NOT NULL, PRIMARY KEY (tenant, service))"
            ),
        ];
        for statement in statements {
            database.execute_unprepared(&statement).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let database = manager.get_connection();
        for statement in ["DROP TABLE holds", "DROP TABLE observed_schemas", "DROP TABLE pins"] {
            database.execute_unprepared(statement).await?;
        }
        Ok(())
    }
}
