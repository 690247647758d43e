//! What does not roll back in the MySQL family besides DDL.

use super::Worker;
use crate::files::Dialect;
use crate::tenant::Error;

impl Worker<'_> {
    /// Tables whose engine has no transactions, in lower case. Other dialects have none.
    pub(super) async fn unsafe_tables(&self) -> Result<Vec<String>, Error> {
        if self.dialect() != Dialect::MySql {
            return Ok(Vec::new());
        }
        let query = "SELECT CONVERT(LOWER(table_name) USING utf8mb4) AS name FROM information_schema.tables \
                     WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE' AND engine <> 'InnoDB'";
        let statement = self.connection.sql().plain(query);
        let rows = self.connection.rows(self.connection.db(), "read the tables' engines", statement).await?;
        let name = |row: &sea_orm::QueryResult| row.try_get::<String>("", "name");
        rows.iter().map(|row| name(row).map_err(|error| Error::Corrupt(error.to_string()))).collect()
    }
}
