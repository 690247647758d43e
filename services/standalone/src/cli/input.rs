//! Files that commands read.

use std::io::Read as _;
use std::path::Path;
use std::{fs, io};

use grey_proto::convert::json_fault;
use serde::de::DeserializeOwned;

use super::Failure;

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// Reads a file, or standard input for `-`, as the JSON of what is called `what`.
pub(super) fn document<T: DeserializeOwned>(path: &Path, what: &str) -> Result<T, Failure> {
    let read = serde_json::from_str(&read(path)?);
    read.map_err(|error| Failure::Input(format!("{}: not {what}: {}", path.display(), json_fault(&error))))
}

/// Reads a file, or standard input for `-`.
pub(super) fn read(path: &Path) -> Result<String, Failure> {
    let failed = |source| Failure::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let size = if path.as_os_str() == "-" {
        io::stdin().lock().take(MAX_FILE + 1).read_to_string(&mut text)
    } else {
        fs::File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text))
    };
    let size = size.map_err(failed)?;
    if size as u64 > MAX_FILE {
        return Err(failed(io::Error::other("larger than 16 MiB")));
    }
    Ok(text)
}
