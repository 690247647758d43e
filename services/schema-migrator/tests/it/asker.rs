//! Whoever asks for an upgrade is judged at the migrator, and what follows from the upgrade is done on their behalf.

use crate::files::folder;
use crate::service_world::{PLAIN, Plane, Replica, SOON, Stage, config, to_version};
use grey_core::change::Principal;
use grey_core::ids::{ServiceId, TenantId};
use grey_proto::control::Pin;
use grey_proto::schema::{Flip, FlipState, UpgradeDirection, UpgradeOptions, UpgradeState};
use grey_runtime::Secret;
use grey_runtime::access::{Token, TokenHash};
use grey_schema_migrator::jobs::{Database, Queue, Wanted};
use grey_testkit::{ReservedPort, eventually};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

fn token(name: &str, role: &str) -> Token {
    Token { name: name.to_owned(), role: role.to_owned(), sha256: TokenHash::of(name) }
}

/// A control plane and a migrator that call each other with tokens: at the migrator, the control plane may do everything.
struct Pair {
    plane: Plane,
    replica: Replica,
    files: TempDir,
    store: TempDir,
}

impl Pair {
    async fn start() -> Self {
        // Each of the two must know the other's port before either is there.
        let ports = [(); 2].map(|()| ReservedPort::any().unwrap());
        let [plane_addr, migrator_addr] = [ports[0].addr(), ports[1].addr()];
        let plane = Plane::start_with(plane_addr, tempfile::tempdir().unwrap(), |config| {
            let tokens = [("ann", "admin"), ("otto", "operator"), ("schema-migrator", "operator")];
            config.access.tokens = tokens.map(|(name, role)| token(name, role)).to_vec();
            config.migrator.url = format!("http://{migrator_addr}");
            config.migrator.token = Secret::new("control-plane");
        })
        .await;
        let (files, store) = (folder(&PLAIN), tempfile::tempdir().unwrap());
        let url = format!("sqlite://{}/migrator.db", store.path().display());
        let mut config = config(&url, files.path(), &format!("http://{plane_addr}"));
        config.grpc.listen = migrator_addr;
        config.access.tokens = vec![token("control-plane", "admin")];
        config.control.token = Secret::new("schema-migrator");
        Self { plane, replica: Replica::start(config).await, files, store }
    }

    /// Asks the control plane.
    async fn ask(&self, who: &str, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let request = reqwest::Client::new().request(method, format!("http://{}/api{path}", self.plane.http));
        let answer = request.bearer_auth(who).json(&body).send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }

    async fn declare(&self) {
        let file = self.store.path().join("acme.db");
        std::fs::File::create(&file).unwrap();
        for (path, body) in [
            ("/services/shop", json!({"defaultVersion": "1.0"})),
            ("/services/shop/versions/2.0", json!({"schema": {"min": "1.2"}})),
            ("/tenants/acme", json!({})),
            (
                "/tenants/acme/services/shop/database",
                json!({"kind": "file", "url": format!("sqlite://{}", file.display())}),
            ),
        ] {
            let (status, answer) = self.ask("ann", Method::PUT, path, body).await;
            assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        }
    }

    /// The upgrade once the migrator has done with it.
    async fn ended(&self, id: &str) -> Value {
        let path = format!("/upgrades/{id}");
        let read = async || self.ask("otto", Method::GET, &path, json!({})).await.1["upgrade"].clone();
        let ends = |upgrade: &Value| {
            let pending = upgrade["flip"]["state"] == "FLIP_STATE_PENDING";
            upgrade["endedAt"].is_string() && !pending
        };
        eventually(SOON, "the upgrade has ended", async || ends(&read().await)).await;
        read().await
    }

    /// The newest event that pins somebody.
    async fn pinned(&self) -> Value {
        let (_, answer) = self.ask("otto", Method::GET, "/events?newestFirst=true", json!({})).await;
        let events = answer["events"].as_array().unwrap();
        let pins = |event: &&Value| event["changes"][0]["pinPut"].is_object();
        events.iter().find(pins).unwrap().clone()
    }
}

