//! Routers: those that count, and those that did.

use sea_orm::entity::prelude::*;

/// One row.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "routers")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// The run that was seen; 0 if that is not known.
    pub run: i64,
    pub address: String,
    pub region: String,
    pub zone: String,
    pub lease_ms: i64,
    pub first_seen_ms: i64,
    /// To within a lease: it is not written at every heartbeat.
    pub last_seen_ms: i64,
    /// The word of a standing.
    pub state: String,
    /// Why it does not count any more.
    pub remark: String,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
