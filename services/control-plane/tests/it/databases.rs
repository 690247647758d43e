//! Registered databases: what is told of them, and that their credentials never are.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use grey_core::error::Reason;
use grey_database_url::direct_context;
use grey_proto::control::change::Change as Kind;
use grey_proto::control::{
    self as control, DatabaseKind, DatabaseRemoved, DeleteDatabaseRequest, DeleteServiceRequest,
    DeleteTenantRequest, ListDatabasesRequest, ListDatabasesResponse, ListSealedDatabasesRequest,
    PutDatabaseRequest, PutTenantRequest, RotateKeysRequest, RotateKeysResponse, SealedDatabase, Tenant,
    TenantDatabase, TenantStatus, WriteOptions,
};
use grey_state::State;
use grey_testkit::eventually;
use grey_vault::{SealedKey, Vault};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tonic::Status;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::fixture::{
    Backend, Plane, SOON, Store, config, expecting, fact, on_both, reason, revision, tenant, vault,
};

pub(crate) const PASSWORD: &str = "hunter2-Zw9";
pub(crate) const URL: &str = "postgres://app:hunter2-Zw9@Db:6000/acme?sslmode=disable";

on_both! {
    a_database_is_registered_replaced_and_forgotten
    a_database_needs_its_tenant_and_service
    the_log_tells_who_registered_what_and_why
    a_database_its_schema_and_an_active_tenant_are_one_event
    a_database_is_written_over_what_was_seen_only
    only_the_master_keys_open_what_is_listed_sealed
    a_direct_url_is_sealed_for_migrations_alone
    urls_that_do_not_say_what_they_seem_to_are_refused
    databases_are_listed_by_page
    a_removed_tenant_takes_its_key_along
    a_service_with_databases_stays
    registering_and_rotating_at_once_loses_nothing
}

pub(crate) fn database(tenant: &str, service: &str) -> TenantDatabase {
    TenantDatabase { tenant: tenant.into(), service: service.into(), ..TenantDatabase::default() }
}

async fn put(plane: &Plane, database: TenantDatabase, url: &str) -> Result<TenantDatabase, Status> {
    let request =
        PutDatabaseRequest { database: Some(database), url: url.to_owned(), ..PutDatabaseRequest::default() };
    Ok(plane.databases().put_database(request).await?.into_inner().database.unwrap())
}

async fn list(plane: &Plane, tenant: &str, service: &str) -> Vec<TenantDatabase> {
    let (tenant, service) = (tenant.to_owned(), service.to_owned());
    let request = ListDatabasesRequest { tenant, service, ..ListDatabasesRequest::default() };
    plane.databases().list_databases(request).await.unwrap().into_inner().databases
}

async fn sealed(plane: &Plane) -> Vec<SealedDatabase> {
    let request = ListSealedDatabasesRequest::default();
    plane.databases().list_sealed_databases(request).await.unwrap().into_inner().databases
}

async fn rotate(plane: &Plane) -> Result<RotateKeysResponse, Status> {
    Ok(plane.databases().rotate_keys(RotateKeysRequest {}).await?.into_inner())
}

/// What is sealed, opened with the master keys of these names.
fn open(names: &[&str], sealed: &SealedDatabase) -> Result<String, grey_vault::Error> {
    let vault = Vault::new(&vault(names)).unwrap();
    let database = sealed.database.as_ref().unwrap();
    let key = SealedKey::new(sealed.sealed_key.as_str());
    let url = vault.open(&database.tenant, &key, &database.service, &sealed.sealed_url)?;
    Ok(url.expose().to_owned())
}

