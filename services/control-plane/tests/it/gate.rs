//! The gate: nobody is pinned to a version whose schema they do not have, unless their database is upgraded first.

use grey_core::error::Reason;
use grey_proto::control::{
    GetTenantRequest, ObserveSchemaRequest, ObservedSchema, PutPinRequest, PutPinResponse, PutVersionRequest,
    SchemaWindow, ServiceVersion, WriteOptions,
};
use grey_proto::status::ApiError;
use grey_state::State;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tonic::Status;

use crate::fixture::{Backend, Plane, Store, config, expecting, fact, on_both, pin, reason};
use crate::migrator::Migrator;

on_both! {
    a_window_does_not_close_over_pinned_tenants
}

async fn plane(backend: Backend, migrator: &Migrator) -> Plane {
    let store = Store::new(backend).await;
    let mut config = config(&store.url);
    config.migrator.url.clone_from(&migrator.url);
    let plane = Plane::start_with(store, config, State::memory()).await;
    plane.acme().await;
    plane
}

async fn migrate(
    plane: &Plane,
    (tenant, service, version): (&str, &str, &str),
    write: Option<WriteOptions>,
) -> Result<PutPinResponse, Status> {
    let request = PutPinRequest {
        pin: Some(pin(tenant, service, version)),
        write,
        migrate: true,
        ..PutPinRequest::default()
    };
    Ok(plane.pins().put_pin(request).await?.into_inner())
}

async fn observe(plane: &Plane, tenant: &str, schema: &str) {
    let (tenant, service, schema) = (tenant.into(), "payment".into(), schema.into());
    let schema = ObservedSchema { tenant, service, schema, ..ObservedSchema::default() };
    plane.tenants().observe_schema(ObserveSchemaRequest { schema: Some(schema), write: None }).await.unwrap();
}

async fn pins(plane: &Plane) -> Vec<String> {
    let read = plane.tenants().get_tenant(GetTenantRequest { id: "acme".into() }).await.unwrap();
    read.into_inner().pins.into_iter().map(|pin| pin.version).collect()
}

async fn an_upgrade_comes_before_the_pin(backend: Backend) {
    let migrator = Migrator::start().await;
    let plane = plane(backend, &migrator).await;
    let before = plane.revision().await;
    let write = WriteOptions { reason: "wave 2".into(), expected_epoch: 1, ..expecting(0).unwrap() };
    let started = migrate(&plane, ("acme", "payment", "2.0"), Some(write)).await.unwrap();
    assert_eq!(started, PutPinResponse { upgrade: "up-1".into(), ..PutPinResponse::default() });
    {
        let script = migrator.script();
        let [asked] = script.started.as_slice() else { panic!("{:?}", script.started) };
        assert_eq!((asked.tenant.as_str(), asked.service.as_str()), ("acme", "payment"));
        assert_eq!(asked.target.as_ref().unwrap().service_version, "v2.0");
        assert_eq!(asked.reason, "wave 2");
        let flip = asked.flip.clone().unwrap();
        assert_eq!((flip.pin.unwrap().version.as_str(), flip.expected_revision), ("v2.0", Some(0)));
        assert_eq!(flip.expected_epoch, 1);
    }
    assert_eq!(plane.revision().await, before, "nothing is pinned before the upgrade has succeeded");
    assert!(pins(&plane).await.is_empty());

    observe(&plane, "acme", "1.1").await;
    let pinned = migrate(&plane, ("acme", "payment", "2.0"), None).await.unwrap();
    assert_eq!((pinned.upgrade.as_str(), pinned.pin.unwrap().version.as_str()), ("", "v2.0"));
    assert_eq!(migrator.script().started.len(), 1);
}

#[tokio::test]
async fn an_upgrade_comes_before_the_pin_on_sqlite() {
    an_upgrade_comes_before_the_pin(Backend::Sqlite).await;
}

#[tokio::test]
async fn an_upgrade_comes_before_the_pin_on_postgres() {
    an_upgrade_comes_before_the_pin(Backend::Postgres).await;
}

#[tokio::test]
async fn over_rest_the_upgrade_is_accepted_and_the_pin_is_done() {
    let migrator = Migrator::start().await;
    let plane = plane(Backend::Sqlite, &migrator).await;
    let path = "/api/tenants/acme/services/payment/version";
    for (query, body) in
        [("?migrate=true", json!({"version": "2.0"})), ("", json!({"version": "2.0", "migrate": true}))]
    {
        let answer = plane.send(Method::PUT, &format!("{path}{query}"), body, &[]).await;
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        assert_eq!(answer.headers()["location"], "/api/upgrades/up-1");
        let answer: serde_json::Value = answer.json().await.unwrap();
        assert_eq!(answer["upgrade"], "up-1", "{answer}");
        assert!(answer.get("pin").is_none(), "{answer}");
    }
    let (code, answer) = plane.call(Method::PUT, path, json!({"version": "2.0"})).await;
    assert_eq!((code, answer["error"]["reason"].as_str()), (StatusCode::CONFLICT, Some("NO_LEGAL_VERSION")));
    assert_eq!(answer["error"]["metadata"]["window"], ">= 1.1");
    assert!(answer["error"]["message"].as_str().unwrap().contains("migrate=true"), "{answer}");
    let (code, answer) =
        plane.call(Method::PUT, &format!("{path}?migrate=true"), json!({"version": "1.0"})).await;
    assert_eq!((code, answer["pin"]["version"].as_str()), (StatusCode::OK, Some("v1.0")));
    assert_eq!(migrator.script().started.len(), 2);
}

