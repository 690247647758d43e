//! Reads the file, without ever waiting for a file system that hangs.

use std::fs::{self, File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};

use super::format::{self, MAX_BYTES};
use super::watch::Watch;
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

/// What one reading found.
pub(super) struct Reading {
    /// Tells when to read again; without it nothing can be watched, and this is why.
    pub(super) watch: Result<Watch, String>,
    /// What the file says, or why that is not known.
    pub(super) listings: Result<Vec<Listing>, String>,
    /// Which file this was; none: it has to be read again to know.
    mark: Option<Mark>,
    /// The file changed less than [`QUIET`] ago.
    fresh: bool,
}

/// Reads one file over and over, at most once at a time.
pub(super) struct Reader {
    path: PathBuf,
    watching: bool,
    mark: Option<Mark>,
    /// A reading that did not end in time.
    overdue: Option<JoinHandle<Outcome>>,
}

enum Outcome {
    Read(Reading),
    /// It is as it was.
    Same,
    /// It changed meanwhile.
    Torn,
}

impl Reader {
    /// Reads the file at `path`, and watches it if `watching` is set.
    pub(super) fn new(path: PathBuf, watching: bool) -> Self {
        Self { path, watching, mark: None, overdue: None }
    }

    /// Begins to watch the file, then reads it. Nothing if it surely is as it was read before, unless `anyway` is set.
    pub(super) async fn read(&mut self, anyway: bool) -> Option<Reading> {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.attempt(anyway).await {
                Ok(Outcome::Read(reading))
                    if reading.fresh && reading.listings.is_err() && Instant::now() < end =>
                {
                    sleep(PAUSE).await;
                }
                Ok(Outcome::Read(reading)) => {
                    self.mark.clone_from(&reading.mark);
                    return Some(reading);
                }
                Ok(Outcome::Same) => return None,
                Ok(Outcome::Torn) if Instant::now() < end => sleep(PAUSE).await,
                Ok(Outcome::Torn) => return Some(self.failed("it keeps changing")),
                Err(why) => return Some(self.failed(&why)),
            }
        }
    }

    async fn attempt(&mut self, anyway: bool) -> Result<Outcome, String> {
        let late = || format!("the file system did not answer in {TIMEOUT:?}");
        if let Some(mut overdue) = self.overdue.take()
            && timeout(TIMEOUT, &mut overdue).await.is_err()
        {
            self.overdue = Some(overdue);
            return Err(late());
        }
        let (path, watching) = (self.path.clone(), self.watching);
        let known = if anyway { None } else { self.mark.clone() };
        let mut job = spawn_blocking(move || look(&path, watching, known.as_ref()));
        match timeout(TIMEOUT, &mut job).await {
            Ok(outcome) => outcome.map_err(|error| error.to_string()),
            Err(_) => {
                self.overdue = Some(job);
                Err(late())
            }
        }
    }

    fn failed(&mut self, why: &str) -> Reading {
        self.mark = None;
        let why = format!("read {}: {why}", self.path.display());
        Reading { watch: Err(why.clone()), listings: Err(why), mark: None, fresh: false }
    }
}

fn look(path: &Path, watching: bool, known: Option<&Mark>) -> Outcome {
    if known.is_some() && Mark::of(path).as_ref() == known {
        return Outcome::Same;
    }
    // Before the file is read, so that no change after it goes unnoticed.
    let watch = match watching {
        true => Watch::arm(path).map_err(|error| error.to_string()),
        false => Err("not asked for".to_owned()),
    };
    match content(path) {
        Ok(None) => Outcome::Torn,
        Ok(Some((text, mark))) => {
            let listings = format::parse(&text).map_err(|error| format!("{}: {error}", path.display()));
            let fresh = mark.is_younger_than(QUIET);
            let mark = (!mark.is_younger_than(RECENT)).then_some(mark);
            Outcome::Read(Reading { watch, listings, mark, fresh })
        }
        Err(why) => {
            let listings = Err(format!("read {}: {why}", path.display()));
            Outcome::Read(Reading { watch, listings, mark: None, fresh: false })
        }
    }
}

/// The text of the file; nothing if it changed meanwhile.
fn content(path: &Path) -> Result<Option<(String, Mark)>, String> {
    // Opening a pipe would wait for its writer.
    if !fs::metadata(path).map_err(|error| error.to_string())?.is_file() {
        return Err("is not a file".to_owned());
    }
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mark = |file: &File| file.metadata().map(|metadata| Mark::from(&metadata));
    let before = mark(&file).map_err(|error| error.to_string())?;
    let limit = MAX_BYTES as u64 + 1;
    if before.length >= limit {
        return Err(format::Error::TooLarge { bytes: before.length }.to_string());
    }
    let mut bytes = Vec::new();
    (&file).take(limit).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if mark(&file).map_err(|error| error.to_string())? != before {
        return Ok(None);
    }
    let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())?;
    Ok(Some((text, before)))
}

/// Tells two states of a file apart.
#[derive(Debug, Clone, PartialEq)]
struct Mark {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Mark {
    fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().as_ref().map(Self::from)
    }

    /// Also if its clock is ahead of ours.
    fn is_younger_than(&self, age: Duration) -> bool {
        let unsigned = |(seconds, nanos): (i64, i64)| {
            Some(Duration::new(seconds.try_into().ok()?, nanos.try_into().ok()?))
        };
        let now = SystemTime::UNIX_EPOCH.elapsed().ok();
        let passed = now.zip(unsigned(self.changed)).and_then(|(now, changed)| now.checked_sub(changed));
        passed.is_none_or(|passed| passed <= age)
    }
}

impl From<&Metadata> for Mark {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}
