//! A watched file that lists instances: the registry of deployments without one.
//!
//! The file is read at the start, soon after it changed, and from time to time. It is taken whole or not at all; one
//! that is missing, unreadable or faulty is told as a failure, so that its last good content stays. One that is written
//! in place is read once its writer closes it; replacing it by renaming is better still, since a beginning of it may
//! read well.

mod format;
mod read;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use grey_runtime::config::duration;
use grey_runtime::{Faults, Validate};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

pub use self::format::{Error, MAX_BYTES, parse, render};
use self::read::Reader;
use self::watch::Watch;
use super::{Listing, Registry, Sighting};

/// How often a file is looked at that cannot be watched: where the system's watches are used up, or its directory is
/// not there.
const POLL: Duration = Duration::from_secs(1);

/// Which file, and how often it is read without a sign of change.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The file; `docs/examples/instances.yaml` shows its form.
    pub path: PathBuf,
    /// How often it is read without a sign of change.
    #[serde(with = "duration", default = "default_reconcile")]
    pub reconcile: Duration,
}

fn default_reconcile() -> Duration {
    Duration::from_secs(30)
}

impl Options {
    /// For the file at `path`, with the default interval.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), reconcile: default_reconcile() }
    }
}

impl Validate for Options {
    fn validate(&self, faults: &mut Faults) {
        faults.check(self.path.file_name().is_some(), "path", "must name a file");
        faults.check(!self.reconcile.is_zero(), "reconcile", "must be longer than nothing");
    }
}

/// Follows one file.
///
/// Changes are noticed by the operating system's watches. Where there are none to be had the file is looked at every
/// second; file systems that have watches but whose other clients' changes do not show in them (NFS) are left with
/// [`Options::reconcile`].
#[derive(Debug)]
pub struct FileRegistry {
    options: Options,
    watching: bool,
}

impl FileRegistry {
    /// Follows the file that `options` name; it need not exist yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self { options, watching: true }
    }

    /// Ends when nobody listens any more.
    async fn run(&self, sightings: &mpsc::Sender<Sighting>, again: &Notify) {
        let mut reader = Reader::new(self.options.path.clone());
        let mut watched = true;
        let mut told: Option<Result<Vec<Listing>, String>> = None;
        let mut asked = true;
        let mut due = Instant::now();
        loop {
            // Before the file is read, so that no change after it goes unnoticed.
            let watch = if self.watching { Watch::arm(&self.options.path).map_err(Some) } else { Err(None) };
            if let Some(listings) = reader.read(asked).await {
                if let (true, Ok(_), Err(Some(cause))) = (watched, &listings, &watch) {
                    tracing::warn!(file.path = %self.options.path.display(), %cause, "file cannot be watched");
                }
                watched = watch.is_ok() || listings.is_err();
                if asked || told.as_ref() != Some(&listings) {
                    if sightings.send(sighting(listings.clone())).await.is_err() {
                        return;
                    }
                    told = Some(listings);
                }
            }
            if asked {
                due = Instant::now() + self.options.reconcile;
            }
            asked = tokio::select! {
                () = again.notified() => true,
                () = sleep_until(due) => true,
                () = changed(watch.ok()) => false,
            };
        }
    }
}

fn sighting(listings: Result<Vec<Listing>, String>) -> Sighting {
    match listings {
        Ok(listings) => Sighting::All(listings),
        Err(cause) => Sighting::Failed(cause),
    }
}

async fn changed(watch: Option<Watch>) {
    match watch {
        Some(mut watch) => watch.changed().await,
        None => sleep(POLL).await,
    }
}

#[async_trait]
impl Registry for FileRegistry {
    async fn follow(&self, sightings: mpsc::Sender<Sighting>, again: Arc<Notify>, token: CancellationToken) {
        token.run_until_cancelled(self.run(&sightings, &again)).await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "test code panics")]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn a_file_that_cannot_be_watched_is_looked_at_often() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("instances.yaml");
        fs::write(&path, "services: {}").unwrap();
        let options = Options { reconcile: Duration::from_secs(3600), ..Options::new(&path) };
        let registry = FileRegistry { watching: false, ..FileRegistry::new(options) };
        let (sender, mut sightings) = mpsc::channel(1);
        let token = CancellationToken::new();
        let following = registry.follow(sender, Arc::default(), token.clone());
        let changing = async {
            assert_eq!(sightings.recv().await, Some(Sighting::All(Vec::new())));
            for service in ["orders", "payment"] {
                fs::write(&path, format!("services: {{{service}: []}}")).unwrap();
                let listing = Listing { service: service.to_owned(), instances: Vec::new() };
                assert_eq!(sightings.recv().await, Some(Sighting::All(vec![listing])));
            }
            token.cancel();
        };
        tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(following, changing) })
            .await
            .unwrap();
    }
}
