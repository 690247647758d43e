//! Lease and token of the publisher are the log's: stores that were written by others do not stop it.

use crate::world::{DEADLINE, Log, follow, publish, put_tenant, until_equal};
use grey_core::change::{Epoch, FormatLevel, Position, Revision};
use grey_state::projection::{Beat, ProjectionStatus};
use grey_state::{Digests, FencingToken, State};
use grey_testkit::{Redis, eventually};

const FOREIGN: FencingToken = FencingToken(1_700_000_000_000);

async fn write_everywhere(state: &State, token: FencingToken) {
    let position = Position { epoch: Epoch(1), revision: Revision(0) };
    state.feed.reset(token, &position).await.unwrap();
    let rebuild = state.projection.rebuild(token, &position).await.unwrap();
    let (digests, level) = (Digests::one(0), FormatLevel::FIRST);
    rebuild.finish(&ProjectionStatus { position, digests, level }).await.unwrap();
    state.projection.beat(token, &Beat { number: 1, position }).await.unwrap();
}

async fn is_surpassed(state: State) {
    write_everywhere(&state, FOREIGN).await;
    let log = Log::new();
    log.commit(put_tenant(0));
    let (_publisher, handle) = publish(&state, &log);
    let (_following, tables) = follow(&state, None);
    until_equal(&state, &log, &tables, "it is published all the same").await;
    assert!(log.token() > FOREIGN);

    // While it leads, too.
    let greater = FencingToken(FOREIGN.0 * 2);
    state.projection.beat(greater, &Beat::default()).await.unwrap();
    eventually(DEADLINE, "it leads by a greater token", async || log.token() > greater).await;
    log.commit(put_tenant(1));
    until_equal(&state, &log, &tables, "it goes on").await;
    eventually(DEADLINE, "it leads", async || handle.is_leading()).await;
}

#[tokio::test]
async fn a_leader_fenced_off_by_a_foreign_token_asks_for_a_greater_one() {
    is_surpassed(State::memory()).await;
    let redis = Redis::start().await.unwrap();
    is_surpassed(State::redis(&crate::options_of(&redis)).await.unwrap()).await;
}

#[tokio::test]
async fn who_was_fenced_off_by_its_successor_does_not_come_back_meanwhile() {
    let (state, log) = (State::memory(), Log::new());
    log.commit(put_tenant(0));
    let (_one, one) = publish(&state, &log);
    eventually(DEADLINE, "one leads", async || one.is_leading() && one.published() == Revision(1)).await;
    let (_two, two) = publish(&state, &log);
    let before = log.token();
    log.commit(put_tenant(1));
    eventually(DEADLINE, "one goes on", async || one.published() == Revision(2)).await;
    assert!(!two.is_leading() && log.token() == before, "a lease that is renewed keeps its token");
}

#[tokio::test]
async fn a_lead_that_is_given_up_is_taken_at_once() {
    let (state, log) = (State::memory(), Log::new());
    let (one, first) = publish(&state, &log);
    eventually(DEADLINE, "one leads", async || first.is_leading()).await;
    let before = log.token();
    drop(one);
    let (_two, second) = publish(&state, &log);
    eventually(DEADLINE, "the other leads", async || second.is_leading()).await;
    assert!(log.token() > before);
}
