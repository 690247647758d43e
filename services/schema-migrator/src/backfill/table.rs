//! The table whose keys are walked.

use super::Range;
use super::key::Key;
use crate::files::{Backfill, Dialect, SqlName};
use crate::tenant::{Connection, Error, Sql};
use sea_orm::QueryResult;

/// What the migrator calls the look at a table.
const ATTEMPTED: &str = "find the rows of a backfill";

/// Rows of a SQLite table that are counted; only PostgreSQL and the MySQL family keep an estimate.
const MOST_COUNTED: u32 = 1_000_000;

/// What kind of key it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Integer,
    Text,
    Bytes,
    /// SQLite's columns may hold anything.
    Any,
}

/// A table, its key and how many rows it may have.
pub(super) struct Table<'a> {
    connection: &'a Connection,
    name: String,
    key: String,
    kind: Kind,
    estimate: u64,
}

impl<'a> Table<'a> {
    /// Looks at the table.
    ///
    /// # Errors
    /// When there is no such table or column, no index begins with the key, its type has no order that a text keeps, a
    /// row has no key, or the table has no transactions.
    pub(super) async fn find(connection: &'a Connection, step: &Backfill) -> Result<Self, Error> {
        let sql = connection.sql();
        let facts = Facts::read(connection, &step.table, &step.key).await?;
        let Backfill { table, key, .. } = step;
        let refuse = |why: String| Err(Error::Conflict(format!("backfill of {table} by {key}: {why}")));
        if !facts.transactional {
            return refuse("its engine has no transactions".to_owned());
        }
        if !facts.indexed {
            return refuse(
                "no index begins with that column, so every range would read the whole table".to_owned(),
            );
        }
        let Some(kind) = kind(sql.0, &facts.kind) else {
            return refuse(format!("a key of type {} is neither a number, a text nor a UUID", facts.kind));
        };
        let name = table.as_str().split('.').map(|part| sql.quoted(part)).collect::<Vec<_>>().join(".");
        let found = Self { connection, name, key: sql.quoted(&facts.column), kind, estimate: facts.estimate };
        let (name, column) = (&found.name, &found.key);
        let nulls = format!("SELECT 1 AS one FROM {name} WHERE {column} IS NULL LIMIT 1");
        if !connection.rows(connection.db(), ATTEMPTED, sql.plain(nulls)).await?.is_empty() {
            return refuse("a row has no key and would be left out".to_owned());
        }
        Ok(found)
    }

    /// Rows that it may have.
    pub(super) fn estimate(&self) -> u64 {
        self.estimate
    }

    /// The key as a literal.
    pub(super) fn literal(&self, key: &Key) -> String {
        key.literal(self.connection.sql())
    }

    /// The last key, unless there are no rows.
    pub(super) async fn last_key(&self) -> Result<Option<Key>, Error> {
        let (name, key) = (&self.name, &self.key);
        let kept = self.kept(key);
        let query = format!(
            "SELECT {kept} AS high, {} AS high_type FROM {name} ORDER BY {key} DESC LIMIT 1",
            self.type_of(key)
        );
        let statement = self.connection.sql().plain(query);
        let rows = self.connection.rows(self.connection.db(), ATTEMPTED, statement).await?;
        rows.first().map(|row| self.key_of(row, "high")).transpose()
    }

