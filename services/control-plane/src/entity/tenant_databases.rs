//! Where the tenants' databases are; how to connect is sealed.

use grey_proto::control::{self, DatabaseKind};
use grey_proto::convert::timestamp;
use sea_orm::entity::prelude::*;

use super::unsigned;
use crate::database::Error;

/// One row.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "tenant_databases")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub service: String,
    pub kind: String,
    pub schema_name: String,
    pub dialect: String,
    pub server: String,
    pub database_name: String,
    pub sealed_url: String,
    pub sealed_direct_url: String,
    pub direct_server: String,
    pub actor: String,
    pub updated_at_ms: i64,
    pub revision: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

const TABLE: &str = "tenant_databases";

impl Model {
    /// The database as the API shows it.
    pub(crate) fn message(&self) -> Result<control::TenantDatabase, Error> {
        let kind = DatabaseKind::from_str_name(&self.kind);
        let unknown = || Error::Corrupt { table: TABLE, why: format!("`{}` is not a kind", self.kind) };
        let at_ms = unsigned(TABLE, self.updated_at_ms)?;
        Ok(control::TenantDatabase {
            tenant: self.tenant.clone(),
            service: self.service.clone(),
            kind: kind.ok_or_else(unknown)?.into(),
            schema: self.schema_name.clone(),
            dialect: self.dialect.clone(),
            server: self.server.clone(),
            database: self.database_name.clone(),
            direct_server: self.direct_server.clone(),
            actor: self.actor.clone(),
            updated_at: Some(timestamp(at_ms)),
            revision: unsigned(TABLE, self.revision)?,
        })
    }
}
