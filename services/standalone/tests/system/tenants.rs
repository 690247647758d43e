//! Tenants as a tenant API lists them, up to the calls that are answered for them.

use crate::server::{DEADLINE, Server, settings, stage};
use axum::Json;
use axum::extract::State as Shared;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use grey_core::error::Reason;
use grey_proto::control::catalog_service_client::CatalogServiceClient;
use grey_proto::control::change::Change;
use grey_proto::control::history_service_client::HistoryServiceClient;
use grey_proto::control::{Event, ListEventsRequest, PutServiceRequest, Service};
use grey_proto::router::RouteRequest;
use grey_proto::router::router_service_client::RouterServiceClient;
use grey_proto::status::from_status;
use grey_proto::sync::sync_service_client::SyncServiceClient;
use grey_proto::sync::{GetStatusRequest, HoldReason, SyncStatus, TriggerRequest};
use grey_testkit::{Redis, eventually};
use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;
use tempfile::TempDir;
use tokio::task::JoinSet;

const SERVICE: &str = "orders";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// Tenants in the beginning, and in the end.
const FIRST: usize = 200;
const ALL: usize = 2_200;
/// Changes that are applied together.
const BATCH: usize = 10;
/// Batches of a large sync that are applied before it is interrupted.
const DONE: u64 = 20;

/// What the tenant API lists: the status of each tenant.
type Listed = Arc<Mutex<BTreeMap<String, &'static str>>>;

struct World {
    listed: Listed,
    control: Server,
    router: Server,
    replicas: Vec<Server>,
    _mirror: Server,
    _redis: Redis,
    _store: TempDir,
    _upstream: JoinSet<()>,
}

fn id(number: usize) -> String {
    format!("t{number:04}")
}

async fn list(Shared(listed): Shared<Listed>) -> Json<Value> {
    let listed = listed.lock().unwrap();
    let entries = listed.iter().map(|(id, status)| json!({"id": id, "name": id, "status": status}));
    Json(json!({"tenants": entries.collect::<Vec<_>>()}))
}

impl World {
    /// The API lists the first tenants, and the services start on an empty control plane.
    async fn start() -> Self {
        grey_runtime::tls::install_provider();
        let (listed, mut upstream) = (Listed::default(), JoinSet::new());
        listed.lock().unwrap().extend((0..FIRST).map(|number| (id(number), "active")));
        let app = axum::Router::new().route("/api/tenants", get(list)).with_state(listed.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let source = format!("http://{}", listener.local_addr().unwrap());
        upstream.spawn(async move { axum::serve(listener, app).await.unwrap() });

        let redis = Redis::start().await.unwrap();
        let urls = format!("[\"{}\"]", redis.url());
        let store = tempfile::tempdir().unwrap();
        let instances = store.path().join("instances.yaml");
        let text = format!("services:\n  {SERVICE}:\n    - {{id: a, address: 10.0.0.1:80, version: v1.0}}\n");
        std::fs::write(&instances, text).unwrap();
        let sources = format!("[{{ name = \"file\", kind = \"file\", path = \"{}\" }}]", instances.display());
        let database = format!("sqlite://{}/control.db", store.path().display());
        let control = settings([("DATABASE__URL", &database), ("REDIS__URLS", &urls)]);
        let control = Server::new("grey-control-plane", control);
        let plane = format!("http://{}", control.grpc);
        let secrets = format!("[\"{SECRET}\"]");
        let replica = |name: &str| {
            let settings = settings([
                ("REPLICA", name),
                ("SOURCE__URL", &source),
                ("CONTROL__URL", &plane),
                ("APPLY__BATCH", &BATCH.to_string()),
                ("SYNC__INTERVAL", "1h"),
                ("SYNC__MIN_GAP", "100ms"),
                ("LEASE__TTL", "6s"),
                ("WEBHOOK__SECRETS", &secrets),
                ("REDIS__URLS", &urls),
            ]);
            Server::new("grey-tenant-sync", settings)
        };
        let world = Self {
            router: Server::new("grey-router", settings([("ROUTER__ID", "a"), ("REDIS__URLS", &urls)])),
            _mirror: Server::new(
                "grey-registry-sync",
                settings([("SOURCES", &sources), ("REDIS__URLS", &urls)]),
            ),
            replicas: vec![replica("0"), replica("1")],
            listed,
            control,
            _redis: redis,
            _store: store,
            _upstream: upstream,
        };
        world.control.until_ready().await;
        let mut catalog = CatalogServiceClient::new(world.control.channel());
        let declared = Service { id: SERVICE.to_owned(), default_version: "v1.0".to_owned(), revision: 0 };
        catalog.put_service(PutServiceRequest { service: Some(declared), write: None }).await.unwrap();
        world.router.until_ready().await;
        world
    }

    /// Why a call of a tenant is refused; none: it is not.
    async fn refusal(&self, number: usize) -> Option<Reason> {
        let call =
            RouteRequest { tenant: id(number), service: SERVICE.to_owned(), ..RouteRequest::default() };
        let answer = RouterServiceClient::new(self.router.channel()).route(call).await;
        answer.err().map(|status| from_status(&status).reason)
    }

    /// The tenants among `numbers` whose calls are refused, and why.
    async fn refused(&self, numbers: Range<usize>) -> BTreeMap<usize, Reason> {
        let mut refused = BTreeMap::new();
        for number in numbers {
            refused.extend(self.refusal(number).await.map(|why| (number, why)));
        }
        refused
    }

    async fn until_routed(&self, what: &str, numbers: Range<usize>) {
        // The last one first: the others are likely to be there then.
        let last = numbers.end - 1;
        eventually(DEADLINE * 2, what, async || self.refusal(last).await.is_none()).await;
        eventually(DEADLINE, what, async || {
            self.refused(numbers.clone()).await.values().all(|why| *why == Reason::TenantSuspended)
        })
        .await;
    }

    /// What the leader tells, if it `fits`.
    async fn status_where(&self, what: &str, fits: impl Fn(&SyncStatus) -> bool) -> SyncStatus {
        let mut found = None;
        eventually(DEADLINE, what, async || {
            let replica = self.replicas.iter().find(|replica| replica.runs()).unwrap();
            let mut asked = SyncServiceClient::new(replica.channel());
            let Ok(answer) = asked.get_status(GetStatusRequest {}).await else { return false };
            let status = answer.into_inner().status.unwrap();
            let fits = !status.leader.is_empty() && fits(&status);
            found = Some(status).filter(|_| fits);
            fits
        })
        .await;
        found.unwrap()
    }

    /// Which replica leads, and which does not.
    async fn places(&self) -> (usize, usize) {
        let leader: usize = self.status_where("a replica leads", |_| true).await.leader.parse().unwrap();
        (leader, 1 - leader)
    }

    /// Asks for a sync at `replica`, and waits for its end if told to.
    async fn trigger(&self, replica: usize, wait: bool) {
        let request = TriggerRequest { wait: wait.then(|| DEADLINE.into()) };
        let mut client = SyncServiceClient::new(self.replicas[replica].channel());
        let handled = client.trigger(request).await.unwrap().into_inner().handled;
        assert_eq!(handled.map(|handled| handled.error), wait.then(String::new));
    }

    /// Tells `replica` that something has changed, as the tenant API does.
    async fn deliver(&self, replica: usize) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let body = "{\"type\":\"tenant.updated\"}";
        let key = STANDARD.decode(SECRET.strip_prefix("whsec_").unwrap()).unwrap();
        let mut signature = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        signature.update(format!("msg_1.{now}.{body}").as_bytes());
        let signature = format!("v1,{}", STANDARD.encode(signature.finalize().into_bytes()));
        let request = reqwest::Client::new()
            .post(format!("http://{}/api/sync/webhook", self.replicas[replica].http))
            .header("webhook-id", "msg_1")
            .header("webhook-timestamp", now.to_string())
            .header("webhook-signature", signature)
            .body(body);
        assert_eq!(request.send().await.unwrap().status(), reqwest::StatusCode::ACCEPTED);
    }

