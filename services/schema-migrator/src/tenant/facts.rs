//! What the planner wants to know of a database: how many rows its tables have, by estimate, and the server.

use super::connect::column;
use super::history::integer;
use super::{Connection, Error, names};
use crate::files::Dialect;
use crate::plan::Facts;

/// Rows of a SQLite table that are counted at most where it holds no estimate.
const COUNTED: u64 = 1_000_000;

/// Tables of a SQLite database that are looked at.
const MOST_TABLES: usize = 1_000;

impl Connection {
    /// Reads estimates of rows, and which server it is.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn facts(&self) -> Result<Facts, Error> {
        let query = match self.target.dialect {
            // -1 means that it was never analysed; then the size of the file tells about as much.
            Dialect::Postgres => {
                "SELECT lower(c.relname)::text AS name, (CASE WHEN c.reltuples >= 0 THEN c.reltuples \
                 ELSE pg_relation_size(c.oid) / 100 END)::bigint AS estimate \
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE c.relkind IN ('r', 'p', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema') \
                 AND n.nspname = ANY (current_schemas(false))"
            }
            Dialect::MySql => {
                "SELECT CONVERT(LOWER(table_name) USING utf8mb4) AS name, \
                 CAST(COALESCE(table_rows, 0) AS SIGNED) AS estimate FROM information_schema.tables \
                 WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE'"
            }
            Dialect::Sqlite => return self.sqlite_facts().await,
        };
        let rows = self.rows(&self.db, "read row estimates", self.sql().plain(query)).await?;
        let mut facts = Facts { server: self.server, ..Facts::default() };
        for row in &rows {
            let name: String = column(Some(row), "name")?;
            let estimate = u64::try_from(integer(Some(row), "estimate")?).unwrap_or(0);
            if !name.starts_with(names::PREFIX) {
                facts.rows.insert(name, estimate);
            }
        }
        Ok(facts)
    }

    /// SQLite keeps no estimates of its own: rows are counted, up to a limit.
    async fn sqlite_facts(&self) -> Result<Facts, Error> {
        let sql = self.sql();
        let attempted = "read row estimates";
        let tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
        let tables = self.rows(&self.db, attempted, sql.plain(tables)).await?;
        let mut facts = Facts { server: self.server, ..Facts::default() };
        for table in tables.iter().take(MOST_TABLES) {
            let name: String = column(Some(table), "name")?;
            if name.starts_with(names::PREFIX) {
                continue;
            }
            let quoted = sql.quoted(&name);
            let query = format!("SELECT count(*) AS n FROM (SELECT 1 FROM {quoted} LIMIT {COUNTED})");
            let rows = self.rows(&self.db, attempted, sql.plain(query)).await?;
            let counted = u64::try_from(integer(rows.first(), "n")?).unwrap_or(0);
            facts.rows.insert(name.to_lowercase(), counted);
        }
        Ok(facts)
    }
}
