//! Asks routers that fell silent whether they are still there.
//!
//! Silence proves nothing: a router that is cut off from shared state, or stopped for a while, may still serve or do so
//! again. That its address refuses connections, or that another router answers there, throughout a whole lease, proves that
//! it is gone. No answer in time, or an answer that cannot be read, proves nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use grey_core::ids::InstanceId;
use grey_edge::client::{self, Bearer, endpoint, was_refused};
use grey_proto::router::IdentifyRequest;
use grey_proto::router::router_service_client::RouterServiceClient;
use grey_runtime::config::duration;
use grey_runtime::{Faults, Secret, Validate, tls};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::service::interceptor::InterceptedService;

use super::Fleet;
use super::members::{Member, Standing};
use crate::command::{chain, now_ms};

/// Routers asked at the same time, and at most in one round.
const AT_ONCE: usize = 32;
const IN_ROUND: usize = 256;
/// A router is asked so many times in a lease, within these bounds.
const PER_LEASE: u32 = 5;
const PERIOD: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// Without having asked for so many periods, what was proven before does not count.
const GAP: u32 = 10;

/// How routers are called.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// A bearer token; empty: none is sent.
    pub token: Secret,
    /// Whom to trust and what to show; none: routers serve without encryption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<tls::ClientOptions>,
    /// For a connection.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// For one call, its connection included.
    #[serde(with = "duration")]
    pub timeout: Duration,
}

impl Options {
    fn of(&self, address: &str) -> client::Options {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        client::Options {
            url: format!("{scheme}://{address}"),
            token: self.token.clone(),
            tls: self.tls.clone(),
            connect_timeout: self.connect_timeout,
            timeout: self.timeout,
        }
    }
}

impl Validate for Options {
    fn validate(&self, faults: &mut Faults) {
        self.of("router:7400").validate(faults);
    }
}

/// What asking a router came to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    /// It answers.
    Itself,
    /// Another router answers at its address.
    Another(String),
    /// Nobody listens at its address.
    Refused,
    /// Nothing that proves anything.
    Unclear(String),
}

/// What was found out about one router.
#[derive(Debug)]
struct Proof {
    asked: Instant,
    /// Since when every answer proved that it is gone.
    since: Option<Instant>,
}

/// Asks routers that fell silent.
pub(crate) struct Prober {
    options: Options,
    proofs: BTreeMap<String, Proof>,
}

impl Prober {
    pub(crate) fn new(options: Options) -> Self {
        Self { options, proofs: BTreeMap::new() }
    }

    /// Asks those that are silent, whenever that is told anew; ends with whoever tells.
    pub(super) async fn run(mut self, fleet: &Fleet, mut silent: watch::Receiver<Vec<Member>>) {
        while silent.changed().await.is_ok() {
            let members = silent.borrow_and_update().clone();
            self.proofs.retain(|id, _| members.iter().any(|member| member.id == *id));
            let due = self.due(members, Instant::now());
            let ask = |member: Member| {
                let options = self.options.of(&member.address);
                async move {
                    let answer = ask(&options, &member).await;
                    (member, answer)
                }
            };
            let asked = futures::stream::iter(due.into_iter().map(ask)).buffer_unordered(AT_ONCE);
            let answers: Vec<(Member, Answer)> = asked.collect().await;
            for (member, answer) in answers {
                self.judge(fleet, &member, answer).await;
            }
        }
    }

    /// Those that it is time to ask again, the ones first that were not asked for longest.
    fn due(&self, members: Vec<Member>, now: Instant) -> Vec<Member> {
        let asked = |member: &Member| self.proofs.get(&member.id).map(|proof| proof.asked);
        let mut due: Vec<Member> = members
            .into_iter()
            .filter(|member| asked(member).is_none_or(|asked| now.duration_since(asked) >= period(member)))
            .collect();
        due.sort_by_key(|member| asked(member));
        due.truncate(IN_ROUND);
        due
    }

    async fn judge(&mut self, fleet: &Fleet, member: &Member, answer: Answer) {
        tracing::debug!(
            router.id = member.id,
            router.address = member.address,
            ?answer,
            "asked a silent router"
        );
        let is_proven = self.note(member, &answer, Instant::now());
        let remark = match answer {
            Answer::Itself | Answer::Unclear(_) => return,
            Answer::Refused => format!("{} refused connections throughout its lease", member.address),
            Answer::Another(id) => {
                let remark = format!("router `{id}` answers at {}", member.address);
                report(fleet.adopt(id, member).await);
                remark
            }
        };
        if is_proven {
            match fleet.database.end_router(member, Standing::Gone, &remark).await {
                Ok(true) => tracing::warn!(router.id = member.id, remark, "router is gone"),
                ended => report(ended.map(drop)),
            }
        }
    }

