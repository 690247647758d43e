//! What has been acknowledged survives whatever happens to the process.

use std::collections::BTreeMap;

use grey_proto::control::history_service_client::HistoryServiceClient;
use grey_proto::control::tenant_service_client::TenantServiceClient;
use grey_proto::control::{Event, ListEventsRequest, PutTenantRequest, change};
use grey_state::State;
use grey_testkit::{Spawned, free_port};
use tokio::sync::mpsc;
use tonic::transport::Channel;

use crate::fixture::{Backend, Plane, SOON, Store, config, tenant};

/// The program itself. Its Redis is away: writes do not need it.
async fn spawn(url: &str) -> (Spawned, Channel) {
    let redis = format!("[\"redis://127.0.0.1:{}\"]", free_port().unwrap());
    let program = Spawned::builder(env!("CARGO_BIN_EXE_grey-control-plane"))
        .env("GREY__DATABASE__URL", url)
        .env("GREY__REDIS__URLS", redis)
        .env("GREY__GRPC__LISTEN", "127.0.0.1:0")
        .env("GREY__HTTP__LISTEN", "127.0.0.1:0")
        .start()
        .unwrap();
    let line = program.wait_for_line("grpc.address", SOON).await.unwrap();
    let address = line.split("grpc.address=").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    (program, channel)
}

async fn log(channel: Channel) -> Vec<Event> {
    let mut history = HistoryServiceClient::new(channel);
    let mut events: Vec<Event> = Vec::new();
    loop {
        let after = events.last().map_or(0, |event| event.revision);
        let request = ListEventsRequest { after, limit: 1_000, ..ListEventsRequest::default() };
        let page = history.list_events(request).await.unwrap().into_inner().events;
        if page.is_empty() {
            return events;
        }
        events.extend(page);
    }
}

/// Writes tenants until the program is gone; tells each acknowledged revision.
async fn write(channel: Channel, name: String, acknowledged: mpsc::UnboundedSender<(u64, String)>) {
    let mut tenants = TenantServiceClient::new(channel);
    for i in 0.. {
        let id = format!("{name}-{i}");
        let request = PutTenantRequest { tenant: Some(tenant(&id)), write: None, update_mask: Vec::new() };
        let Ok(response) = tenants.put_tenant(request).await else { return };
        acknowledged.send((response.into_inner().result.unwrap().revision, id)).unwrap();
    }
}

async fn acknowledged_commands_survive_kill9(backend: Backend) {
    let store = Store::new(backend).await;
    let mut known: BTreeMap<u64, String> = BTreeMap::new();
    for round in 0..3 {
        let (program, channel) = spawn(&store.url).await;
        let (to, mut from) = mpsc::unbounded_channel();
        let writers = (0..8).map(|writer| write(channel.clone(), format!("r{round}-w{writer}"), to.clone()));
        let writers = tokio::spawn(futures::future::join_all(writers.collect::<Vec<_>>()));
        drop(to);
        for _ in 0..60 {
            let (revision, id) = from.recv().await.unwrap();
            assert!(known.insert(revision, id).is_none());
        }
        program.kill9().unwrap();
        writers.await.unwrap();
        while let Some((revision, id)) = from.recv().await {
            assert!(known.insert(revision, id).is_none());
        }
    }
    let (program, channel) = spawn(&store.url).await;
    let events = log(channel).await;
    let revisions: Vec<_> = events.iter().map(|event| event.revision).collect();
    assert_eq!(revisions, (1..=u64::try_from(events.len()).unwrap()).collect::<Vec<_>>());
    for (revision, id) in known {
        let event = events.iter().find(|event| event.revision == revision).unwrap();
        let Some(change::Change::TenantPut(put)) = &event.changes.first().unwrap().change else {
            panic!("{event:?}")
        };
        assert_eq!(put.id, id, "revision {revision}");
    }
    assert!(program.terminate(SOON).await.unwrap().success());
}

