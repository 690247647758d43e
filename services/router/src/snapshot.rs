//! The last good table on disk, so that a router starts while shared state is away.
//!
//! The file holds length-delimited frames of a watch stream. It is written beside its place and renamed, so
//! a crash leaves the old one; position and digest tell whether what is read is what was written.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use grey_core::table::Table;
use grey_proto::router::WatchResponse;
use prost::Message;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::frames::{self, Damaged, Reader, Selection};
use crate::route::Shared;

/// Longest frame that is read: more is not a frame but damage.
const MAX_FRAME: u64 = 64 << 20;

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
                table.generation = %position.generation,
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
    let mut input = BufReader::with_capacity(1 << 20, File::open(file).map_err(Error::Io)?);
    let mut reader = Reader::default();
    let mut frame = Vec::new();
    loop {
        let length = read_length(&mut input)?;
        frame.clear();
        let got = input.by_ref().take(length).read_to_end(&mut frame).map_err(Error::Io)?;
        if got as u64 != length {
            return Err(Error::Frame("the file ends within it"));
        }
        let message = WatchResponse::decode(frame.as_slice()).map_err(Error::Decode)?;
        if let Some(table) = reader.take(message)? {
            let mut rest = [0];
            let more = input.read(&mut rest).map_err(Error::Io)?;
            return if more == 0 { Ok(table) } else { Err(Error::Frame("it is followed by something else")) };
        }
    }
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

fn write(file: &Path, table: &Table) -> io::Result<()> {
    if let Some(directory) = file.parent().filter(|d| !d.as_os_str().is_empty()) {
        fs::create_dir_all(directory)?;
    }
    let unfinished = beside(file, "tmp");
    let mut output = BufWriter::with_capacity(1 << 20, File::create(&unfinished)?);
    let mut bytes = Vec::new();
    for frame in frames::snapshot(table, &Selection::default()) {
        bytes.clear();
        frame.encode_length_delimited(&mut bytes).map_err(io::Error::other)?;
        output.write_all(&bytes)?;
    }
    let written = output.into_inner().map_err(io::IntoInnerError::into_error)?;
    written.sync_all()?;
    fs::rename(&unfinished, file)?;
    match file.parent().filter(|d| !d.as_os_str().is_empty()) {
        // Without this the new name may be lost with the power.
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

fn beside(file: &Path, suffix: &str) -> PathBuf {
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
        if !self.shared.tables.status().ready || std::ptr::eq(self.written.as_ptr(), Arc::as_ptr(&table)) {
            return;
        }
        let (file, held) = (self.file.clone(), Arc::clone(&table));
        let result = tokio::task::spawn_blocking(move || write(&file, &held)).await;
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
