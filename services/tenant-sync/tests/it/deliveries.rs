//! The webhook, as the tenant API calls it.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use grey_runtime::Secret;
use grey_runtime::access::{Token, TokenHash};
use grey_state::{State, redis};
use grey_tenant_sync::Config;
use grey_testkit::{Redis, eventually};
use hmac::{Hmac, Mac};
use reqwest::StatusCode;
use sha2::Sha256;

use crate::upstream::{Upstream, tenants};
use crate::world::{Plane, Replica, SOON, World, config};

const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";

/// A delivery, signed in time.
#[derive(Clone)]
struct Delivery {
    id: String,
    at: i64,
    body: String,
    signature: String,
}

impl Delivery {
    fn new(id: &str, secret: &str) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        Self::made(id, secret, now.as_secs().try_into().unwrap(), "{\"type\":\"tenant.updated\"}")
    }

    fn made(id: &str, secret: &str, at: i64, body: &str) -> Self {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let mut signature = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        signature.update(format!("{id}.{at}.{body}").as_bytes());
        let signature = format!("v1,{}", STANDARD.encode(signature.finalize().into_bytes()));
        Self { id: id.to_owned(), at, body: body.to_owned(), signature }
    }

    /// The same, as if sent `seconds` later.
    fn later(&self, seconds: i64, secret: &str) -> Self {
        Self::made(&self.id, secret, self.at + seconds, &self.body)
    }

    async fn send(&self, replica: &Replica) -> StatusCode {
        let request = reqwest::Client::new()
            .post(format!("{}/api/sync/webhook", replica.base))
            .header("webhook-id", &self.id)
            .header("webhook-timestamp", self.at.to_string())
            .header("webhook-signature", &self.signature)
            .body(self.body.clone());
        request.send().await.unwrap().status()
    }
}

fn with_secrets(config: &mut Config) {
    config.webhook.secrets = vec![Secret::new(NEW), Secret::new(OLD)];
    // The signature alone lets deliveries in.
    let sha256 = TokenHash::of("admin-secret");
    config.access.tokens = vec![Token { name: "admin".to_owned(), role: "admin".to_owned(), sha256 }];
    config.access.allow_anonymous = Some(true);
}

/// How many syncs there have been.
async fn readings(world: &World) -> usize {
    world.upstream.seen().len()
}

#[tokio::test]
async fn a_signed_delivery_leads_to_a_sync() {
    let world = World::start_with(&tenants(0..3), with_secrets).await;
    world.upstream.list(&tenants(0..4));
    assert_eq!(Delivery::new("msg_1", NEW).send(&world.replica).await, StatusCode::ACCEPTED);
    eventually(SOON, "the new tenant is there", async || world.plane.all().await.len() == 4).await;

    world.upstream.list(&tenants(0..5));
    assert_eq!(Delivery::new("msg_2", OLD).send(&world.replica).await, StatusCode::ACCEPTED);
    eventually(SOON, "any secret is good", async || world.plane.all().await.len() == 5).await;
    let metrics = world.replica.metrics().await;
    assert!(metrics.contains("grey_tenant_sync_webhooks_total{outcome=\"accepted\""), "{metrics}");
    world.stop().await;
}

#[tokio::test]
async fn a_delivery_that_is_repeated_is_confirmed_and_ignored() {
    let world = World::start_with(&tenants(0..3), with_secrets).await;
    let delivery = Delivery::new("msg_1", NEW);
    assert_eq!(delivery.send(&world.replica).await, StatusCode::ACCEPTED);
    let handled = async || world.replica.status().await.handled.len();
    eventually(SOON, "the sync has ended", async || handled().await == 1).await;
    for repeated in [delivery.clone(), delivery.later(1, OLD)] {
        assert_eq!(repeated.send(&world.replica).await, StatusCode::OK);
    }
    assert_eq!(Delivery::new("msg_2", NEW).send(&world.replica).await, StatusCode::ACCEPTED);
    eventually(SOON, "the other sync has ended", async || handled().await == 2).await;
    assert_eq!(readings(&world).await, 3, "the first one, and two that were asked for");
    world.stop().await;
}

#[tokio::test]
async fn a_sender_that_hangs_up_too_early_is_heard_the_next_time() {
    let redis = Redis::start().await.unwrap();
    let options =
        redis::Options { urls: vec![redis.url()], response_timeout_ms: 60_000, ..redis::Options::default() };
    let (upstream, plane) = (Upstream::start().await, Plane::start().await);
    let state = State::redis(&options).await.unwrap();
    upstream.list(&tenants(0..3));
    let mut config = config(&upstream, &plane.url());
    with_secrets(&mut config);
    config.access.tokens.clear();
    config.lease.ttl = Duration::from_secs(300);
    let replica = Replica::start(config, &state).await;
    replica.first_run().await;
    upstream.list(&tenants(0..4));
    let delivery = Delivery::new("msg_1", NEW);
    redis.pause().unwrap();
    // Long enough for the signature to be checked, and for nothing else.
    let cut = tokio::time::timeout(Duration::from_secs(1), delivery.send(&replica)).await;
    assert!(cut.is_err(), "the store was to be frozen");
    redis.resume().unwrap();
    eventually(SOON, "it is taken, or was", async || {
        matches!(delivery.send(&replica).await, StatusCode::ACCEPTED | StatusCode::OK)
    })
    .await;
    eventually(SOON, "the new tenant is there", async || plane.all().await.len() == 4).await;
    replica.stop().await;
    plane.stop().await;
}