    /// The next range after `last`, of at most `size` keys and not beyond `upto`.
    pub(super) async fn range(
        &self,
        last: Option<&Key>,
        upto: &Key,
        size: u32,
    ) -> Result<Option<Range>, Error> {
        let (name, key) = (&self.name, &self.key);
        let after = last.map(|last| format!("{key} > {} AND ", self.literal(last))).unwrap_or_default();
        let (kept, kind, upto) = (self.kept("k"), self.type_of("k"), self.literal(upto));
        let query = format!(
            "WITH batch AS (SELECT {key} AS k FROM {name} WHERE {after}{key} <= {upto} ORDER BY {key} LIMIT {size}) \
             SELECT (SELECT {kept} FROM batch ORDER BY batch.k LIMIT 1) AS low, \
             (SELECT {kind} FROM batch ORDER BY batch.k LIMIT 1) AS low_type, \
             (SELECT {kept} FROM batch ORDER BY batch.k DESC LIMIT 1) AS high, \
             (SELECT {kind} FROM batch ORDER BY batch.k DESC LIMIT 1) AS high_type, \
             (SELECT count(*) FROM batch) AS keys_found"
        );
        // Not `ORDER BY k`: that would be the text, which has the same name.
        let statement = self.connection.sql().plain(query);
        let rows = self.connection.rows(self.connection.db(), ATTEMPTED, statement).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let keys = u64::try_from(number(row, "keys_found")?).unwrap_or(0);
        if keys == 0 {
            return Ok(None);
        }
        let (low, high) = (self.key_of(row, "low")?, self.key_of(row, "high")?);
        Ok(Some(Range { low, high, keys }))
    }

    /// SQL that gives a key as text from which it can be had back.
    fn kept(&self, key: &str) -> String {
        match (self.connection.dialect(), self.kind) {
            (Dialect::Postgres, _) => format!("{key}::text"),
            (Dialect::MySql, Kind::Bytes) => format!("HEX({key})"),
            (Dialect::MySql, _) => format!("CONVERT(CAST({key} AS CHAR) USING utf8mb4)"),
            (Dialect::Sqlite, _) => {
                format!("CASE typeof({key}) WHEN 'blob' THEN hex({key}) ELSE CAST({key} AS TEXT) END")
            }
        }
    }

    /// SQL that gives a key's type, where columns have none.
    fn type_of(&self, key: &str) -> String {
        match self.connection.dialect() {
            Dialect::Sqlite => format!("typeof({key})"),
            Dialect::Postgres | Dialect::MySql => "'column'".to_owned(),
        }
    }

    fn key_of(&self, row: &QueryResult, end: &str) -> Result<Key, Error> {
        let kept: String = column(row, end)?;
        let kind = match self.kind {
            Kind::Any => match column::<String>(row, &format!("{end}_type"))?.as_str() {
                "integer" => Kind::Integer,
                "text" => Kind::Text,
                "blob" => Kind::Bytes,
                other => {
                    let text =
                        format!("backfill of {}: a key of type {other} has no order to rely on", self.name);
                    return Err(Error::Conflict(text));
                }
            },
            kind => kind,
        };
        match kind {
            Kind::Integer => kept
                .parse()
                .map(Key::Number)
                .or_else(|_| kept.parse().map(Key::Large))
                .map_err(|_| Error::Corrupt("an integer key is not a number".to_owned())),
            Kind::Text | Kind::Any => Ok(Key::Text(kept)),
            Kind::Bytes => Ok(Key::Bytes(kept)),
        }
    }
}

fn kind(dialect: Dialect, kind: &str) -> Option<Kind> {
    match (dialect, kind) {
        (Dialect::Sqlite, _) => Some(Kind::Any),
        (_, "smallint" | "integer" | "bigint" | "int" | "tinyint" | "mediumint") => Some(Kind::Integer),
        (_, "text" | "character varying" | "character" | "uuid" | "char" | "varchar") => Some(Kind::Text),
        (Dialect::MySql, "binary" | "varbinary") => Some(Kind::Bytes),
        _ => None,
    }
}

/// What the catalog says of a table and its key.
struct Facts {
    /// The column, spelled as the catalog does.
    column: String,
    kind: String,
    indexed: bool,
    transactional: bool,
    estimate: u64,
}

