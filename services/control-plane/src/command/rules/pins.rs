//! Pins of many tenants: one statement for all that get the same, as many as they are.
//!
//! What the rules need to know was asked of the table at the log's head, which holds what the tables hold.

use std::collections::BTreeMap;

use grey_core::ids::ServiceId;
use sea_orm::{ConnectionTrait, DbBackend, Statement, Value};
use serde::Serialize;

use super::super::attempt::{Attempt, Outcome, during};
use super::super::error::Error;
use super::super::proposal::{Proposed, pin_of};

/// Tenants of one statement.
pub(in super::super) const AT_ONCE: usize = 20_000;

/// The tenants that get the same pin of the same service; none: whose pin goes.
type Alike<'a> = BTreeMap<(&'a ServiceId, Option<(&'a str, bool)>), Vec<&'a str>>;

/// Applies changes that are all of pins, and all wanted.
pub(in super::super) async fn apply(attempt: &Attempt<'_>, pins: &[Proposed]) -> Result<Vec<Outcome>, Error> {
    let mut alike = Alike::new();
    for (tenant, service, pin) in pins.iter().filter_map(|proposed| pin_of(&proposed.change)) {
        let pin = pin.map(|pin| (pin.version.as_str(), pin.locked));
        alike.entry((service, pin)).or_default().push(tenant.as_str());
    }
    for ((service, pin), tenants) in alike {
        for some in tenants.chunks(AT_ONCE) {
            put(attempt, service, pin, some).await?;
        }
    }
    Ok(pins.iter().map(|proposed| attempt.changed(proposed)).collect())
}

async fn put(
    attempt: &Attempt<'_>,
    service: &ServiceId,
    pin: Option<(&str, bool)>,
    tenants: &[&str],
) -> Result<(), Error> {
    let service: Value = service.as_str().into();
    match pin {
        Some((version, locked)) => {
            let values = vec![service, version.into(), locked.into(), attempt.revision.into()];
            // Apart from those that are new: a pin that is only rewritten costs a quarter of one that may conflict.
            let sql = "UPDATE pins SET version = $3, locked = $4, revision = $5 FROM {named} \
                       WHERE pins.service = $2 AND pins.tenant = named.value";
            let known = for_each(attempt, sql, tenants, values.clone(), "change pins").await?;
            if known < tenants.len() as u64 {
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
    ids: &[&str],
    values: Vec<Value>,
    attempted: &'static str,
) -> Result<u64, Error> {
    let sql = sql.replace("{named}", &list(attempt.transaction.get_database_backend(), 1));
    execute(attempt, sql, std::iter::once(json(ids).into()).chain(values), attempted).await
}

/// Runs a statement over a list of rows, which are the `value` of `{named}` as JSON.
pub(super) async fn for_each_row(
    attempt: &Attempt<'_>,
    sql: &str,
    rows: &[impl Serialize],
    attempted: &'static str,
) -> Result<u64, Error> {
    let named = match attempt.transaction.get_database_backend() {
        DbBackend::Postgres => "json_array_elements(CAST($1 AS json)) AS named (value)",
        _ => "json_each($1) AS named",
    };
    execute(attempt, sql.replace("{named}", named), [json(rows).into()], attempted).await
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
