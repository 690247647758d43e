//! Schemas seen in the tenants' databases.

use grey_core::ids::{ServiceId, TenantId};
use grey_core::schema::Observation;
use grey_proto::control;
use grey_proto::convert::SchemaSighting;
use sea_orm::entity::prelude::*;

use super::{read, signed, unsigned};
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
    /// The row of an observation last changed at `revision`.
    pub(crate) fn of(tenant: &TenantId, service: &ServiceId, seen: &Observation, revision: i64) -> Self {
        Self {
            tenant: tenant.to_string(),
            service: service.to_string(),
            schema_version: seen.schema.to_string(),
            at_ms: signed(seen.at_ms),
            revision,
        }
    }

    /// The observed service, and what was seen.
    pub(crate) fn observation(&self) -> Result<(ServiceId, Observation), Error> {
        let at_ms = unsigned(TABLE, self.at_ms)?;
        Ok((read(TABLE, &self.service)?, Observation { schema: read(TABLE, &self.schema_version)?, at_ms }))
    }

    /// The observation as the API shows it.
    pub(crate) fn message(&self) -> Result<control::ObservedSchema, Error> {
        let (service, Observation { schema, at_ms }) = self.observation()?;
        let tenant: TenantId = read(TABLE, &self.tenant)?;
        let seen = SchemaSighting { tenant, service, schema: Some(schema), at_ms: Some(at_ms) };
        let mut message = control::ObservedSchema::from(&seen);
        message.revision = unsigned(TABLE, self.revision)?;
        Ok(message)
    }
}
