//! The last good table on disk, so that a router starts while shared state is away.
//!
//! The file holds length-delimited frames of a watch stream, and the XXH64 of all of them at its end. It is written
//! beside its place and renamed, so a crash leaves the old one; the checksum tells whether what is read is what was
//! written, to the last byte.

mod reader;

use std::fs::{self, File};
use std::hash::Hasher;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use grey_core::table::Table;
use grey_proto::router::WatchResponse;
use prost::Message;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use twox_hash::XxHash64;

use crate::frames;
use crate::selection::Selection;
use crate::shared::Shared;
use reader::Reader;
pub(crate) use reader::{Damaged, position};

/// Longest frame that is read: more is not a frame but damage.
const MAX_FRAME: u64 = 64 << 20;
/// Bytes of the checksum.
const CHECKSUM: usize = 8;

/// Why a file gives no table.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The file cannot be read or written.
    #[error("use the snapshot file")]
    Io(#[source] io::Error),
    /// Its frames are not those of a table.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// It is not made of frames, or ends in the middle of one.
    #[error("read a snapshot frame: {0}")]
    Frame(&'static str),
    /// Something was changed since it was written.
    #[error("read the snapshot file: its checksum is {found:016x}, {expected:016x} was written")]
    Checksum {
        /// Of what was read.
        found: u64,
        /// As written.
        expected: u64,
    },
    /// A frame is not the message that it should be.
    #[error("decode a snapshot frame")]
    Decode(#[source] prost::DecodeError),
}

/// Reads the table in `file`; none if there is no file, or none that can be used. What is damaged is set aside.
pub(crate) fn load(file: &Path) -> Option<Table> {
    match read(file) {
        Ok(table) => {
            let position = table.position();
            tracing::info!(
                table.revision = position.revision.0,
                table.epoch = position.epoch.0,
                "starting from the snapshot file"
            );
            Some(table)
        }
        Err(Error::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
        Err(Error::Io(error)) => {
            tracing::warn!(file.path = %file.display(), error = %error, "snapshot file cannot be read");
            None
        }
        Err(error) => {
            let aside = beside(file, "damaged");
            let moved = fs::rename(file, &aside).is_ok();
            tracing::warn!(
                file.path = %file.display(),
                file.moved = moved,
                error = &error as &dyn std::error::Error,
                "snapshot file is not usable and was set aside"
            );
            None
        }
    }
}

fn read(file: &Path) -> Result<Table, Error> {
    decode(&mut BufReader::with_capacity(1 << 20, File::open(file).map_err(Error::Io)?))
}

/// Reads every frame of a file; nothing is made of frames whose checksum is not the one at their end.
pub(crate) fn read_frames(file: &Path) -> Result<Vec<WatchResponse>, Error> {
    let mut input = BufReader::new(File::open(file).map_err(Error::Io)?);
    let length = check_sum(&mut input)?;
    let (mut input, mut frames, mut buffer) = (input.take(length), Vec::new(), Vec::new());
    while input.limit() > 0 {
        frames.push(read_frame(&mut input, &mut buffer)?);
    }
    Ok(frames)
}

/// Reads a table; nothing is made of frames whose checksum is not the one at their end.
fn decode(input: &mut (impl Read + Seek)) -> Result<Table, Error> {
    let length = check_sum(input)?;
    decode_frames(&mut input.take(length))
}

/// Goes back to the start of the frames if they are those that were written; tells how long they are.
fn check_sum(input: &mut (impl Read + Seek)) -> Result<u64, Error> {
    let length = input.seek(SeekFrom::End(0)).map_err(Error::Io)?;
    let length = length.checked_sub(CHECKSUM as u64).ok_or(Error::Frame("the file is too short"))?;
    input.rewind().map_err(Error::Io)?;
    let mut summed = Summed { inner: &mut *input, sum: XxHash64::with_seed(0) };
    io::copy(&mut summed.by_ref().take(length), &mut io::sink()).map_err(Error::Io)?;
    let found = summed.sum.finish();
    let mut expected = [0; CHECKSUM];
    input.read_exact(&mut expected).map_err(Error::Io)?;
    let expected = u64::from_le_bytes(expected);
    if found != expected {
        return Err(Error::Checksum { found, expected });
    }
    input.rewind().map_err(Error::Io)?;
    Ok(length)
}

fn decode_frames(input: &mut impl Read) -> Result<Table, Error> {
    let mut reader = Reader::default();
    let mut frame = Vec::new();
    loop {
        let message = read_frame(input, &mut frame)?;
        if let Some(table) = reader.take(message)? {
            let mut rest = [0];
            let more = input.read(&mut rest).map_err(Error::Io)?;
            return if more == 0 { Ok(table) } else { Err(Error::Frame("it is followed by something else")) };
        }
    }
}

fn read_frame(input: &mut impl Read, buffer: &mut Vec<u8>) -> Result<WatchResponse, Error> {
    let length = read_length(input)?;
    buffer.clear();
    let got = input.by_ref().take(length).read_to_end(buffer).map_err(Error::Io)?;
    if got as u64 != length {
        return Err(Error::Frame("the file ends within it"));
    }
    WatchResponse::decode(buffer.as_slice()).map_err(Error::Decode)
}

fn read_length(input: &mut impl Read) -> Result<u64, Error> {
    let mut length = 0;
    for shift in (0..35).step_by(7) {
        let mut byte = [0];
        input.read_exact(&mut byte).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::Frame("the file ends before it"),
            _ => Error::Io(error),
        })?;
        let [byte] = byte;
        length |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return if length <= MAX_FRAME {
                Ok(length)
            } else {
                Err(Error::Frame("its length is not credible"))
            };
        }
    }
    Err(Error::Frame("its length is not a number"))
}

