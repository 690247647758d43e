//! Files that were read are kept, and no change of them is missed.

use crate::files::folder;
use grey_core::ids::ServiceId;
use grey_schema_migrator::files::{Dialect, Folder, Migration};
use grey_testkit::eventually;
use std::fs::{self, File};
use std::sync::Arc;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(60);
const BEFORE: &str = "SELECT 1;";
/// As long as the one before.
const AFTER: &str = "SELECT 2;";

fn only(folder: &Folder) -> Arc<Migration> {
    let scripts = folder.load(&ServiceId::new("shop").unwrap(), Dialect::Sqlite).unwrap();
    assert_eq!(scripts.migrations.len(), 1);
    Arc::clone(scripts.migrations.first().unwrap())
}

#[tokio::test]
async fn files_are_parsed_once_until_one_is_changed_by_whatever_means() {
    let root = folder(&[("V1__x.sql", BEFORE)]);
    let path = root.path().join("shop/V1__x.sql");
    let kept = Folder::new(root.path());
    let is_kept = async || Arc::ptr_eq(&only(&kept), &only(&kept));
    eventually(DEADLINE, "the files are kept", is_kept).await;
    let before = only(&kept);
    // The same size and, afterwards, the same time of modification: as an unpacked archive may leave it.
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, AFTER).unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    let after = only(&kept);
    assert_ne!(after.checksum, before.checksum);
    eventually(DEADLINE, "the files are kept", is_kept).await;
    // Another file in its place.
    let other = root.path().join("other");
    fs::write(&other, BEFORE).unwrap();
    File::options().write(true).open(&other).unwrap().set_modified(modified).unwrap();
    fs::rename(&other, &path).unwrap();
    assert_eq!(only(&kept).checksum, before.checksum);
    fs::remove_file(&path).unwrap();
    let gone = kept.load(&ServiceId::new("shop").unwrap(), Dialect::Sqlite).unwrap();
    assert!(gone.migrations.is_empty());
}
