//! Whatever happens between the event log and a router, both end with the same table.

use async_trait::async_trait;
use grey_core::change::{Change, Event, Generation, Position, Record, Revision};
use grey_core::ids::{Name, ServiceId, TenantId};
use grey_core::schema::SchemaWindow;
use grey_core::service::{Pin, Service, ServiceVersion};
use grey_core::table::Table;
use grey_core::tenant::Tenant;
use grey_core::version::Version;
use grey_state::feed::FeedEntry;
use grey_state::follower::{self, Follower, Tables};
use grey_state::heartbeats::Heartbeat;
use grey_state::publisher::{self, EventLog, Handle, LogError, Publisher, Snapshot};
use grey_state::{FencingToken, State, memory};
use grey_testkit::{Redis, eventually};
use proptest::prelude::*;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(30);

/// A log in memory that can be set back, as a restored database is.
struct Log(Mutex<(Generation, Vec<Event>)>, AfterSnapshot);

/// What happens to the log right after its next snapshot was read.
type AfterSnapshot = Mutex<Option<Box<dyn FnOnce(&Log) + Send>>>;

impl Log {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new((generation(), Vec::new())), Mutex::default()))
    }

    fn commit(&self, changes: Vec<Change>) {
        let mut log = self.0.lock().unwrap();
        let revision = Revision(log.1.len() as u64 + 1);
        log.1.push(Event { revision, at_ms: 0, actor: String::new(), reason: String::new(), changes });
    }

    fn set_back(&self, to: usize) {
        self.0.lock().unwrap().1.truncate(to);
    }

    fn table(&self) -> Table {
        let log = self.0.lock().unwrap();
        let mut table = Table::default();
        for event in &log.1 {
            table.apply(event).unwrap();
        }
        table.set_position(Position { generation: log.0.clone(), revision: Revision(log.1.len() as u64) });
        table
    }
}

fn generation() -> Generation {
    Generation(uuid::Uuid::now_v7().to_string().into())
}

#[async_trait]
impl EventLog for Log {
    async fn head(&self) -> Result<Position, LogError> {
        Ok(self.table().position().clone())
    }

    async fn events(&self, after: Revision, limit: usize) -> Result<Vec<Event>, LogError> {
        let log = self.0.lock().unwrap();
        Ok(log.1.iter().filter(|e| e.revision > after).take(limit).cloned().collect())
    }

    async fn snapshot(&self, records: mpsc::Sender<Vec<Record>>) -> Result<Snapshot, LogError> {
        let (table, last) = (self.table(), self.0.lock().unwrap().1.last().cloned());
        if let Some(then) = self.1.lock().unwrap().take() {
            then(self);
        }
        let services = table.service_records().map(Record::Service).collect();
        let tenants = table.tenant_records().map(Record::Tenant).collect();
        for batch in [services, tenants] {
            if records.send(batch).await.is_err() {
                break;
            }
        }
        Ok(Snapshot { position: table.position().clone(), last })
    }

    async fn start_generation(&self, present: &Generation) -> Result<Position, LogError> {
        {
            let mut log = self.0.lock().unwrap();
            if log.0 == *present {
                log.0 = generation();
            }
        }
        self.head().await
    }
}

/// A task that ends with its owner.
struct Task(CancellationToken, Option<JoinHandle<()>>);

