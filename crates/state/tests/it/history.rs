//! Whatever happens between the event log and a router, both end with the same table.

use crate::samples::{canary, overlay_id, service_put, tenant_put};
use crate::world::{
    DEADLINE, Log, Task, follow, heartbeat, on_a_runtime, publish, put_tenant, tenant, until_equal,
};
use grey_core::change::{Change, Epoch, Event, FormatLevel, Position, Revision};
use grey_core::ids::ServiceId;
use grey_core::key::{Fact, Key};
use grey_core::schema::SchemaWindow;
use grey_core::service::{Pin, ServiceVersion};
use grey_core::table::Table;
use grey_core::tenant::Tenant;
use grey_core::version::Version;
use grey_state::feed::FeedEntry;
use grey_state::projection::ProjectionStatus;
use grey_state::{Digests, FencingToken, State, memory};
use grey_testkit::{Redis, eventually};
use proptest::prelude::*;

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

fn service(i: u8) -> ServiceId {
    ServiceId::new(&format!("s{i}")).unwrap()
}

fn version(i: u8) -> Version {
    Version::new(&format!("{i}")).unwrap()
}

fn change() -> impl Strategy<Value = Change> {
    let pin = |(t, s, v, locked)| {
        Change::Put(Fact::Pin(tenant(t), service(s), Pin { version: version(v), locked }))
    };
    let overlay =
        |(s, o, weight)| Change::Put(Fact::Overlay(service(s), Box::new(canary(&format!("o{o}"), weight))));
    prop_oneof![
        2 => (0..4u8).prop_map(|t| tenant_put(Tenant::new(tenant(t)))),
        1 => (0..4u8).prop_map(|t| Change::Removed(Key::Tenant(tenant(t)))),
        2 => (0..3u8, 0..3u8).prop_map(|(s, v)| service_put(&service(s), &version(v))),
        2 => (0..3u8, 0..3u8).prop_map(|(s, v)| Change::Put(Fact::Version(Box::new(ServiceVersion {
            service: service(s), version: version(v), window: SchemaWindow::default()
        })))),
        5 => (0..4u8, 0..3u8, 0..3u8, any::<bool>()).prop_map(pin),
        2 => (0..4u8, 0..3u8).prop_map(|(t, s)| Change::Removed(Key::Pin(tenant(t), service(s)))),
        2 => (0..3u8, 0..2u8, 0..300u32).prop_map(overlay),
        1 => (0..3u8, 0..2u8).prop_map(|(s, o)| Change::Removed(Key::Overlay(service(s), overlay_id(&format!("o{o}"))))),
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

/// What the control plane guarantees: only declared tenants and services have facts.
fn only_lawful(table: &Table, changes: Vec<Change>) -> Vec<Change> {
    let lawful = |change: &Change| match change {
        Change::Put(Fact::Tenant(_) | Fact::Service(_)) | Change::Removed(_) => true,
        Change::Put(fact) => {
            let key = fact.key();
            let tenant = key.tenant().is_none_or(|id| table.tenant(id.as_str()).is_some());
            let service = key.service().and_then(|id| table.service(id.as_str()));
            tenant && service.is_some_and(|service| service.default_version().is_some())
        }
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
                let event = Event { revision: old, ..Event::default() };
                let entry = FeedEntry { event, digests: Digests::one(1) };
                // A late write of an old leader: refused, or out of place; never an entry.
                drop(state.feed.append(FencingToken(1), log.position().epoch, &[entry]).await);
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
                let position = log.table().position();
                drop(state.projection.rebuild(log.lead_shortly().await, &position).await);
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
async fn a_set_back_log_starts_a_new_epoch() {
    let (state, log) = (State::memory(), Log::new());
    let (_publisher, _handle) = publish(&state, &log);
    let (_follower, tables) = follow(&state, None);
    for i in 0..3 {
        log.commit(put_tenant(i));
    }
    until_equal(&state, &log, &tables, "the follower reaches the log").await;
    let before = log.table().position().epoch;
    log.set_back(1);
    eventually(DEADLINE, "the log starts a new epoch", async || log.table().position().epoch > before).await;
    until_equal(&state, &log, &tables, "the follower takes the set-back state").await;
    assert!(tables.load().tenant("t2").is_none());
}

#[tokio::test]
async fn a_follower_never_goes_back_within_an_epoch() {
    let (state, log) = (State::memory(), Log::new());
    let (publisher, _handle) = publish(&state, &log);
    let (following, tables) = follow(&state, None);
    for i in 0..3 {
        log.commit(put_tenant(i));
    }
    until_equal(&state, &log, &tables, "the follower reaches the log").await;
    publisher.kill();
    following.kill();

    // Another store of the same epoch that is one revision behind, as after a restore from an older dump.
    let (behind, older) = (State::memory(), Log::new());
    *older.history.lock().unwrap() = log.history.lock().unwrap().clone();
    older.set_back(2);
    let (_publisher, handle) = publish(&behind, &older);
    eventually(DEADLINE, "the older store is published", async || handle.published() == Revision(2)).await;
    let before = log.table().position();
    let (_follower, kept) = follow(&behind, Some(Table::clone(&tables.load_full())));
    eventually(DEADLINE, "the older log starts a new epoch", async || {
        let position = kept.load().position();
        assert!(position.epoch > before.epoch || position == before, "went back to {position:?}");
        position.epoch > before.epoch
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
        log.commit(put_tenant(i));
    }
    eventually(DEADLINE, "the log is published", async || handle.published() == Revision(2)).await;
    // It claims the log's position but lacks what the log holds, so the feed alone can never mend it.
    let mut drifted = Table::default();
    drifted.set_position(log.table().position());
    let (_follower, tables) = follow(&state, Some(drifted));
    log.commit(put_tenant(2));
    until_equal(&state, &log, &tables, "the drifted table is loaded anew").await;
    assert!(tables.load().tenant("t0").is_some());
    assert!(tables.status().drifts >= 1);
}

#[tokio::test]
async fn a_table_that_has_drifted_is_loaded_anew_without_another_event() {
    let (state, log) = (State::memory(), Log::new());
    let (_publisher, handle) = publish(&state, &log);
    log.commit(put_tenant(0));
    eventually(DEADLINE, "the log is published", async || handle.published() == Revision(1)).await;
    let mut drifted = Table::default();
    drifted.set_position(log.table().position());
    let (_follower, tables) = follow(&state, Some(drifted));
    until_equal(&state, &log, &tables, "the drifted table is loaded anew").await;
    assert_eq!(tables.status().drifts, 1);
}

#[tokio::test]
async fn a_log_rewritten_while_the_publisher_starts_is_noticed() {
    let (state, log) = (State::memory(), Log::new());
    log.commit(put_tenant(0));
    *log.after_snapshot.lock().unwrap() = Some(Box::new(|log| {
        log.set_back(0);
        log.commit(put_tenant(1));
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
    log.commit(vec![Change::Removed(Key::Tenant(tenant(0)))]);
    let (publisher, handle) = publish(&state, &log);
    let (_follower, tables) = follow(&state, None);
    eventually(DEADLINE, "the log is published", async || handle.published() == Revision(1)).await;
    until_equal(&state, &log, &tables, "the follower reaches the log").await;
    publisher.kill();
    log.set_back(0);
    log.commit(put_tenant(1));
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
        tenant_put(Tenant::new(tenant(0))),
        service_put(&service(0), &version(0)),
        service_put(&service(1), &version(0)),
    ]);
    let mut applied = tables.applied();
    tokio::time::timeout(DEADLINE, applied.wait_for(|p| p.revision >= Revision(1))).await.unwrap().unwrap();
    let both = |table: &Table| (table.service("s0").is_some(), table.service("s1").is_some());
    assert_eq!(both(&tables.load()), (true, true));
}

/// Where a history is met that the log does not have.
#[derive(Clone, Copy, Debug)]
enum Seen {
    Feed,
    Projection,
    Heartbeat,
}

impl Seen {
    /// By a leader whose token is far greater than any of the log's.
    async fn leave(self, state: &State, position: Position) {
        let token = FencingToken(1_700_000_000_000);
        match self {
            Self::Feed => state.feed.reset(token, &position).await.unwrap(),
            Self::Projection => {
                let rebuild = state.projection.rebuild(token, &position).await.unwrap();
                let (digests, level) = (Digests::one(7), FormatLevel::FIRST);
                rebuild.finish(&ProjectionStatus { position, digests, level }).await.unwrap();
            }
            Self::Heartbeat => {
                state.heartbeats.beat(&heartbeat("before", position)).await.unwrap();
            }
        }
    }
}

/// A restored or replaced log, whose epoch is less than what was published before, in `state`.
async fn assert_surpassed(state: &State, seen: &[(Seen, u64)]) {
    let log = Log::new();
    for i in 0..3 {
        log.commit(put_tenant(i));
    }
    for (seen, epoch) in seen {
        // Revisions say nothing across epochs: it is behind the log here.
        seen.leave(state, Position { epoch: Epoch(*epoch), revision: Revision(1) }).await;
    }
    let (_publisher, handle) = publish(state, &log);
    let (_follower, tables) = follow(state, None);
    eventually(DEADLINE, "the log is published", async || handle.published() == Revision(3)).await;
    until_equal(state, &log, &tables, "the follower takes the later history").await;
    let greatest = seen.iter().map(|(_, epoch)| *epoch).max().unwrap();
    assert_eq!(log.table().position().epoch, Epoch(greatest + 1), "{seen:?}");
    assert_eq!(state.feed.head().await.unwrap().unwrap().epoch, Epoch(greatest + 1), "{seen:?}");
}

#[tokio::test]
async fn a_restored_log_starts_the_epoch_after_the_greatest_seen_anywhere() {
    let everywhere = [(Seen::Feed, 5), (Seen::Projection, 9), (Seen::Heartbeat, 7)];
    for seen in everywhere {
        assert_surpassed(&State::memory(), &[seen]).await;
        let redis = Redis::start().await.unwrap();
        assert_surpassed(&State::redis(&crate::options_of(&redis)).await.unwrap(), &[seen]).await;
    }
    assert_surpassed(&State::memory(), &everywhere).await;
}

#[tokio::test]
async fn a_history_met_while_publishing_is_surpassed() {
    let (state, log) = (State::memory(), Log::new());
    let (_publisher, handle) = publish(&state, &log);
    log.commit(put_tenant(0));
    eventually(DEADLINE, "the log is published", async || handle.published() == Revision(1)).await;
    // A router that was cut off comes back from a history of which store and log have nothing left.
    let mut table = Table::default();
    table.set_position(Position { epoch: Epoch(1 << 16), revision: Revision(9) });
    let (_follower, tables) = follow(&state, Some(table));
    until_equal(&state, &log, &tables, "the router takes the log's history").await;
    assert_eq!(log.table().position().epoch, Epoch((1 << 16) + 1));
    assert!(tables.load().tenant("t0").is_some());
}

#[tokio::test]
async fn an_epoch_that_no_log_can_have_reached_is_damage() {
    let (state, log) = (State::memory(), Log::new());
    log.commit(put_tenant(0));
    let epoch = Epoch(i64::MAX.unsigned_abs() - 1);
    for seen in [Seen::Feed, Seen::Projection, Seen::Heartbeat] {
        seen.leave(&state, Position { epoch, revision: Revision(9) }).await;
    }
    let (_publisher, handle) = publish(&state, &log);
    eventually(DEADLINE, "the log is published", async || handle.published() == Revision(1)).await;
    assert_eq!(log.table().position().epoch, Epoch(1));
}

/// Nothing but the epoch tells a restored log from the one before it.
#[tokio::test]
async fn a_log_of_which_the_store_has_no_trace_starts_an_epoch() {
    let (state, log) = (State::memory(), Log::new());
    let (publisher, handle) = publish(&state, &log);
    log.commit(put_tenant(0));
    eventually(DEADLINE, "the log is published", async || handle.published() == Revision(1)).await;
    publisher.kill();
    let before = log.table().position().epoch;
    let emptied = State::memory();
    let (_publisher, handle) = publish(&emptied, &log);
    eventually(DEADLINE, "the log is published again", async || handle.published() == Revision(1)).await;
    assert_eq!(log.table().position().epoch, Epoch(before.0 + 1));
}

#[tokio::test]
async fn whoever_published_the_log_knows_it_again_on_an_empty_store() {
    let redis = Redis::start().await.unwrap();
    let (state, log) = (State::redis(&crate::options_of(&redis)).await.unwrap(), Log::new());
    let (_publisher, _handle) = publish(&state, &log);
    log.commit(put_tenant(0));
    let (_follower, tables) = follow(&state, None);
    until_equal(&state, &log, &tables, "the follower reaches the log").await;
    let before = log.table().position().epoch;
    let mut raw = redis.connection().await.unwrap();
    redis::cmd("FLUSHALL").exec_async(&mut raw).await.unwrap();
    log.commit(put_tenant(1));
    until_equal(&state, &log, &tables, "the follower goes on").await;
    eventually(DEADLINE, "the feed is back", async || {
        state.feed.head().await.unwrap().is_some_and(|head| head.last == Revision(2))
    })
    .await;
    assert_eq!(log.table().position().epoch, before);
}

#[tokio::test]
async fn a_replaced_log_that_is_empty_is_a_history_of_its_own() {
    let (state, log) = (State::memory(), Log::new());
    let (publisher, _handle) = publish(&state, &log);
    let (_follower, tables) = follow(&state, None);
    log.commit(put_tenant(0));
    until_equal(&state, &log, &tables, "the follower reaches the log").await;
    publisher.kill();
    let other = Log::new();
    let (_publisher, _handle) = publish(&state, &other);
    eventually(DEADLINE, "the empty log starts an epoch", async || {
        other.table().position().epoch == Epoch(2)
    })
    .await;
    until_equal(&state, &other, &tables, "the follower takes the empty log").await;
    assert!(tables.load().tenant("t0").is_none());
}
