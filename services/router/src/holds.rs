//! The holds of strict moves on disk, beside the snapshot file.
//!
//! The snapshot file may be older than a hold that this router has acknowledged. A router that then dies, and starts
//! from the file while shared state is away, would serve the version before a move that the fleet has made since. So
//! holds are written before they are acknowledged, and laid over a snapshot that is older than they are.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use grey_core::change::{Change, Event, Position};
use grey_core::key::Fact;
use grey_core::table::Table;
use grey_proto::router::{SnapshotBegin, WatchResponse, watch_response::Frame};

use crate::frames::response;
use crate::snapshot::{self, Error};

/// Keeps the file.
pub(crate) struct Holds {
    file: PathBuf,
    /// What the file holds, in order; none if that is not known.
    written: Option<Vec<Fact>>,
}

impl Holds {
    /// The file that belongs to a snapshot file.
    pub(crate) fn beside(snapshot: &Path) -> Self {
        Self { file: file_beside(snapshot), written: None }
    }

    /// Writes the table's holds if the file has others; tells whether it has all of them.
    pub(crate) async fn keep(&mut self, table: &Arc<Table>) -> bool {
        let holds = facts(table);
        if self.written.as_ref() == Some(&holds) || (holds.is_empty() && self.written.is_none()) {
            return true;
        }
        let (file, position, kept) = (self.file.clone(), table.position(), holds.clone());
        let write = move || snapshot::write(&file, frames(position, kept));
        let why = match tokio::task::spawn_blocking(write).await {
            Ok(Ok(())) => {
                self.written = Some(holds);
                return true;
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        self.written = None;
        let none = holds.is_empty();
        tracing::warn!(file.path = %self.file.display(), error = why, "holds were not written");
        // A file with holds that are over only refuses more than it must.
        none
    }
}

fn file_beside(file: &Path) -> PathBuf {
    snapshot::beside(file, "holds")
}

fn facts(table: &Table) -> Vec<Fact> {
    let mut holds: Vec<Fact> = table
        .holds()
        .map(|(tenant, service, hold)| Fact::Hold(tenant.clone(), service.clone(), hold.clone()))
        .collect();
    holds.sort_by_cached_key(Fact::key);
    holds
}

fn frames(position: Position, holds: Vec<Fact>) -> [WatchResponse; 2] {
    let begin = SnapshotBegin { epoch: position.epoch.0, revision: position.revision.0 };
    let changes = holds.into_iter().map(Change::Put).collect();
    let event = Event { revision: position.revision, changes, ..Event::default() };
    [response(Frame::Begin(begin)), response(Frame::Event((&event).into()))]
}

/// The table of a snapshot file with the holds that were written after it.
pub(crate) fn restore(snapshot: &Path, mut table: Table) -> Table {
    let file = file_beside(snapshot);
    match snapshot::read_frames(&file).and_then(read) {
        Ok((position, event)) if position > table.position() => {
            tracing::info!(
                holds = event.changes.len(),
                "refusing what was being moved when this router ended"
            );
            let revision = table.position().revision;
            table.apply_again(&Event { revision, ..event });
        }
        Ok(_) => {}
        Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(file.path = %file.display(), error, "holds cannot be read; tenants that were being moved may be served");
        }
    }
    table
}

fn read(frames: Vec<WatchResponse>) -> Result<(Position, Event), Error> {
    let frames: Vec<Frame> = frames.into_iter().filter_map(|message| message.frame).collect();
    let Ok([Frame::Begin(begin), Frame::Event(event)]) = <[Frame; 2]>::try_from(frames) else {
        return Err(Error::Frame("a position and holds were expected"));
    };
    let event = Event::try_from(event).map_err(snapshot::Damaged::from)?;
    Ok((snapshot::position(&begin), event))
}
