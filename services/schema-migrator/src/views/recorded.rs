//! Which schemas of views there are, and which of them is the current one.

use super::build::column;
use super::{ATTEMPTED, path};
use crate::files::{Checksum, Dialect};
use crate::tenant::{Connection, Error, is_missing_object, now_ms};
use grey_core::schema::SchemaVersion;
use sea_orm::{ConnectionTrait, QueryResult};

/// Longest name in PostgreSQL, in bytes.
const LONGEST_NAME: usize = 63;

/// A schema of views that the migrator made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recorded {
    /// The version whose shape its views have.
    pub version: SchemaVersion,
    /// Its name.
    pub schema: String,
    /// Whether new sessions should use it.
    pub current: bool,
    /// Roles whose new sessions use it by their search path; `PUBLIC`: every role.
    pub roles: Vec<String>,
}

/// The name of a version's schema of views: `<schema>_<service>_v1_2`, with `grey` for tenants that have a database of
/// their own. A name that is too long ends in a piece of its hash.
#[must_use]
pub fn schema_name(connection: &Connection, version: &SchemaVersion) -> String {
    let base = connection.target().schema.as_deref().unwrap_or("grey");
    named(base, service(connection), version)
}

fn named(base: &str, service: &str, version: &SchemaVersion) -> String {
    let version: String =
        version.to_string().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let mut name = format!("{base}_{service}_v{version}");
    if name.len() > LONGEST_NAME {
        let hash: String = Checksum::of(&name).as_str().chars().take(8).collect();
        let mut end = LONGEST_NAME - 9;
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        name.truncate(end);
        name.push('_');
        name.push_str(&hash);
    }
    name
}

/// The service, as it is in the names of tables.
fn service(connection: &Connection) -> &str {
    let history = &connection.names().history;
    history.strip_prefix("grey_schema_history_").unwrap_or(history)
}

/// The table beside the history, with its schema.
fn table(connection: &Connection) -> String {
    let sql = connection.sql();
    format!(
        "{}.{}",
        sql.quoted(connection.place()),
        sql.quoted(&format!("grey_schema_views_{}", service(connection)))
    )
}

/// All of them, oldest version first.
///
/// # Errors
/// When the database does not answer, or holds what was not written by a migrator.
pub async fn list(connection: &Connection) -> Result<Vec<Recorded>, Error> {
    if connection.dialect() != Dialect::Postgres {
        return Ok(Vec::new());
    }
    let mut known = match read(connection, connection.db()).await {
        Err(error) if is_missing_object(&error) => return Ok(Vec::new()),
        result => result?,
    };
    for (schema, role) in path::roles(connection, connection.db()).await? {
        if let Some(it) = known.iter_mut().find(|it| it.schema == schema) {
            it.roles.push(role);
        }
    }
    Ok(known)
}

/// Says that new sessions should use the views of `version`, and has those of `roles` do so by their search path.
///
/// The connection must hold the lock on the history.
///
/// # Errors
/// When there is no such schema of views, no such role, or the migrator may not change the role; nothing is changed then.
pub async fn switch(connection: &Connection, version: &SchemaVersion, roles: &[String]) -> Result<(), Error> {
    connection.verify_lock().await?;
    let known = list(connection).await?;
    let Some(found) = known.into_iter().find(|it| it.version == *version) else {
        return Err(Error::Conflict(format!("there are no views of version {version}")));
    };
    let transaction = connection.begin().await?;
    let both = async {
        make_current(connection, &transaction, version, &found.schema).await?;
        path::lead(connection, &transaction, roles, &found.schema).await
    };
    match Box::pin(both).await {
        Ok(()) => connection.commit(transaction).await,
        Err(error) => {
            connection.roll_back(transaction).await;
            Err(error)
        }
    }
}

/// Drops the schemas of views of `versions`, all or none. The connection must hold the lock on the history.
///
/// A version that has none is left out.
///
/// # Errors
/// When one of them is current, among `in_use`, the versions that some declared version of the service works on, or in a
/// role's search path, and when something else depends on one of the views or is in one of the schemas.
pub async fn drop_unused(
    connection: &Connection,
    versions: &[SchemaVersion],
    in_use: &[SchemaVersion],
) -> Result<Vec<Recorded>, Error> {
    connection.verify_lock().await?;
    let known = list(connection).await?;
    let chosen: Vec<_> = known.into_iter().filter(|it| versions.contains(&it.version)).collect();
    for it in &chosen {
        let why = match it {
            it if it.current => "they are the current ones",
            it if in_use.contains(&it.version) => "a declared version of the service works on them",
            it if !it.roles.is_empty() => "a role's search path leads to them",
            _ => continue,
        };
        return Err(Error::Conflict(format!("the views of version {} stay: {why}", it.version)));
    }
    if chosen.is_empty() {
        return Ok(chosen);
    }
    let transaction = connection.begin().await?;
    let all = async {
        for it in &chosen {
            remove(connection, &transaction, &it.version).await?;
        }
        Ok(())
    };
    match Box::pin(all).await {
        Ok(()) => connection.commit(transaction).await.map(|()| chosen),
        Err(error) => {
            connection.roll_back(transaction).await;
            Err(error)
        }
    }
}

