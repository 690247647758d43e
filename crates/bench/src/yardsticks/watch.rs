//! Watchers that resume all at once over many large events.

use super::projection::settled;
use super::route::{redis_options, router_settings};
use crate::cores;
use crate::programs::{self, Program, Service};
use crate::report::{Measurement, rounded, say};
use crate::world::{self, USUAL, World};
use anyhow::{Context as _, Result, bail, ensure};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use grey_core::change::{Change, Event, FormatLevel, Position, Revision};
use grey_core::ids::{Name, ServiceId, TenantId};
use grey_core::key::Fact;
use grey_core::service::Pin;
use grey_core::version::Version;
use grey_proto::router::router_service_client::RouterServiceClient;
use grey_proto::router::watch_response::Frame;
use grey_proto::router::{RouteRequest, WatchRequest, WatchResponse};
use grey_state::feed::{Append, FeedEntry};
use grey_state::projection::ProjectionStatus;
use grey_state::{Digests, State};
use grey_testkit::Redis;
use prost::Message as _;
use serde_json::{Map, json};
use std::time::{Duration, Instant};
use tonic::Streaming;
use tonic::transport::Endpoint;

const WATCHERS: usize = 100;
const EVENTS: usize = 40;
const CHANGES: usize = 1_000;
/// Time between two looks at the router's memory.
const LOOK: Duration = Duration::from_millis(5);
/// How long watchers take nothing once all of them are there: what waits for them is in the router then.
const REST: Duration = Duration::from_secs(2);
/// Longest time until the router has all events, and until all watchers have.
const ARRIVAL: Duration = Duration::from_secs(120);

/// Every tenant is pinned to another version of a service.
fn event(at: usize) -> Result<Event> {
    let pin = Pin { version: Version::new(&world::version(at % USUAL.versions))?, locked: false };
    let service = ServiceId::new(&World::service(at % USUAL.services))?;
    let fact = |tenant: usize| {
        Ok(Change::Put(Fact::Pin(TenantId::new(&World::tenant(tenant))?, service.clone(), pin.clone())))
    };
    let revision = Revision(world::position().revision.0 + 1 + at as u64);
    let changes = (0..CHANGES).map(fact).collect::<Result<_>>()?;
    Ok(Event { revision, at_ms: 1, changes, ..Event::default() })
}

fn last() -> Position {
    let position = world::position();
    Position { revision: Revision(position.revision.0 + EVENTS as u64), ..position }
}

/// Writes the events as the publisher would.
async fn publish(state: &State) -> Result<()> {
    let lease = state.leases.acquire(&Name::new("publisher")?, "bench", Duration::from_secs(600)).await?;
    let token = lease.context("take the publisher's lease again")?;
    let mut table = USUAL.table()?;
    for at in 0..EVENTS {
        let event = event(at)?;
        table.apply(&event)?;
        let digests = Digests::of(&table);
        let entry = FeedEntry { event: event.clone(), digests: digests.clone() };
        let appended = state.feed.append(token, table.position().epoch, &[entry]).await?;
        ensure!(appended == Append::Appended, "append to the feed: {appended:?}");
        let reached = ProjectionStatus { position: table.position(), digests, level: FormatLevel::FIRST };
        state.projection.apply(token, &[event], &reached).await?;
    }
    Ok(())
}

/// Waits until the router answers by a table that has all events.
async fn arrived(router: &Service) -> Result<()> {
    let endpoint = Endpoint::from_shared(format!("http://{}", router.grpc))?;
    let mut client = RouterServiceClient::new(endpoint.connect().await?);
    let begin = Instant::now();
    let call = RouteRequest {
        tenant: World::tenant(0),
        service: World::service(0),
        min_revision: last().revision.0,
        ..RouteRequest::default()
    };
    while let Err(refused) = client.route(call.clone()).await {
        ensure!(begin.elapsed() < ARRIVAL, "wait for {}: {refused}", last());
    }
    Ok(())
}

/// Opens a stream on a connection of its own.
async fn watch(router: &Service) -> Result<Streaming<WatchResponse>> {
    let endpoint = Endpoint::from_shared(format!("http://{}", router.grpc))?;
    let mut client = RouterServiceClient::new(endpoint.connect().await?);
    let from = world::position();
    let request = WatchRequest { epoch: from.epoch.0, revision: from.revision.0, ..WatchRequest::default() };
    Ok(client.watch(request).await?.into_inner())
}

/// Takes every event; how many bytes all frames have.
async fn resume(mut frames: Streaming<WatchResponse>) -> Result<usize> {
    let (mut at, mut bytes) = (world::position().revision.0, 0);
    while at < last().revision.0 {
        let message = frames.message().await?.context("follow to the last event")?;
        bytes += message.encoded_len();
        match message.frame {
            Some(Frame::Event(event)) => {
                ensure!(event.revision == at + 1, "event {} came after {at}", event.revision);
                ensure!(event.changes.len() == CHANGES, "{} changes", event.changes.len());
                at = event.revision;
            }
            Some(Frame::Instances(_) | Frame::Heartbeat(_)) => {}
            other => bail!("a watcher that resumes was sent {other:?}"),
        }
    }
    Ok(bytes)
}

/// The greatest resident memory of a process until `end`.
async fn peak<T>(process: u32, end: impl Future<Output = Result<T>>) -> Result<(u64, T)> {
    tokio::pin!(end);
    let mut most = 0;
    loop {
        most = most.max(cores::resident(process)?.0);
        tokio::select! {
            ended = &mut end => return Ok((most.max(cores::resident(process)?.0), ended?)),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// A hundred watchers resume over 40 events of 1,000 pins each. They first take nothing, so that all of what may wait for
/// them does; then they take everything.
pub(super) async fn memory() -> Result<Measurement> {
    programs::build(&[Program::Router])?;
    let redis = Redis::start().await?;
    let state = State::redis(&redis_options(&redis.url())).await?;
    USUAL.publish(&state).await?;
    let router = Service::start(Program::Router, &router_settings(&redis.url()))?;
    router.ready().await?;
    publish(&state).await?;
    arrived(&router).await?;
    let process = router.process.id();
    let (before, _) = settled(process).await?;
    let resumed = async {
        let mut streams = Vec::with_capacity(WATCHERS);
        for _ in 0..WATCHERS {
            streams.push(watch(&router).await?);
        }
        tokio::time::sleep(REST).await;
        let mut resumed: FuturesUnordered<_> = streams.into_iter().map(resume).collect();
        let mut bytes = 0;
        while let Some(took) = resumed.next().await {
            bytes += took?;
        }
        Ok(bytes)
    };
    let measured = tokio::time::timeout(ARRIVAL, peak(process, resumed)).await;
    let (most, bytes) = measured.context("wait for the watchers")??;
    #[expect(clippy::cast_precision_loss, reason = "far less than 2^52 bytes")]
    let each = |bytes: u64| bytes as f64 / WATCHERS as f64;
    let (grown, sent) = (each(most.saturating_sub(before)), each(bytes as u64));
    say(&format!("watch_memory: {grown:.0} bytes a watcher, which was sent {sent:.0}"));
    let more = Map::from_iter([
        ("watchers".to_owned(), json!(WATCHERS)),
        ("sent_bytes".to_owned(), rounded(sent)),
        ("resident_before_bytes".to_owned(), json!(before)),
        ("resident_peak_bytes".to_owned(), json!(most)),
    ]);
    Ok(Measurement {
        name: "watch_memory",
        value: grown,
        unit: "bytes/watcher",
        ratio: grown / sent,
        against: "the bytes that each is sent",
        more,
    })
}
