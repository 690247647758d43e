//! What takes time under a lead, and how it ends.

use std::time::{Duration, Instant};

use grey_core::ids::Name;
use grey_state::instances::{Doubt, Loaded, ServiceInstances, WRITER};
use grey_state::{Error, State};
use grey_sync::Request;
use tokio::task::JoinSet;

use crate::mirror::Target;
use crate::probe::{Prober, Verdict};

/// What comes next under a lead.
pub(super) enum Next {
    /// Something is asked of the leader.
    Asked(Vec<Request>),
    /// Everything that shared state has was read.
    Loaded(Result<Loaded, Error>),
    /// A list was written.
    Wrote { list: ServiceInstances, since: Instant, result: Result<(), Error> },
    /// The digest of all lists in shared state was read, while so many writes had been begun.
    Watched(u64, Result<Option<u64>, Error>),
    /// Doubts of readers were looked for.
    Doubted(Result<Vec<Doubt>, Error>),
    /// Instances were asked themselves.
    Probed(Vec<(Target, Verdict)>),
}

/// Asks all of `targets`; the prober bounds how many at the same time.
pub(super) async fn probe(prober: &Prober, targets: Vec<Target>) -> Vec<(Target, Verdict)> {
    let mut probes = JoinSet::new();
    for target in targets {
        let prober = prober.clone();
        probes.spawn(async move {
            let verdict = prober.probe(&target.address).await;
            (target, verdict)
        });
    }
    probes.join_all().await
}

/// Takes what readers of instances doubt, waiting up to `wait`. What does not read is left aside.
pub(super) async fn doubts(state: &State, wait: Duration) -> Result<Vec<Doubt>, Error> {
    let writer = Name::new(WRITER).expect("the writer is called by a valid name");
    let requests = state.requests.take(&writer, wait).await?;
    let doubts = requests.iter().map(|request| Doubt::decode(request));
    let warn = |why: &_| tracing::warn!(error = %why, "doubt of a reader does not read, left aside");
    Ok(doubts.filter_map(|doubt| doubt.inspect_err(warn).ok()).collect())
}