#[tokio::test]
async fn an_operator_gains_nothing_by_asking_through_the_control_plane() {
    let pair = Pair::start().await;
    pair.declare().await;
    let version = "/tenants/acme/services/shop/version?migrate=true&reason=wave%202";
    let (status, answer) = pair.ask("otto", Method::PUT, version, json!({"version": "2.0"})).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    let id = answer["upgrade"].as_str().unwrap();
    let upgrade = pair.ended(id).await;
    assert_eq!(upgrade["actor"], "otto via control-plane", "{upgrade}");
    let pinned = pair.pinned().await;
    let principal = json!({"id": "otto", "role": "operator", "via": "control-plane via schema-migrator"});
    assert_eq!((&pinned["principal"], &pinned["reason"]), (&principal, &json!("wave 2")), "{pinned}");
    assert_eq!(pinned["cause"], format!("upgrade/{id}"));

    std::fs::write(pair.files.path().join("shop/V1.3__clear.sql"), "DELETE FROM notes;").unwrap();
    let start = "/tenants/acme/schema-upgrade";
    let accepting = json!({"service": "shop", "options": {"accept": ["destructive"]}});
    let (status, answer) = pair.ask("otto", Method::POST, start, accepting.clone()).await;
    let told =
        (status, answer["error"]["reason"].as_str(), answer["error"]["metadata"]["principal"].as_str());
    assert_eq!(told, (StatusCode::FORBIDDEN, Some("DENIED"), Some("otto")), "{answer}");
    let (status, answer) = pair.ask("ann", Method::POST, start, accepting).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    let upgrade = pair.ended(answer["upgradeId"].as_str().unwrap()).await;
    assert_eq!((&upgrade["state"], &upgrade["schema"]), (&json!("UPGRADE_STATE_SUCCEEDED"), &json!("1.3")));
    pair.replica.stop().await;
    pair.plane.stop().await;
}

#[tokio::test]
async fn a_tenant_is_not_pinned_for_somebody_who_may_not_pin() {
    let stage = Stage::new(&PLAIN).await;
    stage.sqlite("acme").await;
    let config = stage.config();
    let queue = Queue::new(Box::pin(Database::open(&config.database)).await.unwrap());
    let pin = Pin { version: "2.0".into(), ..Pin::default() };
    let wanted = Wanted {
        tenant: TenantId::new("acme").unwrap(),
        service: ServiceId::new("shop").unwrap(),
        direction: UpgradeDirection::Up,
        target: to_version("2.0").unwrap(),
        options: UpgradeOptions::default(),
        asker: Principal { id: "vera".into(), role: "viewer".into(), via: "portal".into() },
        reason: String::new(),
        from: String::new(),
        steps: Vec::new(),
        server: String::new(),
        flip: Some(Flip { pin: Some(pin), state: FlipState::Pending.into(), ..Flip::default() }),
        provision: None,
        idempotency_key: String::new(),
    };
    let id = queue.enqueue(&wanted).await.unwrap().upgrade.id;
    let replica = Replica::start(config).await;
    let ended = replica.ended(&id).await;
    assert_eq!((ended.state(), ended.actor.as_str()), (UpgradeState::Succeeded, "vera via portal"));
    let flip = ended.flip.unwrap();
    assert_eq!(flip.state(), FlipState::Refused, "{flip:?}");
    assert!(flip.error.starts_with("DENIED: ") && flip.error.contains("`vera`"), "{flip:?}");
    assert_eq!(stage.plane.pinned("acme").await, "");
    // The schema is the migrator's own sighting, whoever asked.
    assert_eq!(stage.plane.observed("acme").await, "1.2");
    let seen = stage.plane.newest_event().await.principal.unwrap();
    assert_eq!((seen.id.as_str(), seen.via.as_str()), ("anonymous", ""));
    replica.stop().await;
}
