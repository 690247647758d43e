//! Tenants; the indexes serve the filtered listings.

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
                "CREATE TABLE tenants (id {text} PRIMARY KEY, name TEXT NOT NULL, status {text} NOT NULL, \
                 tier {text}, region {text}, residency TEXT NOT NULL, labels TEXT NOT NULL)"
            ),
            "CREATE INDEX tenants_by_tier ON tenants (tier, id)".to_owned(),
            "CREATE INDEX tenants_by_region ON tenants (region, id)".to_owned(),
            "CREATE INDEX tenants_by_status ON tenants (status, id)".to_owned(),
        ];
        for statement in statements {
            database.execute_unprepared(&statement).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let database = manager.get_connection();
        database.execute_unprepared("DROP TABLE tenants").await?;
        Ok(())
    }
}
