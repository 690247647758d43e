//! Watch streams: a client's table equals the router's, whatever happens in between.

use std::time::Duration;

use grey_core::change::{Change, Epoch, Event, Position, Revision};
use grey_core::error::Reason;
use grey_core::ids::ServiceId;
use grey_core::instance::Instance;
use grey_core::key::{Fact, Key};
use grey_core::record::Record;
use grey_core::table::Table;
use grey_core::tenant::Tenant;
use grey_proto::router::router_service_client::RouterServiceClient;
use grey_proto::router::{WatchHeartbeat, WatchRequest, WatchResponse, watch_response::Frame};
use grey_state::{State, memory};
use tonic::Streaming;
use tonic::transport::Endpoint;

use crate::world::{
    Router, World, eventually, instances_of, payment, pin, put_service, put_tenant, put_version, service,
    told, within,
};

/// Bytes that may wait for one watcher.
const WINDOW: u64 = 256 << 10;

/// A client that folds frames into a table, as an SDK does.
struct Client {
    frames: Streaming<WatchResponse>,
    table: Table,
    snapshots: usize,
    complete: bool,
    beat: WatchHeartbeat,
    beats: usize,
}

impl Client {
    async fn open(router: &Router, request: WatchRequest) -> Self {
        let frames = within(router.client.clone().watch(request)).await.unwrap().into_inner();
        let (table, beat) = (Table::default(), WatchHeartbeat::default());
        Self { frames, table, snapshots: 0, complete: false, beat, beats: 0 }
    }

    /// Continues with a table that the client has already.
    async fn resume(router: &Router, held: &Table) -> Self {
        let Position { epoch, revision } = held.position();
        let request = WatchRequest { epoch: epoch.0, revision: revision.0, ..WatchRequest::default() };
        Self { table: held.clone(), complete: true, ..Self::open(router, request).await }
    }

    async fn step(&mut self) {
        let message = within(self.frames.message()).await.unwrap().unwrap();
        match message.frame.clone().unwrap() {
            Frame::Begin(begin) => {
                self.table = Table::default();
                self.complete = false;
                self.snapshots += 1;
                let (epoch, revision) = (Epoch(begin.epoch), Revision(begin.revision));
                self.table.set_position(Position { epoch, revision });
            }
            Frame::Services(_) | Frame::Tenants(_) => {
                let records: Vec<Record> = message.try_into().unwrap();
                assert!(!records.is_empty());
                records.into_iter().for_each(|record| self.table.insert(record));
            }
            Frame::Instances(list) => {
                let (service, instances): (ServiceId, Vec<Instance>) = list.try_into().unwrap();
                self.table.set_instances(&service, instances);
            }
            Frame::End(end) => {
                self.complete = true;
                if end.digest != 0 {
                    assert_eq!(end.digest, self.table.digest());
                }
            }
            Frame::Event(event) => {
                let event: Event = event.try_into().unwrap();
                self.table.apply(&event).unwrap();
            }
            Frame::Heartbeat(beat) => {
                self.beat = beat;
                self.beats += 1;
            }
        }
    }

    /// Takes frames until a heartbeat of which `wanted` is true.
    async fn until_beat(&mut self, wanted: impl Fn(&WatchHeartbeat) -> bool) {
        let before = self.beats;
        while self.beats == before || !wanted(&self.beat) {
            self.step().await;
        }
    }

    async fn until_revision(&mut self, revision: Revision) {
        while !self.complete || self.table.position().revision < revision {
            self.step().await;
        }
    }

    async fn until(&mut self, world: &World) {
        let wanted = instances_of(&world.table);
        while !self.complete
            || self.table.position() != world.table.position()
            || instances_of(&self.table) != wanted
        {
            self.step().await;
        }
        assert_eq!(self.table.digest(), world.table.digest());
    }
}

