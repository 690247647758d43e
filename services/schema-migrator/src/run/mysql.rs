//! What of a MySQL or MariaDB database decides how statements are run.

use super::Worker;
use super::commit_mode::Holdings;
use crate::files::Dialect;
use crate::tenant::Error;

impl Worker<'_> {
    /// Tables whose engine has no transactions, and functions. Other dialects have nothing that matters.
    pub(super) async fn holdings(&self) -> Result<Holdings, Error> {
        if self.dialect() != Dialect::MySql {
            return Ok(Holdings::default());
        }
        let place = self.connection.sql().literal(self.connection.place());
        let query = format!(
            "SELECT 'table' AS kind, CONVERT(LOWER(table_name) USING utf8mb4) AS name FROM information_schema.tables \
             WHERE table_schema = {place} AND table_type = 'BASE TABLE' AND engine <> 'InnoDB' \
             UNION ALL SELECT 'function', CONVERT(LOWER(routine_name) USING utf8mb4) \
             FROM information_schema.routines WHERE routine_schema = {place} AND routine_type = 'FUNCTION'"
        );
        let statement = self.connection.sql().plain(query);
        let rows = self.connection.rows(self.connection.db(), "read the tables' engines", statement).await?;
        let mut holdings = Holdings::default();
        for row in &rows {
            let text = |column| row.try_get::<String>("", column);
            let wrong = |error: sea_orm::DbErr| Error::Corrupt(error.to_string());
            let name = text("name").map_err(wrong)?;
            match text("kind").map_err(wrong)?.as_str() {
                "table" => holdings.tables.push(name),
                _ => holdings.functions.push(name),
            }
        }
        Ok(holdings)
    }
}
