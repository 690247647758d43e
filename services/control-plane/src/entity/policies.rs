//! Policies of services, as proto3 JSON.

use grey_core::ids::ServiceId;
use grey_core::policy::Policy;
use grey_proto::{codec, control};
use sea_orm::entity::prelude::*;

use super::unsigned;
use crate::database::Error;

/// One row.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "policies")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub service: String,
    pub body: String,
    pub revision: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

const TABLE: &str = "policies";

impl Model {
    /// The row of a policy last changed at `revision`.
    pub(crate) fn of(service: &ServiceId, policy: &Policy, revision: i64) -> Self {
        Self { service: service.to_string(), body: codec::encode_policy(service, policy), revision }
    }

    /// The policy of a row.
    pub(crate) fn policy(&self) -> Result<Policy, Error> {
        let read = codec::decode_policy(&self.body);
        read.map(|(_, policy)| policy)
            .map_err(|error| Error::Corrupt { table: TABLE, why: error.to_string() })
    }

    /// The policy as the API shows it.
    pub(crate) fn message(&self) -> Result<control::Policy, Error> {
        let service: ServiceId = super::read(TABLE, &self.service)?;
        let mut message = control::Policy::from((&service, &self.policy()?));
        message.revision = unsigned(TABLE, self.revision)?;
        Ok(message)
    }
}