async fn a_database_is_registered_replaced_and_forgotten(plane: Plane) {
    plane.acme().await;
    let before = plane.revision().await;
    let first = put(&plane, database("acme", "payment"), URL).await.unwrap();
    assert_eq!(first.kind(), DatabaseKind::Database);
    assert_eq!((first.dialect.as_str(), first.server.as_str()), ("postgres", "db:6000"));
    assert_eq!((first.database.as_str(), first.actor.as_str()), ("acme", "anonymous"));
    assert!(first.updated_at.is_some_and(|at| at.seconds > 1_700_000_000), "{first:?}");
    assert_eq!(list(&plane, "acme", "payment").await, [first]);

    let schema = TenantDatabase { schema: "acme".into(), ..database("acme", "payment") };
    let schema = TenantDatabase { kind: DatabaseKind::Schema.into(), ..schema };
    let second = put(&plane, schema, "postgres://app:other@db/all").await.unwrap();
    assert_eq!((second.schema.as_str(), second.server.as_str()), ("acme", "db:5432"));
    assert_eq!(list(&plane, "", "").await, [second]);

    let path = "/api/tenants/acme/services/payment/database";
    let body = json!({"kind": "file", "url": "sqlite:///data/acme.db"});
    let (code, answer) = plane.call(Method::PUT, path, body).await;
    assert_eq!((code, answer["database"]["server"].as_str()), (StatusCode::OK, Some("/data/acme.db")));
    let (_, listed) = plane.call(Method::GET, "/api/databases?tenant=acme", json!({})).await;
    assert_eq!(listed["databases"][0]["kind"], "DATABASE_KIND_FILE", "{listed}");

    assert_eq!(plane.call(Method::DELETE, path, json!({})).await.0, StatusCode::OK);
    let (code, answer) = plane.call(Method::DELETE, path, json!({})).await;
    assert_eq!((code, answer["error"]["reason"].as_str()), (StatusCode::NOT_FOUND, Some("UNKNOWN_DATABASE")));
    assert!(list(&plane, "", "").await.is_empty());
    assert_eq!(plane.revision().await, before + 4, "each is an event");
}

/// What the newest event tells of a database.
async fn newest(plane: &Plane) -> (control::Event, Option<Kind>) {
    let mut event = plane.events().await.pop().unwrap();
    let change = event.changes.pop().unwrap().change;
    assert!(event.changes.is_empty(), "{event:?}");
    (event, change)
}

async fn the_log_tells_who_registered_what_and_why(plane: Plane) {
    plane.acme().await;
    let write = |reason: &str| Some(WriteOptions { reason: reason.into(), ..WriteOptions::default() });
    let request = PutDatabaseRequest {
        database: Some(database("acme", "payment")),
        url: URL.into(),
        write: write("moved"),
        ..PutDatabaseRequest::default()
    };
    let answer = plane.databases().put_database(request).await.unwrap().into_inner();
    let (registered, at) = (answer.database.unwrap(), revision(answer.result));
    assert_eq!((registered.revision, registered.actor.as_str()), (at, "anonymous"));
    let (event, told) = newest(&plane).await;
    assert_eq!((event.revision, event.reason.as_str(), event.at), (at, "moved", registered.updated_at));
    assert_eq!(event.principal.unwrap().id, "anonymous");
    let expected = TenantDatabase {
        kind: DatabaseKind::Database.into(),
        dialect: "postgres".into(),
        server: "db:6000".into(),
        database: "acme".into(),
        ..database("acme", "payment")
    };
    assert_eq!(told, Some(Kind::DatabasePut(expected)));

    let (tenant, service) = ("acme".to_owned(), "payment".to_owned());
    let request = DeleteDatabaseRequest { tenant, service, write: write("gone") };
    let answer = plane.databases().delete_database(request.clone()).await.unwrap().into_inner();
    let (event, told) = newest(&plane).await;
    assert_eq!((event.revision, event.reason.as_str()), (revision(answer.result), "gone"));
    let DeleteDatabaseRequest { tenant, service, .. } = request;
    assert_eq!(told, Some(Kind::DatabaseRemoved(DatabaseRemoved { tenant, service })));
    // The tables of routers are as they were, and go on.
    plane.put_pin("acme", "payment", "1.0").await.unwrap();
}

