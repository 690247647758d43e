//! Schemas seen in the tenants' databases.

use grey_core::ids::{ServiceId, TenantId};
use grey_core::schema::SchemaVersion;
use grey_proto::control;
use grey_proto::convert::Observation;
use sea_orm::entity::prelude::*;

use super::{read, unsigned};
use crate::database::Error;

/// One row.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "observed_schemas")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub service: String,
    pub schema_version: String,
    pub at_ms: i64,
    pub revision: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

const TABLE: &str = "observed_schemas";

impl Model {
    /// The observed service, what was seen, and when in milliseconds since the epoch.
    pub(crate) fn observation(&self) -> Result<(ServiceId, SchemaVersion, u64), Error> {
        let at_ms = unsigned(TABLE, self.at_ms)?;
        Ok((read(TABLE, &self.service)?, read(TABLE, &self.schema_version)?, at_ms))
    }

    /// The observation as the API shows it.
    pub(crate) fn message(&self) -> Result<control::ObservedSchema, Error> {
        let (service, schema, at_ms) = self.observation()?;
        let tenant: TenantId = read(TABLE, &self.tenant)?;
        let seen = Observation { tenant, service, schema: Some(schema), at_ms: Some(at_ms) };
        let mut message = control::ObservedSchema::from(&seen);
        message.revision = unsigned(TABLE, self.revision)?;
        Ok(message)
    }
}
