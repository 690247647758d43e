//! Checks after a migration: queries that must find nothing.

use super::Worker;
use crate::files::{Dialect, Statement};
use crate::tenant::Error;
use sea_orm::{ConnectionTrait, QueryResult};

/// Longest text of a row in an error.
const LONGEST_ROW: usize = 300;

impl Worker<'_> {
    /// Runs the checks on the database as `on` sees it.
    ///
    /// # Errors
    /// With the first row that is found.
    pub(super) async fn check(&self, on: &impl ConnectionTrait, checks: &[Statement]) -> Result<(), Error> {
        for check in checks {
            let sql = match self.dialect() {
                // So that every column can be shown, whatever its type.
                Dialect::Postgres => {
                    format!("SELECT to_json(found)::text AS found FROM (\n{}\n) AS found LIMIT 1", check.sql)
                }
                Dialect::MySql | Dialect::Sqlite => check.sql.clone(),
            };
            let row = self.connection.first_row(on, &sql, check.line, &self.stop).await?;
            if let Some(row) = row {
                return Err(Error::Check { line: check.line, row: shown(&row) });
            }
        }
        Ok(())
    }

    /// Counts rows whose foreign keys lead nowhere, in SQLite, where they are not enforced during a migration.
    pub(super) async fn dangling(&self, on: &impl ConnectionTrait) -> Result<usize, Error> {
        if self.dialect() != Dialect::Sqlite {
            return Ok(0);
        }
        let query = self.connection.sql().plain("SELECT 1 AS one FROM pragma_foreign_key_check LIMIT 10000");
        Ok(self.connection.rows(on, "check foreign keys", query).await?.len())
    }
}

fn shown(row: &QueryResult) -> String {
    let columns = row.column_names();
    let cells: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(index, name)| {
            let text = cell(row, index);
            if name == "found" && columns.len() == 1 { text } else { format!("{name}={text}") }
        })
        .collect();
    cells.join(", ").chars().take(LONGEST_ROW).collect()
}

fn cell(row: &QueryResult, index: usize) -> String {
    if let Ok(text) = row.try_get_by_index::<Option<String>>(index) {
        return text.unwrap_or_else(|| "null".to_owned());
    }
    if let Ok(number) = row.try_get_by_index::<i64>(index) {
        return number.to_string();
    }
    if let Ok(number) = row.try_get_by_index::<i32>(index) {
        return number.to_string();
    }
    if let Ok(number) = row.try_get_by_index::<u64>(index) {
        return number.to_string();
    }
    row.try_get_by_index::<f64>(index).map_or_else(|_| "?".to_owned(), |number| number.to_string())
}