/// Writes a file of frames, all of it or nothing.
pub(crate) fn write(file: &Path, frames: impl IntoIterator<Item = WatchResponse>) -> io::Result<()> {
    if let Some(directory) = file.parent().filter(|d| !d.as_os_str().is_empty()) {
        fs::create_dir_all(directory)?;
    }
    let unfinished = beside(file, "tmp");
    let mut output = BufWriter::with_capacity(1 << 20, File::create(&unfinished)?);
    encode(frames, &mut output)?;
    let written = output.into_inner().map_err(io::IntoInnerError::into_error)?;
    written.sync_all()?;
    fs::rename(&unfinished, file)?;
    match file.parent().filter(|d| !d.as_os_str().is_empty()) {
        // Without this the new name may be lost with the power.
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

fn encode(frames: impl IntoIterator<Item = WatchResponse>, output: &mut impl Write) -> io::Result<()> {
    let mut sum = XxHash64::with_seed(0);
    let mut bytes = Vec::new();
    for frame in frames {
        bytes.clear();
        frame.encode_length_delimited(&mut bytes).map_err(io::Error::other)?;
        sum.write(&bytes);
        output.write_all(&bytes)?;
    }
    output.write_all(&sum.finish().to_le_bytes())
}

/// Adds up what is read.
struct Summed<R> {
    inner: R,
    sum: XxHash64,
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.sum.write(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

/// The file of another suffix in the same place.
pub(crate) fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(suffix);
    file.with_file_name(name)
}

/// Keeps the file up to date.
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    file: PathBuf,
    interval: Duration,
    /// What the file holds.
    written: Weak<Table>,
}

impl Keeper {
    /// The present table counts as written: it was read from the file, or is none.
    pub(crate) fn new(shared: Arc<Shared>, file: PathBuf, interval: Duration) -> Self {
        let written = Arc::downgrade(&shared.tables.load_full());
        Self { shared, file, interval, written }
    }

    /// Writes what has changed, at most once per interval and once when the drain begins.
    pub(crate) async fn run(mut self, draining: CancellationToken) {
        let mut tick = interval(self.interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let last = tokio::select! {
                () = draining.cancelled() => true,
                _ = tick.tick() => false,
            };
            self.save().await;
            if last {
                return;
            }
        }
    }

    async fn save(&mut self) {
        let table = self.shared.tables.load_full();
        // What may be wrong is not kept.
        let is_good = self.shared.tables.status().ready && !self.shared.tables.is_suspect();
        if !is_good || std::ptr::eq(self.written.as_ptr(), Arc::as_ptr(&table)) {
            return;
        }
        let (file, held) = (self.file.clone(), Arc::clone(&table));
        let save = move || write(&file, frames::snapshot(&held, &Selection::default()));
        let result = tokio::task::spawn_blocking(save).await;
        match result {
            Ok(Ok(())) => {
                self.written = Arc::downgrade(&table);
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                self.shared.gauges.snapshot_written.store(now.as_secs(), Relaxed);
                tracing::debug!(table.revision = table.position().revision.0, "snapshot file written");
            }
            Ok(Err(error)) => {
                tracing::warn!(file.path = %self.file.display(), error = %error, "snapshot file was not written");
            }
            Err(error) => tracing::error!(error = %error, "writing the snapshot file failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;
    use grey_core::change::{Change, Epoch, Event, Position, Revision};
    use grey_core::ids::{InstanceId, ServiceId, TenantId};
    use grey_core::instance::Instance;
    use grey_core::key::Fact;
    use grey_core::service::Service;
    use grey_core::tenant::Tenant;
    use grey_core::version::Version;
    use std::io::Cursor;

    fn table() -> Table {
        let (service, version) = (ServiceId::new("payment").unwrap(), Version::new("1").unwrap());
        let instance = Instance {
            id: InstanceId::new("p1").unwrap(),
            version: version.clone(),
            address: "10.0.0.1:80".into(),
            region: None,
            zone: None,
            weight: 100,
            enabled: true,
            healthy: true,
            ephemeral: true,
            source: None,
            metadata: [("start".to_owned(), "1".to_owned())].into(),
        };
        let mut table = Table::default();
        table.set_position(Position { epoch: Epoch(1), revision: Revision(0) });
        let changes = vec![
            Change::Put(Fact::Service(Service { id: service.clone(), default: version })),
            Change::Put(Fact::Tenant(Box::new(Tenant::new(TenantId::new("acme").unwrap())))),
        ];
        table.apply(&Event { revision: Revision(1), changes, ..Event::default() }).unwrap();
        table.set_instances(&service, vec![instance]);
        table
    }

    fn read(bytes: &[u8]) -> Result<Table, Error> {
        decode(&mut Cursor::new(bytes))
    }

    #[test]
    fn what_was_written_is_read() {
        let (table, mut bytes) = (table(), Vec::new());
        encode(frames::snapshot(&table, &Selection::default()), &mut bytes).unwrap();
        let read = read(&bytes).unwrap();
        assert_eq!(read.position(), table.position());
        assert_eq!(read.digest(), table.digest());
        assert_eq!(read.instances_digest(), table.instances_digest());
    }

    #[test]
    fn any_changed_byte_is_refused_wherever_it_is() {
        let mut bytes = Vec::new();
        encode(frames::snapshot(&table(), &Selection::default()), &mut bytes).unwrap();
        for at in 0..bytes.len() {
            for mask in (0..8).map(|bit| 1_u8 << bit).chain([0xff]) {
                bytes[at] ^= mask;
                assert!(read(&bytes).is_err(), "byte {at} changed by {mask:#x}");
                bytes[at] ^= mask;
            }
        }
    }

    #[test]
    fn any_missing_or_added_byte_is_refused() {
        let mut bytes = Vec::new();
        encode(frames::snapshot(&table(), &Selection::default()), &mut bytes).unwrap();
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "cut to {length}");
            assert!(read(&bytes[bytes.len() - length..]).is_err(), "the last {length}");
        }
        for byte in 0..=u8::MAX {
            let longer: Vec<u8> = bytes.iter().copied().chain([byte]).collect();
            assert!(read(&longer).is_err(), "{byte} added");
            let longer: Vec<u8> = [byte].into_iter().chain(bytes.iter().copied()).collect();
            assert!(read(&longer).is_err(), "{byte} put before");
        }
    }
}