#[tokio::test]
async fn what_else_speaks_against_a_pin_is_told_before_an_upgrade_is_started() {
    let migrator = Migrator::start().await;
    let plane = plane(Backend::Sqlite, &migrator).await;
    for (wanted, expected) in [
        (("nobody", "payment", "2.0"), Reason::UnknownTenant),
        (("acme", "nothing", "2.0"), Reason::UnknownService),
        (("acme", "payment", "3.0"), Reason::UnknownVersion),
        (("acme", "payment", "latest"), Reason::InvalidArgument),
    ] {
        assert_eq!(reason(migrate(&plane, wanted, None).await), expected, "{wanted:?}");
    }
    let stale = migrate(&plane, ("acme", "payment", "2.0"), expecting(7)).await;
    assert_eq!(reason(stale), Reason::RevisionMismatch);
    let long = WriteOptions { reason: "x".repeat(501), ..WriteOptions::default() };
    let long = migrate(&plane, ("acme", "payment", "2.0"), Some(long)).await;
    assert_eq!(reason(long), Reason::InvalidArgument);
    assert!(migrator.script().callers.is_empty());
}

#[tokio::test]
async fn what_speaks_against_the_upgrade_is_passed_on() {
    let migrator = Migrator::start().await;
    let plane = plane(Backend::Sqlite, &migrator).await;
    let before = plane.revision().await;
    let wanted = ("acme", "payment", "2.0");
    for refusal in [Reason::UpgradeRunning, Reason::UnknownDatabase, Reason::MigrationRefused] {
        migrator.refuse(ApiError::new(refusal, "not now").with("upgrade", "up-0"));
        let refused = migrate(&plane, wanted, None).await;
        assert_eq!(fact(refused.clone(), "upgrade"), "up-0");
        assert_eq!(reason(refused), refusal);
    }
    assert_eq!(plane.revision().await, before);

    let gone = self::plane(Backend::Sqlite, &migrator.gone()).await;
    let before = gone.revision().await;
    assert_eq!(reason(migrate(&gone, wanted, None).await), Reason::Unavailable);
    assert_eq!(gone.revision().await, before);

    let without = Plane::start(Backend::Sqlite).await;
    without.acme().await;
    let refused = migrate(&without, wanted, None).await;
    assert!(refused.clone().unwrap_err().message().contains("[migrator]"), "{refused:?}");
    assert_eq!(reason(refused), Reason::Unavailable);
    assert_eq!(migrate(&without, ("acme", "payment", "1.0"), None).await.unwrap().upgrade, "");
}

async fn a_window_does_not_close_over_pinned_tenants(plane: Plane) {
    plane.acme().await;
    let put = async |min: &str, max: &str| {
        let schema = Some(SchemaWindow { min: min.into(), max: max.into() });
        let (service, version) = ("payment".into(), "2.0".into());
        let version = Some(ServiceVersion { service, version, schema, revision: 0 });
        plane
            .catalog()
            .put_version(PutVersionRequest { version, write: None, update_mask: Vec::new() })
            .await
            .map(drop)
    };
    for (tenant, schema) in [("acme", "1.2"), ("beta", "1.10"), ("gamma", "1.1")] {
        plane.put_tenant(tenant).await;
        observe(&plane, tenant, schema).await;
    }
    plane.put_pin("acme", "payment", "2.0").await.unwrap();
    plane.put_pin("beta", "payment", "2.0").await.unwrap();
    let before = plane.revision().await;
    let refused = put("1.10", "").await;
    assert_eq!(
        (fact(refused.clone(), "pins"), fact(refused.clone(), "tenants")),
        ("1".into(), "acme".into())
    );
    assert!(refused.clone().unwrap_err().message().contains(">= 1.10"), "{refused:?}");
    assert_eq!(reason(refused), Reason::InUse);
    assert_eq!(fact(put("2", "").await, "tenants"), "acme,beta");
    assert_eq!(plane.revision().await, before);
    // Tenants that are not pinned to it do not count, nor does where nobody is.
    put("1.2", "1.10").await.unwrap();
    // Who is outside already is not held against a change that leaves them there.
    observe(&plane, "acme", "1").await;
    put("1.3", "").await.unwrap();
    // A tenant whose schema nobody has seen fits an open window only.
    plane.put_tenant("delta").await;
    plane.put_pin("delta", "payment", "1.0").await.unwrap();
    let schema = Some(SchemaWindow { min: "1".into(), max: String::new() });
    let version = ServiceVersion { service: "payment".into(), version: "1.0".into(), schema, revision: 0 };
    let closing = plane
        .catalog()
        .put_version(PutVersionRequest { version: Some(version), write: None, update_mask: Vec::new() })
        .await;
    assert_eq!(fact(closing, "tenants"), "delta");
}
