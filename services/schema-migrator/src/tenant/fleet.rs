//! Asking the databases of many tenants at once: those that share a server and credentials share a connection and a query.

use super::connect::column;
use super::history::{query, read};
use super::{Connection, Error, Target, Timeouts, facts};
use crate::files::Dialect;
use crate::plan::{Facts, History};
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use sea_orm::QueryResult;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Databases asked by one query; more would make its text long and the answer large.
const BATCH: usize = 200;

/// Reads the histories of `targets`, in their order, over at most `concurrency` connections at a time.
pub async fn read_many(
    targets: &[Target],
    timeouts: &Timeouts,
    concurrency: usize,
) -> Vec<Result<History, Error>> {
    let ask = async |batch: Vec<Target>| {
        if batch.len() > 1
            && let Ok(all) = histories(&batch, timeouts).await
        {
            return all.into_iter().map(Ok).collect();
        }
        // One that cannot be read must not hide the others.
        let mut answers = Vec::with_capacity(batch.len());
        for target in &batch {
            answers.push(history(target, timeouts).await);
        }
        answers
    };
    in_batches(targets, concurrency, |batch| ask(batch).boxed()).await
}

/// Reads what a plan wants to know of tables with these names in each of `targets`, as [`read_many`] does.
pub async fn facts_of_many(
    targets: &[Target],
    names: &BTreeSet<String>,
    timeouts: &Timeouts,
    concurrency: usize,
) -> Vec<Result<Facts, Error>> {
    let ask = async |batch: Vec<Target>| {
        if batch.len() > 1
            && let Ok(all) = facts_of(&batch, names, timeouts).await
        {
            return all.into_iter().map(Ok).collect();
        }
        let mut answers = Vec::with_capacity(batch.len());
        for target in &batch {
            answers.push(facts_of_one(target, names, timeouts).await);
        }
        answers
    };
    in_batches(targets, concurrency, |batch| ask(batch).boxed()).await
}

/// Asks batches of targets that can be read together, some at a time, and puts the answers into the targets' order.
async fn in_batches<'a, T>(
    targets: &[Target],
    concurrency: usize,
    ask: impl Fn(Vec<Target>) -> BoxFuture<'a, Vec<Result<T, Error>>>,
) -> Vec<Result<T, Error>> {
    let mut groups: BTreeMap<(Dialect, String), Vec<usize>> = BTreeMap::new();
    for (index, target) in targets.iter().enumerate() {
        groups.entry(key(target, index)).or_default().push(index);
    }
    // A large group is shared out, so that one server with all tenants is not read by one connection alone.
    let batches = groups
        .into_values()
        .flat_map(|group| group.chunks(BATCH).map(<[usize]>::to_vec).collect::<Vec<_>>())
        .map(|batch| {
            let answers = ask(batch.iter().filter_map(|index| targets.get(*index).cloned()).collect());
            answers.map(|answers| batch.into_iter().zip(answers).collect::<Vec<_>>())
        })
        .collect::<Vec<_>>();
    let done: Vec<_> = futures::stream::iter(batches).buffer_unordered(concurrency.max(1)).collect().await;
    let mut by_index: HashMap<usize, _> = done.into_iter().flatten().collect();
    (0..targets.len())
        .map(|index| {
            let missing = || Err(Error::Corrupt("a database was not asked".to_owned()));
            by_index.remove(&index).unwrap_or_else(missing)
        })
        .collect()
}

async fn history(target: &Target, timeouts: &Timeouts) -> Result<History, Error> {
    Connection::open(target, timeouts).await?.history().await
}

async fn facts_of_one(
    target: &Target,
    names: &BTreeSet<String>,
    timeouts: &Timeouts,
) -> Result<Facts, Error> {
    let connection = Connection::open(target, timeouts).await?;
    let facts = connection.facts(names).await?;
    Ok(Facts { contents: connection.contents().await?, ..facts })
}

/// Targets with the same key are read together: PostgreSQL by database, the MySQL family by server and user.
fn key(target: &Target, index: usize) -> (Dialect, String) {
    let url = target.url.expose();
    let shared = match target.dialect {
        Dialect::Postgres if target.schema.is_some() => url.to_owned(),
        Dialect::MySql => mysql_parts(url).map_or_else(|| index.to_string(), |(server, _)| server),
        Dialect::Postgres | Dialect::Sqlite => index.to_string(),
    };
    (target.dialect, shared)
}

/// A MySQL URL without its database, and the database.
fn mysql_parts(url: &str) -> Option<(String, String)> {
    let (scheme, rest) = url.split_once("://")?;
    let (server, path) = rest.split_once('/')?;
    let (database, parameters) = path.split_once('?').unwrap_or((path, ""));
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    // A name with escapes is read by itself, by the driver's own rules.
    let usable = !database.is_empty() && database.chars().all(plain);
    usable.then(|| (format!("{scheme}://{server}?{parameters}"), database.to_owned()))
}

