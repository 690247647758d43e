//! Whose search path leads to which schema of views.

use super::build::column;
use crate::tenant::{Connection, Error};
use sea_orm::ConnectionTrait;

/// Every role whose new sessions in this database find a schema by their search path, by that schema.
pub(super) async fn roles(
    connection: &Connection,
    on: &impl ConnectionTrait,
) -> Result<Vec<(String, String)>, Error> {
    let query = "SELECT DISTINCT btrim(place, ' \"') AS place, \
                 CASE WHEN s.setrole = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(s.setrole)::text END AS role \
                 FROM pg_db_role_setting s, unnest(s.setconfig) setting, \
                 unnest(string_to_array(substr(setting, length('search_path=') + 1), ',')) place \
                 WHERE starts_with(setting, 'search_path=') AND s.setdatabase IN \
                 (0, (SELECT oid FROM pg_database WHERE datname = current_database())) ORDER BY 1, 2";
    let rows = connection.rows(on, "read search paths", connection.sql().plain(query)).await?;
    rows.iter().map(|row| Ok((column(row, "place")?, column(row, "role")?))).collect()
}

/// Has new sessions of `roles` in this database look into `schema` first, then where the tables are.
///
/// # Errors
/// When one of them is the migrator's own role, which must find the tables, or looks for its tables elsewhere, as the role of
/// another tenant does; when there is no such role, or the migrator may not set its search path.
pub(super) async fn lead(
    connection: &Connection,
    on: &impl ConnectionTrait,
    roles: &[String],
    schema: &str,
) -> Result<(), Error> {
    let sql = connection.sql();
    let attempted = "set a role's search path";
    let query = "SELECT current_database()::text AS database, session_user::text AS own";
    let rows = connection.rows(on, attempted, sql.plain(query)).await?;
    let row = rows.first().ok_or_else(|| Error::Corrupt("a query for a name gave no row".to_owned()))?;
    let (database, own) = (column::<String>(row, "database")?, column::<String>(row, "own")?);
    let paths = self::roles(connection, on).await?;
    for role in roles {
        if leads_elsewhere(&paths, role, connection.place()) {
            let text = format!("set the search path of {role}: it does not lead to {}", connection.place());
            return Err(Error::Conflict(text));
        }
        if *role == own {
            let text = format!("set the search path of {role}: migrations run as that role, on the tables");
            return Err(Error::Conflict(text));
        }
        let set = format!(
            "ALTER ROLE {} IN DATABASE {} SET search_path = {}, {}",
            sql.quoted(role),
            sql.quoted(&database),
            sql.quoted(schema),
            sql.quoted(connection.place())
        );
        connection.run(on, attempted, sql.plain(set)).await?;
    }
    Ok(())
}

/// Whether a role has a search path of its own that a schema is not part of.
fn leads_elsewhere(paths: &[(String, String)], role: &str, schema: &str) -> bool {
    let mut path = paths.iter().filter(|(_, of)| of == role).map(|(place, _)| place).peekable();
    path.peek().is_some() && path.all(|place| place != schema)
}
