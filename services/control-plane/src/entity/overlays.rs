//! Experiments and canaries of services, as proto3 JSON.

use grey_core::ids::ServiceId;
use grey_core::policy::Overlay;
use grey_proto::{codec, control};
use sea_orm::entity::prelude::*;

use super::unsigned;
use crate::database::Error;

/// One row.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "overlays")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub service: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    pub body: String,
    pub revision: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

const TABLE: &str = "overlays";

impl Model {
    /// The row of an overlay last changed at `revision`.
    pub(crate) fn of(service: &ServiceId, overlay: &Overlay, revision: i64) -> Self {
        let body = codec::encode_overlay(service, overlay);
        Self { service: service.to_string(), id: overlay.id.to_string(), body, revision }
    }

    /// The overlay of a row.
    pub(crate) fn overlay(&self) -> Result<Overlay, Error> {
        let read = codec::decode_overlay(&self.body);
        read.map(|(_, overlay)| overlay)
            .map_err(|error| Error::Corrupt { table: TABLE, why: error.to_string() })
    }

    /// The overlay as the API shows it.
    pub(crate) fn message(&self) -> Result<control::Overlay, Error> {
        let service: ServiceId = super::read(TABLE, &self.service)?;
        let mut message = control::Overlay::from((&service, &self.overlay()?));
        message.revision = unsigned(TABLE, self.revision)?;
        Ok(message)
    }
}