/// Reads the histories of one server: which of them there are, then all of those.
async fn histories(targets: &[Target], timeouts: &Timeouts) -> Result<Vec<History>, Error> {
    let Some(first) = targets.first() else { return Ok(Vec::new()) };
    let connection = Connection::open(first, timeouts).await?;
    let sql = connection.sql();
    let places: Vec<String> = targets.iter().map(place).collect();
    let wanted = facts::list(sql, &places.iter().cloned().collect());
    let names: Vec<_> = targets.iter().map(|target| super::Names::of(&target.service)).collect();
    let tables = facts::list(sql, &names.iter().map(|names| names.journal.clone()).collect());
    let which = match first.dialect {
        Dialect::Postgres => format!(
            "SELECT n.nspname::text AS place, c.relname::text AS journal, 1 AS shown FROM pg_namespace n \
             LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname IN ({tables}) \
             WHERE n.nspname IN ({wanted})"
        ),
        _ => format!(
            "SELECT CONVERT(s.schema_name USING utf8mb4) AS place, CONVERT(t.table_name USING utf8mb4) AS journal \
             FROM information_schema.schemata s LEFT JOIN information_schema.tables t \
             ON t.table_schema = s.schema_name AND t.table_name IN ({tables}) \
             WHERE s.schema_name IN ({wanted})"
        ),
    };
    let attempted = "read migration histories";
    let rows = connection.ask(attempted, which).await?;
    let mut present: BTreeSet<(String, String)> = BTreeSet::new();
    let mut found: BTreeSet<String> = BTreeSet::new();
    for row in &rows {
        let place: String = column(Some(row), "place")?;
        found.insert(place.clone());
        if let Some(journal) = column::<Option<String>>(Some(row), "journal")? {
            present.insert((place, journal));
        }
    }
    if !places.iter().all(|place| found.contains(place)) {
        // Each then tells its own error.
        return Err(Error::Corrupt("a schema is missing".to_owned()));
    }
    let wanted: Vec<String> = places
        .iter()
        .zip(&names)
        .enumerate()
        .filter(|(_, (place, names))| present.contains(&((*place).clone(), names.journal.clone())))
        .map(|(index, (place, names))| {
            format!("SELECT {index} AS target, it.* FROM ({}) AS it", query(sql, names, place))
        })
        .collect();
    let mut histories = vec![History::default(); targets.len()];
    if wanted.is_empty() {
        return Ok(histories);
    }
    let rows = match first.dialect {
        // Its planner takes several times as long for a union of many as for each of them by itself.
        Dialect::Postgres => connection.ask(attempted, wanted.join(";\n")).await?,
        _ => {
            let parts: Vec<String> = wanted.iter().map(|part| format!("({part})")).collect();
            let every =
                format!("SELECT * FROM ({}) AS every ORDER BY target, kind, seq", parts.join(" UNION ALL "));
            connection.ask(attempted, every).await?
        }
    };
    let mut by_target: BTreeMap<i64, Vec<&QueryResult>> = BTreeMap::new();
    for row in &rows {
        by_target.entry(super::history::integer(Some(row), "target")?).or_default().push(row);
    }
    for (index, rows) in by_target {
        let slot = usize::try_from(index).ok().and_then(|index| histories.get_mut(index));
        if let Some(slot) = slot {
            *slot = read(rows.into_iter())?;
        }
    }
    Ok(histories)
}

/// Reads the facts of one server.
async fn facts_of(
    targets: &[Target],
    names: &BTreeSet<String>,
    timeouts: &Timeouts,
) -> Result<Vec<Facts>, Error> {
    let Some(first) = targets.first() else { return Ok(Vec::new()) };
    let connection = Connection::open(first, timeouts).await?;
    let sql = connection.sql();
    let places: Vec<String> = targets.iter().map(place).collect();
    let wanted = facts::list(sql, &places.iter().cloned().collect());
    let tables = facts::list(sql, names);
    let query = match first.dialect {
        Dialect::Postgres => format!(
            "SELECT n.nspname::text AS place, lower(c.relname)::text AS name, {} AS estimate \
             FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid AND c.relname IN ({tables}) \
             WHERE n.nspname IN ({wanted}) AND c.relkind IN ('r', 'p', 'm')",
            facts::POSTGRES_ESTIMATE
        ),
        _ => format!(
            "SELECT CONVERT(table_schema USING utf8mb4) AS place, \
             CONVERT(LOWER(table_name) USING utf8mb4) AS name, \
             CAST(COALESCE(table_rows, 0) AS SIGNED) AS estimate FROM information_schema.tables \
             WHERE table_schema IN ({wanted}) AND table_type = 'BASE TABLE' AND table_name IN ({tables})"
        ),
    };
    let mut by_place: BTreeMap<String, Facts> = BTreeMap::new();
    if !names.is_empty() {
        for row in &connection.ask(facts::ATTEMPTED, query).await? {
            facts::note(by_place.entry(column(Some(row), "place")?).or_default(), row)?;
        }
    }
    let own = super::Names::of(&first.service);
    for row in &connection.ask(super::contents::ATTEMPTED, super::contents::query(sql, &places, &own)).await?
    {
        let place: String = column(Some(row), "place")?;
        by_place.entry(place).or_default().contents = super::contents::read(row)?;
    }
    // A server that keeps names in lower case tells of other names than URLs do.
    let renamed = |place: &String| by_place.keys().any(|known| known.to_lowercase() == place.to_lowercase());
    if places.iter().any(|place| !by_place.contains_key(place) && renamed(place)) {
        return Err(Error::Corrupt("a database has another name".to_owned()));
    }
    let known = |place| Facts { server: connection.server, ..by_place.remove(place).unwrap_or_default() };
    Ok(places.iter().map(known).collect())
}

/// The schema or database of a target that is read together with others.
fn place(target: &Target) -> String {
    match (&target.schema, target.dialect) {
        (Some(schema), Dialect::Postgres) => schema.clone(),
        _ => mysql_parts(target.url.expose()).map(|(_, database)| database).unwrap_or_default(),
    }
}
