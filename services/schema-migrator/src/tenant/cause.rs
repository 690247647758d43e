//! Why a database could not be connected to in time: a pool tries again until its time is up, and then only knows that.

use super::pool::{mysql_options, postgres_options};
use super::{Error, Target, Timeouts, classify};
use crate::files::Dialect;
use sea_orm::sqlx::{Connection as _, MySqlConnection, PgConnection};
use std::time::Duration;
use tokio::time::timeout;

/// A server that refuses does so at once.
const PATIENCE: Duration = Duration::from_secs(1);

/// Asks once more, without a pool, and tells what the answer is; `late` if there is none.
pub(super) async fn cause(target: &Target, timeouts: &Timeouts, late: Error) -> Error {
    let asked = async {
        match target.dialect {
            Dialect::Postgres => {
                let options = postgres_options(target, timeouts, "cause")?;
                let connection = PgConnection::connect_with(&options).await;
                drop(connection.map_err(|error| classify::connecting(&error))?);
            }
            Dialect::MySql => {
                let options = mysql_options(target)?;
                let connection = MySqlConnection::connect_with(&options).await;
                drop(connection.map_err(|error| classify::connecting(&error))?);
            }
            Dialect::Sqlite => {}
        }
        Ok::<(), Error>(())
    };
    match timeout(PATIENCE, Box::pin(asked)).await {
        // Trying again may help, whatever it was: the pool has seen it pass.
        Ok(Err(Error::Refused { attempted, why } | Error::Unreachable { attempted, why })) => {
            Error::Unreachable { attempted, why }
        }
        _ => late,
    }
}
