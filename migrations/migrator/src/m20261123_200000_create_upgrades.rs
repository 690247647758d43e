//! Upgrades: asked for, queued, run under a lease, and kept for a while after they have ended.

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
            // Ids are in the order in which upgrades were asked for. Times are milliseconds since the epoch.
            format!(
                "CREATE TABLE upgrades (id {text} NOT NULL PRIMARY KEY, tenant {text} NOT NULL, \
                 service {text} NOT NULL, direction {text} NOT NULL, target_schema {text} NOT NULL, \
                 target_version {text} NOT NULL, options {text} NOT NULL, state {text} NOT NULL, \
                 from_schema {text} NOT NULL, schema_now {text} NOT NULL, steps {text} NOT NULL, \
                 error {text} NOT NULL, reason_code {text} NOT NULL, asker {text} NOT NULL, \
                 asker_role {text} NOT NULL, asker_via {text} NOT NULL, reason {text} NOT NULL, server {text} NOT NULL, created_ms BIGINT NOT NULL, \
                 started_ms BIGINT, ended_ms BIGINT, attempts INTEGER NOT NULL, worker {text} NOT NULL, \
                 lease_until_ms BIGINT NOT NULL, lease_token BIGINT NOT NULL, flip {text}, \
                 flip_state {text} NOT NULL, flip_claim_ms BIGINT NOT NULL, backup {text} NOT NULL, \
                 cancelling BOOLEAN NOT NULL, idempotency_key {text}, request_hash {text} NOT NULL, \
                 change BIGINT NOT NULL, provision {text})"
            ),
            // One upgrade of a database at a time.
            "CREATE UNIQUE INDEX upgrades_busy ON upgrades (tenant, service) \
             WHERE state IN ('queued', 'running')"
                .to_owned(),
            "CREATE UNIQUE INDEX upgrades_by_key ON upgrades (tenant, service, idempotency_key) \
             WHERE idempotency_key IS NOT NULL"
                .to_owned(),
            "CREATE INDEX upgrades_by_state ON upgrades (state, id)".to_owned(),
            "CREATE INDEX upgrades_by_tenant ON upgrades (tenant, service, id)".to_owned(),
            "CREATE INDEX upgrades_by_service ON upgrades (service, id)".to_owned(),
            "CREATE INDEX upgrades_flipping ON upgrades (id) WHERE flip_state = 'pending'".to_owned(),
            "CREATE INDEX upgrades_ended ON upgrades (ended_ms) WHERE ended_ms IS NOT NULL".to_owned(),
        ];
        for statement in statements {
            database.execute_unprepared(&statement).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared("DROP TABLE upgrades").await?;
        Ok(())
    }
}