#[tokio::test]
async fn acknowledged_commands_survive_kill9_on_sqlite() {
    acknowledged_commands_survive_kill9(Backend::Sqlite).await;
}

#[tokio::test]
async fn acknowledged_commands_survive_kill9_on_postgres() {
    acknowledged_commands_survive_kill9(Backend::Postgres).await;
}

#[tokio::test]
async fn replicas_that_start_at_once_migrate_an_empty_database_once() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let store = Store::new(backend).await;
        let start = async || {
            let own = Store::borrowed(&store.url);
            Plane::start_with(own, config(&store.url), State::memory()).await
        };
        let (one, two, three) = tokio::join!(start(), start(), start());
        assert_eq!(one.put_tenant("a").await, 1);
        assert_eq!(two.put_tenant("b").await, 2);
        assert_eq!(three.put_tenant("c").await, 3);
        // Each replica sees what the others wrote.
        assert_eq!(one.put_tenant("c").await, 3);
        let (one, two) = (one.events().await, two.events().await);
        assert!(one == two && one.len() == 3);
    }
}

#[tokio::test]
async fn writers_of_two_replicas_share_one_order() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let store = Store::new(backend).await;
        let one = Plane::start_with(Store::borrowed(&store.url), config(&store.url), State::memory()).await;
        let two = Plane::start_with(Store::borrowed(&store.url), config(&store.url), State::memory()).await;
        let write = async |plane: &Plane, name: &str| {
            let mut seen = Vec::new();
            for i in 0..30 {
                seen.push(plane.put_tenant(&format!("{name}{i}")).await);
            }
            seen
        };
        let (a, b) = tokio::join!(write(&one, "a"), write(&two, "b"));
        assert!(a.is_sorted() && b.is_sorted());
        let mut all = [a, b].concat();
        all.sort_unstable();
        assert_eq!(all, (1..=60).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn an_epoch_outlives_restarts_and_the_next_exceeds_all_that_were_seen() {
    use grey_control_plane::database::Database;
    use grey_core::change::{Epoch, Revision};
    let store = Store::new(Backend::Sqlite).await;
    let options = config(&store.url).database;
    let first = Database::open(&options).await.unwrap().head().await.unwrap();
    let database = Database::open(&options).await.unwrap();
    assert_eq!(database.head().await.unwrap(), first);
    assert_eq!((first.epoch, first.revision), (Epoch(1), Revision(0)));
    let next = database.start_epoch(first.epoch, Epoch(0)).await.unwrap();
    assert_eq!((next.epoch, next.revision), (Epoch(2), first.revision));
    // Of two that find the same epoch outdated, one starts the next.
    assert_eq!(database.start_epoch(first.epoch, Epoch(7)).await.unwrap(), next);
    assert_eq!(database.start_epoch(next.epoch, Epoch(7)).await.unwrap().epoch, Epoch(8));
    // None follows the last, and nothing pretends to.
    assert!(database.start_epoch(Epoch(8), Epoch(u64::MAX)).await.is_err());
    assert_eq!(database.head().await.unwrap().epoch, Epoch(8));
}

#[tokio::test]
async fn a_database_in_memory_serves_reads_writes_and_the_publisher() {
    let url = "sqlite::memory:";
    let plane = Plane::start_with(Store::borrowed(url), config(url), State::memory()).await;
    plane.acme().await;
    let (writes, reads) = tokio::join!(
        futures::future::join_all(
            (0..20).map(async |i| plane.put_pin("acme", "payment", ["1", "1.0"][i % 2]).await)
        ),
        futures::future::join_all((0..20).map(async |_| plane.events().await.len())),
    );
    assert!(writes.iter().all(|written| matches!(written, Ok(4))), "{writes:?}");
    assert!(reads.iter().all(|read| (3..=4).contains(read)));
    grey_testkit::eventually(SOON, "it is published", async || {
        let status = plane.state.projection.status().await.unwrap();
        status.is_some_and(|status| status.position.revision.0 == 4)
    })
    .await;
}
