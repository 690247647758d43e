//! Databases of the MySQL family, each with a user of its own.

use super::maker::{MAKE, Present, REMOVE};
use super::{Site, name};
use crate::tenant::{Connection, Error, column};
use grey_proto::schema::Provision;
use std::sync::atomic::{AtomicBool, Ordering};

/// The error of a right that is not there to be taken.
const NO_SUCH_GRANT: &str = "1141";

/// MariaDB reads the comment of a database, in which the name of its user is; MySQL and MariaDB before 10.5 have none.
pub(super) async fn present(on: &Connection, provision: &Provision) -> Result<Present, Error> {
    let query = format!(
        "SELECT CAST(CONCAT('' /*M!100500 , schema_comment */) AS CHAR) AS mark FROM information_schema.schemata \
         WHERE schema_name = {}",
        on.sql().literal(name(provision))
    );
    let rows = on.rows(on.db(), MAKE, on.sql().plain(query)).await?;
    Ok(match rows.first() {
        None => Present::Nothing,
        Some(row) if column::<String>(Some(row), "mark")? == provision.role => Present::Ours,
        Some(_) => Present::Foreign,
    })
}

/// Makes the user, the database where `made` is told whether that is done, and the rights on it.
pub(super) async fn make(
    on: &Connection,
    site: &Site,
    provision: &Provision,
    password: &str,
    made: Option<&AtomicBool>,
) -> Result<(), Error> {
    let (user, secret) = (user(on, &provision.role), on.sql().literal(password));
    // No other user has this name, so one that is there was made by an attempt before this.
    on.command(MAKE, &format!("CREATE USER IF NOT EXISTS {user} IDENTIFIED BY {secret}")).await?;
    on.command(MAKE, &format!("ALTER USER {user} IDENTIFIED BY {secret}")).await?;
    if let Some(made) = made {
        let (name, mark) = (on.sql().quoted(name(provision)), on.sql().literal(&provision.role));
        let text = format!("CREATE DATABASE {name} CHARACTER SET utf8mb4 /*M!100500 COMMENT {mark} */");
        on.command(MAKE, &text).await?;
        made.store(true, Ordering::Relaxed);
    }
    for who in std::iter::once(&provision.role).chain(&site.members) {
        let text = format!("GRANT ALL PRIVILEGES ON {}.* TO {}", pattern(provision), self::user(on, who));
        on.command(MAKE, &text).await?;
    }
    Ok(())
}

pub(super) async fn remove(
    on: &Connection,
    site: &Site,
    provision: &Provision,
    ours: bool,
) -> Result<(), Error> {
    if ours {
        // Rights outlive the database that they are on, and would be those on the next one of its name.
        for member in &site.members {
            let text = format!("REVOKE ALL PRIVILEGES ON {}.* FROM {}", pattern(provision), user(on, member));
            match on.command(REMOVE, &text).await {
                Err(Error::Statement { code, .. }) if code == NO_SUCH_GRANT => {}
                revoked => revoked?,
            }
        }
        on.command(REMOVE, &format!("DROP DATABASE {}", on.sql().quoted(name(provision)))).await?;
    }
    on.command(REMOVE, &format!("DROP USER IF EXISTS {}", user(on, &provision.role))).await
}

fn user(on: &Connection, name: &str) -> String {
    format!("{}@'%'", on.sql().literal(name))
}

/// The database's name where `_` would stand for any character.
fn pattern(provision: &Provision) -> String {
    format!("`{}`", name(provision).replace('_', "\\_"))
}