impl Task {
    fn start<F: Future<Output = ()> + Send + 'static>(run: impl FnOnce(CancellationToken) -> F) -> Self {
        let stop = CancellationToken::new();
        Self(stop.clone(), Some(tokio::spawn(run(stop))))
    }

    /// Ends at whatever point it is, like a killed process: nothing is given up or finished.
    fn kill(mut self) {
        self.1.take().unwrap().abort();
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

fn publish(state: &State, log: &Arc<Log>) -> (Task, Handle) {
    let options = publisher::Options {
        lease: Duration::from_millis(200),
        poll: Duration::from_millis(2),
        check: Duration::from_millis(10),
        deep_check: Duration::from_millis(200),
        batch: 3,
        ..publisher::Options::new(&uuid::Uuid::now_v7().to_string())
    };
    let (publisher, handle) = Publisher::new(state.clone(), log.clone(), options);
    (Task::start(|stop| publisher.run(stop)), handle)
}

fn follow(state: &State, from: Option<Table>) -> (Task, Tables) {
    let options = follower::Options {
        wait: Duration::from_millis(20),
        batch: 2,
        backoff: (Duration::from_millis(1), Duration::from_millis(20)),
        ..follower::Options::default()
    };
    let (follower, tables) = Follower::new(state.clone(), options);
    let follower = match from {
        Some(table) => follower.with_table(table),
        None => follower,
    };
    let beating = beat(state.clone(), tables.clone());
    (Task::start(|stop| async { tokio::select!(() = follower.run(stop) => {}, () = beating => {}) }), tables)
}

/// What a router tells of itself; without it nobody knows how far it is.
async fn beat(state: State, tables: Tables) {
    let router = format!("router-{}", uuid::Uuid::now_v7());
    loop {
        let status = tables.status();
        let heartbeat = Heartbeat {
            router: router.clone(),
            address: String::new(),
            region: String::new(),
            zone: String::new(),
            position: status.position,
            digest: status.digest,
            stale: status.stale,
        };
        drop(state.heartbeats.beat(&heartbeat, Duration::from_millis(200)).await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn until_equal(state: &State, log: &Log, tables: &Tables, what: &str) {
    let equal = async || {
        let (expected, table) = (log.table(), tables.load_full());
        table.position() == expected.position() && table.digest() == expected.digest()
    };
    let reached = tokio::time::timeout(DEADLINE, eventually(DEADLINE * 2, what, equal)).await;
    if reached.is_err() {
        let (log, follower) = (log.table(), tables.status());
        let (feed, projection) = (state.feed.head().await, state.projection.status().await);
        panic!(
            "not in time: {what}: log {:?} digest {}, {follower:?}, {feed:?}, {projection:?}",
            log.position(),
            log.digest()
        );
    }
}

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<Change>),
    KillPublisher,
    SecondPublisher,
    RestartFollower { keep_table: bool },
    PublishAgain(usize),
    TrimFeed,
    AbandonRebuild,
    SetLogBack(usize),
    Wipe,
    Settle,
}

fn tenant(i: u8) -> TenantId {
    TenantId::new(&format!("t{i}")).unwrap()
}

fn service(i: u8) -> ServiceId {
    ServiceId::new(&format!("s{i}")).unwrap()
}

fn version(i: u8) -> Version {
    Version::new(&format!("{i}")).unwrap()
}

fn change() -> impl Strategy<Value = Change> {
    let pin = |(t, s, v, locked)| Change::PinPut {
        tenant: tenant(t),
        service: service(s),
        pin: Pin { version: version(v), locked },
    };
    prop_oneof![
        2 => (0..4u8).prop_map(|t| Change::TenantPut(Tenant::new(tenant(t)))),
        1 => (0..4u8).prop_map(|t| Change::TenantRemoved(tenant(t))),
        2 => (0..3u8, 0..3u8).prop_map(|(s, v)| Change::ServicePut(Service { id: service(s), default: version(v) })),
        2 => (0..3u8, 0..3u8).prop_map(|(s, v)| Change::VersionPut(ServiceVersion {
            service: service(s), version: version(v), window: SchemaWindow::default()
        })),
        5 => (0..4u8, 0..3u8, 0..3u8, any::<bool>()).prop_map(pin),
        2 => (0..4u8, 0..3u8).prop_map(|(t, s)| Change::PinRemoved { tenant: tenant(t), service: service(s) }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop::collection::vec(change(), 1..4).prop_map(Step::Commit),
        2 => Just(Step::KillPublisher),
        1 => Just(Step::SecondPublisher),
        2 => any::<bool>().prop_map(|keep_table| Step::RestartFollower { keep_table }),
        1 => (0..8usize).prop_map(Step::PublishAgain),
        1 => Just(Step::TrimFeed),
        1 => Just(Step::AbandonRebuild),
        1 => (0..10usize).prop_map(Step::SetLogBack),
        1 => Just(Step::Wipe),
        2 => Just(Step::Settle),
    ]
}

/// What the control plane guarantees: only declared tenants and services are pinned.
fn only_lawful(table: &Table, changes: Vec<Change>) -> Vec<Change> {
    let lawful = |change: &Change| match change {
        Change::PinPut { tenant, service, .. } => {
            table.tenant(tenant.as_str()).is_some()
                && table.service(service.as_str()).is_some_and(|s| s.default_version().is_some())
        }
        Change::VersionPut(version) => {
            table.service(version.service.as_str()).is_some_and(|s| s.default_version().is_some())
        }
        _ => true,
    };
    changes.into_iter().filter(lawful).take(1).collect()
}

async fn run(state: State, redis: Option<&Redis>, steps: Vec<Step>) {
    let log = Log::new();
    let mut publishers = vec![publish(&state, &log).0];
    let (mut following, mut tables) = follow(&state, None);
    for step in steps {
        match step {
            Step::Commit(changes) => {
                let changes = only_lawful(&log.table(), changes);
                if !changes.is_empty() {
                    log.commit(changes);
                }
            }
            Step::KillPublisher => {
                publishers.drain(..).for_each(Task::kill);
                publishers.push(publish(&state, &log).0);
            }
            Step::SecondPublisher => publishers.push(publish(&state, &log).0),
            Step::RestartFollower { keep_table } => {
                let table = Table::clone(&tables.load_full());
                following.kill();
                (following, tables) =
                    follow(&state, keep_table.then_some(table).filter(|t| t.position().revision.0 > 0));
            }
            Step::PublishAgain(back) => {
                let log = log.table();
                let old = Revision(log.position().revision.0.saturating_sub(back as u64));
                let event = Event {
                    revision: old,
                    at_ms: 0,
                    actor: String::new(),
                    reason: String::new(),
                    changes: vec![],
                };
                let entry = FeedEntry { event, digest: 1 };
                // A late write of an old leader: refused, or out of place; never an entry.
                drop(state.feed.append(FencingToken(1), &log.position().generation, &entry).await);
            }
            Step::TrimFeed => {
                if let Some(redis) = redis {
                    let mut connection = redis.connection().await.unwrap();
                    let mut trim = redis::cmd("XTRIM");
                    trim.arg("grey:changes").arg("MAXLEN").arg(1).exec_async(&mut connection).await.unwrap();
                }
            }
            Step::AbandonRebuild => {
                publishers.drain(..).for_each(Task::kill);
                let position = log.table().position().clone();
                drop(state.projection.rebuild(lead(&state).await, &position).await);
                publishers.push(publish(&state, &log).0);
            }
            Step::SetLogBack(to) => log.set_back(to),
            Step::Wipe => {
                if let Some(redis) = redis {
                    let mut connection = redis.connection().await.unwrap();
                    redis::cmd("FLUSHALL").exec_async(&mut connection).await.unwrap();
                }
            }
            Step::Settle => until_equal(&state, &log, &tables, "the follower reaches the log").await,
        }
    }
    until_equal(&state, &log, &tables, "the follower reaches the log in the end").await;
    let (_fresh, fresh) = follow(&state, None);
    until_equal(&state, &log, &fresh, "a fresh follower loads the same").await;
}

/// Takes the lead for a moment, as a publisher that is killed right after does.
async fn lead(state: &State) -> FencingToken {
    let token = Mutex::new(None);
    eventually(DEADLINE, "the lease is free", async || {
        let lease = Name::new("publisher").unwrap();
        let acquired = state.leases.acquire(&lease, "short-lived", Duration::from_millis(20)).await;
        *token.lock().unwrap() = acquired.ok().flatten();
        token.lock().unwrap().is_some()
    })
    .await;
    token.into_inner().unwrap().unwrap()
}

fn on_a_runtime(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(work);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 30, ..ProptestConfig::default() })]

    #[test]
    fn any_interleaving_ends_in_the_same_table_in_memory(steps in prop::collection::vec(step(), 1..30)) {
        on_a_runtime(run(State::memory_with(&memory::Options { feed_length: 6, instances_length: 10 }), None, steps));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 10, ..ProptestConfig::default() })]

    #[test]
    fn any_interleaving_ends_in_the_same_table_in_redis(steps in prop::collection::vec(step(), 1..30)) {
        on_a_runtime(async {
            let redis = Redis::start().await.unwrap();
            let state = State::redis(&crate::options_of(&redis)).await.unwrap();
            run(state, Some(&redis), steps).await;
        });
    }
}

