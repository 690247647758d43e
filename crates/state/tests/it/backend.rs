//! The implementations, each with the servers that it needs.

use grey_state::redis::{Mode, Options};
use grey_state::{State, memory};
use grey_testkit::{Redis, RedisCluster, RedisSentinel};

/// What the feeds keep in these tests, about.
pub(crate) const FEED_LENGTH: u64 = 100;

/// Shared state with the server under it, which is gone when this is dropped.
pub(crate) struct Backend<S> {
    pub(crate) state: State,
    pub(crate) _server: S,
}

/// Deadlines that suit a busy machine, and short feeds.
pub(crate) fn options() -> Options {
    Options {
        response_timeout_ms: 10_000,
        connect_timeout_ms: 5_000,
        turn_timeout_ms: 10_000,
        feed_length: FEED_LENGTH,
        instances_length: FEED_LENGTH,
        ..Options::default()
    }
}

pub(crate) fn sentinel_options(sentinel: &RedisSentinel) -> Options {
    Options {
        mode: Mode::Sentinel,
        urls: sentinel.sentinel_urls(),
        master_name: sentinel.master_name().to_owned(),
        ..options()
    }
}

pub(crate) fn cluster_options(cluster: &RedisCluster) -> Options {
    Options { mode: Mode::Cluster, urls: cluster.urls(), ..options() }
}

pub(crate) async fn memory() -> Backend<()> {
    let length = FEED_LENGTH as usize;
    let state = State::memory_with(&memory::Options { feed_length: length, instances_length: length });
    Backend { state, _server: () }
}

pub(crate) async fn standalone() -> Backend<Redis> {
    let server = Redis::start().await.unwrap();
    let state = State::redis(&crate::options_of(&server)).await.unwrap();
    Backend { state, _server: server }
}

pub(crate) async fn sentinel() -> Backend<RedisSentinel> {
    let server = RedisSentinel::start().await.unwrap();
    let state = State::redis(&sentinel_options(&server)).await.unwrap();
    Backend { state, _server: server }
}

pub(crate) async fn cluster() -> Backend<RedisCluster> {
    let server = RedisCluster::start().await.unwrap();
    let state = State::redis(&cluster_options(&server)).await.unwrap();
    Backend { state, _server: server }
}
