//! Pins.

use grey_core::ids::{ServiceId, TenantId};
use grey_core::service::Pin;
use grey_proto::control;
use sea_orm::entity::prelude::*;

use super::{read, unsigned};
use crate::database::Error;

/// One row.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "pins")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub service: String,
    pub version: String,
    pub locked: bool,
    pub revision: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

const TABLE: &str = "pins";

impl Model {
    /// The row of a pin last changed at `revision`.
    pub(crate) fn of(tenant: &TenantId, service: &ServiceId, pin: &Pin, revision: i64) -> Self {
        Self {
            tenant: tenant.to_string(),
            service: service.to_string(),
            version: pin.version.to_string(),
            locked: pin.locked,
            revision,
        }
    }

    /// The pinned service and the pin of a row.
    pub(crate) fn pin(&self) -> Result<(ServiceId, Pin), Error> {
        let pin = Pin { version: read(TABLE, &self.version)?, locked: self.locked };
        Ok((read(TABLE, &self.service)?, pin))
    }

    /// The pin as the API shows it.
    pub(crate) fn message(&self) -> Result<control::Pin, Error> {
        let tenant: TenantId = read(TABLE, &self.tenant)?;
        let (service, pin) = self.pin()?;
        let mut message = control::Pin::from((&tenant, &service, &pin));
        message.revision = unsigned(TABLE, self.revision)?;
        Ok(message)
    }
}
