//! Holds of strict moves.

use grey_core::ids::{ServiceId, TenantId};
use grey_core::key::{Fact, Key};
use grey_core::service::Hold;
use grey_proto::control;
use sea_orm::entity::prelude::*;

use super::{read, signed, unsigned};
use crate::database::Error;

/// One row.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "holds")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub service: String,
    pub to_version: String,
    pub until_ms: i64,
    pub revision: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

const TABLE: &str = "holds";

impl Model {
    /// The row of a hold set at `revision`.
    pub(crate) fn of(tenant: &TenantId, service: &ServiceId, hold: &Hold, revision: i64) -> Self {
        Self {
            tenant: tenant.to_string(),
            service: service.to_string(),
            to_version: hold.to.to_string(),
            until_ms: signed(hold.until_ms),
            revision,
        }
    }

    /// The service that is held, and the hold.
    pub(crate) fn hold(&self) -> Result<(ServiceId, Hold), Error> {
        let until_ms = unsigned(TABLE, self.until_ms)?;
        Ok((read(TABLE, &self.service)?, Hold { to: read(TABLE, &self.to_version)?, until_ms }))
    }

    /// The key of the hold.
    pub(crate) fn key(&self) -> Result<Key, Error> {
        let tenant: TenantId = read(TABLE, &self.tenant)?;
        let (service, hold) = self.hold()?;
        Ok(Fact::Hold(tenant, service, hold).key())
    }

    /// The hold as the API shows it.
    pub(crate) fn message(&self) -> Result<control::Hold, Error> {
        let tenant: TenantId = read(TABLE, &self.tenant)?;
        let (service, hold) = self.hold()?;
        let mut message = control::Hold::from((&tenant, &service, &hold));
        message.revision = unsigned(TABLE, self.revision)?;
        Ok(message)
    }
}
