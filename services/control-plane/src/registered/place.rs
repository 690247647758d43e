//! Whether what a registration says of a database fits its URL.

use grey_core::database::{Database, DatabaseKind, Dialect};
use grey_database_url::{DatabaseUrl, Guard};
use grey_proto::convert::InvalidMessage;

/// Longest name of a PostgreSQL schema, in bytes.
const MAX_SCHEMA: usize = 63;

/// Reads where a URL leads, whether it may, and whether it fits what is told beside it. `direct`: where migrations connect
/// past a pooler; empty: by the URL itself. No error repeats a URL: it has a password.
pub(crate) fn read(
    guard: &Guard,
    kind: DatabaseKind,
    schema: &str,
    url: &str,
    direct: &str,
) -> Result<Database, InvalidMessage> {
    let url = parse(guard, "url", url)?;
    let dialect = url.dialect();
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
            return Err(fault("schema", why));
        }
        DatabaseKind::Schema => {}
        _ if !schema.is_empty() => return Err(fault("schema", "is only for DATABASE_KIND_SCHEMA")),
        _ => {}
    }
    let direct_server = match direct {
        "" => String::new(),
        direct => {
            let direct = parse(guard, "direct_url", direct)?;
            if direct.dialect() != dialect || dialect == Dialect::Sqlite {
                let why =
                    "must lead past a pooler to the same server: of the same scheme as url, and no file";
                return Err(fault("direct_url", why));
            }
            direct.server()
        }
    };
    let (server, name) = (url.server(), url.database().to_owned());
    Ok(Database { kind, dialect, server, name, schema: schema.to_owned(), direct_server })
}

fn parse(guard: &Guard, field: &str, url: &str) -> Result<DatabaseUrl, InvalidMessage> {
    if url.is_empty() {
        return Err(InvalidMessage::missing(field));
    }
    let parsed = DatabaseUrl::parse(url).and_then(|url| guard.check(&url).map(|()| url));
    parsed.map_err(|why| fault(field, &why.to_string()))
}

fn is_schema(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    let ours = !name.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("pg_"));
    (1..=MAX_SCHEMA).contains(&name.len()) && name.bytes().all(allowed) && ours
}

fn fault(field: &str, why: &str) -> InvalidMessage {
    InvalidMessage::new(field, why)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;

    fn read(kind: DatabaseKind, schema: &str, url: &str, direct: &str) -> Result<Database, InvalidMessage> {
        super::read(&Guard::default(), kind, schema, url, direct)
    }

    #[test]
    fn a_registration_tells_where_the_database_is() {
        let (kind, direct_server) = (DatabaseKind::Schema, String::new());
        let (server, name, schema) = ("db:5432".to_owned(), "all".to_owned(), "tenant_acme".to_owned());
        let expected = Database { kind, dialect: Dialect::Postgres, server, name, schema, direct_server };
        assert_eq!(read(kind, "tenant_acme", "postgres://app:x@Db/all", "").unwrap(), expected);
        let pooled = "postgres://app:x@pool:6432/all";
        let direct = read(kind, "tenant_acme", pooled, "postgres://app:x@[::1]:5433/all").unwrap();
        assert_eq!((direct.server.as_str(), direct.direct_server.as_str()), ("pool:6432", "[::1]:5433"));
        let file = read(DatabaseKind::File, "", "sqlite:///data/acme.db?mode=rwc", "").unwrap();
        assert_eq!((file.dialect, file.server.as_str()), (Dialect::Sqlite, "/data/acme.db"));
    }

    #[test]
    fn what_does_not_fit_is_refused_without_repeating_it() {
        let (database, schema, file) = (DatabaseKind::Database, DatabaseKind::Schema, DatabaseKind::File);
        let postgres = "postgres://app:s3cret@db/acme";
        for (kind, name, url, direct, field) in [
            (database, "", "", "", "url"),
            (database, "", "postgres://app:s3cret@db/acme?sslmod=require", "", "url"),
            (database, "public", postgres, "", "schema"),
            (database, "", "sqlite:///s3cret.db", "", "kind"),
            (schema, "", postgres, "", "schema"),
            (schema, "pg_catalog", postgres, "", "schema"),
            (schema, "a;b", postgres, "", "schema"),
            (schema, "acme", "mysql://app:s3cret@db/acme", "", "kind"),
            (file, "", postgres, "", "kind"),
            (file, "main", "sqlite:///s3cret.db", "", "schema"),
            (database, "", postgres, "mysql://app:s3cret@db/acme", "direct_url"),
            (database, "", postgres, "postgres://app:s3cret@169.254.169.254/acme", "direct_url"),
            (file, "", "sqlite:///s3cret.db", "sqlite:///s3cret.db", "direct_url"),
        ] {
            let refused = read(kind, name, url, direct).unwrap_err();
            assert_eq!(refused.field, field, "{refused}");
            assert!(!refused.to_string().contains("cret"), "{url}: {refused}");
        }
    }
}
