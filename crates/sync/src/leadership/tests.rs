#![allow(clippy::unwrap_used, reason = "test code panics")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use async_trait::async_trait;
use grey_state::{Error, Leases};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;

const TTL: Duration = Duration::from_secs(8);
const STEP: Duration = Duration::from_millis(100);

struct Candidate {
    lead: Lead,
    stop: CancellationToken,
    campaign: JoinHandle<()>,
}

impl Candidate {
    fn start(state: &State, holder: &str) -> Self {
        let (leadership, lead) = Leadership::new(state, lease(), holder.to_owned(), TTL);
        let stop = CancellationToken::new();
        let campaign = tokio::spawn(leadership.run(stop.clone()));
        Self { lead, stop, campaign }
    }

    /// Waits until it leads.
    async fn leading(state: &State, holder: &str) -> (Self, FencingToken) {
        let mut candidate = Self::start(state, holder);
        let token = candidate.lead.changed().await.unwrap();
        (candidate, token)
    }
}

fn lease() -> Name {
    Name::new("mirror").unwrap()
}

/// A store that can be away: it then answers with an error, after some time.
struct Flaky {
    store: Arc<dyn Leases>,
    away: AtomicBool,
    answers_after: Duration,
}

#[async_trait]
impl Leases for Flaky {
    async fn acquire_above(
        &self,
        name: &Name,
        holder: &str,
        ttl: Duration,
        above: FencingToken,
    ) -> Result<Option<FencingToken>, Error> {
        if self.away.load(Relaxed) {
            sleep(self.answers_after).await;
            return Err(Error::Timeout { attempted: "acquire a lease", deadline: self.answers_after });
        }
        self.store.acquire_above(name, holder, ttl, above).await
    }

    async fn release(&self, name: &Name, holder: &str) -> Result<(), Error> {
        self.store.release(name, holder).await
    }
}

/// The same state, seen through a link that can be cut.
fn flaky(state: &State, answers_after: Duration) -> (State, Arc<Flaky>) {
    let store = Arc::clone(&state.leases);
    let link = Arc::new(Flaky { store, away: AtomicBool::new(false), answers_after });
    let seen: Arc<dyn Leases> = Arc::<Flaky>::clone(&link);
    (State { leases: seen, ..state.clone() }, link)
}

#[tokio::test(start_paused = true)]
async fn one_of_two_leads_and_keeps_its_token() {
    let state = State::memory();
    let (mut one, token) = Candidate::leading(&state, "one").await;
    let two = Candidate::start(&state, "two");
    let changed = timeout(TTL * 10, one.lead.changed()).await;
    assert!(changed.is_err(), "a renewal is no change: {changed:?}");
    assert_eq!((one.lead.token(), two.lead.token()), (Some(token), None));
}

#[tokio::test(start_paused = true)]
async fn a_killed_leader_is_followed_within_the_ttl_by_a_higher_token() {
    for phase in 0..20 {
        let state = State::memory();
        let (one, first) = Candidate::leading(&state, "one").await;
        let begun = Instant::now();
        sleep(STEP * 9).await;
        let mut two = Candidate::start(&state, "two");
        sleep_until(begun + TTL + STEP * phase).await;
        one.campaign.abort();
        let killed = Instant::now();
        let second = two.lead.changed().await.unwrap();
        assert!(killed.elapsed() <= TTL, "phase {phase}: nobody led for {:?}", killed.elapsed());
        assert!(second > first);
        assert_eq!(one.lead.token(), None, "phase {phase}: two lead");
    }
}

