//! Where databases were seen last, and whether the control plane has been told.

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
            format!(
                "CREATE TABLE observed (tenant {text} NOT NULL, service {text} NOT NULL, \
                 schema_version {text} NOT NULL, fingerprint {text} NOT NULL, pending INTEGER NOT NULL, \
                 seen_ms BIGINT NOT NULL, change BIGINT NOT NULL, unreported BOOLEAN NOT NULL, \
                 claim_until_ms BIGINT NOT NULL, PRIMARY KEY (service, tenant))"
            ),
            "CREATE INDEX observed_unreported ON observed (seen_ms) WHERE unreported".to_owned(),
        ];
        for statement in statements {
            database.execute_unprepared(&statement).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared("DROP TABLE observed").await?;
        Ok(())
    }
}