async fn a_database_its_schema_and_an_active_tenant_are_one_event(plane: Plane) {
    plane.acme().await;
    let suspended = Tenant { status: TenantStatus::Suspended.into(), ..tenant("acme") };
    let put = PutTenantRequest { tenant: Some(suspended), ..PutTenantRequest::default() };
    plane.tenants().put_tenant(put).await.unwrap();
    let before = plane.revision().await;
    let request = |observed_schema: &str, dry_run| PutDatabaseRequest {
        database: Some(database("acme", "payment")),
        url: URL.into(),
        write: Some(WriteOptions { dry_run, ..expecting(0).unwrap() }),
        observed_schema: observed_schema.into(),
        activate: true,
        ..PutDatabaseRequest::default()
    };
    let refused = plane.databases().put_database(request("one", false)).await;
    assert_eq!(reason(refused), Reason::InvalidArgument);
    plane.databases().put_database(request("1.2", true)).await.unwrap();
    assert_eq!(plane.revision().await, before);
    let answer = plane.databases().put_database(request("1.2", false)).await.unwrap().into_inner();
    assert_eq!(revision(answer.result), before + 1);
    let event = plane.events().await.pop().unwrap();
    let kinds: Vec<_> = event.changes.into_iter().map(|change| change.change.unwrap()).collect();
    let [Kind::TenantPut(active), Kind::DatabasePut(_), Kind::SchemaObserved(seen)] = kinds.as_slice() else {
        panic!("{kinds:?}")
    };
    assert_eq!((active.status(), seen.schema.as_str()), (TenantStatus::Active, "1.2"));
    // Who is active stays so, and what was seen is no news.
    let again = PutDatabaseRequest { write: None, ..request("1.2", false) };
    plane.databases().put_database(again).await.unwrap();
    assert!(matches!(newest(&plane).await.1, Some(Kind::DatabasePut(_))));
}

async fn a_database_is_written_over_what_was_seen_only(plane: Plane) {
    plane.acme().await;
    let put = async |url: &str, write| {
        let request = PutDatabaseRequest {
            database: Some(database("acme", "payment")),
            url: url.into(),
            write,
            ..PutDatabaseRequest::default()
        };
        Ok::<_, Status>(plane.databases().put_database(request).await?.into_inner())
    };
    let first = put(URL, expecting(0)).await.unwrap().database.unwrap().revision;
    assert_eq!(reason(put(URL, expecting(0)).await), Reason::RevisionMismatch);
    let dry_run = Some(WriteOptions { dry_run: true, ..WriteOptions::default() });
    let told = put("postgres://app:x@elsewhere/acme", dry_run).await.unwrap().database.unwrap();
    assert_eq!((told.server.as_str(), told.revision, told.updated_at), ("elsewhere:5432", 0, None));
    assert_eq!(list(&plane, "acme", "payment").await[0].server, "db:6000");
    assert_eq!(open(&["first"], &sealed(&plane).await[0]).unwrap(), URL);
    let second = put(URL, expecting(first)).await.unwrap().database.unwrap().revision;
    assert_eq!(second, first + 1);
    let path = "/api/tenants/acme/services/payment/database";
    let tag = |revision: u64| format!("\"1-{revision}\"");
    let delete = async |revision| {
        plane.call_if(Method::DELETE, path, json!(null), &[("if-match", &tag(revision))]).await
    };
    assert_eq!(delete(first).await.0, StatusCode::PRECONDITION_FAILED);
    assert_eq!(delete(second).await.0, StatusCode::OK);
}

async fn a_database_needs_its_tenant_and_service(plane: Plane) {
    plane.acme().await;
    assert_eq!(reason(put(&plane, database("nobody", "payment"), URL).await), Reason::UnknownTenant);
    assert_eq!(reason(put(&plane, database("acme", "nothing"), URL).await), Reason::UnknownService);
    let refused = put(&plane, database("acme", "payment"), "postgres://app:hunter2-Zw9@/acme").await;
    assert_eq!(fact(refused.clone(), "field"), "url");
    assert_eq!(reason(refused), Reason::InvalidArgument);
    let named = TenantDatabase { schema: "acme".into(), ..database("acme", "payment") };
    assert_eq!(fact(put(&plane, named, URL).await, "field"), "database.schema");
    let delete = DeleteDatabaseRequest { tenant: "acme".into(), service: "payment".into(), write: None };
    assert_eq!(reason(plane.databases().delete_database(delete).await), Reason::UnknownDatabase);
    assert!(sealed(&plane).await.is_empty());
}

