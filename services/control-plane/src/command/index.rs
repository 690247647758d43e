//! The log's index: which events changed a tenant, a service, or what ties one to the other.

use std::collections::BTreeSet;

use grey_core::key::Key;
use sea_orm::{ConnectionTrait, Statement, Value};

use super::attempt::{Attempt, during};
use super::error::Error;
use super::rules::pins::{AT_ONCE, Alike, json, list};
use crate::entity::record_history::{Noted, SERVICE, TENANT, TIED};

/// Notes in the log's index what the event changes.
pub(super) async fn index(
    attempt: &Attempt<'_>,
    changed: impl Iterator<Item = Key> + Send,
) -> Result<(), Error> {
    let keys: Vec<Key> = changed.collect();
    let Noted { tenants, services, tied } = Noted::of(&keys);
    let tenants: Vec<&str> = tenants.into_iter().collect();
    let (first, more) = tenants.split_at(tenants.len().min(AT_ONCE));
    let [services, tied] = [services, tied].map(|ids| ids.into_iter().collect::<Vec<&str>>());
    let lists = [(TENANT, first), (SERVICE, services.as_slice()), (TIED, tied.as_slice())];
    let lists = lists.into_iter().filter(|(_, ids)| !ids.is_empty()).map(|(kind, ids)| (kind, json(ids)));
    let lists: Vec<(&str, String)> = lists.collect();
    let named: Vec<(&str, &str)> = lists.iter().map(|(kind, ids)| (*kind, ids.as_str())).collect();
    note(attempt, &named).await?;
    for more in more.chunks(AT_ONCE) {
        note(attempt, &[(TENANT, &json(more))]).await?;
    }
    Ok(())
}

/// The same for pins, in lists that are there already.
pub(super) async fn index_pins(attempt: &Attempt<'_>, pins: &[Alike]) -> Result<(), Error> {
    let services: BTreeSet<&str> = pins.iter().map(|alike| alike.service.as_str()).collect();
    let mut tied = Some(json(&services.into_iter().collect::<Vec<_>>()));
    for list in pins.iter().flat_map(|alike| &alike.tenants) {
        let tied = tied.take();
        let tied = tied.iter().map(|service| (TIED, service.as_str()));
        let named: Vec<_> = std::iter::once((TENANT, list.ids.as_str())).chain(tied).collect();
        note(attempt, &named).await?;
    }
    Ok(())
}

/// Writes rows of the log's index by one statement; each list of ids is a JSON array.
async fn note(attempt: &Attempt<'_>, named: &[(&str, &str)]) -> Result<(), Error> {
    let backend = attempt.transaction.get_database_backend();
    let (mut selects, mut values) = (Vec::new(), vec![Value::from(attempt.revision)]);
    for (kind, ids) in named {
        values.push((*ids).into());
        let list = list(backend, values.len());
        selects.push(format!("SELECT '{kind}', named.value, $1 FROM {list}"));
    }
    let sql = format!("INSERT INTO record_history (kind, id, revision) {}", selects.join(" UNION ALL "));
    let statement = Statement::from_sql_and_values(backend, sql, values);
    attempt.transaction.execute_raw(statement).await.map(drop).map_err(during("index the event"))
}
