//! Which events changed a tenant or a service, or anything that belongs to it.

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
