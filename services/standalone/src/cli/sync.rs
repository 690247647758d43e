//! `grey sync`: how the mirrors of registries and tenants stand, and what they may be asked for.

mod text;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand, ValueEnum};
use grey_proto::sync::{
    AcceptRequest, GetStatusRequest, GetStatusResponse, HandledRequest, SyncStatus, TriggerRequest,
};

use super::session::Session;
use super::{Failure, output, positive};

/// What to do with the mirrors.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Tell how the mirrors stand: sources, held changes, what is left out, the last syncs
    Status {
        /// Only this mirror; else both
        mirror: Option<Mirror>,
    },
    /// Ask for a full sync now
    Run {
        /// The mirror
        mirror: Mirror,
        #[command(flatten)]
        patience: Patience,
    },
    /// Apply a held change, as it was shown, without waiting for its confirmation
    Accept {
        /// The mirror
        mirror: Mirror,
        /// The change, from `grey sync status`
        #[arg(value_name = "CHANGE-ID")]
        change: String,
        #[command(flatten)]
        patience: Patience,
    },
}

/// One of the mirrors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Mirror {
    /// Instances, from registries
    Registry,
    /// Tenants, from the tenant API
    Tenants,
}

/// How long the outcome is waited for.
#[derive(Debug, Clone, Copy, Args)]
pub struct Patience {
    /// Wait until it has ended, at most this long
    #[arg(long, value_name = "DURATION", value_parser = positive)]
    wait: Option<Duration>,
}

impl Mirror {
    const ALL: [Self; 2] = [Self::Registry, Self::Tenants];

    /// As on the command line and in documents.
    fn name(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Tenants => "tenants",
        }
    }
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Status { mirror: Some(mirror) } => {
                let response = get(session, mirror).await?;
                session.show(&response, || told(&response))
            }
            Self::Status { mirror: None } => all(session).await,
            Self::Run { mirror, patience } => run(session, mirror, patience).await,
            Self::Accept { mirror, change, patience } => accept(session, mirror, change, patience).await,
        }
    }
}

async fn get(session: &Session, mirror: Mirror) -> Result<GetStatusResponse, Failure> {
    let mut client = session.sync(mirror).await?;
    let attempted = format!("ask how the mirror of {} stands", about(mirror));
    session.call(&attempted, client.get_status(session.request(GetStatusRequest {}))).await
}

/// Shows every mirror that answers, also where another one does not.
async fn all(session: &Session) -> Result<(), Failure> {
    let [registry, tenants] = Mirror::ALL;
    let (registry, tenants) = tokio::join!(get(session, registry), get(session, tenants));
    let (mut there, mut failures) = (BTreeMap::new(), Vec::new());
    for (mirror, asked) in Mirror::ALL.into_iter().zip([registry, tenants]) {
        match asked {
            Ok(response) => drop(there.insert(mirror.name(), response)),
            Err(failure) => failures.push(failure),
        }
    }
    if !there.is_empty() {
        let texts = || there.values().map(told).collect::<Vec<_>>().join("\n");
        session.show(&there, texts)?;
    }
    match failures.pop() {
        None => Ok(()),
        Some(failure) if failures.is_empty() => Err(failure),
        Some(failure) => Err(Failure::Several(failures.into_iter().chain([failure]).collect())),
    }
}

async fn run(session: &Session, mirror: Mirror, Patience { wait }: Patience) -> Result<(), Failure> {
    let mut client = session.sync(mirror).await?;
    let attempted = format!("sync {}", about(mirror));
    let request = TriggerRequest { wait: wait.map(Into::into) };
    let request = session.request_waiting(request, wait.unwrap_or_default());
    let response =
        session.call_waiting(&attempted, wait.unwrap_or_default(), client.trigger(request)).await?;
    let done = format!("synced {}", about(mirror));
    session.show(&response, || outcome(&attempted, &done, &response.request, response.handled.as_ref()))?;
    ended(attempted, response.request, response.handled, wait)
}

async fn accept(
    session: &Session,
    mirror: Mirror,
    change: String,
    Patience { wait }: Patience,
) -> Result<(), Failure> {
    let mut client = session.sync(mirror).await?;
    let attempted = format!("accept held change `{change}`");
    let done = format!("accepted held change {change}");
    let request = AcceptRequest { change, wait: wait.map(Into::into) };
    let request = session.request_waiting(request, wait.unwrap_or_default());
    let response = session.call_waiting(&attempted, wait.unwrap_or_default(), client.accept(request)).await?;
    session.show(&response, || outcome(&attempted, &done, &response.request, response.handled.as_ref()))?;
    ended(attempted, response.request, response.handled, wait)
}

/// What a mirror is about, for people.
fn about(mirror: Mirror) -> &'static str {
    match mirror {
        Mirror::Registry => "instances",
        Mirror::Tenants => "tenants",
    }
}

fn told(response: &GetStatusResponse) -> String {
    let none = SyncStatus::default();
    let status = response.status.as_ref().unwrap_or(&none);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    text::status(status, i64::try_from(now.as_secs()).unwrap_or(i64::MAX))
}

/// One line about a request that was taken; nothing if it failed, which the failure tells.
fn outcome(attempted: &str, done: &str, request: &str, handled: Option<&HandledRequest>) -> String {
    match handled {
        None => output::plain(&format!("asked to {attempted}, request {request}")) + "\n",
        Some(handled) if handled.error.is_empty() => output::plain(done) + "\n",
        Some(_) => String::new(),
    }
}

fn ended(
    attempted: String,
    request: String,
    handled: Option<HandledRequest>,
    wait: Option<Duration>,
) -> Result<(), Failure> {
    match (handled, wait) {
        (Some(handled), _) if !handled.error.is_empty() => {
            Err(Failure::Mirror { attempted, error: handled.error })
        }
        (None, Some(wait)) => Err(Failure::Unended { attempted, request, wait }),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "test code panics")]
mod tests {
    use super::*;

    fn handled(error: &str) -> HandledRequest {
        HandledRequest { request: "r-7".to_owned(), error: error.to_owned() }
    }

    #[test]
    fn an_outcome_is_one_line() {
        let told = |handled: Option<HandledRequest>| {
            outcome("sync tenants", "synced tenants", "r-7", handled.as_ref())
        };
        assert_eq!(told(None), "asked to sync tenants, request r-7\n");
        assert_eq!(told(Some(handled(""))), "synced tenants\n");
        assert_eq!(told(Some(handled("no answer"))), "");
    }

    #[test]
    fn a_request_that_failed_or_did_not_end_in_time_is_a_failure() {
        let wait = Some(Duration::from_secs(3));
        let ended = |handled, wait| ended("sync tenants".to_owned(), "r-7".to_owned(), handled, wait);
        assert!(ended(None, None).is_ok() && ended(Some(handled("")), wait).is_ok());
        insta::assert_snapshot!(ended(Some(handled("dc-1: no answer")), wait).unwrap_err(), @"sync tenants: dc-1: no answer");
        insta::assert_snapshot!(ended(None, wait).unwrap_err(), @"sync tenants: request r-7 was taken, but has not ended within 3s; see `grey sync status`");
    }
}
