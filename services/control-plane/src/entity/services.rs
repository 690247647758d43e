//! Services.

use grey_core::service::Service;
use grey_proto::control;
use sea_orm::entity::prelude::*;
use sea_orm::{FromQueryResult, QuerySelect, SelectModel, Selector};

use super::record_history::{SERVICE, newest};
use super::{read, unsigned};
use crate::database::Error;

/// One row.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "services")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    pub default_version: String,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

const TABLE: &str = "services";

impl Model {
    /// The row of a service.
    pub(crate) fn of(service: &Service) -> Self {
        Self { id: service.id.to_string(), default_version: service.default.to_string() }
    }

    /// The service of a row.
    pub(crate) fn service(&self) -> Result<Service, Error> {
        Ok(Service { id: read(TABLE, &self.id)?, default: read(TABLE, &self.default_version)? })
    }
}

/// A row with the revision of all that belongs to its service.
#[derive(Clone, Debug, FromQueryResult)]
pub struct Dated {
    #[sea_orm(nested)]
    pub row: Model,
    pub revision: i64,
}

/// Adds to a query of rows when each service changed last.
pub(crate) fn dated(query: Select<Entity>) -> Selector<SelectModel<Dated>> {
    query.expr_as(newest(SERVICE, Column::Id), "revision").into_model()
}

impl Dated {
    /// The service as the API shows it.
    pub(crate) fn message(&self) -> Result<control::Service, Error> {
        let mut message = control::Service::from(&self.row.service()?);
        message.revision = unsigned(TABLE, self.revision)?;
        Ok(message)
    }
}
