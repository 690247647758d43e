//! A file that lists instances: the registry of deployments without one.
//!
//! The file is looked at several times a second, and read at the start, soon after it changed, and from time to time. It
//! is taken whole or not at all; one that is missing, unreadable or faulty is told as a failure, so that its last good
//! content stays. One that is written in place is read once it has rested for a second; replacing it by renaming is better
//! still: it is read at once, and no beginning of it is taken for the whole.

mod format;
mod look;

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
use self::look::{Looker, Said};
use super::{Registry, Sighting};

/// How often the file is looked at. A look costs microseconds, and sees what a watch of the system does not: other
/// clients' changes on a network file system, and links that lead elsewhere.
const POLL: Duration = Duration::from_millis(100);

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
#[derive(Debug)]
pub struct FileRegistry {
    options: Options,
}

impl FileRegistry {
    /// Follows the file that `options` name; it need not exist yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self { options }
    }

    /// Ends when nobody listens any more.
    async fn run(&self, sightings: &mpsc::Sender<Sighting>, again: &Notify) {
        let mut looker = Looker::new(self.options.path.clone());
        let mut told: Option<Said> = None;
        let mut asked = true;
        let mut due = Instant::now();
        loop {
            if let Some(said) = looker.look(asked).await
                && (asked || told.as_ref() != Some(&said))
            {
                told = Some(said.clone());
                if sightings.send(said.map_or_else(Sighting::Failed, Sighting::All)).await.is_err() {
                    return;
                }
                if asked {
                    (asked, due) = (false, Instant::now() + self.options.reconcile);
                }
            }
            asked |= tokio::select! {
                () = again.notified() => true,
                () = sleep_until(due), if !asked => true,
                () = sleep(POLL) => false,
            };
        }
    }
}

#[async_trait]
impl Registry for FileRegistry {
    async fn follow(&self, sightings: mpsc::Sender<Sighting>, again: Arc<Notify>, token: CancellationToken) {
        token.run_until_cancelled(self.run(&sightings, &again)).await;
    }
}
