//! Tenants: created, changed, removed with what belongs to them.

use std::collections::HashMap;

use grey_core::change::Change;
use grey_core::ids::TenantId;
use grey_core::key::Fact;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};

use super::super::attempt::{Attempt, Outcome, during, unknown_tenant};
use super::super::error::Error;
use super::super::proposal::Proposed;
use super::pins::for_each_row;
use crate::entity::{holds, observed_schemas, pins, tenant_databases, tenant_keys, tenants};

/// Rows of one statement, and tenants of one query.
const AT_ONCE: usize = 5_000;

const COLUMNS: [&str; 7] = ["id", "name", "status", "tier", "region", "residency", "labels"];

/// Writes rows that nothing stands in place of.
const INSERT: &str = "INSERT INTO tenants (id, name, status, tier, region, residency, labels) \
    SELECT id, name, status, tier, region, residency, labels FROM {named} WHERE true";
/// What follows [`INSERT`] where rows may be there.
const REPLACE: &str = " ON CONFLICT (id) DO UPDATE SET name = excluded.name, status = excluded.status, \
    tier = excluded.tier, region = excluded.region, residency = excluded.residency, labels = excluded.labels";

/// Writes tenants that the table at the log's head lacks. Should the database have one all the same, it refuses them.
pub(in super::super) async fn declare(attempt: &Attempt<'_>, tenants: &[Proposed]) -> Result<(), Error> {
    for run in tenants.chunks(AT_ONCE) {
        run.iter().try_for_each(|proposed| proposed.expect(None))?;
        let rows: Vec<_> = run.iter().filter_map(|proposed| row_of(&proposed.change)).collect();
        for_each_row(attempt, INSERT, &COLUMNS, &rows, "write new tenants").await?;
    }
    Ok(())
}

/// Checks and applies changes that each put another tenant: one query and one statement for all of them.
pub(in super::super) async fn put(attempt: &Attempt<'_>, run: &[Proposed]) -> Result<Vec<Outcome>, Error> {
    let mut outcomes = Vec::with_capacity(run.len());
    for run in run.chunks(AT_ONCE) {
        let rows: Vec<_> = run.iter().filter_map(|proposed| row_of(&proposed.change)).collect();
        let ids = rows.iter().map(|row| row.id.as_str());
        let known = tenants::dated(tenants::Entity::find().filter(tenants::Column::Id.is_in(ids)));
        let known = known.all(attempt.transaction).await.map_err(during("read the tenants"))?;
        let mut known: HashMap<String, _> =
            known.into_iter().map(|known| (known.row.id.clone(), known)).collect();
        let mut written = Vec::with_capacity(rows.len());
        for (proposed, row) in run.iter().zip(rows) {
            let before = known.remove(&row.id);
            proposed.expect(before.as_ref().map(|before| before.revision))?;
            match before.filter(|before| before.row == row) {
                Some(before) => outcomes.push(Outcome::unchanged(before.revision)),
                None => {
                    written.push(row);
                    outcomes.push(attempt.changed(proposed));
                }
            }
        }
        if !written.is_empty() {
            let replace = [INSERT, REPLACE].concat();
            for_each_row(attempt, &replace, &COLUMNS, &written, "write the tenants").await?;
        }
    }
    Ok(outcomes)
}

/// The row that a change asks for, if it puts a tenant.
fn row_of(change: &Change) -> Option<tenants::Model> {
    match change {
        Change::Put(Fact::Tenant(tenant)) => Some(tenants::Model::of(tenant)),
        _ => None,
    }
}

pub(in super::super) async fn remove(
    attempt: &Attempt<'_>,
    proposed: &Proposed,
    id: &TenantId,
) -> Result<Outcome, Error> {
    let before = attempt.tenant(id).await?;
    proposed.expect(before.as_ref().map(|before| before.revision))?;
    if before.is_none() {
        return Err(unknown_tenant(id.as_str()).into());
    }
    let id = id.as_str();
    attempt.remove_where(pins::Entity, pins::Column::Tenant, id, "remove the tenant's pins").await?;
    let column = observed_schemas::Column::Tenant;
    attempt.remove_where(observed_schemas::Entity, column, id, "remove the tenant's schemas").await?;
    attempt.remove_where(holds::Entity, holds::Column::Tenant, id, "remove the tenant's holds").await?;
    let column = tenant_databases::Column::Tenant;
    attempt.remove_where(tenant_databases::Entity, column, id, "remove the tenant's databases").await?;
    // Without the key nothing opens any more what was sealed with it, wherever a copy is left.
    attempt.remove(tenant_keys::Entity, id, "remove the tenant's data key").await?;
    attempt.remove(tenants::Entity, id, "remove the tenant").await?;
    Ok(Outcome::removed(proposed))
}
