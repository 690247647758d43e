//! Frames that become a table again.

use grey_core::change::{Epoch, Position, Revision};
use grey_core::ids::ServiceId;
use grey_core::instance::Instance;
use grey_core::record::Record;
use grey_core::table::Table;
use grey_proto::convert::InvalidMessage;
use grey_proto::router::{SnapshotBegin, WatchResponse, watch_response::Frame};

/// A snapshot that is being read.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    table: Table,
    begin: Option<Position>,
}

/// Why frames make no table.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Damaged {
    /// A frame holds something that cannot be.
    #[error(transparent)]
    Frame(#[from] InvalidMessage),
    /// The frames do not come in the order of a snapshot.
    #[error("read a snapshot: {0}")]
    Order(&'static str),
    /// The table is not the one that was written.
    #[error("read a snapshot: the table's digest is {found:x}, {expected:x} was written")]
    Digest {
        /// Of the table that was read.
        found: u64,
        /// As written.
        expected: u64,
    },
}

/// What a snapshot contains.
pub(crate) fn position(begin: &SnapshotBegin) -> Position {
    Position { epoch: Epoch(begin.epoch), revision: Revision(begin.revision) }
}

impl Reader {
    /// Takes the next frame; the table, once it is complete.
    pub(crate) fn take(&mut self, message: WatchResponse) -> Result<Option<Table>, Damaged> {
        let frame = message.frame.as_ref().ok_or(Damaged::Order("a frame is empty"))?;
        match (frame, &self.begin) {
            (Frame::Begin(begin), None) => {
                if begin.epoch == 0 {
                    return Err(Damaged::Order("it belongs to no history"));
                }
                self.begin = Some(position(begin));
            }
            (_, None) => return Err(Damaged::Order("it does not begin with its position")),
            (Frame::Begin(_), Some(_)) => return Err(Damaged::Order("it begins twice")),
            (Frame::Services(_) | Frame::Tenants(_), Some(_)) => {
                let records: Vec<Record> = message.try_into()?;
                records.into_iter().for_each(|record| self.table.insert(record));
            }
            (Frame::Instances(list), Some(_)) => {
                let (service, instances): (ServiceId, Vec<Instance>) = list.clone().try_into()?;
                self.table.set_instances(&service, instances);
            }
            (Frame::Event(_) | Frame::Heartbeat(_), Some(_)) => {
                return Err(Damaged::Order("it holds something else than a table"));
            }
            (Frame::End(end), Some(position)) => {
                let (found, expected) = (self.table.digest(), end.digest);
                if found != expected {
                    return Err(Damaged::Digest { found, expected });
                }
                let mut table = std::mem::take(&mut self.table);
                table.set_position(*position);
                return Ok(Some(table));
            }
        }
        Ok(None)
    }
}
