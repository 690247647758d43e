//! Who publishes is decided in the control database.

use std::time::Duration;

use grey_control_plane::database::Database;
use grey_core::change::FormatLevel;
use grey_state::FencingToken;
use grey_state::publisher::EventLog as _;
use grey_testkit::eventually;
use tokio::sync::mpsc;

use crate::fixture::{Backend, SOON, Store, config};

const LONG: Duration = Duration::from_secs(600);
const ANY: FencingToken = FencingToken(0);

async fn open(url: &str) -> Database {
    Database::open(&config(url).database).await.unwrap()
}

async fn one_leads_by_a_growing_token(backend: Backend) {
    let store = Store::new(backend).await;
    let (one, two) = (open(&store.url).await, open(&store.url).await);
    let first = one.lead("one", LONG, ANY).await.unwrap().unwrap();
    assert_eq!(two.lead("two", LONG, ANY).await.unwrap(), None);
    assert_eq!(two.lead("two", LONG, FencingToken(1 << 50)).await.unwrap(), None);
    assert_eq!(one.lead("one", LONG, ANY).await.unwrap(), Some(first), "a renewal keeps the token");
    assert_eq!(one.lead("one", LONG, FencingToken(first.0 - 1)).await.unwrap(), Some(first));
    // A store that was written for another database holds a greater token.
    let foreign = FencingToken(1_700_000_000_000);
    assert_eq!(one.lead("one", LONG, foreign).await.unwrap(), Some(FencingToken(foreign.0 + 1)));
    assert_eq!(one.lead("one", LONG, foreign).await.unwrap(), Some(FencingToken(foreign.0 + 1)));

    two.resign("two").await.unwrap();
    assert_eq!(two.lead("two", LONG, ANY).await.unwrap(), None, "nobody gives up what it does not have");
    one.resign("one").await.unwrap();
    let second = two.lead("two", Duration::from_millis(1), ANY).await.unwrap().unwrap();
    assert!(second.0 > foreign.0 + 1, "{second:?}");
    eventually(SOON, "the lead expires by the database's clock", async || {
        one.lead("one", LONG, ANY).await.unwrap().is_some_and(|third| third > second)
    })
    .await;
    // A holder whose lead had expired is a new one.
    one.resign("one").await.unwrap();
    let before = two.lead("two", Duration::from_millis(1), ANY).await.unwrap().unwrap();
    eventually(SOON, "it has expired", async || {
        two.lead("two", Duration::from_millis(1), ANY).await.unwrap().unwrap() > before
    })
    .await;
}

#[tokio::test]
async fn one_leads_by_a_growing_token_on_sqlite() {
    one_leads_by_a_growing_token(Backend::Sqlite).await;
}

#[tokio::test]
async fn one_leads_by_a_growing_token_on_postgres() {
    one_leads_by_a_growing_token(Backend::Postgres).await;
}

#[tokio::test]
async fn a_snapshot_tells_the_level_that_its_facts_need() {
    let store = Store::new(Backend::Sqlite).await;
    let database = open(&store.url).await;
    let (sender, _receiver) = mpsc::channel(1);
    assert_eq!(database.snapshot(sender).await.unwrap().level, FormatLevel::FIRST);
}
