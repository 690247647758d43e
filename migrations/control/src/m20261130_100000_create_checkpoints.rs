//! States of records as of earlier events, so that a past state is not folded from the log's beginning. All of it can be
//! made again from the log.

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
        let bytes = column::bytes(database.get_database_backend());
        // Of a tenant: what one service needs of it. The seal ties the body to its place and to the event there.
        let statement = format!(
            "CREATE TABLE checkpoints (kind {text} NOT NULL, id {text} NOT NULL, service {text} NOT NULL, \
             revision BIGINT NOT NULL, seal {bytes} NOT NULL, body {bytes} NOT NULL, \
             PRIMARY KEY (kind, id, service, revision))"
        );
        database.execute_unprepared(&statement).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared("DROP TABLE checkpoints").await?;
        Ok(())
    }
}
