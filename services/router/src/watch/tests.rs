#![allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]

use std::future::poll_fn;

use bytes::{Bytes, BytesMut};
use grey_core::change::{Change, Event};
use grey_core::key::Fact;
use grey_core::table::Table;
use grey_core::tenant::Tenant;
use grey_proto::status::from_status;
use grey_runtime::access::Access;
use grey_runtime::config::{Source, load};
use grey_state::State;
use grey_state::follower::{self, Follower};
use http::HeaderMap;
use http_body_util::BodyExt as _;
use prost::Message as _;
use tonic::codec::{EncodeBody, SingleMessageCompressionOverride};

use super::*;
use crate::config::Config;
use crate::grpc::Reports;

/// Far longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(30);

/// Between heartbeats.
const BEAT: Duration = Duration::from_millis(20);

pub(super) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("in time")
}

/// A router's inner parts around a table that stays as it is.
pub(super) fn shared(state: State, table: Table) -> (Arc<Shared>, Config) {
    let config: Config = load(Source { defaults: crate::DEFAULTS, file: None, env: [] }).unwrap();
    let (follower, tables) = Follower::new(state.clone(), follower::Options::default());
    drop(follower.with_table(table));
    let access = Access::new(&config.access, config.grpc.listen);
    let reports = Reports::new(&config.report, &config.access);
    let (limits, identity) = (config.limits.clone(), config.router.clone());
    (Arc::new(Shared::new(tables, state, access, reports, limits, identity)), config)
}

fn many_tenants(count: usize) -> Table {
    let mut table = Table::default();
    table.set_position(Position { epoch: Epoch(1), revision: Revision(6) });
    let tenant = |at| Tenant::new(format!("{at:060}").parse().unwrap());
    let changes = (0..count).map(|at| Change::Put(Fact::Tenant(Box::new(tenant(at))))).collect();
    table.apply(&Event { revision: Revision(7), at_ms: 1, changes, ..Event::default() }).unwrap();
    table
}

/// A hub, and who starts its streams.
struct Served {
    shared: Arc<Shared>,
    watchers: Watchers,
    draining: CancellationToken,
}

fn serve(table: Table, stall: Duration) -> Served {
    let (shared, config) = shared(State::memory(), table);
    let (hub, watchers) = Hub::new(Arc::clone(&shared), &config.watch);
    let hub = Hub { heartbeat: BEAT, ..hub };
    let draining = CancellationToken::new();
    tokio::spawn(hub.run(draining.clone()));
    Served { shared, watchers: Watchers { stall, ..watchers }, draining }
}

/// Takes what there is until the trailers, or until `enough` of the bytes.
async fn take(outlet: &mut Outlet, enough: impl Fn(&[u8]) -> bool) -> (Bytes, Option<HeaderMap>) {
    let mut taken = BytesMut::new();
    while !enough(&taken)
        && let Some(frame) = within(poll_fn(|cx| outlet.poll_frame(cx))).await
    {
        match frame.into_data() {
            Ok(data) => taken.extend_from_slice(&data),
            Err(frame) => return (taken.freeze(), frame.into_trailers().ok()),
        }
    }
    (taken.freeze(), None)
}

fn messages(mut bytes: &[u8]) -> Vec<WatchResponse> {
    let mut messages = Vec::new();
    while let Some((prefix, rest)) = bytes.split_at_checked(5) {
        let length = u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize;
        messages.push(WatchResponse::decode(&rest[..length]).unwrap());
        bytes = &rest[length..];
    }
    messages
}

fn has_heartbeat(bytes: &[u8]) -> bool {
    messages(bytes).iter().any(|message| matches!(message.frame, Some(Frame::Heartbeat(_))))
}

#[tokio::test]
async fn a_stream_is_byte_for_byte_what_tonic_would_make_of_it() {
    let Served { watchers, draining: drain, .. } = serve(many_tenants(2_000), STALL);
    let mut outlet = watchers.watch(&WatchRequest::default()).unwrap();
    let (begin, none) = take(&mut outlet, has_heartbeat).await;
    assert!(none.is_none());
    drain.cancel();
    let (rest, trailers) = take(&mut outlet, |_| false).await;
    assert!(within(poll_fn(|cx| outlet.poll_frame(cx))).await.is_none() && outlet.has_ended());
    let told = [begin, rest].concat();

    let frames = messages(&told);
    assert!(frames.len() > 3, "begin, batches, end, heartbeat");
    let frames = frames.into_iter().map(Ok).chain([Err(draining())]);
    let encoder = tonic_prost::ProstEncoder::<WatchResponse>::new(tonic::codec::BufferSettings::default());
    let frames = futures::stream::iter(frames);
    let body =
        EncodeBody::new_server(encoder, frames, None, SingleMessageCompressionOverride::default(), None);
    let tonics = within(body.collect()).await.unwrap();
    assert_eq!(trailers.as_ref(), tonics.trailers());
    assert_eq!(told, tonics.to_bytes());
    assert!(trailers.is_some());
}

/// Waits until the stream has given its slot back, and says how the client is told.
async fn given_up(served: &Served, outlet: &mut Outlet) -> (usize, ApiError) {
    let limit = served.shared.limits.watchers;
    grey_testkit::eventually(DEADLINE, "the stream is given up", async || {
        served.watchers.slots.available_permits() == limit
    })
    .await;
    assert_eq!(served.shared.gauges.watch_waiting_bytes.load(Relaxed), 0, "nothing waits for it any more");
    let (taken, trailers) = take(outlet, |_| false).await;
    (taken.len(), from_status(&Status::from_header_map(&trailers.unwrap()).unwrap()))
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_ended_and_nothing_waits_for_it() {
    let (many, few) = (many_tenants(20_000), many_tenants(1));
    // A table that does not fit into what may wait, and one that does.
    for table in [many, few] {
        let served = serve(table, Duration::from_millis(20));
        let mut outlet = served.watchers.watch(&WatchRequest::default()).unwrap();
        let (taken, error) = given_up(&served, &mut outlet).await;
        assert_eq!((taken, error.reason), (0, Reason::Unavailable));
        assert!(error.message.contains("nothing was taken"), "{}", error.message);
    }
}

#[tokio::test]
async fn a_client_that_took_some_and_stops_is_ended() {
    let served = serve(many_tenants(1), Duration::from_millis(200));
    let mut outlet = served.watchers.watch(&WatchRequest::default()).unwrap();
    let (begun, none) = take(&mut outlet, |bytes| !bytes.is_empty()).await;
    assert!(!begun.is_empty() && none.is_none());
    assert_eq!(given_up(&served, &mut outlet).await.1.reason, Reason::Unavailable);
}