    /// Notes an answer; true once it is proven that the router is gone.
    fn note(&mut self, member: &Member, answer: &Answer, now: Instant) -> bool {
        let before = self.proofs.get(&member.id);
        let since = before
            .filter(|proof| now.duration_since(proof.asked) <= period(member) * GAP)
            .and_then(|proof| proof.since);
        let since = match answer {
            Answer::Refused | Answer::Another(_) => Some(since.unwrap_or(now)),
            Answer::Itself | Answer::Unclear(_) => None,
        };
        self.proofs.insert(member.id.clone(), Proof { asked: now, since });
        let lease = Duration::from_millis(member.lease_ms);
        since.is_some_and(|since| since < now && now.duration_since(since) >= lease)
    }
}

fn period(member: &Member) -> Duration {
    (Duration::from_millis(member.lease_ms) / PER_LEASE).clamp(PERIOD.0, PERIOD.1)
}

fn report(result: Result<(), crate::database::Error>) {
    if let Err(error) = result {
        tracing::warn!(error = %chain(&error), "what a silent router's address said could not be noted");
    }
}

async fn ask(options: &client::Options, member: &Member) -> Answer {
    let connection = endpoint(options).and_then(|endpoint| Ok((endpoint, Bearer::new(options)?)));
    let (endpoint, bearer) = match connection {
        Ok(connection) => connection,
        Err(error) => return Answer::Unclear(chain(&error)),
    };
    let mut router = RouterServiceClient::new(InterceptedService::new(endpoint.connect_lazy(), bearer));
    match tokio::time::timeout(options.timeout, router.identify(IdentifyRequest {})).await {
        Ok(Ok(answer)) => match answer.into_inner().id {
            id if id == member.id => Answer::Itself,
            id if InstanceId::new(&id).is_ok() => Answer::Another(id),
            id => Answer::Unclear(format!("`{id}` is no router's id")),
        },
        Ok(Err(status)) if was_refused(&status) => Answer::Refused,
        Ok(Err(status)) => Answer::Unclear(format!("{:?}: {}", status.code(), status.message())),
        Err(_) => Answer::Unclear("no answer in time".to_owned()),
    }
}

impl Fleet {
    /// Counts a router that answers where another one was, and tells nothing of itself: it may be cut off.
    async fn adopt(&self, id: String, before: &Member) -> Result<(), crate::database::Error> {
        let known = self.database.routers().await?;
        let counts = |member: &Member| matches!(member.standing, Standing::Member | Standing::Dismissed);
        if known.iter().any(|member| member.id == id && counts(member)) {
            return Ok(());
        }
        tracing::warn!(
            router.id = id,
            router.address = before.address,
            "found a router that is not heard of"
        );
        let now_ms = now_ms();
        let found = Member { id, first_seen_ms: now_ms, last_seen_ms: now_ms, ..before.clone() };
        self.database.put_routers(vec![found]).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member() -> Member {
        Member {
            id: "r1".to_owned(),
            run: 1,
            address: "127.0.0.1:7400".to_owned(),
            region: String::new(),
            zone: String::new(),
            lease_ms: 10_000,
            first_seen_ms: 0,
            last_seen_ms: 0,
            standing: Standing::Member,
            remark: String::new(),
        }
    }

    /// What each answer came to, at its second.
    fn noted(answers: &[(u64, Answer)]) -> Vec<bool> {
        let options = Options {
            token: Secret::new(""),
            tls: None,
            connect_timeout: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
        };
        let (mut prober, start) = (Prober::new(options), Instant::now());
        let at = |second: u64| start + Duration::from_secs(second);
        answers.iter().map(|(second, answer)| prober.note(&member(), answer, at(*second))).collect()
    }

    #[test]
    fn only_refusals_throughout_a_lease_are_proof() {
        let refused = |second| (second, Answer::Refused);
        let other = |second| (second, Answer::Another("r2".to_owned()));
        assert_eq!(noted(&[refused(0), refused(5), other(9), refused(10)]), [false, false, false, true]);
        // A timeout, and an answer of its own, begin anew.
        for reset in [Answer::Unclear("no answer in time".to_owned()), Answer::Itself] {
            let asked = [refused(0), (8, reset), refused(9), refused(18), refused(19)];
            assert_eq!(noted(&asked), [false, false, false, false, true]);
        }
        // Whoever did not ask for long does not know what was meanwhile.
        let gap = u64::from(GAP) * 2 + 1;
        assert_eq!(noted(&[refused(0), refused(gap), refused(gap + 10)]), [false, false, true]);
    }
}
