//! Committed events, encoded.

use grey_core::change::{EntryHash, Event};
use grey_proto::codec;
use sea_orm::entity::prelude::*;
use sha2::{Digest, Sha256};

use super::signed;
use crate::database::Error;

/// One row.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "events")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub revision: i64,
    pub at_ms: i64,
    pub principal: String,
    pub reason: String,
    pub body: Vec<u8>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

pub(crate) const TABLE: &str = "events";

impl Model {
    /// The row of an event.
    pub(crate) fn of(event: &Event) -> Self {
        Self {
            revision: signed(event.revision.0),
            at_ms: signed(event.at_ms),
            principal: event.principal.id.clone(),
            reason: event.reason.clone(),
            body: codec::encode_event(event),
        }
    }

    /// By what the event after it names it.
    pub(crate) fn hash(&self) -> EntryHash {
        EntryHash(Sha256::digest(&self.body).into())
    }

    /// Whether the columns by which events are found say what the event says.
    pub(crate) fn agrees(&self, event: &Event) -> bool {
        (self.at_ms, &self.principal, &self.reason)
            == (signed(event.at_ms), &event.principal.id, &event.reason)
    }

    /// The event of a row.
    pub(crate) fn event(&self) -> Result<Event, Error> {
        codec::decode_event(&self.body).map_err(|error| Error::Corrupt {
            table: TABLE,
            why: format!("event {}: {error}", self.revision),
        })
    }
}
