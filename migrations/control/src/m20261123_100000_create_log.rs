//! The event log and its head. The head's one row is the lock that puts commands in order.

use sea_orm_migration::prelude::*;
use uuid::Uuid;

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
        let statements = [
            format!(
                "CREATE TABLE log_head (id INTEGER PRIMARY KEY CHECK (id = 1), revision BIGINT NOT NULL, \
                 generation {text} NOT NULL)"
            ),
            // The first start of a database begins a history that no other database has.
            format!("INSERT INTO log_head (id, revision, generation) VALUES (1, 0, '{}')", Uuid::now_v7()),
            format!(
                "CREATE TABLE events (revision BIGINT PRIMARY KEY, at_ms BIGINT NOT NULL, actor {text} NOT NULL, \
                 reason {text} NOT NULL, body {bytes} NOT NULL)"
            ),
        ];
        for statement in statements {
            database.execute_unprepared(&statement).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let database = manager.get_connection();
        for statement in ["DROP TABLE events", "DROP TABLE log_head"] {
            database.execute_unprepared(statement).await?;
        }
        Ok(())
    }
}