/// A run of changes of every kind; the same seed gives the same run.
async fn change_at_random(world: &mut World, seed: u64, changes: usize) {
    let mut random = seed;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for _ in 0..changes {
        let (tenant, name) = (format!("t{}", next(20)), format!("s{}", next(3)));
        let to = format!("v{}.0", 1 + next(3));
        let declared = world.table.tenant(&tenant).is_some() && world.table.service(&name).is_some();
        let (id, unpinned) = (tenant.parse().unwrap(), (tenant.parse().unwrap(), service(&name)));
        let changes = match next(8) {
            0 => vec![Change::Removed(Key::Tenant(id))],
            1 => vec![put_service(&name, &to), put_version(&name, &to)],
            // As the control plane refuses them: pins of what is not declared.
            2.. if !declared => vec![put_service(&name, &to), put_version(&name, &to), put_tenant(&tenant)],
            2 => vec![put_version(&name, &to)],
            3 => vec![Change::Removed(Key::Pin(unpinned.0, unpinned.1))],
            4..6 => vec![pin(&tenant, &name, &to)],
            _ => {
                let ids: Vec<String> = (0..next(4)).map(|i| format!("{name}-{i}")).collect();
                let list: Vec<(&str, &str)> = ids.iter().map(|id| (id.as_str(), to.as_str())).collect();
                world.run(&name, &list).await;
                continue;
            }
        };
        world.publish(changes).await;
    }
}

#[tokio::test]
async fn client_follows_random_changes_exactly() {
    let mut world = World::memory().await.with_payment().await;
    let router = world.start().await;
    router.follows(&world).await;
    let mut client = Client::open(&router, WatchRequest::default()).await;
    client.until(&world).await;
    for seed in 0..5 {
        change_at_random(&mut world, seed, 100).await;
        client.until(&world).await;
    }
    assert_eq!(client.snapshots, 1, "changes come as changes");
    router.stop().await;
}

#[tokio::test]
async fn snapshot_of_many_tenants_arrives_whole() {
    let mut world = World::memory().await.with_payment().await;
    let tenants: Vec<String> = (0..2_500).map(|i| format!("tenant-{i}")).collect();
    world.publish(tenants.iter().flat_map(|t| [put_tenant(t), pin(t, "payment", "v2.0")]).collect()).await;
    let router = world.start().await;
    router.follows(&world).await;
    let mut client = Client::open(&router, WatchRequest::default()).await;
    client.until(&world).await;
    assert_eq!(client.table.tenant_count(), 2_502);
    router.stop().await;
}

#[tokio::test]
async fn event_of_very_many_changes_comes_as_a_snapshot() {
    let mut world = World::memory().await.with_payment().await;
    let router = world.start().await;
    router.follows(&world).await;
    let mut client = Client::open(&router, WatchRequest::default()).await;
    client.until(&world).await;
    let held = client.table.clone();
    // As one message it would be more than clients take by default.
    world.publish((0..30_000).map(|i| put_tenant(&format!("{i:060}"))).collect()).await;
    client.until(&world).await;
    assert_eq!(client.snapshots, 2);
    let mut late = Client::resume(&router, &held).await;
    late.until(&world).await;
    assert_eq!(late.snapshots, 1, "nor can a client continue over it");
    router.stop().await;
}

