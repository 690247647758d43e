//! A log, publishers of it, and followers.

use crate::samples::tenant_put;
use async_trait::async_trait;
use grey_core::change::{Change, EntryHash, Epoch, Event, FormatLevel, Position, Revision};
use grey_core::ids::TenantId;
use grey_core::record::Record;
use grey_core::table::Table;
use grey_core::tenant::Tenant;
use grey_state::follower::{self, Follower, Tables};
use grey_state::heartbeats::Heartbeat;
use grey_state::publisher::{self, EventLog, Following, Handle, LogError, Publisher, Snapshot, Tip};
use grey_state::{FencingToken, State};
use grey_testkit::eventually;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A log in memory that can be set back, as a restored database is, and that can fail.
pub(crate) struct Log {
    pub(crate) history: Mutex<History>,
    pub(crate) after_snapshot: AfterSnapshot,
    lead: Mutex<Lead>,
    /// Nothing is answered meanwhile.
    pub(crate) wedged: watch::Sender<bool>,
    /// Events from here on make their reader panic.
    pub(crate) poisoned_from: Mutex<Option<Revision>>,
    /// The last epoch that was published.
    published: Mutex<Epoch>,
}

#[derive(Clone)]
pub(crate) struct History {
    pub(crate) epoch: Epoch,
    pub(crate) events: Vec<Event>,
}

impl History {
    /// What it holds up to a revision, if it goes so far.
    fn tip(&self, revision: Revision) -> Option<Tip> {
        let number = usize::try_from(revision.0).unwrap();
        let held = self.events.get(..number)?.last().map_or(0, |event| {
            let mut hasher = DefaultHasher::new();
            format!("{event:?}").hash(&mut hasher);
            hasher.finish()
        });
        let mut hash = EntryHash::default();
        hash.0[..8].copy_from_slice(&held.to_le_bytes());
        Some(Tip { revision, hash })
    }
}

#[derive(Default)]
struct Lead {
    token: u64,
    held: Option<(String, Instant)>,
}

/// What happens to the log right after its next snapshot was read.
type AfterSnapshot = Mutex<Option<Box<dyn FnOnce(&Log) + Send>>>;

impl Log {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            history: Mutex::new(History { epoch: Epoch(1), events: Vec::new() }),
            after_snapshot: Mutex::default(),
            lead: Mutex::default(),
            wedged: watch::Sender::new(false),
            poisoned_from: Mutex::default(),
            published: Mutex::default(),
        })
    }

    pub(crate) fn commit(&self, changes: Vec<Change>) {
        self.commit_at(FormatLevel::FIRST, changes);
    }

    pub(crate) fn commit_at(&self, level: FormatLevel, changes: Vec<Change>) {
        let mut log = self.history.lock().unwrap();
        let revision = Revision(log.events.len() as u64 + 1);
        log.events.push(Event { revision, level, changes, ..Event::default() });
    }

    pub(crate) fn set_back(&self, to: usize) {
        self.history.lock().unwrap().events.truncate(to);
    }

    pub(crate) fn table(&self) -> Table {
        let log = self.history.lock().unwrap();
        let mut table = Table::default();
        for event in &log.events {
            table.apply(event).unwrap();
        }
        table.set_position(Position { epoch: log.epoch, revision: Revision(log.events.len() as u64) });
        table
    }

    /// The table of a revision of the present epoch.
    pub(crate) fn table_at(&self, revision: Revision) -> Table {
        let log = self.history.lock().unwrap();
        let mut table = Table::default();
        for event in log.events.iter().take_while(|event| event.revision <= revision) {
            table.apply(event).unwrap();
        }
        table
    }

    /// Takes the lead for a moment, as a publisher that is killed right after does.
    pub(crate) async fn lead_shortly(&self) -> FencingToken {
        let token = Mutex::new(None);
        eventually(DEADLINE, "the lead is free", async || {
            let lead = self.lead("short-lived", Duration::from_millis(20), FencingToken(0)).await;
            *token.lock().unwrap() = lead.unwrap();
            token.lock().unwrap().is_some()
        })
        .await;
        token.into_inner().unwrap().unwrap()
    }

    pub(crate) fn token(&self) -> FencingToken {
        FencingToken(self.lead.lock().unwrap().token)
    }

    async fn answers(&self) {
        self.wedged.subscribe().wait_for(|wedged| !wedged).await.unwrap();
    }
}

#[async_trait]
impl EventLog for Log {
    async fn head(&self) -> Result<Position, LogError> {
        self.answers().await;
        Ok(self.table().position())
    }

    async fn events(&self, after: Revision, limit: usize) -> Result<Vec<Event>, LogError> {
        self.answers().await;
        let log = self.history.lock().unwrap().clone();
        let events: Vec<Event> = log.events.into_iter().filter(|e| e.revision > after).take(limit).collect();
        let poisoned = *self.poisoned_from.lock().unwrap();
        assert!(!events.iter().any(|e| poisoned.is_some_and(|from| e.revision >= from)), "a poisoned event");
        Ok(events)
    }

    async fn follow(&self, tip: &Tip, limit: usize) -> Result<Option<Following>, LogError> {
        let events = self.events(tip.revision, limit).await?;
        let log = self.history.lock().unwrap();
        let next = Revision(tip.revision.0 + events.len() as u64);
        let holds = log.tip(tip.revision).as_ref() == Some(tip);
        Ok(log.tip(next).filter(|_| holds).map(|tip| Following { events, tip }))
    }

