//! What is in a database that has no history yet: nothing, or what something else has put there.

use super::connect::column;
use super::history::integer;
use super::{Connection, Error, Names, Sql, names};
use crate::files::Dialect;
use crate::plan::Contents;
use sea_orm::QueryResult;

pub(super) const ATTEMPTED: &str = "look for what is in the database";

impl Connection {
    /// Reads what is there besides the migrator's own tables. It waits for nobody's lock.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn contents(&self) -> Result<Contents, Error> {
        let place = [self.place().to_owned()];
        let rows = self.ask(ATTEMPTED, query(self.sql(), &place, &self.names)).await?;
        rows.first().map_or(Ok(Contents::Ours), read)
    }
}

/// One query for what is in each of these schemas or databases; one with nothing in it gives no row.
pub(super) fn query(sql: Sql, places: &[String], own: &Names) -> String {
    let list = places.iter().map(|place| sql.literal(place)).collect::<Vec<_>>().join(", ");
    let tables = match sql.0 {
        // What an extension has brought is nobody's data.
        Dialect::Postgres => format!(
            "SELECT n.nspname::text AS place, c.relname::text AS name FROM pg_namespace n \
             JOIN pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'f') \
             WHERE n.nspname IN ({list}) AND NOT EXISTS (SELECT 1 FROM pg_depend d \
             WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')"
        ),
        Dialect::MySql => format!(
            "SELECT CONVERT(table_schema USING utf8mb4) AS place, CONVERT(table_name USING utf8mb4) AS name \
             FROM information_schema.tables WHERE table_schema IN ({list})"
        ),
        Dialect::Sqlite => "SELECT 'main' AS place, name FROM sqlite_master \
                            WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite!_%' ESCAPE '!'"
            .to_owned(),
    };
    let prefix = names::PREFIX.replace('_', "!_");
    let (history, own) = (format!("{prefix}history!_%"), sql.literal(&own.history));
    let other = format!("name LIKE '{prefix}%' ESCAPE '!' OR name = 'flyway_schema_history'");
    format!(
        "SELECT place, MAX(CASE WHEN name = 'flyway_schema_history' THEN 1 ELSE 0 END) AS flyway, \
         MAX(CASE WHEN name LIKE '{history}' ESCAPE '!' AND name <> {own} THEN 1 ELSE 0 END) AS ours, \
         COUNT(CASE WHEN {other} THEN NULL ELSE 1 END) AS others, \
         MIN(CASE WHEN {other} THEN NULL ELSE name END) AS one FROM ({tables}) AS it GROUP BY place"
    )
}

/// Reads a row of [`query`].
pub(super) fn read(row: &QueryResult) -> Result<Contents, Error> {
    let row = Some(row);
    // Another service of ours shares the database: what is there may be its.
    if integer(row, "ours")? != 0 {
        return Ok(Contents::Ours);
    }
    if integer(row, "flyway")? != 0 {
        return Ok(Contents::Flyway);
    }
    match u64::try_from(integer(row, "others")?).unwrap_or(0) {
        0 => Ok(Contents::Ours),
        count => Ok(Contents::Others { count, example: column(row, "one")? }),
    }
}
