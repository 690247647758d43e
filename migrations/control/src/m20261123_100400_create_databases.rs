//! The tenants' databases: where they are, with sealed credentials, and the tenants' sealed data keys.

use sea_orm_migration::prelude::*;

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
        let statements = [
            format!("CREATE TABLE tenant_keys (tenant {text} PRIMARY KEY, sealed_key {text} NOT NULL)"),
            format!(
                "CREATE TABLE tenant_databases (tenant {text} NOT NULL, service {text} NOT NULL, \
                 kind {text} NOT NULL, schema_name {text} NOT NULL, dialect {text} NOT NULL, server {text} NOT NULL, \
                 database_name {text} NOT NULL, sealed_url TEXT NOT NULL, \
                 sealed_direct_url TEXT NOT NULL, direct_server {text} NOT NULL, actor {text} NOT NULL, \
                 updated_at_ms BIGINT NOT NULL, revision BIGINT NOT NULL, PRIMARY KEY (tenant, service))"
            ),
            "CREATE INDEX tenant_databases_by_service ON tenant_databases (service, tenant)".to_owned(),
        ];
        for statement in statements {
            database.execute_unprepared(&statement).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let database = manager.get_connection();
        for statement in ["DROP TABLE tenant_databases", "DROP TABLE tenant_keys"] {
            database.execute_unprepared(statement).await?;
        }
        Ok(())
    }
}