    async fn snapshot(&self, records: mpsc::Sender<Vec<Record>>) -> Result<Snapshot, LogError> {
        self.answers().await;
        let (table, log) = (self.table(), self.history.lock().unwrap().clone());
        if let Some(then) = self.after_snapshot.lock().unwrap().take() {
            then(self);
        }
        let services = table.service_records().map(Record::Service).collect();
        let tenants = table.tenant_records().map(Record::Tenant).collect();
        for batch in [services, tenants] {
            if records.send(batch).await.is_err() {
                break;
            }
        }
        let level = log.events.iter().map(|event| event.level).max().unwrap_or_default();
        let hash = log.tip(table.position().revision).unwrap().hash;
        Ok(Snapshot { position: table.position(), hash, level })
    }

    async fn start_epoch(&self, present: Epoch, seen: Epoch) -> Result<Position, LogError> {
        {
            let mut log = self.history.lock().unwrap();
            if log.epoch == present {
                log.epoch = Epoch(seen.0 + 1);
            }
        }
        self.head().await
    }

    async fn note_published(&self, epoch: Epoch) -> Result<bool, LogError> {
        let mut published = self.published.lock().unwrap();
        let is_first = *published < epoch;
        *published = (*published).max(epoch);
        Ok(is_first)
    }

    async fn lead(
        &self,
        holder: &str,
        ttl: Duration,
        above: FencingToken,
    ) -> Result<Option<FencingToken>, LogError> {
        let mut lead = self.lead.lock().unwrap();
        let now = Instant::now();
        match &lead.held {
            Some((other, until)) if other != holder && *until > now => return Ok(None),
            Some((other, until)) if other == holder && *until > now && lead.token > above.0 => {}
            _ => lead.token = (lead.token + 1).max(above.0 + 1),
        }
        lead.held = Some((holder.to_owned(), now + ttl));
        Ok(Some(FencingToken(lead.token)))
    }

    async fn resign(&self, holder: &str) -> Result<(), LogError> {
        let mut lead = self.lead.lock().unwrap();
        lead.held.take_if(|(held_by, _)| held_by == holder);
        Ok(())
    }
}

/// A task that ends with its owner.
pub(crate) struct Task(CancellationToken, Option<JoinHandle<()>>);

impl Task {
    fn start<F: Future<Output = ()> + Send + 'static>(run: impl FnOnce(CancellationToken) -> F) -> Self {
        let stop = CancellationToken::new();
        Self(stop.clone(), Some(tokio::spawn(run(stop))))
    }

    /// Ends at whatever point it is, like a killed process: nothing is given up or finished.
    pub(crate) fn kill(mut self) {
        self.1.take().unwrap().abort();
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Short intervals; the level is far above what any event here needs.
pub(crate) fn publisher_options() -> publisher::Options {
    publisher::Options {
        lease: Duration::from_millis(200),
        poll: Duration::from_millis(2),
        beat: Duration::from_millis(2),
        check: Duration::from_millis(10),
        deep_check: Duration::from_millis(200),
        batch: 3,
        level: FormatLevel(9),
        ..publisher::Options::new(&uuid::Uuid::now_v7().to_string())
    }
}

pub(crate) fn publish(state: &State, log: &Arc<Log>) -> (Task, Handle) {
    publish_with(state, log, publisher_options())
}

pub(crate) fn publish_with(state: &State, log: &Arc<Log>, options: publisher::Options) -> (Task, Handle) {
    let (publisher, handle) = Publisher::new(state.clone(), log.clone(), options);
    (Task::start(|stop| publisher.run(stop)), handle)
}

pub(crate) fn follower_options() -> follower::Options {
    follower::Options {
        wait: Duration::from_millis(20),
        look: Duration::from_millis(10),
        batch: 2,
        backoff: (Duration::from_millis(1), Duration::from_millis(20)),
        ..follower::Options::default()
    }
}

pub(crate) fn follow(state: &State, from: Option<Table>) -> (Task, Tables) {
    follow_with(state, from, follower_options())
}

pub(crate) fn follow_with(state: &State, from: Option<Table>, options: follower::Options) -> (Task, Tables) {
    let level = options.level;
    let (follower, tables) = Follower::new(state.clone(), options);
    let follower = match from {
        Some(table) => follower.with_table(table),
        None => follower,
    };
    let beating = beat(state.clone(), tables.clone(), level);
    (Task::start(|stop| async { tokio::select!(() = follower.run(stop) => {}, () = beating => {}) }), tables)
}

/// What a router tells of itself; without it nobody knows how far it is.
async fn beat(state: State, tables: Tables, level: FormatLevel) {
    let router = format!("router-{}", uuid::Uuid::now_v7());
    loop {
        let status = tables.status();
        let (digest, stale) = (status.digest, !status.is_current());
        let lease = Duration::from_millis(200);
        let heartbeat = Heartbeat { digest, stale, level, lease, ..heartbeat(&router, status.position) };
        drop(state.heartbeats.beat(&heartbeat).await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn heartbeat(router: &str, position: Position) -> Heartbeat {
    Heartbeat {
        router: router.to_owned(),
        run: 1,
        address: String::new(),
        region: String::new(),
        zone: String::new(),
        position,
        digest: 0,
        stale: false,
        level: FormatLevel::CURRENT,
        lease: Duration::from_secs(60),
    }
}

pub(crate) async fn until_equal(state: &State, log: &Log, tables: &Tables, what: &str) {
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

pub(crate) fn tenant(i: u8) -> TenantId {
    TenantId::new(&format!("t{i}")).unwrap()
}

/// Declares a tenant.
pub(crate) fn put_tenant(i: u8) -> Vec<Change> {
    vec![tenant_put(Tenant::new(tenant(i)))]
}

pub(crate) fn on_a_runtime(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(work);
}