#[tokio::test]
async fn a_set_back_log_starts_a_new_generation() {
    let (state, log) = (State::memory(), Log::new());
    let (_publisher, _handle) = publish(&state, &log);
    let (_follower, tables) = follow(&state, None);
    for i in 0..3 {
        log.commit(vec![Change::TenantPut(Tenant::new(tenant(i)))]);
    }
    until_equal(&state, &log, &tables, "the follower reaches the log").await;
    let before = log.table().position().generation.clone();
    log.set_back(1);
    eventually(DEADLINE, "the log starts a new generation", async || {
        log.table().position().generation > before
    })
    .await;
    until_equal(&state, &log, &tables, "the follower takes the set-back state").await;
    assert!(tables.load().tenant("t2").is_none());
}

#[tokio::test]
async fn a_follower_never_goes_back_within_a_generation() {
    let (state, log) = (State::memory(), Log::new());
    let (publisher, _handle) = publish(&state, &log);
    let (following, tables) = follow(&state, None);
    for i in 0..3 {
        log.commit(vec![Change::TenantPut(Tenant::new(tenant(i)))]);
    }
    until_equal(&state, &log, &tables, "the follower reaches the log").await;
    publisher.kill();
    following.kill();

    // Another store of the same generation that is one revision behind, as after a restore from an older dump.
    let (behind, older) = (State::memory(), Log::new());
    *older.0.lock().unwrap() = log.0.lock().unwrap().clone();
    older.set_back(2);
    let (_publisher, handle) = publish(&behind, &older);
    eventually(DEADLINE, "the older store is published", async || handle.published() == Revision(2)).await;
    let before = log.table().position().clone();
    let (_follower, kept) = follow(&behind, Some(Table::clone(&tables.load_full())));
    eventually(DEADLINE, "the older log starts a new generation", async || {
        let position = kept.load().position().clone();
        assert!(position.generation > before.generation || position == before, "went back to {position:?}");
        position.generation > before.generation
    })
    .await;
    until_equal(&behind, &older, &kept, "the follower takes the restored state").await;
    assert!(kept.load().tenant("t2").is_none());
}