    async fn events(&self) -> Vec<Event> {
        crate::model::read_log(self.control.channel()).await
    }
}

/// How often each tenant was written.
fn writes(events: &[Event]) -> BTreeMap<&str, usize> {
    let mut writes = BTreeMap::new();
    for change in events.iter().flat_map(|event| &event.changes) {
        if let Some(Change::TenantPut(tenant)) = &change.change {
            *writes.entry(tenant.id.as_str()).or_default() += 1;
        }
    }
    writes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_follow_their_api_up_to_each_call_and_through_an_interrupted_sync() {
    let _stage = stage().await;
    let mut world = World::start().await;
    world.until_routed("all tenants are routed", 0..FIRST).await;
    assert_eq!(world.refused(0..FIRST).await, BTreeMap::new());

    // The API suspends one and says so, to a replica that does not lead.
    let (_, other) = world.places().await;
    world.listed.lock().unwrap().insert(id(7), "suspended");
    world.deliver(other).await;
    eventually(DEADLINE, "it is refused", async || world.refusal(7).await == Some(Reason::TenantSuspended))
        .await;
    let suspended = BTreeMap::from([(7, Reason::TenantSuspended)]);
    assert_eq!(world.refused(0..FIRST).await, suspended);

    // The API loses half of its tenants.
    let before = world.events().await.len();
    let lost = world.listed.lock().unwrap().split_off(&id(FIRST / 2));
    world.trigger(other, true).await;
    let status = world.status_where("the shrink is held", |status| status.held_total == 1).await;
    assert_eq!(status.held[0].reason(), HoldReason::TenantShrink);
    assert_eq!(status.held[0].affected, lost.len() as u64);
    assert_eq!(world.events().await.len(), before, "nothing was written");
    assert_eq!(world.refused(0..FIRST).await, suspended);

    // It finds them again, with many more; the leader dies in the middle.
    let more = (FIRST..ALL).map(|number| (id(number), "active"));
    world.listed.lock().unwrap().extend(lost.into_iter().chain(more));
    let (leader, other) = world.places().await;
    world.trigger(other, false).await;
    let enough = before as u64 + DONE;
    let mut history = HistoryServiceClient::new(world.control.channel());
    loop {
        let page = ListEventsRequest { after: enough - 1, limit: 1, ..ListEventsRequest::default() };
        if history.list_events(page).await.unwrap().into_inner().revision >= enough {
            break;
        }
    }
    world.replicas[leader].kill9();
    let done = writes(&world.events().await).len();
    assert!(done < ALL, "it was to be killed in the middle");
    eprintln!("killed after {done} of {ALL} tenants");
    world.until_routed("the other replica finishes", 0..ALL).await;
    assert_eq!(world.refused(0..ALL).await, suspended);
    let none_held = |status: &SyncStatus| status.held_total == 0 && status.leader == other.to_string();
    world.status_where("nothing is held", none_held).await;
    let events = world.events().await;
    let twice: Vec<_> =
        writes(&events).into_iter().filter(|(_, count)| *count > 1).map(|(id, _)| id.to_owned()).collect();
    assert_eq!(twice, [id(7)], "what was applied before the kill is not applied again");
    assert_eq!(events.len(), before + (ALL - FIRST) / BATCH, "whole batches, one event each");
}
