//! The age of a table is the age of its publisher's sign of life.

use crate::world::{
    DEADLINE, Log, follow, follow_with, follower_options, publish, publish_with, publisher_options,
    put_tenant, until_equal,
};
use async_trait::async_trait;
use grey_core::change::{Epoch, Event, FormatLevel, Position, Revision};
use grey_core::record::Record;
use grey_state::feed::{Append, FeedEntry, FeedRead, Head};
use grey_state::follower::NotCurrent;
use grey_state::projection::{Beat, Damage, Indexes, ProjectionStatus, Rebuild, Repair};
use grey_state::{Error, Feed, FencingToken, Projection, State, follower, publisher};
use grey_testkit::eventually;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::watch;

/// Long enough for a busy machine not to seem silent, short enough to wait for.
const SOON: Duration = Duration::from_millis(300);

fn patient() -> follower::Options {
    follower::Options { stale_after: SOON, ..follower_options() }
}

async fn is_silent(tables: &follower::Tables, what: &str) {
    let silent = async || matches!(tables.status().not_current, Some(NotCurrent::Silent(age)) if age > SOON);
    eventually(DEADLINE, what, silent).await;
    assert!(tables.status().ready, "the last good table stays in use");
    assert!(!tables.is_suspect(), "nothing is known against it");
}

#[tokio::test]
async fn a_follower_behind_a_wedged_publisher_is_not_current() {
    let (state, log) = (State::memory(), Log::new());
    log.commit(put_tenant(0));
    let (_publisher, handle) = publish(&state, &log);
    let (_following, tables) = follow_with(&state, None, patient());
    eventually(DEADLINE, "it is current", async || tables.status().is_current()).await;
    log.wedged.send_replace(true);
    is_silent(&tables, "the publisher hangs, the store answers").await;
    let (_following, fresh) = follow_with(&state, None, patient());
    eventually(DEADLINE, "another one starts", async || fresh.status().ready).await;
    assert_eq!(fresh.status().not_current, Some(NotCurrent::Unconfirmed));
    assert_eq!(fresh.status().age, None, "an old sign of life says nothing");
    log.wedged.send_replace(false);
    eventually(DEADLINE, "the publisher goes on", async || {
        tables.status().is_current() && fresh.status().is_current()
    })
    .await;
    assert!(handle.is_leading() || handle.published() == Revision(1));
}

#[tokio::test]
async fn a_dead_publisher_is_noticed_and_its_successor_confirms() {
    let (state, log) = (State::memory(), Log::new());
    let (publisher, _handle) = publish(&state, &log);
    let (_following, tables) = follow_with(&state, None, patient());
    eventually(DEADLINE, "it is current", async || tables.status().is_current()).await;
    publisher.kill();
    is_silent(&tables, "the publisher is gone").await;
    let (_publisher, _handle) = publish(&state, &log);
    eventually(DEADLINE, "another one publishes", async || tables.status().is_current()).await;
}

/// A feed that goes on answering, but gets nothing any more: a master that was cut off.
struct CutOff {
    feed: Arc<dyn Feed>,
    cut: watch::Receiver<bool>,
    /// Whether a reader has met it.
    met: AtomicBool,
}

#[async_trait]
impl Feed for CutOff {
    async fn append(
        &self,
        token: FencingToken,
        epoch: Epoch,
        entries: &[FeedEntry],
    ) -> Result<Append, Error> {
        self.feed.append(token, epoch, entries).await
    }

    async fn reset(&self, token: FencingToken, base: &Position) -> Result<(), Error> {
        self.feed.reset(token, base).await
    }

    async fn head(&self) -> Result<Option<Head>, Error> {
        self.feed.head().await
    }

    async fn read(
        &self,
        after: &Position,
        level: FormatLevel,
        limit: usize,
        wait: Duration,
    ) -> Result<FeedRead, Error> {
        if *self.cut.borrow() {
            self.met.store(true, Relaxed);
            tokio::time::sleep(wait).await;
            return Ok(FeedRead::Idle);
        }
        self.feed.read(after, level, limit, wait).await
    }
}

#[tokio::test]
async fn a_follower_on_a_cut_off_master_is_not_current() {
    let (state, log) = (State::memory(), Log::new());
    let (_publisher, _handle) = publish(&state, &log);
    let (cut, watch) = watch::channel(false);
    let feed = Arc::new(CutOff { feed: Arc::clone(&state.feed), cut: watch, met: AtomicBool::new(false) });
    let behind = State { feed: feed.clone(), ..state.clone() };
    let (_following, tables) = follow_with(&behind, None, patient());
    eventually(DEADLINE, "it is current", async || tables.status().is_current()).await;
    cut.send_replace(true);
    eventually(DEADLINE, "it is cut off", async || feed.met.load(Relaxed)).await;
    // The publisher lives, and its signs of life arrive: they are about what the feed does not bring.
    log.commit(put_tenant(1));
    is_silent(&tables, "the feed brings nothing of what is published").await;
    cut.send_replace(false);
    until_equal(&state, &log, &tables, "the feed goes on").await;
    eventually(DEADLINE, "it is current again", async || tables.status().is_current()).await;
}

/// A projection whose loads and rebuilds, or writes, wait until they may go on.
struct Stalling {
    projection: Arc<dyn Projection>,
    stalled: watch::Receiver<bool>,
    writes_stalled: watch::Receiver<bool>,
}

#[async_trait]
impl Projection for Stalling {
    async fn status(&self) -> Result<Option<ProjectionStatus>, Error> {
        self.projection.status().await
    }

    async fn beat(&self, token: FencingToken, beat: &Beat) -> Result<(), Error> {
        self.projection.beat(token, beat).await
    }

