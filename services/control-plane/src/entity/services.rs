//! Services.

use grey_core::service::Service;
use grey_proto::control;
use sea_orm::entity::prelude::*;

use super::{read, unsigned};
use crate::database::Error;

/// One row.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "services")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    pub default_version: String,
    pub revision: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

const TABLE: &str = "services";

impl Model {
    /// The row of a service last changed at `revision`.
    pub(crate) fn of(service: &Service, revision: i64) -> Self {
        Self { id: service.id.to_string(), default_version: service.default.to_string(), revision }
    }

    /// The service of a row.
    pub(crate) fn service(&self) -> Result<Service, Error> {
        Ok(Service { id: read(TABLE, &self.id)?, default: read(TABLE, &self.default_version)? })
    }

    /// The service as the API shows it.
    pub(crate) fn message(&self) -> Result<control::Service, Error> {
        let mut message = control::Service::from(&self.service()?);
        message.revision = unsigned(TABLE, self.revision)?;
        Ok(message)
    }
}