#[tokio::test(start_paused = true)]
async fn a_killed_campaign_is_told_as_lost() {
    let (mut one, token) = Candidate::leading(&State::memory(), "one").await;
    one.campaign.abort();
    assert_eq!(one.lead.token(), Some(token), "the lease still holds");
    assert_eq!(timeout(TTL, one.lead.changed()).await, Ok(None));
    assert!(timeout(TTL * 10, one.lead.changed()).await.is_err(), "there is nothing more to tell");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_stops_hands_over_at_once() {
    let state = State::memory();
    let (mut one, first) = Candidate::leading(&state, "one").await;
    let mut two = Candidate::start(&state, "two");
    assert!(timeout(TTL, two.lead.changed()).await.is_err());
    one.stop.cancel();
    one.campaign.await.unwrap();
    assert_eq!(one.lead.changed().await, None);
    // The next attempt of who stands by.
    let second = timeout(TTL / 8, two.lead.changed()).await.unwrap().unwrap();
    assert!(second > first);
}

#[tokio::test(start_paused = true)]
async fn a_leader_cut_off_gives_up_before_anybody_else_can_lead() {
    for answers_after in [Duration::ZERO, TTL / 3, TTL * 3] {
        for phase in 0..20 {
            let state = State::memory();
            let (seen, link) = flaky(&state, answers_after);
            let (one, first) = Candidate::leading(&seen, "one").await;
            sleep(STEP * phase).await;
            link.away.store(true, Relaxed);
            let second = loop {
                if let Some(token) = state.leases.acquire(&lease(), "two", TTL).await.unwrap() {
                    break token;
                }
                sleep(STEP / 10).await;
            };
            assert_eq!(one.lead.token(), None, "{answers_after:?}, phase {phase}");
            assert!(second > first);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_cut_off_is_told_and_leads_again_later() {
    let state = State::memory();
    let (seen, link) = flaky(&state, TTL / 3);
    let (mut one, first) = Candidate::leading(&seen, "one").await;
    link.away.store(true, Relaxed);
    assert_eq!(timeout(TTL, one.lead.changed()).await, Ok(None));
    sleep(TTL).await;
    link.away.store(false, Relaxed);
    let second = timeout(TTL, one.lead.changed()).await.unwrap().unwrap();
    assert!(second > first);
}

#[tokio::test(start_paused = true)]
async fn a_short_absence_of_the_store_is_survived() {
    let (seen, link) = flaky(&State::memory(), Duration::from_millis(10));
    let (mut one, token) = Candidate::leading(&seen, "one").await;
    for phase in 0..20 {
        link.away.store(true, Relaxed);
        assert!(timeout(TTL / 3, one.lead.changed()).await.is_err(), "phase {phase}");
        link.away.store(false, Relaxed);
        assert!(timeout(TTL / 2 + STEP * phase, one.lead.changed()).await.is_err(), "phase {phase}");
    }
    assert_eq!(one.lead.token(), Some(token));
}

#[tokio::test(start_paused = true)]
async fn a_lease_taken_away_is_lost() {
    let state = State::memory();
    let (mut one, first) = Candidate::leading(&state, "one").await;
    // As a store does that lost its data and gave the lease to another.
    state.leases.release(&lease(), "one").await.unwrap();
    let second = state.leases.acquire(&lease(), "two", TTL * 9).await.unwrap().unwrap();
    assert!(second > first);
    assert_eq!(timeout(TTL / 3, one.lead.changed()).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn what_fenced_it_off_is_surpassed_at_once() {
    let (mut one, first) = Candidate::leading(&State::memory(), "one").await;
    // As a store says that lost the lease, and kept what was written under it.
    let seen = FencingToken(first.0 + 1_000_000);
    one.lead.fenced(seen);
    let second = timeout(STEP, one.lead.changed()).await.unwrap().unwrap();
    assert!(second > seen);
    one.lead.fenced(seen);
    assert!(timeout(TTL * 2, one.lead.changed()).await.is_err(), "it is surpassed already");
}

#[tokio::test(start_paused = true)]
async fn every_handle_is_told_for_itself() {
    let (one, token) = Candidate::leading(&State::memory(), "one").await;
    let mut late = one.lead.clone();
    late.told = None;
    assert_eq!(late.changed().await, Some(token), "who asks late is told at once");
    let mut knowing = one.lead.clone();
    assert!(timeout(TTL, knowing.changed()).await.is_err(), "a clone knows what its original was told");
}
