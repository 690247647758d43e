//! Tenants.

use std::collections::BTreeMap;

use grey_core::ids::Name;
use grey_core::tenant::{Tenant, TenantStatus};
use grey_proto::control;
use sea_orm::entity::prelude::*;
use sea_orm::{FromQueryResult, QuerySelect, SelectModel, Selector};
use serde::Serialize;

use super::record_history::{TENANT, newest};
use super::{read, unsigned};
use crate::database::Error;

/// One row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, DeriveEntityModel)]
#[sea_orm(table_name = "tenants")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    pub name: String,
    pub status: String,
    pub tier: Option<String>,
    pub region: Option<String>,
    /// A JSON array.
    pub residency: String,
    /// A JSON object.
    pub labels: String,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

const TABLE: &str = "tenants";

impl Model {
    /// The row of a tenant.
    pub(crate) fn of(tenant: &Tenant) -> Self {
        let residency: Vec<&str> = tenant.residency.iter().map(Name::as_str).collect();
        let labels: BTreeMap<&str, &str> =
            tenant.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        Self {
            id: tenant.id.to_string(),
            name: tenant.name.clone(),
            status: tenant.status.as_str().to_owned(),
            tier: tenant.tier.as_ref().map(Name::to_string),
            region: tenant.region.as_ref().map(Name::to_string),
            residency: serde_json::to_string(&residency).expect("a list of texts is JSON"),
            labels: serde_json::to_string(&labels).expect("a map of texts is JSON"),
        }
    }

    /// The tenant of a row.
    pub(crate) fn tenant(&self) -> Result<Tenant, Error> {
        let corrupt = |why: String| Error::Corrupt { table: TABLE, why };
        let status = TenantStatus::from_word(&self.status)
            .ok_or_else(|| corrupt(format!("`{}` is not a status", self.status)))?;
        let residency: Vec<String> =
            serde_json::from_str(&self.residency).map_err(|error| corrupt(error.to_string()))?;
        let labels: BTreeMap<String, String> =
            serde_json::from_str(&self.labels).map_err(|error| corrupt(error.to_string()))?;
        Ok(Tenant {
            id: read(TABLE, &self.id)?,
            name: self.name.clone(),
            status,
            tier: self.tier.as_deref().map(|tier| read(TABLE, tier)).transpose()?,
            region: self.region.as_deref().map(|region| read(TABLE, region)).transpose()?,
            residency: residency.iter().map(|region| read(TABLE, region)).collect::<Result<_, _>>()?,
            labels: labels
                .into_iter()
                .map(|(key, value)| Ok((read(TABLE, &key)?, value)))
                .collect::<Result<_, Error>>()?,
        })
    }
}

/// A row with the revision of all that belongs to its tenant.
#[derive(Clone, Debug, FromQueryResult)]
pub struct Dated {
    #[sea_orm(nested)]
    pub row: Model,
    pub revision: i64,
}

/// Adds to a query of rows when each tenant changed last.
pub(crate) fn dated(query: Select<Entity>) -> Selector<SelectModel<Dated>> {
    query.expr_as(newest(TENANT, Column::Id), "revision").into_model()
}

impl Dated {
    /// The tenant as the API shows it.
    pub(crate) fn message(&self) -> Result<control::Tenant, Error> {
        let mut message = control::Tenant::from(&self.row.tenant()?);
        message.revision = unsigned(TABLE, self.revision)?;
        Ok(message)
    }
}
