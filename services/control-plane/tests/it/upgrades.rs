//! Upgrades of databases as callers ask for them; the migrator behind answers what the tests tell it to.

use std::time::Duration;

use grey_core::error::Reason;
use grey_proto::schema::{Target, Upgrade, UpgradeState};
use grey_proto::status::{ApiError, ErrorBody, http_code};
use grey_runtime::Secret;
use grey_runtime::access::{Token, TokenHash};
use grey_state::State;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::fixture::{Backend, Plane, SOON, Store, config};
use crate::migrator::{Migrator, upgrade};

const START: &str = "/api/tenants/acme/schema-upgrade";
const PROVISION: &str = "/api/tenants/acme/services/payment/provision";
const EVENTS: &str = "/api/upgrades/up-1/events";

/// Every request that the migrator is asked for, with a body that is taken.
fn requests() -> [(Method, &'static str, Value); 9] {
    [
        (Method::POST, START, json!({"service": "payment"})),
        (Method::POST, PROVISION, json!({})),
        (Method::POST, "/api/grey-router/upgrade-schema/acme/payment:v2.0", json!({})),
        (Method::GET, "/api/tenants/acme/services/payment/schema-history", Value::Null),
        (Method::GET, "/api/tenants/acme/services/payment/schema-drift", Value::Null),
        (Method::GET, "/api/upgrades?tenant=acme", Value::Null),
        (Method::GET, "/api/upgrades/up-1", Value::Null),
        (Method::GET, EVENTS, Value::Null),
        (Method::POST, "/api/upgrades/up-1/cancel", json!({})),
    ]
}

async fn plane(migrator: &Migrator) -> Plane {
    let store = Store::new(Backend::Sqlite).await;
    let mut config = config(&store.url);
    config.migrator.url.clone_from(&migrator.url);
    config.migrator.timeout = Duration::from_secs(2);
    config.limits.max_watchers = 1;
    Plane::start_with(store, config, State::memory()).await
}

#[tokio::test]
async fn an_upgrade_is_asked_for_on_behalf_of_the_caller() {
    let migrator = Migrator::start().await;
    let store = Store::new(Backend::Sqlite).await;
    let mut config = config(&store.url);
    config.migrator.url.clone_from(&migrator.url);
    config.migrator.token = Secret::new("secret-of-control");
    let (name, role) = ("Ann Ö.".to_owned(), "operator".to_owned());
    config.access.tokens = vec![Token { name, role, sha256: TokenHash::of("secret") }];
    let plane = Plane::start_with(store, config, State::memory()).await;
    let body = json!({
        "service": "payment",
        "version": "2.0",
        "options": {"backup": true, "accept": ["destructive"]},
        "reason": "wave 2",
        "idempotencyKey": "k1",
    });
    let answer = plane.send(Method::POST, START, body, &[("authorization", "Bearer secret")]).await;
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    assert_eq!(answer.headers()["location"], "/api/upgrades/up-1");
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(
        (answer["upgradeId"].as_str(), answer["upgrade"]["id"].as_str()),
        (Some("up-1"), Some("up-1"))
    );
    let script = migrator.script();
    let [asked] = script.started.as_slice() else { panic!("{:?}", script.started) };
    assert_eq!((asked.tenant.as_str(), asked.service.as_str()), ("acme", "payment"));
    assert_eq!(asked.target, Some(Target { schema: String::new(), service_version: "v2.0".to_owned() }));
    assert_eq!((asked.reason.as_str(), asked.idempotency_key.as_str()), ("wave 2", "k1"));
    let options = asked.options.clone().unwrap();
    assert!(options.backup && options.accept == ["destructive"] && asked.flip.is_none());
    assert_eq!(
        script.callers,
        [["Ann%20%C3%96.", "operator", "Bearer secret-of-control"].map(str::to_owned)]
    );
}

#[tokio::test]
async fn a_database_is_asked_for_by_tenant_and_service_or_only_told_of() {
    let migrator = Migrator::start().await;
    let plane = plane(&migrator).await;
    let body = json!({"site": "main", "version": "2.0", "reason": "new customer"});
    let answer = plane.send(Method::POST, PROVISION, body, &[]).await;
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    assert_eq!(answer.headers()["location"], "/api/upgrades/up-1");
    let answer: Value = answer.json().await.unwrap();
    assert_eq!((&answer["upgradeId"], &answer["provision"]["site"]), (&json!("up-1"), &json!("main")));
    let asked = migrator.script().provisioned.pop().unwrap();
    assert_eq!((asked.tenant.as_str(), asked.service.as_str()), ("acme", "payment"));
    assert_eq!(asked.target, Some(Target { schema: String::new(), service_version: "v2.0".to_owned() }));
    assert!(!asked.inactive && asked.reason == "new customer");
    let dry = json!({"dryRun": true, "inactive": true});
    let (code, answer) = plane.call(Method::POST, PROVISION, dry).await;
    assert_eq!((code, answer.get("upgradeId"), answer.get("upgrade")), (StatusCode::OK, None, None));
    let asked = migrator.script().provisioned.pop().unwrap();
    assert!(asked.dry_run && asked.inactive);
}

#[tokio::test]
async fn a_version_of_a_service_stands_for_its_schema() {
    let migrator = Migrator::start().await;
    let plane = plane(&migrator).await;
    let path = |rest: &str| format!("/api/grey-router/upgrade-schema/acme/{rest}");
    for (rest, body) in [
        ("payment:v2.0", json!({})),
        ("payment:v2.0?service=payment", json!({})),
        ("2.0?service=payment", json!({})),
        ("v2.0", json!({"service": "payment"})),
    ] {
        let answer = plane.send(Method::POST, &path(rest), body, &[]).await;
        assert_eq!(answer.status(), StatusCode::ACCEPTED, "{rest}");
        let asked = migrator.script().started.pop().unwrap();
        let version = asked.target.unwrap().service_version;
        assert_eq!((asked.service.as_str(), version.as_str()), ("payment", "v2.0"), "{rest}");
    }
    // Nothing need be said beyond the path, but what it would be must be.
    let bare = plane.http.post(format!("{}{}", plane.base, path("payment:v2.0")));
    let stated = bare.try_clone().unwrap().header("content-type", "application/json");
    assert_eq!(stated.send().await.unwrap().status(), StatusCode::ACCEPTED);
    assert_eq!(bare.send().await.unwrap().status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    for (rest, body) in [
        ("v2.0", json!({})),
        ("payment:", json!({})),
        (":v2.0", json!({})),
        ("payment:latest", json!({})),
        ("payment:v2.0", json!({"service": "orders"})),
        ("payment:v2.0", json!({"version": "3.0"})),
        ("payment:v2.0", json!({"schema": "one"})),
        ("payment:v2.0", json!({"reason": "x".repeat(501)})),
        ("payment:v2.0", json!({"idempotencyKey": "x".repeat(65)})),
    ] {
        let (code, answer) = plane.call(Method::POST, &path(rest), body.clone()).await;
        assert_eq!(
            (code, answer["error"]["reason"].as_str()),
            (StatusCode::BAD_REQUEST, Some("INVALID_ARGUMENT")),
            "{rest} {body}"
        );
    }
    assert_eq!(migrator.script().started.len(), 1);
}

#[tokio::test]
async fn upgrades_are_read_listed_and_cancelled() {
    let migrator = Migrator::start().await;
    let plane = plane(&migrator).await;
    let (code, read) = plane.call(Method::GET, "/api/upgrades/up-7", Value::Null).await;
    assert_eq!((code, read["upgrade"]["id"].as_str()), (StatusCode::OK, Some("up-7")));
    let path = "/api/upgrades?tenant=acme&service=payment&state=needs-repair&pageSize=2&pageToken=up-9";
    let (code, listed) = plane.call(Method::GET, path, Value::Null).await;
    assert_eq!((code, listed["upgrades"].as_array().unwrap().len()), (StatusCode::OK, 2));
    assert_eq!(listed["nextPageToken"], "more");
    let asked = migrator.script().listed.pop().unwrap();
    assert_eq!((asked.tenant.as_str(), asked.service.as_str()), ("acme", "payment"));
    assert_eq!((asked.state(), asked.page_size), (UpgradeState::NeedsRepair, 2));
    assert_eq!(asked.page_token, "up-9");
    for bad in ["state=asleep", "pageSize=1001", "tenant=A"] {
        let (code, _) = plane.call(Method::GET, &format!("/api/upgrades?{bad}"), Value::Null).await;
        assert_eq!(code, StatusCode::BAD_REQUEST, "{bad}");
    }
    let of = "/api/tenants/acme/services/payment";
    let (code, history) = plane.call(Method::GET, &format!("{of}/schema-history"), Value::Null).await;
    assert_eq!(
        (code, history["entries"][0]["outcome"].as_str()),
        (StatusCode::OK, Some("HISTORY_OUTCOME_APPLIED"))
    );
    let (code, drift) = plane.call(Method::GET, &format!("{of}/schema-drift"), Value::Null).await;
    assert_eq!((code, drift["differences"][0]["object"].as_str()), (StatusCode::OK, Some("notes")));
    assert_eq!((drift["tenant"].as_str(), drift["service"].as_str()), (Some("acme"), Some("payment")));
    let (code, cancelled) = plane.call(Method::POST, "/api/upgrades/up-7/cancel", json!({})).await;
    assert_eq!((code, cancelled["upgrade"]["cancelling"].as_bool()), (StatusCode::OK, Some(true)));
    let (code, _) = plane.call(Method::GET, "/api/upgrades/a%2Fb", Value::Null).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn what_the_migrator_refuses_is_passed_on_as_it_is() {
    let migrator = Migrator::start().await;
    let plane = plane(&migrator).await;
    for reason in [
        Reason::UnknownTenant,
        Reason::UnknownVersion,
        Reason::UnknownUpgrade,
        Reason::UnknownDatabase,
        Reason::UpgradeRunning,
        Reason::MigrationRefused,
        Reason::DatabaseRefused,
        Reason::DatabaseUnavailable,
    ] {
        let refusal = ApiError::new(reason, format!("because of {reason:?}")).with("upgrade", "up-0");
        for (method, path, body) in requests() {
            migrator.refuse(refusal.clone());
            let (code, answer) = plane.call(method.clone(), path, body).await;
            assert_eq!(code, http_code(reason), "{method} {path}");
            assert_eq!(answer, serde_json::to_value(ErrorBody::from(&refusal)).unwrap());
        }
    }
}

#[tokio::test]
async fn a_migrator_that_cannot_be_asked_is_told_of() {
    let store = Store::new(Backend::Sqlite).await;
    let without = Plane::start_with(Store::borrowed(&store.url), config(&store.url), State::memory()).await;
    for (method, path, body) in requests() {
        let (code, answer) = without.call(method.clone(), path, body).await;
        assert_eq!(
            (code, answer["error"]["reason"].as_str()),
            (StatusCode::SERVICE_UNAVAILABLE, Some("UNAVAILABLE"))
        );
        assert!(answer["error"]["message"].as_str().unwrap().contains("[migrator]"), "{answer}");
    }
    drop(without.stop().await);

    let migrator = Migrator::start().await;
    let plane = plane(&migrator).await;
    let reasons = async |plane: &Plane, why: &str| {
        for (method, path, body) in requests() {
            let (code, answer) = plane.call(method.clone(), path, body).await;
            assert_eq!(
                (code, answer["error"]["reason"].as_str()),
                (StatusCode::SERVICE_UNAVAILABLE, Some("UNAVAILABLE")),
                "{why} {method} {path}"
            );
        }
    };
    // What the caller itself may not do, it is told.
    for (method, path, body) in requests() {
        migrator.refuse(ApiError::new(Reason::Denied, "role viewer of `ann`").with("principal", "ann"));
        let (code, answer) = plane.call(method.clone(), path, body).await;
        let told = (code, answer["error"]["reason"].as_str());
        assert_eq!(told, (StatusCode::FORBIDDEN, Some("DENIED")), "{method} {path}");
    }
    // Its quarrel with the control plane is not the caller's.
    for refusal in [Reason::Unauthenticated, Reason::Denied] {
        for _ in requests() {
            migrator.refuse(ApiError::new(refusal, "who are you"));
        }
        reasons(&plane, "refused").await;
    }
    migrator.script().hangs = true;
    reasons(&plane, "hangs").await;
    let plane = self::plane(&migrator.gone()).await;
    reasons(&plane, "gone").await;
}

/// The events of a stream up to one that has `last` in it, or its end.
async fn read_until(response: &mut Response, last: &str) -> String {
    let mut text = String::new();
    let read = async {
        while !text.contains(last) {
            let Some(chunk) = response.chunk().await.unwrap() else { break };
            text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    };
    tokio::time::timeout(SOON, read).await.unwrap();
    text
}

#[tokio::test]
async fn every_change_of_an_upgrade_is_an_event_until_it_has_ended() {
    let migrator = Migrator::start().await;
    let plane = plane(&migrator).await;
    let told = migrator.watched();
    told.send(Ok(upgrade("up-1", UpgradeState::Queued))).await.unwrap();
    let mut stream = plane.send(Method::GET, EVENTS, Value::Null, &[]).await;
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    assert_eq!(stream.headers()["cache-control"], "no-store");
    let first = read_until(&mut stream, "\n\n").await;
    assert!(first.contains("event: upgrade\n") && first.contains("id: 1\n"), "{first}");
    assert!(first.contains("UPGRADE_STATE_QUEUED"), "{first}");
    told.send(Ok(upgrade("up-1", UpgradeState::Running))).await.unwrap();
    assert!(read_until(&mut stream, "\n\n").await.contains("id: 2\n"));
    told.send(Ok(upgrade("up-1", UpgradeState::Succeeded))).await.unwrap();
    drop(told);
    let rest = read_until(&mut stream, "never").await;
    let events: Vec<_> = rest.split("\n\n").filter(|event| !event.is_empty()).collect();
    let [last, end] = events.as_slice() else { panic!("{rest}") };
    assert!(last.contains("id: 3") && last.contains("UPGRADE_STATE_SUCCEEDED"), "{last}");
    assert!(end.contains("event: end") && end.contains("id: end"), "{end}");
    let again = plane.send(Method::GET, EVENTS, Value::Null, &[("last-event-id", "end")]).await;
    assert_eq!(again.status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_migrator_that_goes_away_ends_the_stream_with_an_error() {
    let migrator = Migrator::start().await;
    let plane = plane(&migrator).await;
    let told = migrator.watched();
    told.send(Ok(upgrade("up-1", UpgradeState::Running))).await.unwrap();
    told.send(Err(ApiError::new(Reason::Unavailable, "shutting down"))).await.unwrap();
    let mut stream = plane.send(Method::GET, EVENTS, Value::Null, &[]).await;
    let text = read_until(&mut stream, "never").await;
    let error = text.split("\n\n").find(|event| event.contains("event: error")).unwrap_or_default();
    assert!(error.contains("shutting down") && !error.contains("id:"), "{text}");
    assert!(!text.contains("event: end"), "{text}");
}

#[tokio::test]
async fn streams_of_upgrades_are_bounded_and_end_with_their_readers() {
    let migrator = Migrator::start().await;
    let plane = plane(&migrator).await;
    let told = migrator.watched();
    told.send(Ok(upgrade("up-1", UpgradeState::Running))).await.unwrap();
    let mut stream = plane.send(Method::GET, EVENTS, Value::Null, &[]).await;
    read_until(&mut stream, "\n\n").await;
    let (code, _) = plane.call(Method::GET, EVENTS, Value::Null).await;
    assert_eq!(code, StatusCode::TOO_MANY_REQUESTS);
    drop(stream);
    tokio::time::timeout(SOON, told.closed()).await.unwrap();
    let told = migrator.watched();
    told.send(Ok::<Upgrade, ApiError>(upgrade("up-1", UpgradeState::Running))).await.unwrap();
    let freed = async {
        loop {
            let stream = plane.send(Method::GET, EVENTS, Value::Null, &[]).await;
            if stream.status() == StatusCode::OK {
                return stream;
            }
            tokio::task::yield_now().await;
        }
    };
    let mut stream = tokio::time::timeout(SOON, freed).await.unwrap();
    read_until(&mut stream, "\n\n").await;
    // Draining ends the stream, and does not wait for the upgrade.
    let stopping = tokio::spawn(async move { plane.stop().await });
    let rest = read_until(&mut stream, "never").await;
    assert!(!rest.contains("event: end"), "{rest}");
    stopping.await.unwrap();
}
