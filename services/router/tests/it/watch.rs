//! Watch streams: a client's table equals the router's, whatever happens in between.

use grey_core::change::{Change, Epoch, Event, Position, Revision};
use grey_core::error::Reason;
use grey_core::ids::ServiceId;
use grey_core::instance::Instance;
use grey_core::key::{Fact, Key};
use grey_core::record::Record;
use grey_core::table::Table;
use grey_core::tenant::Tenant;
use grey_proto::router::{WatchRequest, WatchResponse, watch_response::Frame};
use tonic::Streaming;

use crate::world::{
    Router, World, instances_of, payment, pin, put_service, put_tenant, put_version, service, told, within,
};

/// A client that folds frames into a table, as an SDK does.
struct Client {
    frames: Streaming<WatchResponse>,
    table: Table,
    snapshots: usize,
    complete: bool,
}

impl Client {
    async fn open(router: &Router, request: WatchRequest) -> Self {
        let frames = within(router.client.clone().watch(request)).await.unwrap().into_inner();
        Self { frames, table: Table::default(), snapshots: 0, complete: false }
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
    let held = client.table.position();
    // As one message it would be more than clients take by default.
    world.publish((0..30_000).map(|i| put_tenant(&format!("{i:060}"))).collect()).await;
    client.until(&world).await;
    assert_eq!(client.snapshots, 2);
    let request = WatchRequest { epoch: held.epoch.0, revision: held.revision.0, services: Vec::new() };
    let mut late = Client::open(&router, request).await;
    late.until(&world).await;
    assert_eq!(late.snapshots, 1, "nor can a client continue over it");
    router.stop().await;
}

#[tokio::test]
async fn lagging_client_gets_a_fresh_snapshot() {
    let mut world = World::memory().await.with_payment().await;
    let router = world.start().await;
    router.follows(&world).await;
    let mut client = Client::open(&router, WatchRequest::default()).await;
    client.until(&world).await;
    // Far more than windows, channel and backlog hold, while nobody reads.
    let labels = (0..20).map(|i| (format!("note{i}").parse().unwrap(), "x".repeat(100))).collect();
    let tenant = Tenant { labels, ..Tenant::new("acme".parse().unwrap()) };
    for _ in 0..2_500 {
        world.publish(vec![Change::Put(Fact::Tenant(Box::new(tenant.clone())))]).await;
    }
    router.reached(world.table.position().revision).await;
    client.until(&world).await;
    assert!(client.snapshots >= 2, "{}", client.snapshots);
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

    let from =
        |epoch: u64| WatchRequest { epoch, revision: held.position().revision.0, ..WatchRequest::default() };
    let mut again = Client::open(&router, from(1)).await;
    (again.table, again.complete) = (held.clone(), true);
    again.until(&world).await;
    assert_eq!(again.snapshots, 0);
    change_at_random(&mut world, 10, 20).await;
    again.until(&world).await;

    let mut foreign = Client::open(&router, from(9)).await;
    foreign.until(&world).await;
    assert_eq!(foreign.snapshots, 1, "another history needs a snapshot");
    let ahead = WatchRequest { revision: 9_999, ..from(1) };
    let mut ahead = Client::open(&router, ahead).await;
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
