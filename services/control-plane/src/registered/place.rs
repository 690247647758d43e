//! What a connection URL says, but for its credentials.

use std::borrow::Cow;

use grey_core::database::{Database, DatabaseKind, Dialect};
use grey_proto::convert::InvalidMessage;
use percent_encoding::percent_decode_str;
use url::Url;

/// Longest URL, in bytes.
const MAX_URL: usize = 4_096;
/// Longest name of a PostgreSQL schema, in bytes.
const MAX_SCHEMA: usize = 63;
/// Parameters by which a URL could lead elsewhere than it shows.
const MISLEADING: [&str; 9] =
    ["host", "hostaddr", "port", "dbname", "database", "user", "username", "password", "socket"];

/// Where a URL leads.
struct Place {
    dialect: Dialect,
    /// Host and port, or the file.
    server: String,
    /// The database on the server; empty for a file.
    name: String,
}

/// Reads where a URL leads, and whether it fits what is told beside it. No error repeats the URL: it has a password.
pub(crate) fn read(kind: DatabaseKind, schema: &str, url: &str) -> Result<Database, InvalidMessage> {
    let Place { dialect, server, name } = locate(url)?;
    match (kind, dialect) {
        (DatabaseKind::File, Dialect::Sqlite) | (DatabaseKind::Schema, Dialect::Postgres) => {}
        (DatabaseKind::Schema, _) => {
            return Err(fault("kind", "a schema of its own needs a postgres:// url"));
        }
        (DatabaseKind::File, _) => return Err(fault("kind", "a file of its own needs a sqlite:// url")),
        (_, Dialect::Sqlite) => {
            return Err(fault("kind", "a sqlite:// url is of a file: say DATABASE_KIND_FILE"));
        }
        _ => {}
    }
    match kind {
        DatabaseKind::Schema if !is_schema(schema) => {
            let why =
                "must be the name of a schema: 1 to 63 letters, digits, `_` or `-`, not beginning with pg_";
            Err(fault("schema", why))
        }
        DatabaseKind::Schema => Ok(()),
        _ if !schema.is_empty() => Err(fault("schema", "is only for DATABASE_KIND_SCHEMA")),
        _ => Ok(()),
    }?;
    Ok(Database { kind, dialect, server, name, schema: schema.to_owned() })
}

fn is_schema(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    let ours = !name.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("pg_"));
    (1..=MAX_SCHEMA).contains(&name.len()) && name.bytes().all(allowed) && ours
}

fn locate(url: &str) -> Result<Place, InvalidMessage> {
    if url.is_empty() {
        return Err(InvalidMessage::missing("url"));
    }
    // Whoever parses a URL drops line breaks and tabs; what is sealed must be what was checked.
    if url.len() > MAX_URL || url.bytes().any(|byte| byte.is_ascii_control() || byte == b' ') {
        return Err(fault("url", "must have at most 4096 bytes, without spaces and control characters"));
    }
    let parsed = Url::parse(url).map_err(|_| fault("url", "is malformed; percent-encode what is special"))?;
    if parsed.fragment().is_some() {
        return Err(fault("url", "has a `#`: write %23 for one in a password"));
    }
    let misleads = |key: &str| MISLEADING.iter().any(|known| known.eq_ignore_ascii_case(key));
    if parsed.query_pairs().any(|(key, _)| misleads(&key)) {
        return Err(fault("url", "must name host, user, password and database before the `?`"));
    }
    match parsed.scheme() {
        "postgres" | "postgresql" => on_server(Dialect::Postgres, &parsed, 5_432),
        "mysql" => on_server(Dialect::MySql, &parsed, 3_306),
        "sqlite" => file(url, &parsed),
        _ => Err(fault("url", "must begin with postgres://, mysql:// or sqlite://")),
    }
}

fn on_server(dialect: Dialect, url: &Url, port: u16) -> Result<Place, InvalidMessage> {
    let host = url.host_str().filter(|host| !host.is_empty());
    let host = decoded(host.ok_or_else(|| fault("url", "names no host"))?)?;
    if url.username().is_empty() {
        return Err(fault("url", "names no user"));
    }
    decoded(url.username())?;
    decoded(url.password().unwrap_or_default())?;
    let name = decoded(url.path().strip_prefix('/').unwrap_or_default())?;
    if name.is_empty() || name.contains('/') || name.contains('\0') {
        return Err(fault("url", "must name one database behind the host"));
    }
    let port = url.port().unwrap_or(port);
    // A socket's directory stands in the place of the host.
    let server = if host.starts_with('/') {
        host.into_owned()
    } else {
        format!("{}:{port}", host.to_ascii_lowercase())
    };
    Ok(Place { dialect, server, name: name.into_owned() })
}