    async fn last_beat(&self) -> Result<Option<Beat>, Error> {
        self.projection.last_beat().await
    }

    async fn apply(
        &self,
        token: FencingToken,
        events: &[Event],
        reached: &ProjectionStatus,
    ) -> Result<(), Error> {
        self.writes_stalled.clone().wait_for(|stalled| !stalled).await.unwrap();
        self.projection.apply(token, events, reached).await
    }

    async fn rebuild(
        &self,
        token: FencingToken,
        position: &Position,
    ) -> Result<Box<dyn Rebuild + '_>, Error> {
        self.stalled.clone().wait_for(|stalled| !stalled).await.unwrap();
        self.projection.rebuild(token, position).await
    }

    async fn load(&self, take: &mut (dyn FnMut(Vec<Record>) + Send)) -> Result<Vec<Damage>, Error> {
        self.stalled.clone().wait_for(|stalled| !stalled).await.unwrap();
        self.projection.load(take).await
    }

    async fn repair(&self, token: FencingToken, at: &Position, repairs: &[Repair]) -> Result<(), Error> {
        self.projection.repair(token, at, repairs).await
    }

    async fn indexes(&self) -> Result<Indexes, Error> {
        self.projection.indexes().await
    }

    async fn reindex(&self, token: FencingToken, indexes: &Indexes) -> Result<(), Error> {
        self.projection.reindex(token, indexes).await
    }
}

#[tokio::test]
async fn neither_a_check_nor_a_rebuild_holds_back_the_publishing() {
    let (state, log) = (State::memory(), Log::new());
    let (stall, stalled) = watch::channel(false);
    let writes_stalled = watch::channel(false).1;
    let stalling = Stalling { projection: Arc::clone(&state.projection), stalled, writes_stalled };
    let publishers = State { projection: Arc::new(stalling), ..state.clone() };
    let options = publisher::Options { deep_check: Duration::from_millis(1), ..publisher_options() };
    log.commit(put_tenant(0));
    let (publisher, _handle) = publish_with(&publishers, &log, options);
    let (_following, tables) = follow_with(&state, None, patient());
    until_equal(&state, &log, &tables, "the log is published").await;

    stall.send_replace(true);
    for i in 1..20 {
        log.commit(put_tenant(i));
        until_equal(&state, &log, &tables, "events are published while a check hangs").await;
    }
    eventually(DEADLINE, "so are signs of life", async || tables.status().is_current()).await;
    publisher.kill();
    let token = log.lead_shortly().await;
    drop(state.projection.rebuild(token, &log.table().position()).await.unwrap());
    let (_publisher, _handle) = publish(&publishers, &log);
    for i in 20..40 {
        log.commit(put_tenant(i));
        until_equal(&state, &log, &tables, "events are published while a rebuild hangs").await;
    }
    assert_eq!(state.projection.status().await.unwrap(), None);
    stall.send_replace(false);
    let (_following, fresh) = follow(&state, None);
    until_equal(&state, &log, &fresh, "the rebuild ends").await;
}

#[tokio::test]
async fn no_event_waits_until_the_projection_holds_those_before_it() {
    let (state, log) = (State::memory(), Log::new());
    let (stall, writes_stalled) = watch::channel(false);
    let stalled = watch::channel(false).1;
    let stalling = Stalling { projection: Arc::clone(&state.projection), stalled, writes_stalled };
    let publishers = State { projection: Arc::new(stalling), ..state.clone() };
    log.commit(put_tenant(0));
    let (_publisher, handle) = publish(&publishers, &log);
    let (_following, tables) = follow_with(&state, None, patient());
    until_equal(&state, &log, &tables, "the log is published").await;
    let projected = async || state.projection.status().await.unwrap().map(|status| status.position);
    eventually(DEADLINE, "it is projected", async || projected().await == Some(log.table().position())).await;

    let before = projected().await;
    stall.send_replace(true);
    for i in 1..20 {
        log.commit(put_tenant(i));
        until_equal(&state, &log, &tables, "events are published while a write hangs").await;
    }
    eventually(DEADLINE, "so are signs of life", async || tables.status().is_current()).await;
    assert_eq!(projected().await, before);
    stall.send_replace(false);
    eventually(DEADLINE, "all is projected", async || projected().await == Some(log.table().position()))
        .await;
    assert_eq!(handle.rebuilds(), 1, "the first one");
    let (_following, fresh) = follow(&state, None);
    until_equal(&state, &log, &fresh, "what was projected is what the log holds").await;
}

#[tokio::test]
async fn a_fault_of_the_program_is_told_and_does_not_end_it() {
    let (state, log) = (State::memory(), Log::new());
    log.commit(put_tenant(0));
    let (_publisher, handle) = publish(&state, &log);
    let (_following, tables) = follow_with(&state, None, patient());
    until_equal(&state, &log, &tables, "the log is published").await;
    assert_eq!(handle.fault(), None);
    *log.poisoned_from.lock().unwrap() = Some(Revision(2));
    log.commit(put_tenant(1));
    eventually(DEADLINE, "it is told", async || {
        handle.fault().is_some_and(|fault| fault.contains("a poisoned event"))
    })
    .await;
    is_silent(&tables, "routers see that nothing is published").await;
    let failures = handle.failures();
    eventually(DEADLINE, "it goes on trying", async || handle.failures() > failures).await;
    *log.poisoned_from.lock().unwrap() = None;
    until_equal(&state, &log, &tables, "it goes on by itself").await;
    eventually(DEADLINE, "nothing is told any more", async || handle.fault().is_none()).await;
}
