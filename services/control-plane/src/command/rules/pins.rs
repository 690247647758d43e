//! Pins of many tenants: one statement for all that get the same, as many as they are.
//!
//! What the rules need to know was asked of the table at the log's head, which holds what the tables hold.

use std::collections::BTreeMap;

use grey_core::ids::ServiceId;
use grey_core::service::Pin;
use sea_orm::{ConnectionTrait, DbBackend, Statement, Value};
use serde::Serialize;

use super::super::attempt::{Attempt, Outcome, during};
use super::super::error::Error;
use super::super::proposal::{Proposed, pin_of};

/// Tenants of one statement.
pub(in super::super) const AT_ONCE: usize = 20_000;

/// Tenants that get the same pin of the same service.
pub(in super::super) struct Alike {
    pub(in super::super) service: ServiceId,
    /// None: their pins go.
    pin: Option<Pin>,
    pub(in super::super) tenants: Vec<List>,
}

/// Some tenants, of one statement.
pub(in super::super) struct List {
    /// As a JSON array.
    pub(in super::super) ids: String,
    count: u64,
}

/// Changes that are all of pins, sorted by what the tenants get.
pub(in super::super) fn sorted(pins: &[Proposed]) -> Vec<Alike> {
    let mut alike: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for of_run in pins.chunk_by(|one, next| of_tenant(one) == of_tenant(next)) {
        let Some((service, pin)) = of_run.first().and_then(of_tenant) else { continue };
        let tenants = of_run.iter().filter_map(|proposed| Some(pin_of(&proposed.change)?.0.as_str()));
        alike.entry((service, pin.map(|pin| (&pin.version, pin.locked)))).or_default().extend(tenants);
    }
    let list = |ids: &[&str]| List { ids: json(ids), count: ids.len() as u64 };
    let alike = alike.into_iter().map(|((service, pin), tenants)| Alike {
        service: service.clone(),
        pin: pin.map(|(version, locked)| Pin { version: version.clone(), locked }),
        tenants: tenants.chunks(AT_ONCE).map(list).collect(),
    });
    alike.collect()
}

fn of_tenant(proposed: &Proposed) -> Option<(&ServiceId, Option<&Pin>)> {
    pin_of(&proposed.change).map(|(_, service, pin)| (service, pin))
}

/// Applies changes that are all of pins, and all wanted.
pub(in super::super) async fn apply(attempt: &Attempt<'_>, pins: &[Proposed]) -> Result<Vec<Outcome>, Error> {
    put(attempt, &sorted(pins)).await?;
    Ok(pins.iter().map(|proposed| attempt.changed(proposed)).collect())
}

/// Writes or removes pins.
pub(in super::super) async fn put(attempt: &Attempt<'_>, pins: &[Alike]) -> Result<(), Error> {
    for Alike { service, pin, tenants } in pins {
        for some in tenants {
            put_list(attempt, service, pin.as_ref(), some).await?;
        }
    }
    Ok(())
}

async fn put_list(
    attempt: &Attempt<'_>,
    service: &ServiceId,
    pin: Option<&Pin>,
    tenants: &List,
) -> Result<(), Error> {
    let service: Value = service.as_str().into();
    match pin {
        Some(Pin { version, locked }) => {
            let values = vec![service, version.as_str().into(), (*locked).into(), attempt.revision.into()];
            // Apart from those that are new: a pin that is only rewritten costs a quarter of one that may conflict.
            let sql = "UPDATE pins SET version = $3, locked = $4, revision = $5 FROM {named} \
                       WHERE pins.service = $2 AND pins.tenant = named.value";
            let known = for_each(attempt, sql, tenants, values.clone(), "change pins").await?;
            if known < tenants.count {
                let sql = "INSERT INTO pins (tenant, service, version, locked, revision) \
                           SELECT named.value, $2, $3, $4, $5 FROM {named} WHERE true \
                           ON CONFLICT (tenant, service) DO NOTHING";
                for_each(attempt, sql, tenants, values, "write pins").await?;
            }
        }
        None => {
            let sql = "DELETE FROM pins WHERE service = $2 AND tenant IN (SELECT named.value FROM {named})";
            for_each(attempt, sql, tenants, vec![service], "remove pins").await?;
        }
    }
    Ok(())
}

/// Runs a statement over a list of ids, which are the `value` of `{named}`; further values count from `$2`. Returns how
/// many rows it wrote.
async fn for_each(
    attempt: &Attempt<'_>,
    sql: &str,
    ids: &List,
    values: Vec<Value>,
    attempted: &'static str,
) -> Result<u64, Error> {
    let sql = sql.replace("{named}", &list(attempt.transaction.get_database_backend(), 1));
    execute(attempt, sql, std::iter::once(ids.ids.as_str().into()).chain(values), attempted).await
}

/// Runs a statement over a list of rows, which are `{named}` with `columns` of text.
pub(super) async fn for_each_row(
    attempt: &Attempt<'_>,
    sql: &str,
    columns: &[&str],
    rows: &[impl Serialize],
    attempted: &'static str,
) -> Result<u64, Error> {
    let of_each = |column: &dyn Fn(&str) -> String| {
        columns.iter().map(|name| column(name)).collect::<Vec<_>>().join(", ")
    };
    let named = match attempt.transaction.get_database_backend() {
        // Reads each row once; an operator for each column would read it as often.
        DbBackend::Postgres => {
            let columns = of_each(&|name| format!("{name} text"));
            format!("json_to_recordset(CAST($1 AS json)) AS named ({columns})")
        }
        _ => {
            let columns = of_each(&|name| format!("value->>'{name}' AS {name}"));
            format!("(SELECT {columns} FROM json_each($1)) AS named")
        }
    };
    execute(attempt, sql.replace("{named}", &named), [json(rows).into()], attempted).await
}

async fn execute(
    attempt: &Attempt<'_>,
    sql: String,
    values: impl IntoIterator<Item = Value>,
    attempted: &'static str,
) -> Result<u64, Error> {
    let backend = attempt.transaction.get_database_backend();
    let statement = Statement::from_sql_and_values(backend, sql, values);
    let written = attempt.transaction.execute_raw(statement).await.map_err(during(attempted))?;
    Ok(written.rows_affected())
}

/// The ids of a list that is a statement's parameter, as the `value` of `named`.
pub(in super::super) fn list(backend: DbBackend, parameter: usize) -> String {
    match backend {
        DbBackend::Postgres => {
            format!("json_array_elements_text(CAST(${parameter} AS json)) AS named (value)")
        }
        _ => format!("json_each(${parameter}) AS named"),
    }
}

/// Ids or rows as such a parameter.
pub(in super::super) fn json(of: &[impl Serialize]) -> String {
    serde_json::to_string(of).expect("texts and rows of texts can be written as JSON")
}