impl Facts {
    async fn read(connection: &Connection, table: &SqlName, key: &SqlName) -> Result<Self, Error> {
        let sql = connection.sql();
        let query = match sql.0 {
            Dialect::Postgres => Self::postgres(sql, table, key),
            Dialect::MySql => Self::mysql(sql, table, key),
            Dialect::Sqlite => Self::sqlite(sql, table, key),
        };
        let rows = connection.rows(connection.db(), ATTEMPTED, sql.plain(query)).await?;
        let Some(row) = rows.first() else {
            let text = format!("backfill of {table} by {key}: there is no such table or column");
            return Err(Error::Conflict(text));
        };
        Ok(Self {
            column: column(row, "found")?,
            kind: column::<String>(row, "kind")?.to_lowercase(),
            indexed: number(row, "indexed")? != 0,
            transactional: number(row, "transactional")? != 0,
            estimate: u64::try_from(number(row, "estimate")?).unwrap_or(0),
        })
    }

    fn postgres(sql: Sql, table: &SqlName, key: &SqlName) -> String {
        // Names in statements are in lower case to the server, as these are without quotes.
        let (table, key) = (table.as_str().to_lowercase(), key.last().to_lowercase());
        format!(
            "SELECT a.attname::text AS found, \
             CASE WHEN t.typtype = 'd' THEN 'domain' ELSE regexp_replace(format_type(a.atttypid, NULL), '\\(.*', '') END AS kind, \
             (SELECT count(*) FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL \
             AND i.indkey[0] = a.attnum) AS indexed, 1::bigint AS transactional, c.reltuples::bigint AS estimate \
             FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid JOIN pg_type t ON t.oid = a.atttypid \
             WHERE c.oid = to_regclass({}) AND a.attname = {} AND a.attnum > 0 AND NOT a.attisdropped",
            sql.literal(&table),
            sql.literal(&key)
        )
    }

    fn mysql(sql: Sql, table: &SqlName, key: &SqlName) -> String {
        let place = match table.as_str().split_once('.') {
            Some((place, _)) => sql.literal(place),
            None => "DATABASE()".to_owned(),
        };
        let (table, key) = (sql.literal(table.last()), sql.literal(key.last()));
        format!(
            "SELECT CONVERT(c.column_name USING utf8mb4) AS found, CONVERT(c.data_type USING utf8mb4) AS kind, \
             (SELECT count(*) FROM information_schema.statistics s WHERE s.table_schema = c.table_schema \
             AND s.table_name = c.table_name AND s.column_name = c.column_name AND s.seq_in_index = 1) AS indexed, \
             CAST(COALESCE(t.engine = 'InnoDB', 0) AS SIGNED) AS transactional, \
             CAST(COALESCE(t.table_rows, 0) AS SIGNED) AS estimate \
             FROM information_schema.columns c JOIN information_schema.tables t \
             ON t.table_schema = c.table_schema AND t.table_name = c.table_name \
             WHERE c.table_schema = {place} AND c.table_name = {table} AND c.column_name = {key}"
        )
    }

    fn sqlite(sql: Sql, table: &SqlName, key: &SqlName) -> String {
        let (quoted, table, key) =
            (sql.quoted(table.last()), sql.literal(table.last()), sql.literal(key.last()));
        format!(
            "SELECT name AS found, type AS kind, (pk = 1 AND upper(type) = 'INTEGER') + \
             (SELECT count(*) FROM pragma_index_list({table}) l JOIN pragma_index_info(l.name) i \
             WHERE i.seqno = 0 AND l.partial = 0 AND i.name = c.name) AS indexed, 1 AS transactional, \
             (SELECT count(*) FROM (SELECT 1 FROM {quoted} LIMIT {MOST_COUNTED})) AS estimate \
             FROM pragma_table_info({table}) c WHERE lower(c.name) = lower({key})"
        )
    }
}

fn column<T: sea_orm::TryGetable>(row: &QueryResult, name: &str) -> Result<T, Error> {
    row.try_get("", name)
        .map_err(|error| Error::Corrupt(format!("column {name} of a backfill's query: {error}")))
}

/// A number whose width depends on the dialect.
fn number(row: &QueryResult, name: &str) -> Result<i64, Error> {
    row.try_get("", name)
        .or_else(|_| row.try_get::<i32>("", name).map(i64::from))
        .map_err(|error| Error::Corrupt(format!("column {name} of a backfill's query: {error}")))
}