fn file(text: &str, url: &Url) -> Result<Place, InvalidMessage> {
    // The parser resolves `..`; the driver takes the path as it is written.
    let path = text.strip_prefix("sqlite://").unwrap_or_default().split('?').next().unwrap_or_default();
    let path = decoded(path)?;
    let plain = path.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
    if !path.starts_with('/') || !plain || path.contains('\0') {
        return Err(fault("url", "must be sqlite:// and the absolute path of a file, without `.` and `..`"));
    }
    let in_memory = url.query_pairs().any(|(key, value)| key == "mode" && value == "memory");
    if in_memory || path.contains(":memory:") {
        return Err(fault("url", "must be of a file, not of memory"));
    }
    Ok(Place { dialect: Dialect::Sqlite, server: path.into_owned(), name: String::new() })
}

fn decoded(part: &str) -> Result<Cow<'_, str>, InvalidMessage> {
    percent_decode_str(part)
        .decode_utf8()
        .map_err(|_| fault("url", "has percent-encoded bytes that are no UTF-8"))
}

fn fault(field: &str, why: &str) -> InvalidMessage {
    InvalidMessage::new(field, why)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;

    fn place(dialect: Dialect, server: &str, name: &str) -> Database {
        let (kind, server, name) = (DatabaseKind::Database, server.to_owned(), name.to_owned());
        Database { kind, dialect, server, name, schema: String::new() }
    }

    #[test]
    fn a_url_tells_where_the_database_is() {
        use Dialect::{MySql, Postgres, Sqlite};
        let database = |url| read(DatabaseKind::Database, "", url).unwrap();
        assert_eq!(database("postgres://app:s3cret@Db/acme"), place(Postgres, "db:5432", "acme"));
        assert_eq!(
            database("postgresql://app:p%40ss%2F@db:6000/acme?sslmode=verify-full"),
            place(Postgres, "db:6000", "acme")
        );
        assert_eq!(database("postgres://app@%2Fvar%2Frun/a%20b"), place(Postgres, "/var/run", "a b"));
        assert_eq!(database("postgres://app:x@[::1]/acme"), place(Postgres, "[::1]:5432", "acme"));
        assert_eq!(database("mysql://app:s3cret@db/acme"), place(MySql, "db:3306", "acme"));
        assert_eq!(database("mysql://app:s3cret@db/acme?ssl-mode=REQUIRED").name, "acme");
        let schema = read(DatabaseKind::Schema, "tenant_acme", "postgres://app:x@db/all").unwrap();
        let (kind, own) = (DatabaseKind::Schema, "tenant_acme".to_owned());
        assert_eq!(schema, Database { kind, schema: own, ..place(Postgres, "db:5432", "all") });
        let file = read(DatabaseKind::File, "", "sqlite:///data/acme%20orders.db?mode=rwc").unwrap();
        assert_eq!(file, Database { kind: DatabaseKind::File, ..place(Sqlite, "/data/acme orders.db", "") });
    }

    #[test]
    fn what_cannot_be_connected_to_is_refused_without_repeating_it() {
        let (database, schema, file) = (DatabaseKind::Database, DatabaseKind::Schema, DatabaseKind::File);
        for (kind, name, url) in [
            (database, "", ""),
            (database, "", "s3cret"),
            (database, "", "oracle://app:s3cret@db/acme"),
            (database, "", "postgres://app:s3cret@/acme"),
            (database, "", "postgres://:s3cret@db/acme"),
            (database, "", "postgres://db/s3cret"),
            (database, "", "postgres://app:s3cret@db"),
            (database, "", "postgres://app:s3cret@db/"),
            (database, "", "postgres://app:s3cret@db/a/b"),
            (database, "", "postgres://app:s3cret@db:99999/acme"),
            (database, "", "postgres://app:s3cret#1@db/acme"),
            (database, "", "postgres://app:s3cret@db/acme#x"),
            (database, "", "postgres://app:s3cret%ff@db/acme"),
            (database, "", "postgres://app:s3 cret@db/acme"),
            (database, "", "postgres://app:s3\ncret@db/acme"),
            (database, "", "postgres://app:s3cret@db/acme?host=other"),
            (database, "", "postgres://app@db/acme?password=s3cret"),
            (database, "public", "postgres://app:s3cret@db/acme"),
            (database, "", "sqlite:///s3cret.db"),
            (schema, "", "postgres://app:s3cret@db/acme"),
            (schema, "pg_catalog", "postgres://app:s3cret@db/acme"),
            (schema, "a;b", "postgres://app:s3cret@db/acme"),
            (schema, "acme", "mysql://app:s3cret@db/acme"),
            (file, "", "postgres://app:s3cret@db/acme"),
            (file, "", "sqlite://s3cret.db"),
            (file, "", "sqlite:s3cret.db"),
            (file, "", "sqlite:///data/../s3cret.db"),
            (file, "", "sqlite:///data/%2e%2e/s3cret.db"),
            (file, "", "sqlite::memory:"),
            (file, "", "sqlite:///s3cret.db?mode=memory"),
            (file, "main", "sqlite:///s3cret.db"),
        ] {
            let refused = read(kind, name, url).unwrap_err().to_string();
            assert!(!refused.contains("cret"), "{url}: {refused}");
        }
        assert!(read(database, "", &format!("postgres://app@db/{}", "x".repeat(5_000))).is_err());
    }
}
