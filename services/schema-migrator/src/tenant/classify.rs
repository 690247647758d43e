//! What a driver's error means.

use super::Error;
use sea_orm::sqlx::mysql::MySqlDatabaseError;
use sea_orm::sqlx::postgres::PgDatabaseError;
use sea_orm::{DbErr, RuntimeErr, SqlxError, sqlx};

/// What to do about a connection that cannot be encrypted as the URL insists.
const ENCRYPTION: &str = "name the authority that signed the server's certificate in the URL, as sslrootcert (PostgreSQL) or \
                          ssl-ca (MySQL family); a server that does not encrypt needs another mode, which is sslmode or ssl-mode";

/// Longest text of a database that is kept.
const LONGEST_TEXT: usize = 1_000;

/// Numbers of the MySQL family that end or refuse a connection for now.
const MYSQL_GONE: [u16; 8] = [1040, 1053, 1152, 1158, 1159, 1160, 1161, 1927];
/// Numbers of the MySQL family that refuse access or tell that there is no such database.
const MYSQL_REFUSED: [u16; 6] = [1044, 1045, 1049, 1142, 1227, 1698];

/// Reads an error of a statement from a file, or of one of the migrator's own with line 0.
pub(super) fn statement(attempted: &'static str, line: u32, error: &DbErr) -> Error {
    let unreachable = |why: String| Error::Unreachable { attempted, why };
    match driver(error) {
        Some(sqlx::Error::Database(refused)) => {
            let code = code(refused.as_ref());
            if is_gone(refused.as_ref(), &code) {
                return unreachable(cut(refused.message()));
            }
            Error::Statement { attempted, code, message: told(refused.as_ref()), line, text: String::new() }
        }
        Some(sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed) => {
            unreachable("the connection is lost".to_owned())
        }
        Some(error @ (sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed)) => {
            unreachable(cut(&error.to_string()))
        }
        // A connection that ends in the middle of a packet is told as such.
        Some(error @ sqlx::Error::Protocol(_)) => unreachable(cut(&error.to_string())),
        _ => match error {
            DbErr::Conn(_) | DbErr::ConnectionAcquire(_) => unreachable("the connection is lost".to_owned()),
            other => Error::Corrupt(cut(&other.to_string())),
        },
    }
}

/// Reads an error of connecting.
pub(super) fn connecting(error: &sqlx::Error) -> Error {
    let attempted = "connect to the tenant's database";
    match error {
        sqlx::Error::Database(refused) => {
            let code = code(refused.as_ref());
            let mut why = told(refused.as_ref());
            // What PgBouncer says to settings that travel with the start of a session, unless it passes over them.
            if why.contains("unsupported startup parameter") {
                return Error::Pooled;
            }
            if matches!(code.as_str(), "53300" | "1040" | "1203" | "1226") {
                why = format!("the server has no connection left for the migrator: {why}");
            }
            if is_gone(refused.as_ref(), &code) {
                Error::Unreachable { attempted, why }
            } else {
                Error::Refused { attempted, why }
            }
        }
        sqlx::Error::PoolTimedOut => Error::Unreachable { attempted, why: "no answer in time".to_owned() },
        // Trying again does not help; a connection that is lost meanwhile is told by other kinds.
        sqlx::Error::Tls(_) => {
            Error::Refused { attempted, why: format!("{}; {ENCRYPTION}", cut(&error.to_string())) }
        }
        sqlx::Error::Io(wrong) if wrong.kind() == std::io::ErrorKind::InvalidData => {
            Error::Refused { attempted, why: format!("{}; {ENCRYPTION}", cut(&wrong.to_string())) }
        }
        sqlx::Error::Io(wrong) if wrong.kind() == std::io::ErrorKind::ConnectionRefused => {
            let why = "nothing listens at the URL's host and port: connection refused".to_owned();
            Error::Unreachable { attempted, why }
        }
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
            Error::Unreachable { attempted, why: cut(&error.to_string()) }
        }
        // Others could quote the URL.
        _ => Error::Refused { attempted, why: "the URL is not usable".to_owned() },
    }
}

/// Whether a statement of the migrator's own was refused for want of rights.
pub(super) fn is_want_of_rights(error: &Error) -> bool {
    match error {
        Error::Statement { code, .. } => {
            code == "42501" || code.parse().is_ok_and(|number| MYSQL_REFUSED.contains(&number)) || code == "8"
        }
        _ => false,
    }
}

/// Whether a table that was asked for does not exist.
pub(super) fn is_missing_table(error: &Error) -> bool {
    match error {
        Error::Statement { code, message, .. } => {
            matches!(code.as_str(), "42P01" | "1146" | "3F000") || message.contains("no such table")
        }
        _ => false,
    }
}

/// Whether a statement failed since what it drops or changes is not there.
pub(crate) fn is_missing_object(error: &Error) -> bool {
    const CODES: [&str; 14] = [
        "42P01", "42703", "42704", "42883", "3F000", // PostgreSQL
        "1051", "1054", "1091", "1146", "1176", "1305", "1360", "1539", "4092", // MySQL and MariaDB
    ];
    match error {
        Error::Statement { code, message, .. } => {
            CODES.contains(&code.as_str())
                || ["no such table", "no such column", "no such index", "no such view", "no such trigger"]
                    .iter()
                    .any(|text| message.contains(text))
        }
        _ => false,
    }
}

/// What a database says, with the detail and the hint that PostgreSQL adds.
fn told(error: &dyn sqlx::error::DatabaseError) -> String {
    let mut text = cut(error.message());
    if let Some(postgres) = error.try_downcast_ref::<PgDatabaseError>() {
        for (name, more) in [("detail", postgres.detail()), ("hint", postgres.hint())] {
            if let Some(more) = more {
                text.push_str(&format!("; {name}: {}", cut(more)));
            }
        }
    }
    text
}

fn code(error: &dyn sqlx::error::DatabaseError) -> String {
    match error.try_downcast_ref::<MySqlDatabaseError>() {
        Some(mysql) => mysql.number().to_string(),
        None => error.code().unwrap_or_default().into_owned(),
    }
}

fn is_gone(error: &dyn sqlx::error::DatabaseError, code: &str) -> bool {
    match error.try_downcast_ref::<MySqlDatabaseError>() {
        Some(mysql) => MYSQL_GONE.contains(&mysql.number()),
        // The server stops or ends the session; no connection is free; the connection is lost.
        None => {
            code.len() == 5
                && (code.starts_with("57P") || code.starts_with("08") || code == "53300" || code == "25P03")
        }
    }
}

fn driver(error: &DbErr) -> Option<&SqlxError> {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(error))
        | DbErr::Exec(RuntimeErr::SqlxError(error))
        | DbErr::Query(RuntimeErr::SqlxError(error)) => Some(error),
        _ => None,
    }
}

fn cut(text: &str) -> String {
    text.chars().take(LONGEST_TEXT).collect()
}
