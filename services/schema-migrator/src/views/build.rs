//! Making the views of one schema.

use super::ATTEMPTED;
use crate::files::{Dialect, SqlName, Views};
use crate::tenant::{Connection, Error, Stop};
use sea_orm::{ConnectionTrait, QueryResult};

/// Makes the schema and its views, and lets those in who are let into the tables.
pub(super) async fn build(
    connection: &Connection,
    on: &impl ConnectionTrait,
    step: &Views,
    schema: &str,
    stop: &Stop,
) -> Result<(), Error> {
    let sql = connection.sql();
    if sql.0 != Dialect::Postgres {
        return Err(Error::Conflict("schemas of views are for PostgreSQL".to_owned()));
    }
    let rows = connection
        .rows(
            on,
            ATTEMPTED,
            sql.with(
                "SELECT current_setting('server_version_num')::int >= 150000 AS invoker, \
                 current_setting('search_path') AS path, to_regnamespace($1) IS NOT NULL AS taken",
                [sql.quoted(schema).into()],
            ),
        )
        .await?;
    let row = rows.first().ok_or_else(|| Error::Corrupt("a query for settings gave no row".to_owned()))?;
    let (invoker, path) = (column::<bool>(row, "invoker")?, column::<String>(row, "path")?);
    if column::<bool>(row, "taken")? {
        let text = format!("there is a schema {schema} already, which is not one of the migrator's");
        return Err(Error::Conflict(text));
    }
    connection.run(on, ATTEMPTED, sql.plain(format!("CREATE SCHEMA {}", sql.quoted(schema)))).await?;
    for grantee in grantees(connection, on, connection.place()).await? {
        let grant = format!("GRANT USAGE ON SCHEMA {} TO {grantee}", sql.quoted(schema));
        connection.run(on, ATTEMPTED, sql.plain(grant)).await?;
    }
    for table in &step.of {
        let view = View { connection, on, schema, table, line: step.line, invoker };
        Box::pin(view.make(step, stop)).await?;
    }
    let alterations = step.shapes.iter().filter(|shape| !shape.is_query);
    for shape in alterations {
        let inside = format!("SET LOCAL search_path = {}, {path}", sql.quoted(schema));
        connection.run(on, ATTEMPTED, sql.plain(inside)).await?;
        connection.execute(on, &shape.statement.sql, shape.statement.line, stop).await?;
    }
    let back = sql.with("SELECT set_config('search_path', $1, true)", [path.into()]);
    connection.rows(on, ATTEMPTED, back).await?;
    Ok(())
}

/// One view that is being made.
struct View<'a, C> {
    connection: &'a Connection,
    on: &'a C,
    schema: &'a str,
    table: &'a SqlName,
    /// The line of the directive.
    line: u32,
    /// Whether views can work with the rights of who uses them.
    invoker: bool,
}

impl<C: ConnectionTrait> View<'_, C> {
    async fn make(&self, step: &Views, stop: &Stop) -> Result<(), Error> {
        let Self { connection, on, schema, table, .. } = *self;
        let sql = connection.sql();
        // Statements mean lower case by names without quotes, so directives do as well.
        let lower = table.as_str().to_lowercase();
        let (place, name) = lower.split_once('.').unwrap_or((connection.place(), &lower));
        let source = format!("{}.{}", sql.quoted(place), sql.quoted(name));
        let view = format!("{}.{}", sql.quoted(schema), sql.quoted(name));
        self.suits(&source).await?;
        let shape = step.shapes.iter().find(|shape| shape.is_query && shape.of == *table);
        let (query, line) = match shape {
            Some(shape) => (shape.statement.sql.clone(), shape.statement.line),
            None => (format!("SELECT * FROM {source}"), self.line),
        };
        let rights = if self.invoker { " WITH (security_invoker = true)" } else { "" };
        connection.execute(on, &format!("CREATE VIEW {view}{rights} AS\n{query}"), line, stop).await?;
        let query = "SELECT pg_relation_is_updatable(to_regclass($1), false) & 28 = 28 AS writable";
        let rows = connection.rows(on, ATTEMPTED, sql.with(query, [view.as_str().into()])).await?;
        if !rows.first().map(|row| column::<bool>(row, "writable")).transpose()?.unwrap_or(false) {
            let text = format!("view of {table} on line {line}: rows cannot be written through it");
            return Err(Error::Conflict(text));
        }
        for (grantee, privilege) in self.granted(&source).await? {
            let grant = format!("GRANT {privilege} ON {view} TO {grantee}");
            connection.run(on, ATTEMPTED, sql.plain(grant)).await?;
        }
        Ok(())
    }

    /// Whether there may be a view of the table.
    async fn suits(&self, source: &str) -> Result<(), Error> {
        let query = "SELECT c.relkind IN ('r', 'p') AS is_table, c.relrowsecurity AS policies \
                     FROM pg_class c WHERE c.oid = to_regclass($1)";
        let statement = self.connection.sql().with(query, [source.into()]);
        let rows = self.connection.rows(self.on, ATTEMPTED, statement).await?;
        let refuse =
            |why: &str| Err(Error::Conflict(format!("view of {} on line {}: {why}", self.table, self.line)));
        let Some(row) = rows.first() else { return refuse("there is no such table") };
        if !column::<bool>(row, "is_table")? {
            return refuse("it is not a table");
        }
        if !self.invoker && column::<bool>(row, "policies")? {
            return refuse("it has policies for rows, which a view would go round before PostgreSQL 15");
        }
        Ok(())
    }

    /// Who may do what with the table as a whole, quoted for a GRANT.
    async fn granted(&self, source: &str) -> Result<Vec<(String, String)>, Error> {
        let query = "SELECT DISTINCT a.privilege_type AS privilege, \
                     CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee \
                     FROM pg_class c, aclexplode(COALESCE(c.relacl, acldefault('r', c.relowner))) a \
                     WHERE c.oid = to_regclass($1) \
                     AND a.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE') ORDER BY 1, 2";
        let statement = self.connection.sql().with(query, [source.into()]);
        let rows = self.connection.rows(self.on, ATTEMPTED, statement).await?;
        rows.iter().map(|row| Ok((column(row, "grantee")?, column(row, "privilege")?))).collect()
    }
}

/// Who may use the schema `place`, quoted for a GRANT.
async fn grantees(
    connection: &Connection,
    on: &impl ConnectionTrait,
    place: &str,
) -> Result<Vec<String>, Error> {
    let query = "SELECT DISTINCT \
                 CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee \
                 FROM pg_namespace n, aclexplode(COALESCE(n.nspacl, acldefault('n', n.nspowner))) a \
                 WHERE n.nspname = $1 AND a.privilege_type = 'USAGE' ORDER BY 1";
    let rows = connection.rows(on, ATTEMPTED, connection.sql().with(query, [place.into()])).await?;
    rows.iter().map(|row| column(row, "grantee")).collect()
}

pub(super) fn column<T: sea_orm::TryGetable>(row: &QueryResult, name: &str) -> Result<T, Error> {
    row.try_get("", name)
        .map_err(|error| Error::Corrupt(format!("column {name} of a query about views: {error}")))
}
