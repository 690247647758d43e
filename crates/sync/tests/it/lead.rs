//! Two candidates on a real Redis.

use std::time::Duration;

use grey_core::ids::Name;
use grey_state::{FencingToken, State};
use grey_sync::{Lead, Leadership};
use grey_testkit::eventually;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::DEADLINE;
use crate::replica::{connect, redis};

const TTL: Duration = Duration::from_secs(2);

fn campaign(state: &State, holder: &str) -> (Lead, CancellationToken, JoinHandle<()>) {
    let lease = Name::new("mirror").unwrap();
    let (leadership, lead) = Leadership::new(state, lease, holder.to_owned(), TTL);
    let stop = CancellationToken::new();
    (lead, stop.clone(), tokio::spawn(leadership.run(stop)))
}

async fn leads(lead: &mut Lead) -> FencingToken {
    loop {
        let changed = tokio::time::timeout(DEADLINE, lead.changed()).await.unwrap();
        if let Some(token) = changed {
            return token;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lead_passes_on_when_its_holder_dies_or_stops() {
    let (redis, one) = redis().await;
    let two = connect(redis.url()).await;
    let (mut first, _stop, killed) = campaign(&one, "one");
    let token = leads(&mut first).await;
    let (mut second, stop, stopped) = campaign(&two, "two");
    assert_eq!(second.token(), None);
    killed.abort();
    let higher = leads(&mut second).await;
    assert!(higher > token);
    assert_eq!(first.token(), None);

    stop.cancel();
    stopped.await.unwrap();
    assert_eq!(second.token(), None);
    let (mut third, _stop, _campaign) = campaign(&one, "one again");
    assert!(leads(&mut third).await > higher);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_gives_up_while_the_store_is_frozen() {
    let (redis, one) = redis().await;
    let two = connect(redis.url()).await;
    let (mut first, _stop_one, _one) = campaign(&one, "one");
    let token = leads(&mut first).await;
    let (mut second, _stop_two, _two) = campaign(&two, "two");
    redis.pause().unwrap();
    // The store cannot have told it.
    let lost = tokio::time::timeout(DEADLINE, first.changed()).await;
    assert_eq!(lost, Ok(None));
    assert_eq!((first.token(), second.token()), (None, None));
    redis.resume().unwrap();
    eventually(DEADLINE, "one of them leads again", async || {
        first.token().is_some() || second.token().is_some()
    })
    .await;
    let now = if second.token().is_some() { leads(&mut second).await } else { leads(&mut first).await };
    assert!(now >= token && (first.token().is_none() || second.token().is_none()));
}