#[tokio::test]
async fn deliveries_that_prove_nothing_are_refused() {
    let world = World::start_with(&tenants(0..3), with_secrets).await;
    let good = Delivery::new("msg_1", NEW);
    let forged = Delivery::new("msg_1", "whsec_////////////////////////////////");
    let other_body = Delivery { body: "{}".to_owned(), ..good.clone() };
    let other_id = Delivery { id: "msg_2".to_owned(), ..good.clone() };
    let other_time = Delivery { at: good.at + 1, ..good.clone() };
    let unsigned = Delivery { signature: "v1,".to_owned(), ..good.clone() };
    let old = good.later(-400, NEW);
    let early = good.later(400, NEW);
    for delivery in [forged, other_body, other_id, other_time, unsigned, old, early] {
        assert_eq!(delivery.send(&world.replica).await, StatusCode::UNAUTHORIZED);
    }
    let nameless = Delivery::made("", NEW, good.at, "");
    assert_eq!(nameless.send(&world.replica).await, StatusCode::BAD_REQUEST);
    let endless = Delivery::made(&"m".repeat(300), NEW, good.at, "");
    assert_eq!(endless.send(&world.replica).await, StatusCode::BAD_REQUEST);
    let before_time = Delivery::made("msg_1", NEW, -1, "");
    assert_eq!(before_time.send(&world.replica).await, StatusCode::BAD_REQUEST);
    let large = Delivery::made("msg_1", NEW, good.at, &"x".repeat(70_000));
    assert_eq!(large.send(&world.replica).await, StatusCode::PAYLOAD_TOO_LARGE);
    let url = format!("{}/api/sync/webhook", world.replica.base);
    assert_eq!(reqwest::get(&url).await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
    let bare = reqwest::Client::new().post(&url).send().await.unwrap();
    assert_eq!(bare.status(), StatusCode::BAD_REQUEST);
    let refusal: serde_json::Value = bare.json().await.unwrap();
    assert_eq!(refusal["error"]["reason"], "INVALID_ARGUMENT");
    assert_eq!(readings(&world).await, 1, "only the first sync");

    let metrics = world.replica.metrics().await;
    assert!(metrics.contains("grey_tenant_sync_webhooks_total{outcome=\"refused\""), "{metrics}");
    assert_eq!(good.send(&world.replica).await, StatusCode::ACCEPTED, "none of them was remembered");
    world.stop().await;
}

#[tokio::test]
async fn without_a_secret_there_is_no_webhook() {
    let world = World::start_with(&tenants(0..3), |config| {
        with_secrets(config);
        config.webhook.secrets.clear();
    })
    .await;
    assert_eq!(Delivery::new("msg_1", NEW).send(&world.replica).await, StatusCode::NOT_FOUND);
    world.stop().await;
}

#[tokio::test]
async fn any_replica_takes_deliveries_and_none_without_a_leader() {
    let (upstream, plane, state) = (Upstream::start().await, Plane::start().await, State::memory());
    upstream.list(&tenants(0..3));
    let mut config = config(&upstream, &plane.url());
    with_secrets(&mut config);
    config.access.tokens.clear();
    let leader = Replica::start(config.clone(), &state).await;
    leader.first_run().await;
    let other = Replica::start(config.clone(), &state).await;
    upstream.list(&tenants(0..4));
    assert_eq!(Delivery::new("msg_1", NEW).send(&other).await, StatusCode::ACCEPTED);
    eventually(SOON, "the leader has synced", async || plane.all().await.len() == 4).await;
    leader.stop().await;
    other.stop().await;

    // Nobody has ever led here, and nobody can.
    let state = State::memory();
    let lease = grey_core::ids::Name::new("tenant-sync").unwrap();
    state.leases.acquire(&lease, "someone", Duration::from_secs(3_600)).await.unwrap().unwrap();
    let alone = Replica::start(config, &state).await;
    let delivery = Delivery::new("msg_2", NEW);
    for _ in 0..2 {
        assert_eq!(delivery.send(&alone).await, StatusCode::SERVICE_UNAVAILABLE, "to be repeated");
    }
    alone.stop().await;
    plane.stop().await;
}
