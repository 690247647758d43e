#![allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use grey_core::change::{Change, Epoch, FormatLevel};
use grey_core::key::{Fact, Key};
use grey_core::table::Table;
use grey_core::tenant::Tenant;
use grey_proto::router::WatchRequest;
use grey_state::feed::{Append, FeedEntry, Head};
use grey_state::{Digests, Error, Feed, FencingToken, State as Shareds};

use super::*;
use crate::watch::tests::{shared, within};

const KEPT: usize = 1 << 20;

/// A feed that counts how often it is read.
struct Counted {
    reads: AtomicUsize,
    feed: Arc<dyn Feed>,
}

#[tonic::async_trait]
impl Feed for Counted {
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
        self.reads.fetch_add(1, Relaxed);
        self.feed.read(after, level, limit, wait).await
    }
}

fn at(revision: u64) -> Position {
    Position { epoch: Epoch(1), revision: Revision(revision) }
}

fn event(revision: u64, changes: usize) -> Event {
    let tenant = |at| Tenant::new(format!("t{at:050}").parse().unwrap());
    let changes = (0..changes).map(|at| Change::Put(Fact::Tenant(Box::new(tenant(at))))).collect();
    Event { revision: Revision(revision), at_ms: 1, changes, ..Event::default() }
}

/// A channel of a router that is at revision 40, whose feed holds 40 events.
async fn channel(changes: usize, kept: usize, request: &WatchRequest) -> (Arc<Channel>, Arc<Counted>) {
    let mut state = Shareds::memory();
    let counted = Arc::new(Counted { reads: AtomicUsize::new(0), feed: Arc::clone(&state.feed) });
    state.feed = Arc::clone(&counted) as Arc<dyn Feed>;
    let token = FencingToken(1);
    state.feed.reset(token, &at(0)).await.unwrap();
    let entry = |revision| FeedEntry { event: event(revision, changes), digests: Digests::unknown() };
    let entries: Vec<_> = (1..=40).map(entry).collect();
    assert_eq!(state.feed.append(token, Epoch(1), &entries).await.unwrap(), Append::Appended);
    let mut table = Table::default();
    table.set_position(at(40));
    let (shared, _) = shared(state, table);
    let selection = Arc::new(Selection::read(request).unwrap());
    let channel = Channel::new(shared, selection, Arc::new(Semaphore::new(1)));
    channel.set_limit(kept);
    (Arc::new(channel), counted)
}

async fn frame(channel: &Channel, place: &mut Place) -> Bytes {
    match within(channel.next(place)).await {
        Next::Frame(frame) => frame,
        other => panic!("a frame and not {other:?}"),
    }
}

#[tokio::test]
async fn watchers_that_resume_at_once_read_each_event_once_and_share_it() {
    let (channel, counted) = channel(100, KEPT, &WatchRequest::default()).await;
    let watch = async || {
        let mut place = Place { position: at(0), ..channel.place() };
        let mut frames = Vec::new();
        while place.position != at(40) {
            frames.push(frame(&channel, &mut place).await);
        }
        assert_eq!(within(channel.next(&mut place)).await, Next::Nothing);
        frames
    };
    let all = futures::future::join_all((0..100).map(|_| watch())).await;
    let reads = counted.reads.load(Relaxed);
    assert!(reads < 40, "{reads} reads for 100 watchers");
    for (at, first) in all[0].iter().enumerate() {
        assert!(all.iter().all(|frames| frames[at].as_ptr() == first.as_ptr()), "event {at} is one for all");
    }
    watch().await;
    assert_eq!(counted.reads.load(Relaxed), reads, "nor is it read for who comes later");
}

