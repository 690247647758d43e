//! A fleet of two releases: who cannot obey a fact neither applies nor acknowledges it, and says so.

use crate::world::{
    DEADLINE, Log, follow_with, follower_options, publish, publish_with, publisher_options, put_tenant,
    until_equal,
};
use grey_core::change::{Epoch, FormatLevel, Position, Revision};
use grey_core::table::Table;
use grey_proto::codec;
use grey_state::feed::FeedRead;
use grey_state::follower::{NotCurrent, Tables};
use grey_state::heartbeats::below;
use grey_state::{FencingToken, State, follower, publisher};
use grey_testkit::{Redis, eventually};
use std::time::Duration;

const OLD: FormatLevel = FormatLevel(1);
const NEW: FormatLevel = FormatLevel(2);

fn of(level: FormatLevel) -> follower::Options {
    follower::Options { level, ..follower_options() }
}

async fn is_above(tables: &Tables, what: &str) {
    let above = NotCurrent::Above { needed: NEW, own: OLD };
    eventually(DEADLINE, what, async || tables.status().not_current == Some(above)).await;
    let why = tables.status().not_current.unwrap().to_string();
    assert!(why.contains("level 2") && why.contains("up to 1"), "{why}");
}

async fn a_mixed_fleet(state: State) {
    let log = Log::new();
    log.commit_at(OLD, put_tenant(0));
    let (_publisher, handle) = publish(&state, &log);
    let (_one, behind) = follow_with(&state, None, of(OLD));
    let (_two, ahead) = follow_with(&state, None, of(NEW));
    log.commit_at(OLD, put_tenant(1));
    until_equal(&state, &log, &behind, "both get what both obey").await;
    until_equal(&state, &log, &ahead, "both get what both obey").await;
    eventually(DEADLINE, "both are announced", async || state.heartbeats.live().await.unwrap().len() == 2)
        .await;
    let live = state.heartbeats.live().await.unwrap();
    assert_eq!(below(OLD, &live).count(), 0);
    let refused: Vec<FormatLevel> = below(NEW, &live).map(|router| router.level).collect();
    assert_eq!(refused, [OLD], "a command that needs more is to be refused, naming one");

    // Someone committed it all the same.
    log.commit_at(NEW, put_tenant(2));
    log.commit_at(OLD, put_tenant(3));
    until_equal(&state, &log, &ahead, "who obeys it goes on").await;
    is_above(&behind, "who does not stays where it is").await;
    assert_eq!(behind.load().position().revision, Revision(2));
    assert!(behind.load().tenant("t2").is_none() && behind.load().tenant("t3").is_none());
    assert!(behind.status().ready && behind.is_suspect());
    eventually(DEADLINE, "it is not acknowledged", async || {
        let live = state.heartbeats.live().await.unwrap();
        live.iter().any(|r| r.level == OLD && r.stale && r.position.revision == Revision(2))
    })
    .await;
    let status = async || state.projection.status().await.unwrap();
    eventually(DEADLINE, "the projection says what it needs", async || {
        status().await.is_some_and(|status| status.level == NEW)
    })
    .await;

    let (_three, fresh) = follow_with(&state, None, of(OLD));
    is_above(&fresh, "one that starts cannot load it").await;
    assert!(!fresh.status().ready);
    let kept = Table::clone(&behind.load_full());
    let (_four, upgraded) = follow_with(&state, Some(kept), of(NEW));
    until_equal(&state, &log, &upgraded, "upgraded, it goes on from where it was").await;
    eventually(DEADLINE, "and is current", async || upgraded.status().is_current()).await;
    assert_eq!(handle.failures(), 0);
}

#[tokio::test]
async fn a_mixed_fleet_skips_nothing_in_memory() {
    a_mixed_fleet(State::memory()).await;
}

#[tokio::test]
async fn a_mixed_fleet_skips_nothing_in_redis() {
    let redis = Redis::start().await.unwrap();
    a_mixed_fleet(State::redis(&crate::options_of(&redis)).await.unwrap()).await;
}

#[tokio::test]
async fn a_level_is_read_before_changes_that_cannot_be() {
    let redis = Redis::start().await.unwrap();
    let state = State::redis(&crate::options_of(&redis)).await.unwrap();
    let base = Position { epoch: Epoch(1), revision: Revision(4) };
    state.feed.reset(FencingToken(1), &base).await.unwrap();
    let event = |level| {
        let event = grey_core::change::Event { revision: Revision(5), level, ..Default::default() };
        // Field 5 is a change; in it field 99, of a kind that nobody here knows.
        [codec::encode_event(&event), vec![5 << 3 | 2, 5, 99 << 3 & 0x7f | 2 | 0x80, 99 >> 4, 2, 8, 1]]
            .concat()
    };
    let mut raw = redis.connection().await.unwrap();
    let mut read = async |level, read_as| {
        redis::cmd("XTRIM").arg("grey:changes").arg("MAXLEN").arg(0).exec_async(&mut raw).await.unwrap();
        redis::cmd("DEL").arg("grey:changes").exec_async(&mut raw).await.unwrap();
        state.feed.reset(FencingToken(1), &base).await.unwrap();
        let mut add = redis::cmd("XADD");
        add.arg("grey:changes").arg("5-0").arg("g").arg(1).arg("t").arg(1).arg("e").arg(event(level));
        add.arg("d").arg("").exec_async(&mut raw).await.unwrap();
        state.feed.read(&base, read_as, 10, Duration::ZERO).await
    };
    assert_eq!(read(NEW, OLD).await.unwrap(), FeedRead::Above(NEW));
    // An unknown change that does not say so is damage, and no reason to go on without it.
    for level in [OLD, NEW] {
        let refused = read(level, NEW).await;
        assert!(matches!(refused, Err(grey_state::Error::Corrupt { .. })), "{refused:?}");
    }
}

#[tokio::test]
async fn a_publisher_that_cannot_fold_the_log_leaves_it_to_one_that_can() {
    let (state, log) = (State::memory(), Log::new());
    log.commit_at(OLD, put_tenant(0));
    let options = |level| publisher::Options { level, ..publisher_options() };
    let (_one, old) = publish_with(&state, &log, options(OLD));
    eventually(DEADLINE, "it publishes", async || old.published() == Revision(1)).await;
    log.commit_at(NEW, put_tenant(1));
    eventually(DEADLINE, "it does not lead", async || !old.is_leading()).await;
    assert_eq!(state.feed.head().await.unwrap().unwrap().last, Revision(1));
    let (_two, new) = publish_with(&state, &log, options(NEW));
    eventually(DEADLINE, "another one publishes", async || new.published() == Revision(2)).await;
    assert_eq!(old.published(), Revision(1));
}
