//! What takes time, and how it ends.

use std::time::Instant;

use grey_proto::status::ApiError;
use grey_proto::sync::SyncStatus;
use grey_state::instances::ServiceInstances;
use grey_state::{Error, FencingToken};
use grey_sync::Request;
use tokio::task::JoinSet;

use crate::mirror::Target;
use crate::probe::{Prober, Verdict};

/// How something ended.
pub(super) enum Done {
    /// Everything that shared state has was read.
    Loaded(FencingToken, Result<Vec<ServiceInstances>, Error>),
    /// A list was written.
    Wrote { token: FencingToken, list: ServiceInstances, since: Instant, result: Result<(), Error> },
    /// Instances were asked themselves.
    Probed(Vec<(Target, Verdict)>),
    /// The status was told.
    Told(FencingToken, Result<(), Error>),
    /// Requests were looked for.
    Taken(FencingToken, Result<Vec<Request>, Error>),
    /// What the leader tells was looked at.
    Looked(Box<Result<SyncStatus, ApiError>>),
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