/// A gauge of the router's.
async fn gauge(router: &Router, name: &str) -> u64 {
    let metrics = router.get("/metrics").await.1;
    let line = metrics.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Publishes far more than windows, what waits and what is kept may hold, while nobody reads.
async fn publish_much(world: &mut World) {
    let labels = (0..20).map(|i| (format!("note{i}").parse().unwrap(), "x".repeat(100))).collect();
    let tenant = Tenant { labels, ..Tenant::new("acme".parse().unwrap()) };
    // More than may wait for a client, and fewer than the follower tells at once.
    for _ in 0..900 {
        world.publish(vec![Change::Put(Fact::Tenant(Box::new(tenant.clone())))]).await;
    }
}

#[tokio::test]
async fn lagging_client_catches_up_on_what_is_read_again() {
    let mut world = World::memory().await.with_payment().await;
    let router = Router::start(world.state.clone(), |c| c.watch.recent_bytes = 65_536).await;
    router.follows(&world).await;
    let mut client = Client::open(&router, WatchRequest::default()).await;
    client.until(&world).await;
    publish_much(&mut world).await;
    router.reached(world.table.position().revision).await;
    assert!(gauge(&router, "grey_router_watch_waiting_bytes").await <= WINDOW);
    assert!(gauge(&router, "grey_router_watch_recent_bytes").await <= 65_536);
    client.until(&world).await;
    assert_eq!(client.snapshots, 1, "only the first");
    router.stop().await;
}

#[tokio::test]
async fn client_that_lags_behind_the_feed_gets_a_fresh_snapshot() {
    let options = memory::Options { feed_length: 50, ..memory::Options::default() };
    let mut world = World::on(State::memory_with(&options), 1).await.with_payment().await;
    let router = Router::start(world.state.clone(), |c| c.watch.recent_bytes = 65_536).await;
    router.follows(&world).await;
    let mut client = Client::open(&router, WatchRequest::default()).await;
    client.until(&world).await;
    publish_much(&mut world).await;
    router.reached(world.table.position().revision).await;
    client.until(&world).await;
    assert!(client.snapshots >= 2, "{}", client.snapshots);
    router.stop().await;
}

#[tokio::test]
async fn little_waits_for_clients_that_resume_over_many_large_events() {
    let (clients, kept) = (10, 1 << 20);
    let mut world = World::memory().await.with_payment().await;
    let router = Router::start(world.state.clone(), |c| c.watch.recent_bytes = kept).await;
    router.follows(&world).await;
    let held = world.table.clone();
    for _ in 0..100 {
        world.publish((0..300).map(|i| put_tenant(&format!("{i:060}"))).collect()).await;
    }
    router.follows(&world).await;
    let mut resumed = Vec::new();
    for _ in 0..clients {
        resumed.push(Client::resume(&router, &held).await);
    }
    // Nobody reads: what may wait does.
    let waiting = async || gauge(&router, "grey_router_watch_waiting_bytes").await;
    eventually("all that may wait does", async || waiting().await > clients * WINDOW / 2).await;
    assert!(waiting().await <= clients * WINDOW);
    assert!(gauge(&router, "grey_router_watch_recent_bytes").await <= kept as u64);
    // At the same time, since they share a connection.
    futures::future::join_all(resumed.iter_mut().map(|client| client.until(&world))).await;
    assert!(resumed.iter().all(|client| client.snapshots == 0));
    drop(resumed);
    eventually("nothing is kept for nobody", async || {
        waiting().await + gauge(&router, "grey_router_watch_recent_bytes").await == 0
    })
    .await;
    router.stop().await;
}

#[tokio::test]
async fn heartbeats_tell_how_old_a_table_is() {
    let mut world = World::memory().await.with_payment().await;
    let router = Router::start(world.state.clone(), |c| {
        c.watch.heartbeat = Duration::from_millis(100);
        c.feed.wait = Duration::from_millis(20);
        c.feed.stale_after = Duration::from_millis(300);
    })
    .await;
    router.follows(&world).await;
    let mut client = Client::open(&router, WatchRequest::default()).await;
    client.until(&world).await;
    let at = world.table.position();
    for _ in 0..3 {
        // Nothing happens, and yet there is something to read.
        client
            .until_beat(|beat| beat.current && (beat.epoch, beat.revision) == (at.epoch.0, at.revision.0))
            .await;
    }
    let revision = world.publish(vec![pin("acme", "payment", "v2.0")]).await;
    client.until_beat(|beat| beat.revision == revision.0).await;
    // The publisher falls silent.
    let age = |beat: &WatchHeartbeat| Duration::try_from(beat.age.unwrap()).unwrap();
    drop(world);
    client.until_beat(|beat| !beat.current).await;
    assert!(age(&client.beat) > Duration::from_millis(300), "{:?}", client.beat);
    let before = age(&client.beat);
    client.until_beat(|beat| age(beat) > before).await;
    router.stop().await;
}

fn resident(id: &str, regions: &[&str]) -> Change {
    let residency = regions.iter().map(|region| region.parse().unwrap()).collect();
    Change::Put(Fact::Tenant(Box::new(Tenant { residency, ..Tenant::new(id.parse().unwrap()) })))
}

fn pinned(table: &Table) -> Vec<String> {
    let pins = table.tenant_records().flat_map(|record| {
        let tenant = record.tenant.id.to_string();
        record.pins.into_iter().map(move |(service, pin)| format!("{tenant}/{service}/{}", pin.version))
    });
    let mut pins: Vec<String> = pins.collect();
    pins.sort();
    pins
}

#[tokio::test]
async fn selected_tenants_alone_are_sent() {
    let mut world = World::memory().await.with_payment().await;
    let router = world.start().await;
    router.follows(&world).await;
    let request = WatchRequest { tenants: vec!["beta".into(), "later".into()], ..WatchRequest::default() };
    let mut client = Client::open(&router, request).await;
    client.until_revision(world.table.position().revision).await;
    assert_eq!(
        (pinned(&client.table), client.table.tenant_count()),
        (vec!["beta/payment/v2.0".to_owned()], 1)
    );
    world.publish(vec![pin("acme", "payment", "v2.0")]).await;
    let last = world.publish(vec![put_tenant("later"), pin("later", "payment", "v1.0")]).await;
    client.until_revision(last).await;
    assert_eq!(pinned(&client.table), ["beta/payment/v2.0", "later/payment/v1.0"]);
    assert_eq!(instances_of(&client.table), instances_of(&world.table), "services are sent whole");
    router.stop().await;
}

#[tokio::test]
async fn tenants_come_and_go_with_their_residency() {
    let mut world = World::memory().await.with_payment().await;
    world.publish(vec![resident("acme", &["us"]), pin("acme", "payment", "v2.0")]).await;
    let router = world.start().await;
    router.follows(&world).await;
    let request = WatchRequest { region: "eu".into(), ..WatchRequest::default() };
    let mut client = Client::open(&router, request).await;
    client.until_revision(world.table.position().revision).await;
    assert_eq!(pinned(&client.table), ["beta/payment/v2.0"], "who has no residency may be served anywhere");
    let moved = world.publish(vec![resident("acme", &["us", "eu"])]).await;
    client.until_revision(moved).await;
    assert_eq!(pinned(&client.table), ["acme/payment/v2.0", "beta/payment/v2.0"], "with what it had before");
    let gone = world.publish(vec![resident("beta", &["us"])]).await;
    client.until_revision(gone).await;
    assert_eq!(pinned(&client.table), ["acme/payment/v2.0"]);
    assert_eq!(client.snapshots, 1, "changes come as changes");
    router.stop().await;
}

#[tokio::test]
async fn selected_services_alone_are_sent() {
    let mut world = World::memory().await.with_payment().await;
    world
        .publish(vec![
            put_service("ledger", "v1.0"),
            put_version("ledger", "v1.0"),
            pin("acme", "ledger", "v1.0"),
        ])
        .await;
    world.run("ledger", &[("l1", "v1.0")]).await;
    let router = world.start().await;
    router.follows(&world).await;
    let request = WatchRequest { services: vec!["ledger".into()], ..WatchRequest::default() };
    let mut client = Client::open(&router, request).await;
    while !client.complete {
        client.step().await;
    }
    assert!(client.table.service("payment").is_none());
    assert_eq!(instances_of(&client.table), ["ledger/v1.0/l1"]);
    let pins: Vec<_> = client.table.tenant_records().flat_map(|record| record.pins).collect();
    assert_eq!(pins.len(), 1);
    world.publish(vec![pin("beta", "payment", "v1.0")]).await;
    world.publish(vec![pin("beta", "ledger", "v1.0"), pin("beta", "payment", "v2.0")]).await;
    let last = world.table.position().revision;
    while client.table.position().revision < last {
        client.step().await;
    }
    assert!(client.table.service("payment").is_none(), "the other service's changes are left out");
    assert_eq!(client.table.tenant_records().flat_map(|record| record.pins).count(), 2);
    router.stop().await;
}

#[tokio::test]
async fn client_with_a_table_continues_without_a_snapshot() {
    let mut world = World::memory().await.with_payment().await;
    let router = world.start().await;
    router.follows(&world).await;
    let mut client = Client::open(&router, WatchRequest::default()).await;
    client.until(&world).await;
    let held = client.table.clone();
    drop(client);
    change_at_random(&mut world, 9, 60).await;
    router.follows(&world).await;

    let mut again = Client::resume(&router, &held).await;
    again.until(&world).await;
    assert_eq!(again.snapshots, 0);
    change_at_random(&mut world, 10, 20).await;
    again.until(&world).await;

    let from = |epoch, revision| WatchRequest { epoch, revision, ..WatchRequest::default() };
    let mut foreign = Client::open(&router, from(9, held.position().revision.0)).await;
    foreign.until(&world).await;
    assert_eq!(foreign.snapshots, 1, "another history needs a snapshot");
    let mut ahead = Client::open(&router, from(1, 9_999)).await;
    ahead.until(&world).await;
    assert_eq!(ahead.snapshots, 1, "a revision that is not there yet needs a snapshot");
    router.stop().await;
}

#[tokio::test]
async fn watchers_are_bounded() {
    let world = World::memory().await.with_payment().await;
    let router = Router::start(world.state.clone(), |c| c.limits.watchers = 2).await;
    router.follows(&world).await;
    let mut one = Client::open(&router, WatchRequest::default()).await;
    let mut two = Client::open(&router, WatchRequest::default()).await;
    one.step().await;
    two.step().await;
    let third = within(router.client.clone().watch(WatchRequest::default())).await;
    assert_eq!(told(third.map(drop)).reason, Reason::RateLimited);
    drop(one);
    crate::world::eventually("the place is free again", async || {
        within(router.client.clone().watch(WatchRequest::default())).await.is_ok()
    })
    .await;
    router.stop().await;
}

#[tokio::test]
async fn watchers_without_a_window_are_ended_and_their_places_are_free() {
    let world = World::memory().await.with_payment().await;
    let router = Router::start(world.state.clone(), |c| {
        c.limits.watchers = 2;
        c.grpc.server.write_timeout = Duration::from_millis(100);
    })
    .await;
    router.follows(&world).await;
    let mut deaf = Vec::new();
    for _ in 0..2 {
        let endpoint = Endpoint::from_shared(format!("http://{}", router.grpc)).unwrap();
        let channel = within(endpoint.initial_stream_window_size(0_u32).connect()).await.unwrap();
        let mut client = RouterServiceClient::new(channel);
        deaf.push(within(client.watch(WatchRequest::default())).await.unwrap().into_inner());
    }
    for frames in &mut deaf {
        assert!(within(frames.message()).await.is_err(), "its connection is ended");
    }
    let mut watching = Vec::new();
    eventually("both places are free", async || {
        watching.extend(within(router.client.clone().watch(WatchRequest::default())).await.ok());
        watching.len() == 2
    })
    .await;
    router.stop().await;
}

#[tokio::test]
async fn another_epoch_starts_watchers_over() {
    let world = World::memory().await.with_payment().await;
    let router = world.start().await;
    router.follows(&world).await;
    let mut client = Client::open(&router, WatchRequest::default()).await;
    client.until(&world).await;
    let mut second = World::on(world.state.clone(), 2).await;
    second.publish(payment()).await;
    second.table.set_instances(&service("payment"), world.instances("payment"));
    client.until(&second).await;
    assert!(client.snapshots >= 2);
    router.stop().await;
}
