//! `grey database`: where the databases of tenants are.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use grey_proto::control::{
    DatabaseKind, DeleteDatabaseRequest, ListDatabasesRequest, ListDatabasesResponse, PutDatabaseRequest,
    PutDatabaseResponse, RotateKeysRequest, RotateKeysResponse, TenantDatabase,
};
use grey_runtime::Secret;

use super::output::{plain, table, word};
use super::session::{Session, pages};
use super::write::{self, Write};
use super::{Failure, input, secret};

/// What to do with the databases of tenants.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Register a tenant's database for a service, or replace it
    ///
    /// Its URL is sealed when it arrives and never told again.
    Put(Box<Put>),
    /// List registered databases, without credentials
    List(List),
    /// Forget a tenant's database for a service; the database itself is left alone
    Delete(Delete),
    /// Seal every tenant's data key under the active master key
    RotateKeys,
}

/// How a tenant's data is kept apart.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// A database of its own
    Database,
    /// A PostgreSQL schema of its own
    Schema,
    /// A SQLite file of its own
    File,
}

/// A tenant's database.
#[derive(Debug, Args)]
pub struct Put {
    /// The tenant
    tenant: String,
    /// The service
    service: String,
    /// How the tenant's data is kept apart; usually told by the rest
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// The tenant's schema in a PostgreSQL database
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    schema: String,
    /// How to connect, with credentials; better given in the environment or a file than on the command line
    #[arg(
        long,
        env = "GREY_DATABASE_URL",
        hide_env_values = true,
        value_parser = secret,
        required_unless_present = "url_file"
    )]
    url: Option<Secret>,
    /// A file with the URL; - for standard input
    #[arg(long, value_name = "FILE")]
    url_file: Option<PathBuf>,
    /// How migrations connect, past a pooler that the URL leads to
    #[arg(long, value_name = "URL", env = "GREY_DATABASE_DIRECT_URL", hide_env_values = true, value_parser = secret)]
    direct_url: Option<Secret>,
    /// A file with that
    #[arg(long, value_name = "FILE")]
    direct_url_file: Option<PathBuf>,
    #[command(flatten)]
    write: Write,
}

/// Whose database.
#[derive(Debug, Args)]
pub struct Delete {
    /// The tenant
    tenant: String,
    /// The service
    service: String,
    #[command(flatten)]
    write: Write,
}

/// Which databases.
#[derive(Debug, Args)]
pub struct List {
    /// Only of this tenant
    #[arg(long, default_value = "", hide_default_value = true)]
    tenant: String,
    /// Only of this service
    #[arg(long, default_value = "", hide_default_value = true)]
    service: String,
    /// At most this many
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Put(args) => put(session, *args).await,
            Self::List(args) => list(session, args).await,
            Self::Delete(args) => delete(session, args).await,
            Self::RotateKeys => {
                let mut client = session.databases().await?;
                let request = session.request(RotateKeysRequest {});
                let response = session.call("rotate keys", client.rotate_keys(request)).await?;
                session.show(&response, || rotated_text(&response))
            }
        }
    }
}

async fn put(session: &Session, args: Put) -> Result<(), Failure> {
    let Put { tenant, service, kind, schema, url, url_file, direct_url, direct_url_file, write } = args;
    // A file that is named outdoes a variable that is set for everything.
    let url = match url_file {
        Some(path) => Secret::new(input::read(&path)?.trim()),
        None => url.ok_or_else(|| Failure::Input("a URL is required".to_owned()))?,
    };
    let direct_url = match direct_url_file {
        Some(path) => Some(Secret::new(input::read(&path)?.trim())),
        None => direct_url,
    };
    let attempted = format!("register `{tenant}`'s database for {service}");
    let kind = kind_of(kind, &schema, url.expose()).into();
    let database = TenantDatabase { tenant, service, kind, schema, ..TenantDatabase::default() };
    let url = url.expose().to_owned();
    let direct_url = direct_url.map(|url| url.expose().to_owned()).unwrap_or_default();
    let request = PutDatabaseRequest {
        database: Some(database),
        url,
        write: write.options(),
        direct_url,
        ..PutDatabaseRequest::default()
    };
    let mut client = session.databases().await?;
    let patience = write.patience();
    let request = session.request_waiting(request, patience);
    let response = session.call_waiting(&attempted, patience, client.put_database(request)).await?;
    write::show(session, &response, response.result.as_ref(), &done(&response))
}

async fn delete(session: &Session, args: Delete) -> Result<(), Failure> {
    let Delete { tenant, service, write } = args;
    let attempted = format!("forget `{tenant}`'s database for {service}");
    let done = format!("forgot {}'s database for {}", plain(&tenant), plain(&service));
    let mut client = session.databases().await?;
    let patience = write.patience();
    let request = DeleteDatabaseRequest { tenant, service, write: write.options() };
    let request = session.request_waiting(request, patience);
    let response = session.call_waiting(&attempted, patience, client.delete_database(request)).await?;
    write::show(session, &response, response.result.as_ref(), &done)
}

