//! A follower whose table belongs to an earlier epoch than the store.

use grey_core::change::{Epoch, Event, FormatLevel, Position, Revision};
use grey_core::ids::Name;
use grey_core::table::Table;
use grey_state::feed::{Append, FeedEntry};
use grey_state::follower::{Follower, Options};
use grey_state::projection::ProjectionStatus;
use grey_state::{Digests, FencingToken, State};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(60);

fn at(epoch: u64, revision: u64) -> Position {
    Position { epoch: Epoch(epoch), revision: Revision(revision) }
}

fn empty_table(position: Position) -> Table {
    let mut table = Table::default();
    table.set_position(position);
    table
}

/// Writes a history that begins at `base` with nothing in it.
async fn begin(state: &State, base: Position) -> FencingToken {
    let lease = Name::new("test").unwrap();
    let token = state.leases.acquire(&lease, "writer", DEADLINE).await.unwrap().unwrap();
    state.feed.reset(token, &base).await.unwrap();
    let rebuild = state.projection.rebuild(token, &base).await.unwrap();
    let (digests, level) = (Digests::of(&empty_table(base)), FormatLevel::FIRST);
    rebuild.finish(&ProjectionStatus { position: base, digests, level }).await.unwrap();
    token
}

#[tokio::test]
async fn past_tables_are_those_of_the_present_epoch() {
    let state = State::memory();
    let token = begin(&state, at(2, 5)).await;
    let (follower, tables) = Follower::new(state.clone(), Options::default());
    let follower = follower.with_table(empty_table(at(1, 4)));
    assert_eq!(tables.at(Revision(4)).map(|table| table.position()), Some(at(1, 4)));
    assert!(tables.at(Revision(0)).is_none(), "what was there before the saved table belongs to no epoch");

    let stop = CancellationToken::new();
    let following = tokio::spawn(follower.run(stop.clone()));
    assert!(tables.wait_until(|position| position == at(2, 5), DEADLINE).await);
    assert!(tables.at(Revision(4)).is_none(), "the saved table is of another epoch");

    let event = Event { revision: Revision(6), ..Event::default() };
    let appended = state
        .feed
        .append(token, Epoch(2), &[FeedEntry { event, digests: Digests::unknown() }])
        .await
        .unwrap();
    assert_eq!(appended, Append::Appended);
    assert!(tables.wait_until(|position| position.contains(at(2, 6)), DEADLINE).await);
    for (revision, kept) in [(4, None), (5, Some(at(2, 5))), (6, Some(at(2, 6)))] {
        assert_eq!(tables.at(Revision(revision)).map(|table| table.position()), kept);
    }
    stop.cancel();
    following.await.unwrap();
}
