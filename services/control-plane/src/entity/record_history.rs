//! Which events changed a tenant or a service, or anything that belongs to it.

use std::collections::BTreeSet;

use grey_core::ids::{ServiceId, TenantId};
use grey_core::key::Key;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{Expr, ExprTrait, Query, SubQueryStatement};
use sea_orm::{Condition, Order};

/// One row.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "record_history")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub kind: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub revision: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Records of tenants.
pub(crate) const TENANT: &str = "tenant";
/// Records of services.
pub(crate) const SERVICE: &str = "service";
/// What ties tenants to a service, which is part of the tenants' records: pins, schemas, holds and databases. For
/// finding the events; no record's revision depends on it.
pub(crate) const TIED: &str = "tied";

/// The ids under which an event is noted, by kind.
pub(crate) struct Noted<'k> {
    pub(crate) tenants: BTreeSet<&'k str>,
    pub(crate) services: BTreeSet<&'k str>,
    pub(crate) tied: BTreeSet<&'k str>,
}

impl<'k> Noted<'k> {
    /// Of an event that changes what is under these keys.
    pub(crate) fn of(keys: &'k [Key]) -> Self {
        let (mut tenants, mut services, mut tied) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for key in keys {
            match (key.tenant(), key.service()) {
                (Some(tenant), service) => {
                    tenants.insert(TenantId::as_str(tenant));
                    tied.extend(service.map(ServiceId::as_str));
                }
                (None, service) => services.extend(service.map(ServiceId::as_str)),
            }
        }
        Self { tenants, services, tied }
    }

    /// The kind and id of each.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&'static str, &'k str)> {
        let of = |kind, ids: &BTreeSet<&'k str>| ids.iter().map(move |id| (kind, *id)).collect::<Vec<_>>();
        [of(TENANT, &self.tenants), of(SERVICE, &self.services), of(TIED, &self.tied)].into_iter().flatten()
    }
}

/// When the record that `id` names in the outer query changed last, with all that belongs to it.
pub(crate) fn newest<C: ColumnTrait>(kind: &str, id: C) -> Expr {
    let of_record = Condition::all()
        .add(Column::Kind.eq(kind))
        .add(Expr::col((Entity, Column::Id)).equals(id.as_column_ref()));
    let newest = Query::select()
        .column((Entity, Column::Revision))
        .from(Entity)
        .cond_where(of_record)
        .order_by((Entity, Column::Revision), Order::Desc)
        .limit(1)
        .to_owned();
    SubQueryStatement::SelectStatement(newest).into()
}