/// What was said, else what the rest tells.
fn kind_of(kind: Option<Kind>, schema: &str, url: &str) -> DatabaseKind {
    match kind {
        Some(Kind::Database) => DatabaseKind::Database,
        Some(Kind::Schema) => DatabaseKind::Schema,
        Some(Kind::File) => DatabaseKind::File,
        None if !schema.is_empty() => DatabaseKind::Schema,
        None if url.starts_with("sqlite:") => DatabaseKind::File,
        None => DatabaseKind::Database,
    }
}

async fn list(session: &Session, args: List) -> Result<(), Failure> {
    let List { tenant, service, limit } = args;
    let mut client = session.databases().await?;
    let page = async |page_size, page_token| {
        let (tenant, service) = (tenant.clone(), service.clone());
        let request = session.request(ListDatabasesRequest { tenant, service, page_size, page_token });
        let response = session.call("list databases", client.list_databases(request)).await?;
        Ok((response.databases, response.next_page_token))
    };
    let (databases, next_page_token) = pages(limit as usize, page).await?;
    let response = ListDatabasesResponse { databases, next_page_token };
    session.show(&response, || list_text(&response))
}

fn kind_word(database: &TenantDatabase) -> String {
    word(database.kind().as_str_name(), "DATABASE_KIND_")
}

fn list_text(response: &ListDatabasesResponse) -> String {
    let rows = response.databases.iter().map(|database| {
        let TenantDatabase { tenant, service, dialect, server, database: name, schema, .. } =
            database.clone();
        [tenant, service, kind_word(database), dialect, server, name, schema]
    });
    let mut text = table(["TENANT", "SERVICE", "KIND", "DIALECT", "SERVER", "DATABASE", "SCHEMA"], rows);
    if !response.next_page_token.is_empty() {
        text.push_str("there are more; raise --limit\n");
    }
    text
}

/// What was registered, as in "registered acme's database for orders: postgres db:5432 orders, schema acme".
fn done(response: &PutDatabaseResponse) -> String {
    let database = response.database.clone().unwrap_or_default();
    let TenantDatabase { tenant, service, .. } = &database;
    plain(&format!("registered {tenant}'s database for {service}: {}", place(&database)))
}

/// Where a database is, in words.
pub(super) fn place(database: &TenantDatabase) -> String {
    let TenantDatabase { dialect, server, database: name, schema, direct_server, .. } = database;
    let name = if name.is_empty() { String::new() } else { format!(" {name}") };
    let schema = if schema.is_empty() { String::new() } else { format!(", schema {schema}") };
    let direct = match direct_server.as_str() {
        "" => String::new(),
        direct => format!(", migrated at {direct}"),
    };
    format!("{dialect} {server}{name}{schema}{direct}")
}

fn rotated_text(response: &RotateKeysResponse) -> String {
    format!("sealed {} data keys anew under master key {}\n", response.rotated, plain(&response.active_key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acme() -> TenantDatabase {
        TenantDatabase {
            tenant: "acme".to_owned(),
            service: "orders".to_owned(),
            kind: DatabaseKind::Schema.into(),
            schema: "tenant_acme".to_owned(),
            dialect: "postgres".to_owned(),
            server: "db:5432".to_owned(),
            database: "orders".to_owned(),
            ..TenantDatabase::default()
        }
    }

    #[test]
    fn databases_are_listed_in_columns() {
        let file = TenantDatabase {
            tenant: "beta".to_owned(),
            kind: DatabaseKind::File.into(),
            dialect: "sqlite".to_owned(),
            server: "/data/beta.db".to_owned(),
            database: String::new(),
            schema: String::new(),
            ..acme()
        };
        let response = ListDatabasesResponse {
            databases: vec![acme(), file],
            next_page_token: "beta/orders".to_owned(),
        };
        insta::assert_snapshot!(list_text(&response), @"
        TENANT  SERVICE  KIND    DIALECT   SERVER         DATABASE  SCHEMA
        acme    orders   schema  postgres  db:5432        orders    tenant_acme
        beta    orders   file    sqlite    /data/beta.db  -         -
        there are more; raise --limit
        ");
    }

    #[test]
    fn what_was_registered_is_shown_without_credentials() {
        let response = PutDatabaseResponse { database: Some(acme()), result: None };
        assert_eq!(
            done(&response),
            "registered acme's database for orders: postgres db:5432 orders, schema tenant_acme"
        );
        let file = TenantDatabase {
            dialect: "sqlite".to_owned(),
            server: "/data/acme.db".to_owned(),
            database: String::new(),
            schema: String::new(),
            ..acme()
        };
        assert_eq!(place(&file), "sqlite /data/acme.db");
        let pooled = TenantDatabase { direct_server: "db:5433".to_owned(), ..acme() };
        assert_eq!(place(&pooled), "postgres db:5432 orders, schema tenant_acme, migrated at db:5433");
    }

    #[test]
    fn the_kind_is_told_by_the_rest_unless_it_is_said() {
        assert_eq!(kind_of(None, "", "postgres://app@db/acme"), DatabaseKind::Database);
        assert_eq!(kind_of(None, "acme", "postgres://app@db/all"), DatabaseKind::Schema);
        assert_eq!(kind_of(None, "", "sqlite:///data/acme.db"), DatabaseKind::File);
        assert_eq!(kind_of(Some(Kind::Database), "acme", "sqlite:///x"), DatabaseKind::Database);
    }
}
