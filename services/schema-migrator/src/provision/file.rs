//! SQLite files. Until one is registered it has a second name, a hidden one that nothing else has: files that have both
//! names were made here.

use super::maker::{MAKE, Present, REMOVE};
use super::name;
use crate::tenant::Error;
use grey_proto::schema::Provision;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What SQLite and the migrator keep beside a file.
const BESIDE: [&str; 4] = ["-journal", "-wal", "-shm", "-grey-lock"];

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(end);
    PathBuf::from(beside)
}

/// The second name.
fn claim(provision: &Provision) -> PathBuf {
    let path = Path::new(name(provision));
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{file}.{}", provision.role))
}

fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| fs::symlink_metadata(path).ok().map(|it| (it.dev(), it.ino()));
    identity(one).is_some_and(|one| Some(one) == identity(other))
}

pub(super) fn present(provision: &Provision) -> Present {
    let path = Path::new(name(provision));
    if is_same(path, &claim(provision)) {
        Present::Ours
    // A journal without its file would be taken for that of the new one.
    } else if is_there(path) || BESIDE.iter().any(|end| is_there(&beside(path, end))) {
        Present::Foreign
    } else {
        Present::Nothing
    }
}

pub(super) fn make(provision: &Provision) -> Result<(), Error> {
    let (path, claim) = (Path::new(name(provision)), claim(provision));
    let made = File::options().write(true).create_new(true).open(&claim).map(drop);
    done(MAKE, made, ErrorKind::AlreadyExists)?;
    let linked = done(MAKE, fs::hard_link(&claim, path), ErrorKind::AlreadyExists);
    if linked.is_ok() && !is_same(path, &claim) {
        let why = format!("`{}` is there already, and was not made for it", path.display());
        return Err(Error::Refused { attempted: MAKE, why });
    }
    linked
}

pub(super) fn remove(provision: &Provision) -> Result<(), Error> {
    let (path, claim) = (Path::new(name(provision)), claim(provision));
    if is_same(path, &claim) {
        // The file last: without it nobody would know whose the others are.
        for end in BESIDE {
            done(REMOVE, fs::remove_file(beside(path, end)), ErrorKind::NotFound)?;
        }
        done(REMOVE, fs::remove_file(path), ErrorKind::NotFound)?;
    }
    done(REMOVE, fs::remove_file(claim), ErrorKind::NotFound)
}

/// The file has one name from now on.
pub(super) fn settle(provision: &Provision) {
    if let Err(error) = done(REMOVE, fs::remove_file(claim(provision)), ErrorKind::NotFound) {
        tracing::warn!(error = %error, "the second name of a tenant's file is left");
    }
}

fn done(attempted: &'static str, result: io::Result<()>, already: ErrorKind) -> Result<(), Error> {
    match result {
        Err(error) if error.kind() != already => Err(Error::Refused { attempted, why: error.to_string() }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;
    use grey_proto::control::DatabaseKind;

    fn provision(folder: &Path) -> Provision {
        Provision {
            kind: DatabaseKind::File.into(),
            server: folder.join("acme.db").display().to_string(),
            role: "grey_1".to_owned(),
            ..Provision::default()
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_made_and_goes_with_all_that_is_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let it = provision(folder.path());
        assert_eq!(present(&it), Present::Nothing);
        make(&it).unwrap();
        make(&it).unwrap();
        assert_eq!(present(&it), Present::Ours);
        fs::write(folder.path().join("acme.db-wal"), "x").unwrap();
        remove(&it).unwrap();
        remove(&it).unwrap();
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn a_file_of_somebody_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let it = provision(folder.path());
        fs::write(&it.server, "precious").unwrap();
        assert_eq!(present(&it), Present::Foreign);
        assert!(make(&it).is_err());
        remove(&it).unwrap();
        assert_eq!(names(folder.path()), ["acme.db"]);
        fs::remove_file(&it.server).unwrap();
        fs::write(folder.path().join("acme.db-journal"), "x").unwrap();
        assert_eq!(present(&it), Present::Foreign);
    }

    #[test]
    fn a_file_that_is_settled_is_no_longer_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let it = provision(folder.path());
        make(&it).unwrap();
        settle(&it);
        remove(&it).unwrap();
        assert_eq!(names(folder.path()), ["acme.db"]);
    }
}