#[tokio::test]
async fn what_is_kept_no_longer_is_read_again() {
    // Room for one event of two.
    let (channel, counted) = channel(1_000, 150_000, &WatchRequest::default()).await;
    let kept = || channel.shared.gauges.watch_recent_bytes.load(Relaxed);
    let mut reads = Vec::new();
    for _ in 0..2 {
        let mut place = Place { position: at(0), ..channel.place() };
        while place.position != at(40) {
            frame(&channel, &mut place).await;
            assert!(kept() <= 150_000, "{} bytes", kept());
        }
        reads.push(counted.reads.load(Relaxed));
    }
    assert!(reads[1] - reads[0] >= 10, "{reads:?} reads");
}

#[tokio::test]
async fn an_event_that_is_announced_is_encoded_once() {
    let (channel, counted) = channel(1, KEPT, &WatchRequest::default()).await;
    let table = Table::default();
    channel.take_event(&event(41, 3), (&table, &table));
    let place = Place { position: at(40), ..channel.place() };
    let (mut one, mut other) = (place, place);
    let (first, second) = (frame(&channel, &mut one).await, frame(&channel, &mut other).await);
    assert_eq!((first.as_ptr(), one), (second.as_ptr(), other));
    assert_eq!((one.position, counted.reads.load(Relaxed)), (at(41), 0));
}

#[tokio::test]
async fn whoever_cannot_be_led_on_starts_over() {
    let (channel, _) = channel(1, KEPT, &WatchRequest::default()).await;
    let table = Table::default();
    let fresh = || Place { position: at(40), ..channel.place() };
    // Larger than a message may be.
    let mut place = fresh();
    channel.take_event(&event(41, 20_000), (&table, &table));
    assert_eq!(within(channel.next(&mut place)).await, Next::StartOver);
    // Announced out of order, as after another table took the place.
    let mut place = fresh();
    channel.take_event(&event(50, 1), (&table, &table));
    assert_eq!(within(channel.next(&mut place)).await, Next::StartOver);
    assert_eq!(within(channel.next(&mut fresh())).await, Next::Nothing, "from the table");
    // Too far behind; and of another history, which the feed does not hold.
    channel.state().revision = Revision(MAX_BEHIND + 41);
    assert_eq!(within(channel.next(&mut fresh())).await, Next::StartOver);
    channel.state().revision = Revision(40);
    let other = Position { epoch: Epoch(2), revision: Revision(3) };
    let mut place = Place { position: other, ..channel.place() };
    assert_eq!(within(channel.next(&mut place)).await, Next::StartOver);
}

#[tokio::test]
async fn a_region_is_led_on_only_where_the_tables_around_an_event_are_known() {
    let request = WatchRequest { region: "eu".to_owned(), ..WatchRequest::default() };
    let (channel, _) = channel(1, KEPT, &request).await;
    let mut place = Place { position: at(3), ..channel.place() };
    assert_eq!(within(channel.next(&mut place)).await, Next::StartOver);
    let (before, mut after) = (Table::default(), Table::default());
    after.apply(&event(1, 2)).unwrap();
    let removed = Change::Removed(Key::Tenant("t1".parse().unwrap()));
    channel.take_event(&Event { changes: vec![removed], ..event(41, 0) }, (&before, &after));
    let mut place = Place { position: at(40), ..channel.place() };
    frame(&channel, &mut place).await;
}

#[tokio::test]
async fn only_the_newest_list_of_a_service_is_sent_and_events_take_turns_with_lists() {
    let (channel, _) = channel(1, KEPT, &WatchRequest::default()).await;
    let mut place = Place { position: at(38), ..channel.place() };
    let [one, two] = ["one", "two"].map(|id| ServiceId::new(id).unwrap());
    for service in [&one, &two, &one, &one] {
        channel.take_list(service);
    }
    let mut order = Vec::new();
    while channel.state().replaced != place.replaced || place.position != at(40) {
        let before = place.position;
        frame(&channel, &mut place).await;
        order.push(place.position == before);
    }
    assert_eq!(order, [true, false, true, false], "a list, an event, a list, an event");
    assert_eq!(within(channel.next(&mut place)).await, Next::Nothing);
}
