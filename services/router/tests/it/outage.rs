//! Shared state that fails: the last good table serves, marked once it is too old.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use grey_core::change::{Epoch, FormatLevel, Position};
use grey_core::error::Reason;
use grey_core::ids::Name;
use grey_state::feed::{Append, FeedEntry, FeedRead, Head};
use grey_state::{Digests, Error, Feed, FencingToken, State};

use crate::world::{Router, World, call, eventually, pin, told};

/// A feed that can be cut off from its readers.
struct Cut {
    cut: AtomicBool,
    feed: Arc<dyn Feed>,
}

#[tonic::async_trait]
impl Feed for Cut {
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
        let read = self.feed.read(after, level, limit, wait).await;
        if self.cut.load(Relaxed) {
            return Err(Error::Timeout { attempted: "read the feed", deadline: wait });
        }
        read
    }
}

#[tokio::test]
async fn stale_snapshot_keeps_serving_and_is_marked_until_contact_is_back() {
    let mut world = World::memory().await.with_payment().await;
    let cut = Arc::new(Cut { cut: AtomicBool::new(false), feed: Arc::clone(&world.state.feed) });
    world.state.feed = Arc::clone(&cut) as Arc<dyn Feed>;
    let router = Router::start(world.state.clone(), |c| {
        c.feed.wait = Duration::from_millis(20);
        c.feed.stale_after = Duration::from_millis(200);
    })
    .await;
    router.follows(&world).await;
    cut.cut.store(true, Relaxed);
    world.publish(vec![pin("acme", "payment", "v2.0")]).await;
    eventually("answers are marked", async || {
        let answer = router.route(call("acme", "payment")).await.unwrap();
        assert_eq!(answer.version, "v1.0", "the last good table");
        answer.stale
    })
    .await;
    eventually("readiness tells", async || {
        let (code, body) = router.get("/health/ready").await;
        code == 200 && body.contains("stale")
    })
    .await;
    cut.cut.store(false, Relaxed);
    eventually("it catches up", async || {
        let answer = router.route(call("acme", "payment")).await.unwrap();
        answer.version == "v2.0" && !answer.stale
    })
    .await;
    router.stop().await;
}

#[tokio::test]
async fn a_table_that_differs_from_the_publishers_is_marked_told_and_asked_about() {
    let mut world = World::memory().await.with_payment().await;
    let router = world.start().await;
    router.follows(&world).await;
    eventually("answers are fresh", async || !router.route(call("acme", "payment")).await.unwrap().stale)
        .await;
    // The same event led to another table elsewhere.
    let revision = world.publish_as(vec![pin("acme", "payment", "v2.0")], |_| Digests::one(7)).await;
    router.reached(revision).await;
    assert!(router.route(call("acme", "payment")).await.unwrap().stale, "with the first answer from it");
    eventually("readiness tells, and the router stays ready", async || {
        let (code, body) = router.get("/health/ready").await;
        code == 200 && body.contains("differs from the publisher's")
    })
    .await;
    eventually("its heartbeat tells", async || {
        world.state.heartbeats.live().await.unwrap().iter().any(|beat| beat.stale)
    })
    .await;
    let requests = Name::new("projection").unwrap();
    let asked = async || !world.state.requests.take(&requests, Duration::ZERO).await.unwrap().is_empty();
    eventually("the publisher is asked", asked).await;
    world.publish(vec![pin("acme", "payment", "v1.0")]).await;
    eventually("they agree again", async || {
        let answer = router.route(call("acme", "payment")).await.unwrap();
        answer.version == "v1.0" && !answer.stale
    })
    .await;
    router.stop().await;
}

#[tokio::test]
async fn router_that_never_had_a_table_refuses_and_is_not_ready() {
    let router = Router::start_unready(State::memory(), |_| {}).await;
    assert_eq!(told(router.route(call("acme", "payment")).await).reason, Reason::Unavailable);
    let watch = router.client.clone().watch(grey_proto::router::WatchRequest::default()).await;
    assert_eq!(told(watch.map(drop)).reason, Reason::Unavailable);
    assert_eq!(router.get("/health/ready").await.0, 503);
    assert_eq!(router.get("/health/live").await.0, 200);
    router.stop().await;
}