async fn only_the_master_keys_open_what_is_listed_sealed(plane: Plane) {
    plane.acme().await;
    put(&plane, database("acme", "payment"), URL).await.unwrap();
    let listed = sealed(&plane).await;
    let [one] = listed.as_slice() else { panic!("{listed:?}") };
    assert_eq!(open(&["first"], one).unwrap(), URL);
    assert_eq!(open(&["other"], one).unwrap_err(), grey_vault::Error::UnknownKey("first".into()));
    let request = ListSealedDatabasesRequest { tenants: vec!["beta".into()], ..Default::default() };
    let others = plane.databases().list_sealed_databases(request).await.unwrap().into_inner();
    assert!(others.databases.is_empty());
    let request = ListSealedDatabasesRequest {
        tenants: vec!["acme".into(), "beta".into()],
        service: "payment".into(),
        ..Default::default()
    };
    let these = plane.databases().list_sealed_databases(request).await.unwrap().into_inner();
    assert_eq!(these.databases, listed);
}

async fn a_direct_url_is_sealed_for_migrations_alone(plane: Plane) {
    const DIRECT: &str = "postgres://owner:s3cret@[2001:db8::7]:5433/acme";
    plane.acme().await;
    let request = PutDatabaseRequest {
        database: Some(database("acme", "payment")),
        url: URL.into(),
        direct_url: DIRECT.into(),
        ..PutDatabaseRequest::default()
    };
    let told = plane.databases().put_database(request).await.unwrap().into_inner().database.unwrap();
    assert_eq!((told.server.as_str(), told.direct_server.as_str()), ("db:6000", "[2001:db8::7]:5433"));
    assert_eq!(list(&plane, "acme", "payment").await, std::slice::from_ref(&told));
    let (_, event) = newest(&plane).await;
    let Some(Kind::DatabasePut(event)) = event else { panic!("{event:?}") };
    assert_eq!(event.direct_server, told.direct_server);
    let one = sealed(&plane).await.remove(0);
    let opened = |context: &str, sealed_url: &str| {
        let vault = Vault::new(&vault(&["first"])).unwrap();
        let key = SealedKey::new(one.sealed_key.as_str());
        vault.open("acme", &key, context, sealed_url).map(|url| url.expose().to_owned())
    };
    assert_eq!(opened("payment", &one.sealed_url).unwrap(), URL);
    assert_eq!(opened(&direct_context("payment"), &one.sealed_direct_url).unwrap(), DIRECT);
    assert!(opened("payment", &one.sealed_direct_url).is_err(), "neither opens in the other's place");

    let path = "/api/tenants/acme/services/payment/database";
    let body = json!({"url": URL, "directUrl": "postgres://owner:s3cret@past/acme"});
    let (code, answer) = plane.call(Method::PUT, path, body).await;
    assert_eq!((code, answer["database"]["directServer"].as_str()), (StatusCode::OK, Some("past:5432")));
    let (code, answer) = plane.call(Method::PUT, path, json!({"url": URL})).await;
    assert_eq!((code, answer["database"]["directServer"].as_str().unwrap_or_default()), (StatusCode::OK, ""));
    assert_eq!(sealed(&plane).await.remove(0).sealed_direct_url, "");
    let body = json!({"url": URL, "directUrl": "mysql://owner:s3cret@past/acme"});
    let (code, answer) = plane.call(Method::PUT, path, body).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert!(!answer.to_string().contains("s3cret"), "{answer}");
}

