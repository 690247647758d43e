//! What the planner wants to know of a database: how many rows its tables have, by estimate, and the server.

use super::connect::column;
use super::history::integer;
use super::{Connection, Error, Sql, names};
use crate::files::Dialect;
use crate::plan::Facts;
use sea_orm::QueryResult;
use std::collections::BTreeSet;

/// Rows of a SQLite table that are counted at most; it holds no estimates.
const COUNTED: u64 = 1_000_000;

impl Connection {
    /// Reads estimates of the rows of tables with these names, and which server it is. It waits for nobody's lock.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn facts(&self, names: &BTreeSet<String>) -> Result<Facts, Error> {
        let mut facts = Facts { server: self.server, ..Facts::default() };
        if names.is_empty() {
            return Ok(facts);
        }
        let list = list(self.sql(), names);
        let query = match self.target.dialect {
            Dialect::Postgres => format!(
                "SELECT lower(c.relname)::text AS name, {POSTGRES_ESTIMATE} AS estimate \
                 FROM unnest(current_schemas(false)) AS s(name) JOIN pg_namespace n ON n.nspname = s.name \
                 JOIN pg_class c ON c.relnamespace = n.oid AND c.relname IN ({list}) \
                 WHERE c.relkind IN ('r', 'p', 'm')"
            ),
            Dialect::MySql => format!(
                "SELECT CONVERT(LOWER(table_name) USING utf8mb4) AS name, \
                 CAST(COALESCE(table_rows, 0) AS SIGNED) AS estimate FROM information_schema.tables \
                 WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE' AND table_name IN ({list})"
            ),
            Dialect::Sqlite => return self.sqlite_facts(&list, facts).await,
        };
        for row in &self.ask(ATTEMPTED, query).await? {
            note(&mut facts, row)?;
        }
        Ok(facts)
    }

    /// SQLite keeps no estimates of its own: rows are counted, up to a limit.
    async fn sqlite_facts(&self, list: &str, mut facts: Facts) -> Result<Facts, Error> {
        let sql = self.sql();
        let tables = format!(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name COLLATE NOCASE IN ({list})"
        );
        for table in &self.ask(ATTEMPTED, tables).await? {
            let name: String = column(Some(table), "name")?;
            if name.starts_with(names::PREFIX) {
                continue;
            }
            let quoted = sql.quoted(&name);
            let query = format!("SELECT count(*) AS n FROM (SELECT 1 FROM {quoted} LIMIT {COUNTED})");
            let rows = self.ask(ATTEMPTED, query).await?;
            let counted = u64::try_from(integer(rows.first(), "n")?).unwrap_or(0);
            facts.rows.insert(name.to_lowercase(), counted);
        }
        Ok(facts)
    }
}

pub(super) const ATTEMPTED: &str = "read row estimates";

/// Rows of table `c`: of the last analysis, else what the server has counted, which it forgets in a crash, else by the size
/// of its file, unless someone has locked it: asking would wait for them.
pub(super) const POSTGRES_ESTIMATE: &str = "(CASE WHEN c.reltuples >= 0 THEN c.reltuples \
     WHEN pg_stat_get_live_tuples(c.oid) > 0 THEN pg_stat_get_live_tuples(c.oid) \
     WHEN c.oid IN (SELECT relation FROM pg_locks WHERE relation IS NOT NULL AND mode = 'AccessExclusiveLock') THEN 0 \
     ELSE coalesce(pg_relation_size(c.oid), 0) / 100 END)::bigint";

/// Names as a list of literals.
pub(super) fn list(sql: Sql, names: &BTreeSet<String>) -> String {
    names.iter().map(|name| sql.literal(name)).collect::<Vec<_>>().join(", ")
}

/// Takes a row of `name` and `estimate`.
pub(super) fn note(facts: &mut Facts, row: &QueryResult) -> Result<(), Error> {
    let name: String = column(Some(row), "name")?;
    let estimate = u64::try_from(integer(Some(row), "estimate")?).unwrap_or(0);
    if !name.starts_with(names::PREFIX) {
        facts.rows.insert(name, estimate);
    }
    Ok(())
}
