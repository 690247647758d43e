//! The routers that count, and those that did.

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
        let statement = format!(
            "CREATE TABLE routers (id {text} PRIMARY KEY, address {text} NOT NULL, region {text} NOT NULL, \
             zone {text} NOT NULL, lease_ms BIGINT NOT NULL, first_seen_ms BIGINT NOT NULL, \
             last_seen_ms BIGINT NOT NULL, state {text} NOT NULL, remark TEXT NOT NULL)"
        );
        database.execute_unprepared(&statement).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared("DROP TABLE routers").await?;
        Ok(())
    }
}