async fn urls_that_do_not_say_what_they_seem_to_are_refused(plane: Plane) {
    plane.acme().await;
    let own = plane.store.url.clone();
    let kind = if own.starts_with("sqlite") { DatabaseKind::File } else { DatabaseKind::Database };
    let ours = TenantDatabase { kind: kind.into(), ..database("acme", "payment") };
    let refused = put(&plane, ours, &own).await;
    assert!(refused.clone().unwrap_err().message().contains("own database"), "{refused:?}");
    for query in ["sslmod=verify-full", "SSLMODE=verify-full", "ssl=true", "useSSL=true", "sslmode=bogus"] {
        let refused =
            put(&plane, database("acme", "payment"), &format!("postgres://u:x@db/acme?{query}")).await;
        assert_eq!(fact(refused.clone(), "field"), "url");
        assert_eq!(reason(refused), Reason::InvalidArgument, "{query}");
    }
    for url in [
        "postgres://u:x@169.254.169.254/acme",
        "postgres://u:x@[fe80::1]/acme",
        "postgres://u:x@db/acme?sslmode=require&sslcert=/etc/grey/c.pem&sslkey=/etc/shadow",
    ] {
        assert_eq!(
            reason(put(&plane, database("acme", "payment"), url).await),
            Reason::InvalidArgument,
            "{url}"
        );
    }
    assert!(list(&plane, "", "").await.is_empty());
}

async fn databases_are_listed_by_page(plane: Plane) {
    plane.acme().await;
    plane.put_service("orders", "1.0").await;
    plane.put_tenant("beta").await;
    for (tenant, service) in
        [("beta", "payment"), ("acme", "payment"), ("beta", "orders"), ("acme", "orders")]
    {
        put(&plane, database(tenant, service), URL).await.unwrap();
    }
    let mut seen = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListDatabasesRequest { page_size: 3, page_token, ..ListDatabasesRequest::default() };
        let page = plane.databases().list_databases(request).await.unwrap().into_inner();
        let ListDatabasesResponse { databases, next_page_token } = page;
        seen.extend(
            databases.into_iter().map(|database| format!("{}/{}", database.tenant, database.service)),
        );
        page_token = next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, ["acme/orders", "acme/payment", "beta/orders", "beta/payment"]);
    assert_eq!(list(&plane, "beta", "").await.len(), 2);
    let request = ListSealedDatabasesRequest { page_size: 1, ..ListSealedDatabasesRequest::default() };
    let first = plane.databases().list_sealed_databases(request).await.unwrap().into_inner();
    assert_eq!((first.databases.len(), first.next_page_token.as_str()), (1, "acme/orders"));
}

async fn a_removed_tenant_takes_its_key_along(plane: Plane) {
    plane.acme().await;
    put(&plane, database("acme", "payment"), URL).await.unwrap();
    let before = sealed(&plane).await;
    let delete = DeleteTenantRequest { id: "acme".into(), write: None };
    plane.tenants().delete_tenant(delete).await.unwrap();
    assert!(sealed(&plane).await.is_empty());
    plane.put_tenant("acme").await;
    assert!(list(&plane, "acme", "").await.is_empty());
    put(&plane, database("acme", "payment"), URL).await.unwrap();
    let after = sealed(&plane).await;
    assert_ne!(before[0].sealed_key, after[0].sealed_key);
    // What a backup may still hold does not open with the new key.
    let mixed = SealedDatabase { sealed_url: before[0].sealed_url.clone(), ..after[0].clone() };
    assert_eq!(open(&["first"], &mixed).unwrap_err(), grey_vault::Error::Refused);
}

async fn a_service_with_databases_stays(plane: Plane) {
    plane.acme().await;
    put(&plane, database("acme", "payment"), URL).await.unwrap();
    let delete = || DeleteServiceRequest { id: "payment".into(), write: None };
    let refused = plane.catalog().delete_service(delete()).await;
    assert_eq!(fact(refused.map(drop), "databases"), "1");
    let forget = DeleteDatabaseRequest { tenant: "acme".into(), service: "payment".into(), write: None };
    plane.databases().delete_database(forget).await.unwrap();
    plane.catalog().delete_service(delete()).await.unwrap();
}

async fn registering_and_rotating_at_once_loses_nothing(plane: Plane) {
    plane.acme().await;
    let tenants: Vec<String> = (0..20).map(|i| format!("t{i}")).collect();
    for tenant in &tenants {
        plane.put_tenant(tenant).await;
    }
    let put = async |tenant: &String| put(&plane, database(tenant, "payment"), URL).await.unwrap();
    let rotations = join_all((0..5).map(async |_| rotate(&plane).await.unwrap()));
    let (_, rotations) = tokio::join!(join_all(tenants.iter().map(put)), rotations);
    assert!(rotations.iter().all(|done| done.rotated == 0 && done.active_key == "first"), "{rotations:?}");
    let listed = sealed(&plane).await;
    assert_eq!(listed.len(), tenants.len());
    assert!(listed.iter().all(|one| open(&["first"], one).unwrap() == URL));
}

