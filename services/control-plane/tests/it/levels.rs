//! A fleet in which some routers are a format level behind.

use std::sync::Arc;

use grey_control_plane::command::{Command, Commands, Error, Intent, Proposed, Writer};
use grey_control_plane::database::Database;
use grey_control_plane::metrics::Metrics;
use grey_core::change::{Change, FormatLevel};
use grey_core::error::Reason;
use grey_core::key::Fact;
use grey_core::tenant::Tenant;
use grey_state::State;
use grey_state::follower::{self, Follower};
use grey_state::publisher::{self, Publisher};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::fixture::{Backend, Store, config};
use crate::fleet::{goodbye, heartbeat};

/// The path of commands, without the doors before it: no change of today needs a second level.
async fn commands(store: &Store, state: &State) -> (Commands, Database, DropGuard) {
    let config = config(&store.url);
    let database = Database::open(&config.database).await.unwrap();
    let log = Arc::new(database.clone());
    let (_publisher, handle) = Publisher::new(state.clone(), log, publisher::Options::new("test"));
    let (_follower, tables) = Follower::new(state.clone(), follower::Options::default());
    let position = database.head().await.unwrap();
    let metrics = Metrics::new(&opentelemetry::global::meter("test"));
    let heartbeats = Arc::clone(&state.heartbeats);
    let (writer, commands) =
        Writer::new(database.clone(), position, tables, config.commands, handle, heartbeats, metrics);
    let stop = CancellationToken::new();
    tokio::spawn(writer.run(stop.clone()));
    (commands, database, stop.drop_guard())
}

fn put(tenant: &str, level: u32) -> Command {
    let change = Change::Put(Fact::Tenant(Box::new(Tenant::new(tenant.parse().unwrap()))));
    let intent = Intent::Changes(vec![Proposed { change, expected: None }]);
    Command { intent, level: FormatLevel(level), ..Command::default() }
}

#[tokio::test]
async fn what_a_router_would_not_obey_is_refused_naming_it_and_the_rest_flows() {
    let (store, state) = (Store::new(Backend::Sqlite).await, State::memory());
    let (commands, database, _stop) = commands(&store, &state).await;
    let beat = async |router: &str, level| {
        let heartbeat =
            grey_state::heartbeats::Heartbeat { level: FormatLevel(level), ..heartbeat(router, 1, 0) };
        state.heartbeats.beat(&heartbeat).await.unwrap();
    };
    beat("old", 1).await;
    beat("new", 2).await;
    commands.execute(put("acme", 1)).await.unwrap();
    let Error::Refused(refusal) = commands.execute(put("beta", 2)).await.unwrap_err() else { panic!() };
    assert_eq!((refusal.reason, refusal.get("routers")), (Reason::RoutersTooOld, Some("old")));
    assert_eq!(database.head().await.unwrap().revision.0, 1, "nothing of it is in the log");
    state.heartbeats.leave(&goodbye("old")).await.unwrap();
    assert_eq!(commands.execute(put("beta", 2)).await.unwrap().position.revision.0, 2);
}

#[tokio::test]
async fn a_control_plane_that_cannot_read_an_event_writes_nothing_after_it() {
    let (store, state) = (Store::new(Backend::Sqlite).await, State::memory());
    let (older, database, _stop) = commands(&store, &state).await;
    older.execute(put("acme", 1)).await.unwrap();
    let (newer, _, _stop_newer) = commands(&store, &state).await;
    newer.execute(put("beta", 2)).await.unwrap();
    let Error::Refused(refusal) = older.execute(put("gamma", 1)).await.unwrap_err() else { panic!() };
    assert_eq!(refusal.reason, Reason::Unavailable);
    assert!(refusal.message.contains("event 2 needs format level 2"), "{refusal}");
    assert_eq!(database.head().await.unwrap().revision.0, 2);
}
