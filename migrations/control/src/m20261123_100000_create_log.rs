//! The event log, its head, and its index by record. The head's one row is the lock that puts commands in order.

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
        let statements = [
            // The hash is that of the newest event's body, the level the highest that any event needs.
            format!(
                "CREATE TABLE log_head (id INTEGER PRIMARY KEY CHECK (id = 1), epoch BIGINT NOT NULL, \
                 revision BIGINT NOT NULL, level BIGINT NOT NULL, hash {bytes})"
            ),
            "INSERT INTO log_head (id, epoch, revision, level) VALUES (1, 1, 0, 1)".to_owned(),
            // Who publishes the log, until when by the database's clock, and by which fencing token.
            format!(
                "CREATE TABLE publisher (id INTEGER PRIMARY KEY CHECK (id = 1), holder {text} NOT NULL, \
                 token BIGINT NOT NULL, expires_ms BIGINT NOT NULL)"
            ),
            "INSERT INTO publisher (id, holder, token, expires_ms) VALUES (1, '', 0, 0)".to_owned(),
            format!(
                "CREATE TABLE events (revision BIGINT PRIMARY KEY, at_ms BIGINT NOT NULL, principal {text} NOT NULL, \
                 reason {text} NOT NULL, body {bytes} NOT NULL)"
            ),
            // Which events changed anything of a tenant or a service.
            format!(
                "CREATE TABLE record_history (kind {text} NOT NULL, id {text} NOT NULL, revision BIGINT NOT NULL, \
                 PRIMARY KEY (kind, id, revision))"
            ),
            // Filled and emptied to see whether there is room for writes.
            format!("CREATE TABLE room_probe (padding {bytes} NOT NULL)"),
        ];
        for statement in statements {
            database.execute_unprepared(&statement).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let database = manager.get_connection();
        for table in ["room_probe", "record_history", "events", "publisher", "log_head"] {
            database.execute_unprepared(&format!("DROP TABLE {table}")).await?;
        }
        Ok(())
    }
}
