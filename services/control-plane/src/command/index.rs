//! The log's index: which events changed a tenant, a service, or what ties one to the other.

use grey_core::key::Key;
use sea_orm::{ConnectionTrait, Statement, Value};

use super::attempt::{Attempt, during};
use super::error::Error;
use super::rules::pins::{AT_ONCE, json, list};
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
    note(attempt, &[(TENANT, first), (SERVICE, services.as_slice()), (TIED, tied.as_slice())]).await?;
    for more in more.chunks(AT_ONCE) {
        note(attempt, &[(TENANT, more)]).await?;
    }
    Ok(())
}

/// Writes rows of the log's index by one statement.
async fn note(attempt: &Attempt<'_>, named: &[(&str, &[&str])]) -> Result<(), Error> {
    let backend = attempt.transaction.get_database_backend();
    let (mut selects, mut values) = (Vec::new(), vec![Value::from(attempt.revision)]);
    for (kind, ids) in named.iter().filter(|(_, ids)| !ids.is_empty()) {
        values.push(json(ids).into());
        let list = list(backend, values.len());
        selects.push(format!("SELECT '{kind}', named.value, $1 FROM {list}"));
    }
    let sql = format!("INSERT INTO record_history (kind, id, revision) {}", selects.join(" UNION ALL "));
    let statement = Statement::from_sql_and_values(backend, sql, values);
    attempt.transaction.execute_raw(statement).await.map(drop).map_err(during("index the event"))
}
