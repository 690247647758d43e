//! `/api/databases`, and a tenant's database of a service.

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post, put};
use grey_proto::control::{
    DatabaseKind, DeleteDatabaseRequest, DeleteDatabaseResponse, ListDatabasesRequest, ListDatabasesResponse,
    PutDatabaseRequest, PutDatabaseResponse, RotateKeysRequest, RotateKeysResponse, TenantDatabase,
};
use grey_proto::convert::InvalidMessage;
use grey_runtime::Secret;
use serde::Deserialize;

use super::output::tag_of;
use super::{Answer, Input, Reply};
use crate::access::Operation;
use crate::api::Api;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/api/databases", get(list))
        .route("/api/databases/rotate-keys", post(rotate))
        .route("/api/tenants/{id}/services/{service}/database", put(write).delete(remove))
}

/// The database that a tenant has for a service.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    schema: String,
    url: Secret,
    #[serde(default, rename = "directUrl")]
    direct_url: Option<Secret>,
}

async fn list(State(api): State<Api>, input: Input) -> Answer<ListDatabasesResponse> {
    let caller = input.admit(Operation::ListDatabases)?;
    input.allow(&["tenant", "service", "pageSize", "pageToken"])?;
    let request = ListDatabasesRequest {
        tenant: input.text("tenant"),
        service: input.text("service"),
        page_size: input.value("pageSize")?,
        page_token: input.text("pageToken"),
    };
    Ok(Reply::new(api.list_databases(&caller, request).await?))
}

async fn write(State(api): State<Api>, input: Input) -> Answer<PutDatabaseResponse> {
    let caller = input.admit(Operation::PutDatabase)?;
    let write = input.write()?;
    let Wanted { kind, schema, url, direct_url } =
        input.secret_json("texts: `url`, and if need be `kind`, `schema` and `directUrl`")?;
    let (tenant, service, kind) = (input.path("id"), input.path("service"), read_kind(&kind)?.into());
    let database = TenantDatabase { tenant, service, kind, schema, ..TenantDatabase::default() };
    let direct_url = direct_url.map(|url| url.expose().to_owned()).unwrap_or_default();
    let url = url.expose().to_owned();
    let request = PutDatabaseRequest {
        database: Some(database),
        url,
        write,
        direct_url,
        ..PutDatabaseRequest::default()
    };
    let response = api.put_database(&caller, request).await?;
    let tag = tag_of(response.result.as_ref(), response.database.as_ref().map(|database| database.revision));
    Ok(Reply::tagged(response, tag))
}

/// Both the contract's name of a kind and its last word are understood.
fn read_kind(text: &str) -> Result<DatabaseKind, InvalidMessage> {
    let word = text.to_ascii_uppercase();
    let named = DatabaseKind::from_str_name(&word);
    let named = named.or_else(|| DatabaseKind::from_str_name(&format!("DATABASE_KIND_{word}")));
    match named {
        _ if text.is_empty() => Ok(DatabaseKind::Unspecified),
        Some(kind) => Ok(kind),
        None => Err(InvalidMessage::new("kind", "must be database, schema or file")),
    }
}

async fn remove(State(api): State<Api>, input: Input) -> Answer<DeleteDatabaseResponse> {
    let caller = input.admit(Operation::DeleteDatabase)?;
    let (tenant, service) = (input.path("id"), input.path("service"));
    let request = DeleteDatabaseRequest { tenant, service, write: input.write()? };
    Ok(Reply::new(api.delete_database(&caller, request).await?))
}

async fn rotate(State(api): State<Api>, input: Input) -> Answer<RotateKeysResponse> {
    let caller = input.admit(Operation::RotateKeys)?;
    input.allow(&[])?;
    let request: RotateKeysRequest = input.json()?;
    Ok(Reply::new(api.rotate_keys(&caller, request).await?))
}
