//! Reads the file, without ever waiting for a file system that hangs.

use std::fs::{self, File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};

use super::format::{self, MAX_BYTES};
use crate::registry::Listing;

/// For one reading; a network file system can hang for much longer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a file is read again that keeps changing while it is read.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a file has to be unchanged for a fault in it to be believed: it may be half written.
const QUIET: Duration = Duration::from_millis(500);
/// Time between two such readings.
const PAUSE: Duration = Duration::from_millis(50);
/// A file that changed this recently may change again without its times telling.
const RECENT: Duration = Duration::from_millis(100);

/// Tells two states of a file apart: device, inode, length, and when it was modified and changed.
type Mark = (u64, u64, u64, [(i64, i64); 2]);

/// What a file says, or why that is not known.
type Said = Result<Vec<Listing>, String>;

/// Reads one file over and over, at most once at a time.
pub(super) struct Reader {
    path: PathBuf,
    mark: Option<Mark>,
    /// A reading that did not end in time.
    overdue: Option<JoinHandle<Outcome>>,
}

enum Outcome {
    /// What it says, which state of it this is, and whether it changed less than [`QUIET`] ago.
    Read(Said, Option<Mark>, bool),
    /// It is as it was.
    Same,
}

impl Reader {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, mark: None, overdue: None }
    }

    /// Reads the file. Nothing if it surely is as it was read before, unless `anyway` is set.
    pub(super) async fn read(&mut self, anyway: bool) -> Option<Said> {
        if anyway {
            self.mark = None;
        }
        let end = Instant::now() + PATIENCE;
        loop {
            let said = match self.attempt().await {
                Ok(Outcome::Same) => return None,
                Ok(Outcome::Read(Err(_), _, true)) if Instant::now() < end => {
                    sleep(PAUSE).await;
                    continue;
                }
                Ok(Outcome::Read(said, mark, _)) => {
                    self.mark = mark;
                    said
                }
                Err(why) => {
                    self.mark = None;
                    Err(why)
                }
            };
            let path = self.path.display();
            return Some(said.map_err(|why| format!("read {path}: {why}")));
        }
    }

    async fn attempt(&mut self) -> Result<Outcome, String> {
        let late = || format!("the file system did not answer in {TIMEOUT:?}");
        if self.overdue.as_ref().is_some_and(|job| !job.is_finished()) {
            return Err(late());
        }
        let (path, known) = (self.path.clone(), self.mark);
        let mut job = spawn_blocking(move || look(&path, known));
        match timeout(TIMEOUT, &mut job).await {
            Ok(outcome) => outcome.map_err(|error| error.to_string()),
            Err(_) => {
                self.overdue = Some(job);
                Err(late())
            }
        }
    }
}

fn look(path: &Path, known: Option<Mark>) -> Outcome {
    let state = || fs::metadata(path).ok();
    let before = state();
    if known.is_some() && before.as_ref().map(mark) == known {
        return Outcome::Same;
    }
    let said = content(path).and_then(|text| format::parse(&text).map_err(|error| error.to_string()));
    let (before, after) = (before.as_ref().map(mark), state());
    // Also if its clock is ahead of ours.
    let is_younger = |metadata: &Metadata, than: Duration| {
        metadata.modified().ok().and_then(|at| at.elapsed().ok()).is_none_or(|age| age <= than)
    };
    let is_fresh = after.as_ref().is_some_and(|after| is_younger(after, QUIET));
    if before != after.as_ref().map(mark) {
        return Outcome::Read(Err("it keeps changing".to_owned()), None, true);
    }
    Outcome::Read(said, after.filter(|after| !is_younger(after, RECENT)).as_ref().map(mark), is_fresh)
}

fn content(path: &Path) -> Result<String, String> {
    // Opening a pipe would wait for its writer.
    if !fs::metadata(path).map_err(|error| error.to_string())?.is_file() {
        return Err("is not a file".to_owned());
    }
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
}

fn mark(metadata: &Metadata) -> Mark {
    let times = [(metadata.mtime(), metadata.mtime_nsec()), (metadata.ctime(), metadata.ctime_nsec())];
    (metadata.dev(), metadata.ino(), metadata.len(), times)
}
