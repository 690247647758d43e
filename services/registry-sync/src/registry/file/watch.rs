//! Notices that a file may have changed.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// How long to wait for what belongs to the same change.
const SETTLE: Duration = Duration::from_millis(20);
/// How long to wait for the next words of a writer that has not closed the file.
const WRITER: Duration = Duration::from_secs(1);
/// How long to wait for such a writer in all.
const WRITERS: Duration = Duration::from_secs(10);
/// Signs kept; more of them say nothing new.
const MAX_SIGNS: usize = 256;

/// A sign that the file may have changed.
#[derive(Debug, PartialEq)]
enum Sign {
    /// Someone writes to it in place.
    Writing,
    /// Whoever wrote to it has closed it.
    Written,
    /// Something beside it changed, which may be the link that leads to it.
    Beside,
}

/// Watches the directories through which a file is reached.
///
/// Directories and not the file itself: a file that is replaced by renaming, as editors and Kubernetes do, is another
/// file afterwards. It is armed for the directories of one moment, so it is armed anew with every reading.
pub(super) struct Watch {
    /// Watches for as long as it exists.
    _watcher: RecommendedWatcher,
    signs: mpsc::Receiver<Sign>,
}

impl Watch {
    /// Begins to watch.
    pub(super) fn arm(path: &Path) -> notify::Result<Self> {
        let (sender, signs) = mpsc::channel(MAX_SIGNS);
        let names = names(path);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if let Some(sign) = sign(&event, &names) {
                // Full: enough signs are waiting already.
                drop(sender.try_send(sign));
            }
        })?;
        for directory in directories(path) {
            watcher.watch(&directory, RecursiveMode::NonRecursive)?;
        }
        Ok(Self { _watcher: watcher, signs })
    }

    /// Waits until the file may have changed, and the change seems complete.
    pub(super) async fn changed(&mut self) {
        let mut sign = self.signs.recv().await;
        let start = Instant::now();
        let mut end = start + SETTLE;
        while let Some(seen) = sign {
            match seen {
                Sign::Written => return,
                Sign::Writing => end = (Instant::now() + WRITER).min(start + WRITERS),
                Sign::Beside => {}
            }
            let Ok(next) = timeout_at(end, self.signs.recv()).await else { return };
            sign = next;
        }
        // Nothing is watched any more, so there will be no sign.
        std::future::pending::<()>().await;
    }
}

fn sign(event: &notify::Result<Event>, names: &BTreeSet<OsString>) -> Option<Sign> {
    let Ok(event) = event else { return Some(Sign::Beside) };
    let ours = || event.paths.iter().filter_map(|path| path.file_name()).any(|name| names.contains(name));
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) if ours() => Some(Sign::Written),
        // Readings are no changes; most of them are our own.
        EventKind::Access(_) => None,
        EventKind::Modify(ModifyKind::Data(_)) if ours() => Some(Sign::Writing),
        _ => Some(Sign::Beside),
    }
}

/// The names under which the file itself appears in the watched directories.
fn names(path: &Path) -> BTreeSet<OsString> {
    let real = path.canonicalize().ok();
    [Some(path), real.as_deref()].into_iter().flatten().filter_map(Path::file_name).map(Into::into).collect()
}

/// The directories of the file as named, of what its links lead to, and of the links that its path goes through.
fn directories(path: &Path) -> BTreeSet<PathBuf> {
    let real = path.canonicalize().ok();
    let links = path.ancestors().skip(1).filter(|ancestor| ancestor.is_symlink());
    [Some(path), real.as_deref()].into_iter().flatten().chain(links).map(parent).collect()
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