/// Makes the table where it is missing.
pub(super) async fn prepare(connection: &Connection, on: &impl ConnectionTrait) -> Result<(), Error> {
    let table = format!(
        "CREATE TABLE IF NOT EXISTS {} (version VARCHAR(128) PRIMARY KEY, schema_name VARCHAR(63) NOT NULL, \
         is_current BOOLEAN NOT NULL, created_at BIGINT NOT NULL)",
        table(connection)
    );
    connection.run(on, ATTEMPTED, connection.sql().plain(table)).await?;
    Ok(())
}

/// All of them, oldest version first, as `on` sees it.
pub(super) async fn read(connection: &Connection, on: &impl ConnectionTrait) -> Result<Vec<Recorded>, Error> {
    let query = format!("SELECT version, schema_name, is_current FROM {}", table(connection));
    let rows = connection.rows(on, "list schemas of views", connection.sql().plain(query)).await?;
    let recorded = |row: &QueryResult| {
        let version = SchemaVersion::new(&column::<String>(row, "version")?);
        let version = version.map_err(|error| Error::Corrupt(error.to_string()))?;
        Ok(Recorded {
            version,
            schema: column(row, "schema_name")?,
            current: column(row, "is_current")?,
            roles: Vec::new(),
        })
    };
    let mut all = rows.iter().map(recorded).collect::<Result<Vec<_>, Error>>()?;
    all.sort_by(|a, b| a.version.cmp(&b.version));
    Ok(all)
}

/// Says that it is there, and the current one.
pub(super) async fn make_current(
    connection: &Connection,
    on: &impl ConnectionTrait,
    version: &SchemaVersion,
    schema: &str,
) -> Result<(), Error> {
    let (sql, table) = (connection.sql(), table(connection));
    connection.run(on, ATTEMPTED, sql.plain(format!("UPDATE {table} SET is_current = false"))).await?;
    let upsert = format!(
        "INSERT INTO {table} (version, schema_name, is_current, created_at) VALUES ($1, $2, true, $3) \
         ON CONFLICT (version) DO UPDATE SET is_current = true, schema_name = excluded.schema_name"
    );
    let values = [version.to_string().into(), schema.into(), now_ms().into()];
    connection.run(on, ATTEMPTED, sql.with(&upsert, values)).await?;
    Ok(())
}

/// Drops a version's schema of views, if there is one; if it was current, the newest of the others is then.
pub(super) async fn remove(
    connection: &Connection,
    on: &impl ConnectionTrait,
    version: &SchemaVersion,
) -> Result<(), Error> {
    let known = read(connection, on).await?;
    let Some(found) = known.iter().find(|it| it.version == *version) else { return Ok(()) };
    drop_schema(connection, on, &found.schema).await?;
    let delete = format!("DELETE FROM {} WHERE version = $1", table(connection));
    connection.run(on, ATTEMPTED, connection.sql().with(&delete, [version.to_string().into()])).await?;
    match known.iter().rev().find(|it| it.version != *version) {
        Some(newest) if found.current => make_current(connection, on, &newest.version, &newest.schema).await,
        _ => Ok(()),
    }
}

/// Drops a schema and its views, and nothing else: what someone put there or built on a view makes it fail.
pub(super) async fn drop_schema(
    connection: &Connection,
    on: &impl ConnectionTrait,
    schema: &str,
) -> Result<(), Error> {
    let sql = connection.sql();
    let query = "SELECT c.relname::text AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE n.nspname = $1 AND c.relkind = 'v' ORDER BY 1";
    let attempted = "drop a schema of views";
    let rows = connection.rows(on, attempted, sql.with(query, [schema.into()])).await?;
    let mut views = Vec::new();
    for row in &rows {
        views.push(format!("{}.{}", sql.quoted(schema), sql.quoted(&column::<String>(row, "name")?)));
    }
    if !views.is_empty() {
        connection.run(on, attempted, sql.plain(format!("DROP VIEW {}", views.join(", ")))).await?;
    }
    connection.run(on, attempted, sql.plain(format!("DROP SCHEMA IF EXISTS {}", sql.quoted(schema)))).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;

    #[test]
    fn names_fit_and_differ() {
        let version = |text: &str| SchemaVersion::new(text).unwrap();
        assert_eq!(named("grey", "orders", &version("1.2")), "grey_orders_v1_2");
        let long = "t".repeat(70);
        let (one, two) = (named(&long, "orders", &version("1.2")), named(&long, "orders", &version("1.3")));
        assert!(one.len() <= LONGEST_NAME && one != two, "{one} {two}");
        assert!(named(&"ä".repeat(40), "orders", &version("1.2")).len() <= LONGEST_NAME);
    }
}