async fn start(store: Store, names: &[&str]) -> Plane {
    let mut config = config(&store.url);
    config.vault = if names.is_empty() { grey_vault::Options::default() } else { vault(names) };
    Plane::start_with(store, config, State::memory()).await
}

#[tokio::test]
async fn a_master_key_is_rotated_out() {
    let plane = start(Store::new(Backend::Sqlite).await, &["first"]).await;
    plane.acme().await;
    // More than one batch, and some of them written under the new key.
    for i in 0..230 {
        plane.put_tenant(&format!("t{i}")).await;
        put(&plane, database(&format!("t{i}"), "payment"), URL).await.unwrap();
    }
    let plane = start(plane.stop().await, &["first", "second"]).await;
    put(&plane, database("acme", "payment"), URL).await.unwrap();
    let done = rotate(&plane).await.unwrap();
    assert_eq!((done.rotated, done.active_key.as_str()), (230, "second"));
    assert_eq!(rotate(&plane).await.unwrap().rotated, 0);
    let plane = start(plane.stop().await, &["second"]).await;
    let request = ListSealedDatabasesRequest { page_size: 1_000, ..ListSealedDatabasesRequest::default() };
    let listed = plane.databases().list_sealed_databases(request).await.unwrap().into_inner().databases;
    assert_eq!(listed.len(), 231);
    assert!(listed.iter().all(|one| open(&["second"], one).unwrap() == URL));

    // Whatever interrupts a rotation, every key is sealed under the one or the other master key.
    let plane = start(plane.stop().await, &["second", "third"]).await;
    let request = ListSealedDatabasesRequest { page_size: 1_000, ..ListSealedDatabasesRequest::default() };
    let listed = async || {
        plane.databases().list_sealed_databases(request.clone()).await.unwrap().into_inner().databases
    };
    for patience_ms in [1, 5, 10, 20, 40] {
        drop(tokio::time::timeout(Duration::from_millis(patience_ms), rotate(&plane)).await);
        assert!(listed().await.iter().all(|one| open(&["second", "third"], one).unwrap() == URL));
    }
    rotate(&plane).await.unwrap();
    assert!(listed().await.iter().all(|one| open(&["third"], one).unwrap() == URL));
}

#[tokio::test]
async fn a_shredded_key_is_not_left_in_the_file() {
    let plane = start(Store::new(Backend::Sqlite).await, &["first"]).await;
    plane.acme().await;
    put(&plane, database("acme", "payment"), URL).await.unwrap();
    let key = sealed(&plane).await[0].sealed_key.clone();
    let path = plane.store.url.trim_start_matches("sqlite://").to_owned();
    let store = plane.stop().await;
    let is_there = || std::fs::read(&path).unwrap().windows(key.len()).any(|part| part == key.as_bytes());
    // The connections close, and empty the journal into the file, in their own time.
    eventually(SOON, "the key is in the file", async || is_there()).await;
    let plane = start(store, &["first"]).await;
    let delete = DeleteTenantRequest { id: "acme".into(), write: None };
    plane.tenants().delete_tenant(delete).await.unwrap();
    let _store = plane.stop().await;
    eventually(SOON, "the key is overwritten", async || !is_there()).await;
}

#[tokio::test]
async fn rotation_tells_of_keys_that_do_not_open_and_goes_on() {
    let plane = start(Store::new(Backend::Sqlite).await, &["lost"]).await;
    plane.acme().await;
    put(&plane, database("acme", "payment"), URL).await.unwrap();
    let plane = start(plane.stop().await, &["first"]).await;
    plane.put_tenant("beta").await;
    put(&plane, database("beta", "payment"), URL).await.unwrap();
    let refused = put(&plane, database("acme", "payment"), URL).await;
    assert!(refused.clone().unwrap_err().message().contains("`lost`"), "{refused:?}");
    assert_eq!(reason(refused), Reason::Unavailable);
    let plane = start(plane.stop().await, &["first", "second"]).await;
    let refused = rotate(&plane).await;
    assert_eq!(fact(refused.clone(), "rotated"), "1");
    assert!(refused.unwrap_err().message().contains("acme"));
    let keys: Vec<_> = sealed(&plane).await.into_iter().map(|one| one.sealed_key).collect();
    assert!(keys[0].starts_with("lost.") && keys[1].starts_with("second."), "{keys:?}");
}

