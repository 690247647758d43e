//! Versions of services, with the schemas that they work on.

use grey_core::schema::SchemaWindow;
use grey_core::service::ServiceVersion;
use grey_proto::control;
use sea_orm::entity::prelude::*;

use super::{read, unsigned};
use crate::database::Error;

/// One row.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "versions")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub service: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub version: String,
    pub schema_min: Option<String>,
    pub schema_max: Option<String>,
    pub revision: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

const TABLE: &str = "versions";

/// Reads the two ends of a window.
pub(crate) fn window(min: Option<&str>, max: Option<&str>) -> Result<SchemaWindow, Error> {
    let end = |end: Option<&str>| end.map(|end| read(TABLE, end)).transpose();
    Ok(SchemaWindow { min: end(min)?, max: end(max)? })
}

impl Model {
    /// The row of a version last changed at `revision`.
    pub(crate) fn of(version: &ServiceVersion, revision: i64) -> Self {
        Self {
            service: version.service.to_string(),
            version: version.version.to_string(),
            schema_min: version.window.min.as_ref().map(ToString::to_string),
            schema_max: version.window.max.as_ref().map(ToString::to_string),
            revision,
        }
    }

    /// The version of a row.
    pub(crate) fn version(&self) -> Result<ServiceVersion, Error> {
        Ok(ServiceVersion {
            service: read(TABLE, &self.service)?,
            version: read(TABLE, &self.version)?,
            window: window(self.schema_min.as_deref(), self.schema_max.as_deref())?,
        })
    }

    /// The version as the API shows it.
    pub(crate) fn message(&self) -> Result<control::ServiceVersion, Error> {
        let mut message = control::ServiceVersion::from(&self.version()?);
        message.revision = unsigned(TABLE, self.revision)?;
        Ok(message)
    }
}
