//! Services, their versions, policies and overlays.

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
            format!("CREATE TABLE services (id {text} PRIMARY KEY, default_version {text} NOT NULL)"),
            format!(
                "CREATE TABLE versions (service {text} NOT NULL, version {text} NOT NULL, schema_min {text}, \
                 schema_max {text}, revision BIGINT NOT NULL, PRIMARY KEY (service, version))"
            ),
            format!(
                "CREATE TABLE policies (service {text} PRIMARY KEY, body TEXT NOT NULL, revision BIGINT NOT NULL)"
            ),
            format!(
                "CREATE TABLE overlays (service {text} NOT NULL, id {text} NOT NULL, body TEXT NOT NULL, \
                 revision BIGINT NOT NULL, PRIMARY KEY (service, id))"
            ),
        ];
        for statement in statements {
            database.execute_unprepared(&statement).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let database = manager.get_connection();
        for table in ["overlays", "policies", "versions", "services"] {
            database.execute_unprepared(&format!("DROP TABLE {table}")).await?;
        }
        Ok(())
    }
}
