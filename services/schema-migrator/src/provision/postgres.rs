//! Databases and schemas of PostgreSQL, each owned by a role of its own, which is what tells that they were made here.

use super::maker::{MAKE, Present, REMOVE};
use super::{Site, name};
use crate::tenant::{Connection, Error, column};
use grey_proto::control::DatabaseKind;
use grey_proto::schema::Provision;

pub(super) async fn present(on: &Connection, provision: &Provision) -> Result<Present, Error> {
    let name = on.sql().literal(name(provision));
    let owner = match provision.kind() {
        DatabaseKind::Schema => format!(
            "SELECT pg_catalog.pg_get_userbyid(nspowner)::text AS owner FROM pg_catalog.pg_namespace \
             WHERE nspname = {name}"
        ),
        _ => format!(
            "SELECT pg_catalog.pg_get_userbyid(datdba)::text AS owner FROM pg_catalog.pg_database \
             WHERE datname = {name}"
        ),
    };
    let rows = on.rows(on.db(), MAKE, on.sql().plain(owner)).await?;
    Ok(match rows.first() {
        None => Present::Nothing,
        Some(row) if column::<String>(Some(row), "owner")? == provision.role => Present::Ours,
        Some(_) => Present::Foreign,
    })
}

async fn has_role(on: &Connection, provision: &Provision) -> Result<bool, Error> {
    let role = on.sql().literal(&provision.role);
    let query = format!("SELECT rolname::text AS name FROM pg_catalog.pg_roles WHERE rolname = {role}");
    Ok(!on.rows(on.db(), MAKE, on.sql().plain(query)).await?.is_empty())
}

pub(super) async fn make(
    on: &Connection,
    site: &Site,
    provision: &Provision,
    password: &str,
    missing: bool,
) -> Result<(), Error> {
    let sql = on.sql();
    let (name, role, secret) =
        (sql.quoted(name(provision)), sql.quoted(&provision.role), sql.literal(password));
    if has_role(on, provision).await? {
        on.command(MAKE, &format!("ALTER ROLE {role} LOGIN PASSWORD {secret}")).await?;
    } else {
        // One transaction. Whoever gives a database or a schema to a role must be a member of it.
        let mut text = format!("CREATE ROLE {role} LOGIN PASSWORD {secret}; GRANT {role} TO CURRENT_USER");
        for member in &site.members {
            text.push_str(&format!("; GRANT {role} TO {}", sql.quoted(member)));
        }
        on.command(MAKE, &text).await?;
    }
    if !missing {
        return Ok(());
    }
    let made = match provision.kind() {
        DatabaseKind::Schema => format!("CREATE SCHEMA {name} AUTHORIZATION {role}"),
        _ => format!("CREATE DATABASE {name} OWNER {role}"),
    };
    on.command(MAKE, &made).await
}

pub(super) async fn remove(on: &Connection, provision: &Provision, ours: bool) -> Result<(), Error> {
    let sql = on.sql();
    let (name, role) = (sql.quoted(name(provision)), sql.quoted(&provision.role));
    if ours && provision.kind() != DatabaseKind::Schema {
        on.command(REMOVE, &format!("DROP DATABASE {name} WITH (FORCE)")).await?;
    }
    if !has_role(on, provision).await? {
        return Ok(());
    }
    // What the role owns was made for the tenant; CASCADE also takes what others have built on it, such as views.
    on.command(REMOVE, &format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}")).await
}
