//! Looks at the file over and over, and reads it once it is whole, without ever waiting for a file system that hangs.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};

use super::format::{self, MAX_BYTES};
use crate::registry::Listing;

/// For one look; a network file system can hang for much longer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a file has to be unchanged to be whole: it may be half written.
const SETTLE: Duration = Duration::from_secs(1);
/// How long is waited for that: a file that never rests is read as it is.
const LONGEST: Duration = Duration::from_secs(5);

/// What a file says, or why that is not known.
pub(super) type Said = Result<Vec<Listing>, String>;

/// Tells two states of a file apart.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Mark {
    /// Device and inode.
    identity: (u64, u64),
    length: u64,
    /// When it was modified and changed.
    times: [(i64, i64); 2],
}

impl Mark {
    fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self {
            identity: (found.dev(), found.ino()),
            length: found.len(),
            times: [(found.mtime(), found.mtime_nsec()), (found.ctime(), found.ctime_nsec())],
        })
    }
}

/// Looks at one file, at most once at a time.
pub(super) struct Looker {
    path: PathBuf,
    /// How it was found last; none: it was not there.
    found: Option<Mark>,
    /// When it was first and last found changed, while it is not known to be whole.
    changing: Option<(Instant, Instant)>,
    /// Which file was read last, by its identity.
    read: Option<(u64, u64)>,
    /// Held for as long as the file system takes, however long that is.
    turn: Arc<Semaphore>,
}

impl Looker {
    pub(super) fn new(path: PathBuf) -> Self {
        let now = Instant::now();
        let turn = Arc::new(Semaphore::new(1));
        Self { path, found: None, changing: Some((now, now)), read: None, turn }
    }

    /// What the file says, once it is whole and where that may be news; with `anyway`, also if it is as it was.
    ///
    /// A file is whole that has rested for a while. One that took another's place is read before, and believed if it
    /// reads well: that is how files are replaced.
    pub(super) async fn look(&mut self, anyway: bool) -> Option<Said> {
        let said = match self.attempt(anyway).await {
            Ok(said) => said?,
            Err(why) => {
                // Once the file system answers again, everything about it may be news.
                let now = Instant::now();
                (self.found, self.changing, self.read) = (None, Some((now, now)), None);
                Err(why)
            }
        };
        Some(said.map_err(|why| format!("read {}: {why}", self.path.display())))
    }

    /// As [`look`](Self::look).
    ///
    /// # Errors
    /// The file system does not answer.
    async fn attempt(&mut self, anyway: bool) -> Result<Option<Said>, String> {
        let found = self.in_time(Mark::of).await?;
        let now = Instant::now();
        if found != self.found {
            let first = self.changing.map_or(now, |(first, _)| first);
            (self.found, self.changing) = (found, Some((first, now)));
        }
        let identity = found.map(|mark| mark.identity);
        let is_whole =
            self.changing.is_none_or(|(first, last)| now - last >= SETTLE || now - first >= LONGEST);
        let is_due = is_whole && (anyway || self.changing.is_some());
        let is_another = identity.is_some() && identity != self.read;
        if !is_due && !is_another {
            return Ok(None);
        }
        let (said, after) = self.in_time(|path| (said(path), Mark::of(path))).await?;
        if after != found || (said.is_err() && !is_whole) {
            return Ok(None);
        }
        self.read = identity;
        if is_whole {
            self.changing = None;
        }
        Ok(Some(said))
    }

    async fn in_time<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Path) -> T + Send + 'static,
    ) -> Result<T, String> {
        let late = || format!("the file system did not answer in {TIMEOUT:?}");
        let turn = Arc::clone(&self.turn).try_acquire_owned().map_err(|_| late())?;
        let path = self.path.clone();
        let job = spawn_blocking(move || {
            let done = job(&path);
            drop(turn);
            done
        });
        let done = timeout(TIMEOUT, job).await.map_err(|_| late())?;
        done.map_err(|error| error.to_string())
    }
}

fn said(path: &Path) -> Said {
    let mut bytes = Vec::new();
    // Opening a pipe would wait for its writer.
    let is_file = fs::metadata(path).map(|found| found.is_file());
    if !is_file.map_err(|error| error.to_string())? {
        return Err("is not a file".to_owned());
    }
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|error| error.to_string())?;
    let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())?;
    format::parse(&text).map_err(|error| error.to_string())
}