#[tokio::test]
async fn a_table_that_has_drifted_is_loaded_anew() {
    let (state, log) = (State::memory(), Log::new());
    let (_publisher, handle) = publish(&state, &log);
    for i in 0..2 {
        log.commit(vec![Change::TenantPut(Tenant::new(tenant(i)))]);
    }
    eventually(DEADLINE, "the log is published", async || handle.published() == Revision(2)).await;
    // It claims the log's position but lacks what the log holds, so the feed alone can never mend it.
    let mut drifted = Table::default();
    drifted.set_position(log.table().position().clone());
    let (_follower, tables) = follow(&state, Some(drifted));
    log.commit(vec![Change::TenantPut(Tenant::new(tenant(2)))]);
    until_equal(&state, &log, &tables, "the drifted table is loaded anew").await;
    assert!(tables.load().tenant("t0").is_some());
    assert!(tables.status().drifts >= 1);
}

#[tokio::test]
async fn a_table_that_has_drifted_is_loaded_anew_without_another_event() {
    let (state, log) = (State::memory(), Log::new());
    let (_publisher, handle) = publish(&state, &log);
    log.commit(vec![Change::TenantPut(Tenant::new(tenant(0)))]);
    eventually(DEADLINE, "the log is published", async || handle.published() == Revision(1)).await;
    let mut drifted = Table::default();
    drifted.set_position(log.table().position().clone());
    let (_follower, tables) = follow(&state, Some(drifted));
    until_equal(&state, &log, &tables, "the drifted table is loaded anew").await;
    assert_eq!(tables.status().drifts, 1);
}

#[tokio::test]
async fn a_log_rewritten_while_the_publisher_starts_is_noticed() {
    let (state, log) = (State::memory(), Log::new());
    log.commit(vec![Change::TenantPut(Tenant::new(tenant(0)))]);
    *log.1.lock().unwrap() = Some(Box::new(|log| {
        log.set_back(0);
        log.commit(vec![Change::TenantPut(Tenant::new(tenant(1)))]);
    }));
    let (_publisher, _handle) = publish(&state, &log);
    let (_follower, tables) = follow(&state, None);
    until_equal(&state, &log, &tables, "the follower takes the rewritten log").await;
    assert!(tables.load().tenant("t1").is_some());
}

#[tokio::test]
async fn a_log_rewritten_while_nobody_publishes_is_noticed() {
    let (state, log) = (State::memory(), Log::new());
    // It leaves the table empty, whose digest is that of a table that was not reckoned.
    log.commit(vec![Change::TenantRemoved(tenant(0))]);
    let (publisher, handle) = publish(&state, &log);
    let (_follower, tables) = follow(&state, None);
    eventually(DEADLINE, "the log is published", async || handle.published() == Revision(1)).await;
    until_equal(&state, &log, &tables, "the follower reaches the log").await;
    publisher.kill();
    log.set_back(0);
    log.commit(vec![Change::TenantPut(Tenant::new(tenant(1)))]);
    let (_publisher, _handle) = publish(&state, &log);
    until_equal(&state, &log, &tables, "the follower takes the rewritten log").await;
    assert!(tables.load().tenant("t1").is_some());
}

#[tokio::test]
async fn one_event_of_several_changes_is_seen_at_once() {
    let (state, log) = (State::memory(), Log::new());
    let (_publisher, _handle) = publish(&state, &log);
    let (_follower, tables) = follow(&state, None);
    log.commit(vec![
        Change::TenantPut(Tenant::new(tenant(0))),
        Change::ServicePut(Service { id: service(0), default: version(0) }),
        Change::ServicePut(Service { id: service(1), default: version(0) }),
    ]);
    let mut applied = tables.applied();
    tokio::time::timeout(DEADLINE, applied.wait_for(|p| p.revision >= Revision(1))).await.unwrap().unwrap();
    let both = |table: &Table| (table.service("s0").is_some(), table.service("s1").is_some());
    assert_eq!(both(&tables.load()), (true, true));
}
