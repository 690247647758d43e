//! Each event keeps the hash of the one before it: a log that was touched is told from one that was not.

use grey_core::error::Reason;
use grey_proto::control::{VerifyEventsRequest, VerifyEventsResponse};
use prost::Message;
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use sha2::{Digest, Sha256};

use crate::fixture::{Plane, on_both, reason};

on_both! {
    every_event_links_to_the_one_before_it
    a_log_that_was_touched_is_found_out
}

async fn verify(plane: &Plane, after: u64, limit: u32) -> VerifyEventsResponse {
    plane.history().verify_events(VerifyEventsRequest { after, limit }).await.unwrap().into_inner()
}

async fn history(plane: &Plane) -> u64 {
    plane.acme().await;
    for version in ["1.1", "1.2", "1.3"] {
        plane.put_version("payment", version, None).await;
        plane.put_pin("acme", "payment", version).await.unwrap();
    }
    plane.revision().await
}

async fn every_event_links_to_the_one_before_it(plane: Plane) {
    let empty = VerifyEventsResponse { complete: true, ..VerifyEventsResponse::default() };
    assert_eq!(verify(&plane, 0, 0).await, empty);
    let head = history(&plane).await;
    let mut previous = vec![0; 32];
    for event in plane.events().await {
        assert_eq!(event.previous, previous, "event {}", event.revision);
        previous = Sha256::digest(event.encode_to_vec()).to_vec();
    }
    let whole = VerifyEventsResponse { revision: head, complete: true, ..VerifyEventsResponse::default() };
    assert_eq!(verify(&plane, 0, 0).await, whole);
    assert_eq!(verify(&plane, head, 0).await, whole);
    let half = VerifyEventsResponse { revision: 4, ..VerifyEventsResponse::default() };
    assert_eq!(verify(&plane, 0, 4).await, half);
    assert_eq!(verify(&plane, 4, 1_000).await, whole);
    let beyond = VerifyEventsRequest { after: head + 1, limit: 0 };
    let beyond = plane.history().verify_events(beyond).await;
    assert_eq!(reason(beyond), Reason::RevisionUnavailable, "a log that was set back is not whole");
}

async fn a_log_that_was_touched_is_found_out(plane: Plane) {
    let head = history(&plane).await;
    let database = sea_orm::Database::connect(&plane.store.url).await.unwrap();
    let run = async |sql: String| database.execute_unprepared(&sql).await.unwrap();
    run("CREATE TABLE kept AS SELECT * FROM events".to_owned()).await;
    for (touched, broken, why) in [
        // A body that nobody can read, that of another event, one that is gone, the last one replaced.
        ("UPDATE events SET body = substr(body, 1, 5) WHERE revision = 5".to_owned(), 5, "read back"),
        (
            "UPDATE events SET body = (SELECT body FROM kept WHERE revision = 4) WHERE revision = 5"
                .to_owned(),
            5,
            "place",
        ),
        ("DELETE FROM events WHERE revision = 6".to_owned(), 6, "missing"),
        (format!("DELETE FROM events WHERE revision = {head}"), head, "missing"),
        // What events are found by, but not what they say.
        ("UPDATE events SET principal = 'mallory' WHERE revision = 5".to_owned(), 5, "columns"),
        ("UPDATE events SET reason = 'nothing' WHERE revision = 6".to_owned(), 6, "columns"),
        (format!("UPDATE events SET at_ms = 1 WHERE revision = {head}"), head, "columns"),
    ] {
        run(touched.clone()).await;
        let found = verify(&plane, 0, 0).await;
        assert_eq!((found.revision, found.broken), (broken - 1, broken), "{touched}: {found:?}");
        assert!(found.why.contains(why) && !found.complete, "{touched}: {found:?}");
        run("DELETE FROM events".to_owned()).await;
        run("INSERT INTO events SELECT * FROM kept".to_owned()).await;
        assert!(verify(&plane, 0, 0).await.complete);
    }
    // An event that reads well and says something else than was committed, or stands after another one.
    for (at, is_moved, why) in [
        (5, false, "written after"),
        (head, false, "committed last"),
        (5, true, "neither does it follow"),
        (head, true, "neither does it follow"),
    ] {
        let position = usize::try_from(at - 1).unwrap();
        let mut event = plane.events().await.remove(position);
        match is_moved {
            false => event.reason = "nothing to see here".to_owned(),
            true => event.previous = vec![7; 32],
        }
        let hex: String = event.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect();
        let bytes = match database.get_database_backend() {
            sea_orm::DbBackend::Postgres => format!("'\\x{hex}'"),
            _ => format!("x'{hex}'"),
        };
        let reason = &event.reason;
        run(format!("UPDATE events SET body = {bytes}, reason = '{reason}' WHERE revision = {at}")).await;
        let found = verify(&plane, 0, 0).await;
        assert_eq!((found.revision, found.broken), (at - 1, at), "{found:?}");
        assert!(found.why.contains(why) && !found.complete, "{found:?}");
        run(format!("DELETE FROM events WHERE revision = {at}")).await;
        run(format!("INSERT INTO events SELECT * FROM kept WHERE revision = {at}")).await;
    }
    // Events that are as they were, and are not found any more.
    run("CREATE TABLE noted AS SELECT * FROM record_history".to_owned()).await;
    for lost in ["kind = 'tenant'", "kind = 'tied'", "kind = 'service' AND revision > 2"] {
        run(format!("DELETE FROM record_history WHERE {lost}")).await;
        let found = verify(&plane, 0, 0).await;
        let first = first_with(&database, lost).await;
        assert_eq!((found.revision, found.broken), (first - 1, first), "{lost}: {found:?}");
        assert!(found.why.contains("index") && !found.complete, "{found:?}");
        run("DELETE FROM record_history".to_owned()).await;
        run("INSERT INTO record_history SELECT * FROM noted".to_owned()).await;
    }
    assert!(verify(&plane, 0, 0).await.complete);
}

/// The first event that was noted where a condition holds.
async fn first_with(database: &DatabaseConnection, condition: &str) -> u64 {
    let sql = format!("SELECT min(revision) AS first FROM noted WHERE {condition}");
    let row = database.query_one_raw(Statement::from_string(database.get_database_backend(), sql)).await;
    row.unwrap().unwrap().try_get::<i64>("", "first").unwrap().try_into().unwrap()
}