#[tokio::test]
async fn without_a_master_key_nothing_is_sealed() {
    let plane = start(Store::new(Backend::Sqlite).await, &[]).await;
    plane.acme().await;
    for refused in
        [put(&plane, database("acme", "payment"), URL).await.map(drop), rotate(&plane).await.map(drop)]
    {
        let status = refused.clone().unwrap_err();
        assert!(status.message().contains("[vault]"), "{status:?}");
        assert_eq!(reason(refused), Reason::Unavailable);
    }
    assert!(list(&plane, "", "").await.is_empty());
}

/// Collects what is logged, at any level, of spans and events alike.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Visit for Log {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.lock().unwrap().push_str(&format!("{field}={value:?} "));
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        attributes.record(&mut self.clone());
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut self.clone());
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn a_password_is_nowhere_to_be_found() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    let plane = start(Store::new(Backend::Sqlite).await, &["first"]).await;
    plane.acme().await;

    let mut told = vec![format!("{:?}", put(&plane, database("acme", "payment"), URL).await.unwrap())];
    for url in [
        format!("postgres://app:{PASSWORD}@/acme"),
        format!("postgres://app:{PASSWORD}@db:port/acme"),
        format!("oracle://app:{PASSWORD}@db/acme"),
        format!("postgres://app:{PASSWORD}@db/acme?host=elsewhere"),
        PASSWORD.to_owned(),
    ] {
        told.push(format!("{:?}", put(&plane, database("acme", "payment"), &url).await.unwrap_err()));
        told.push(format!("{:?}", put(&plane, database("nobody", "payment"), &url).await.unwrap_err()));
        let path = "/api/tenants/acme/services/payment/database";
        told.push(plane.call(Method::PUT, path, json!({"url": url})).await.1.to_string());
        told.push(plane.call(Method::PUT, path, json!({"url": url, "kind": "file"})).await.1.to_string());
        told.push(plane.call(Method::PUT, path, json!({"url": [url]})).await.1.to_string());
        // A body that is malformed as a whole, with the secret where none belongs.
        for malformed in [json!(url), json!({ url.as_str(): "x" }), json!({"url": url, "kind": [url]})] {
            let (status, answer) = plane.call(Method::PUT, path, malformed).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
            told.push(answer.to_string());
        }
    }
    told.push(format!("{:?}", list(&plane, "", "").await));
    told.push(format!("{:?}", sealed(&plane).await));
    told.push(format!("{:?}", plane.events().await));
    for path in ["/api/databases", "/api/events", "/api/tenants/acme", "/metrics"] {
        let answer = plane.http.get(format!("{}{path}", plane.base)).send().await.unwrap();
        told.push(answer.text().await.unwrap());
    }
    let told = told.join("\n");
    assert!(told.contains("db:6000") && !told.contains(PASSWORD), "{told}");

    let logged = log.0.lock().unwrap().clone();
    assert!(logged.contains("registered a tenant's database"), "{logged}");
    assert!(!logged.contains(PASSWORD), "the log has the password");

    // The files of the database, journal included, before and after it is closed.
    let path = plane.store.url.trim_start_matches("sqlite://").to_owned();
    let found = |place: &str| {
        let files = std::fs::read_dir(std::path::Path::new(&path).parent().unwrap()).unwrap();
        for file in files.map(|file| file.unwrap().path()) {
            // The journal goes away when the last connection closes.
            let Ok(bytes) = std::fs::read(&file) else { continue };
            let password = PASSWORD.as_bytes();
            assert!(!bytes.windows(password.len()).any(|part| part == password), "{place}: {file:?}");
        }
    };
    found("open");
    let _store = plane.stop().await;
    found("closed");
}
