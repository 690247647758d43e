//! Who publishes the log: a lease in the database itself, so that who leads is decided where the truth is.

use std::time::Duration;

use grey_state::FencingToken;
use sea_orm::{ConnectionTrait, DbBackend, Statement};

use crate::database::{Database, Error};
use crate::entity::{signed, unsigned};

/// The database's clock, in milliseconds since the Unix epoch; the replicas' clocks may differ.
fn now(backend: DbBackend) -> &'static str {
    match backend {
        DbBackend::Postgres => "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
        _ => "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
    }
}

impl Database {
    /// Takes or renews the lead, as the publisher asks for it. One statement, so that no two get it.
    pub(super) async fn take_lead(
        &self,
        holder: &str,
        ttl: Duration,
        above: FencingToken,
    ) -> Result<Option<FencingToken>, Error> {
        let attempted = "take the lead";
        // Not the writers' connection: a long command must not cost the lead.
        let connection = self.readers();
        let backend = connection.get_database_backend();
        let now = now(backend);
        let sql = format!(
            "UPDATE publisher SET token = CASE WHEN holder = $1 AND expires_ms > {now} AND token > $3 THEN token \
             WHEN token > $3 THEN token + 1 ELSE $3 + 1 END, holder = $1, expires_ms = {now} + $2 \
             WHERE id = 1 AND (holder = $1 OR expires_ms <= {now}) RETURNING token"
        );
        let ttl = i64::try_from(ttl.as_millis().min(86_400_000)).unwrap_or_default();
        let values = [holder.into(), ttl.into(), signed(above.0).into()];
        let statement = Statement::from_sql_and_values(backend, sql, values);
        let Some(row) = self.read(attempted, connection.query_one_raw(statement)).await? else {
            return Ok(None);
        };
        let token = row.try_get::<i64>("", "token").map_err(|source| Error::Failed { attempted, source })?;
        Ok(Some(FencingToken(unsigned("publisher", token)?)))
    }

    /// Gives the lead up, if `holder` has it; the token stays.
    pub(super) async fn give_up_lead(&self, holder: &str) -> Result<(), Error> {
        let connection = self.readers();
        let sql = "UPDATE publisher SET expires_ms = 0 WHERE id = 1 AND holder = $1";
        let statement =
            Statement::from_sql_and_values(connection.get_database_backend(), sql, [holder.into()]);
        self.read("give up the lead", connection.execute_raw(statement)).await.map(drop)
    }
}
