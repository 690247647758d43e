//! Real files, followed.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use grey_registry_sync::registry::file::{FileRegistry, MAX_BYTES, Options, render};
use grey_registry_sync::registry::{Listing, Registered, Registry};
use grey_runtime::{Faults, Validate as _};
use grey_testkit::eventually;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::following::{Following, SOON, Seen};
use crate::registry_conformance::{Upstream, conforms};

/// Nothing is read in turn: what is seen was noticed.
const NEVER: Duration = Duration::from_secs(3600);
/// Long enough for an unwanted sighting to show up, mostly; it is waited for in vain.
const A_WHILE: Duration = Duration::from_millis(200);

/// A file of `count` instances of one service.
fn payment(count: usize) -> String {
    let lines = (1..=count).map(|i| format!("    - {{address: \"10.0.0.{i}:80\", version: v1.0}}\n"));
    format!("services:\n  payment:\n{}", lines.collect::<String>())
}

fn follow(path: &Path) -> Following {
    Following::start(Box::new(FileRegistry::new(Options { path: path.to_owned(), reconcile: NEVER })))
}

async fn until_count(following: &Following, count: usize) {
    following
        .until(&format!("{count} instances are told"), |seen| seen.alls > 0 && seen.count() == count)
        .await;
}

async fn until_failed(following: &Following, cause: &str) {
    let failed = |seen: &Seen| seen.failures.last().is_some_and(|failure| failure.contains(cause));
    following.until(&format!("`{cause}` is told"), failed).await;
}

/// A directory with a file of `count` instances that is being followed, and was seen.
async fn followed(count: usize) -> (TempDir, PathBuf, Following) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("instances.yaml");
    fs::write(&path, payment(count)).unwrap();
    let following = follow(&path);
    until_count(&following, count).await;
    (directory, path, following)
}

fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::rename(beside, path).unwrap();
}

#[tokio::test]
async fn edits_in_place_are_seen() {
    let (_directory, path, following) = followed(1).await;
    for count in [2, 3, 1] {
        fs::write(&path, payment(count)).unwrap();
        until_count(&following, count).await;
    }
    let seen = following.end().await;
    assert_eq!(seen.ids("payment"), ["10.0.0.1:80"]);
    assert_eq!(seen.services["payment"][0].version.as_deref(), Some("v1.0"));
}

#[tokio::test]
async fn replaced_files_are_seen_and_never_missing() {
    let (_directory, path, following) = followed(1).await;
    for count in [2, 3, 1, 4] {
        replace(&path, &payment(count));
        until_count(&following, count).await;
    }
    assert_eq!(following.end().await.failures, Vec::<String>::new());
}

/// As Kubernetes updates the files of a `ConfigMap`.
#[tokio::test]
async fn swapped_links_are_seen() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let publish = |count: usize| {
        let data = format!("..{count}");
        fs::create_dir(at(&data)).unwrap();
        fs::write(at(&data).join("instances.yaml"), payment(count)).unwrap();
        symlink(&data, at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
    };
    publish(1);
    symlink("..data/instances.yaml", at("instances.yaml")).unwrap();
    let following = follow(&at("instances.yaml"));
    until_count(&following, 1).await;
    for count in [2, 3, 4] {
        publish(count);
        until_count(&following, count).await;
        fs::remove_dir_all(at(&format!("..{}", count - 1))).unwrap();
    }
    fs::write(at("..data").join("instances.yaml"), payment(5)).unwrap();
    until_count(&following, 5).await;
    assert_eq!(following.end().await.failures, Vec::<String>::new());
}

#[tokio::test]
async fn swapped_directories_are_seen() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for count in [1, 2] {
        let release = at(&format!("release-{count}"));
        fs::create_dir(&release).unwrap();
        fs::write(release.join("instances.yaml"), payment(count)).unwrap();
    }
    symlink("release-1", at("current")).unwrap();
    let following = follow(&at("current/instances.yaml"));
    until_count(&following, 1).await;
    symlink("release-2", at("next")).unwrap();
    fs::rename(at("next"), at("current")).unwrap();
    until_count(&following, 2).await;
}

#[tokio::test]
async fn a_file_and_its_directory_may_come_later() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("later").join("instances.yaml");
    let following = follow(&path);
    until_failed(&following, "No such file").await;
    fs::create_dir(path.parent().unwrap()).unwrap();
    fs::write(&path, payment(2)).unwrap();
    until_count(&following, 2).await;
    fs::write(&path, payment(3)).unwrap();
    until_count(&following, 3).await;
}

#[tokio::test]
async fn a_removed_file_is_a_failure_until_it_is_back() {
    let (_directory, path, following) = followed(3).await;
    fs::remove_file(&path).unwrap();
    until_failed(&following, "No such file").await;
    assert_eq!(following.seen().count(), 3, "the last good content stays");
    fs::write(&path, payment(3)).unwrap();
    following.until("it is told to be back, though the same", |seen| seen.alls == 2).await;
    assert_eq!(following.end().await.smallest, Some(3));
}

#[tokio::test]
async fn a_removed_directory_is_a_failure_until_it_is_back() {
    let (directory, path, following) = followed(3).await;
    fs::remove_dir_all(directory.path()).unwrap();
    until_failed(&following, "No such file").await;
    fs::create_dir(directory.path()).unwrap();
    fs::write(&path, payment(4)).unwrap();
    until_count(&following, 4).await;
    fs::write(&path, payment(5)).unwrap();
    until_count(&following, 5).await;
}

#[tokio::test]
async fn a_faulty_file_is_a_failure_until_it_is_mended() {
    let (_directory, path, following) = followed(3).await;
    for (bytes, cause) in [
        (b"services: {payment: [".to_vec(), "services.payment: unclosed bracket"),
        (
            b"services:\n  payment:\n    - address: nowhere\n".to_vec(),
            "services.payment[0].address: must be host:port",
        ),
        (b"".to_vec(), "to remove every instance write `services: {}`"),
        (b"\xff\xfe\x00".to_vec(), "is not UTF-8"),
        (vec![b'#'; MAX_BYTES + 1], "at most 16777216 are read"),
    ] {
        replace_bytes(&path, &bytes);
        until_failed(&following, cause).await;
        until_failed(&following, "instances.yaml: ").await;
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    until_failed(&following, "is not a file").await;
    assert_eq!(following.seen().count(), 3, "the last good content stays");
    fs::remove_dir(&path).unwrap();
    replace(&path, &payment(2));
    until_count(&following, 2).await;
    replace(&path, "services: {}");
    until_count(&following, 0).await;
}

fn replace_bytes(path: &Path, bytes: &[u8]) {
    let beside = path.with_extension("new");
    fs::write(&beside, bytes).unwrap();
    fs::rename(beside, path).unwrap();
}

#[tokio::test]
async fn a_file_that_is_being_written_is_read_once_its_writer_rests() {
    let (_directory, path, following) = followed(40).await;
    let mut file = fs::File::create(&path).unwrap();
    let text = payment(41);
    let (start, rest) = text.split_at(payment(20).len());
    for part in [start, rest] {
        file.write_all(part.as_bytes()).unwrap();
        // A part of it reads well, and is not told.
        let told = following.until("it is told", |seen| seen.alls > 1 || !seen.failures.is_empty());
        assert!(timeout(A_WHILE, told).await.is_err());
    }
    until_count(&following, 41).await;
    let seen = following.end().await;
    assert_eq!((seen.smallest, seen.alls, seen.failures), (Some(40), 2, Vec::new()));
}

#[tokio::test]
async fn a_file_whose_writer_never_rests_is_read_all_the_same() {
    let (_directory, path, following) = followed(1).await;
    let mut count = 1;
    eventually(SOON, "it is told", async || {
        count = count % 200 + 2;
        fs::write(&path, payment(count)).unwrap();
        following.seen().alls > 1
    })
    .await;
}

#[tokio::test]
async fn a_file_that_is_empty_for_a_moment_is_no_failure() {
    let (_directory, path, following) = followed(2).await;
    fs::remove_file(&path).unwrap();
    until_failed(&following, "No such file").await;
    let mut file = fs::File::create(&path).unwrap();
    // The new name is noticed, and nothing is told of it.
    let told = following.until("it is told", |seen| seen.alls > 1 || seen.failures.len() > 1);
    assert!(timeout(A_WHILE, told).await.is_err());
    file.write_all(payment(3).as_bytes()).unwrap();
    drop(file);
    until_count(&following, 3).await;
    assert_eq!(following.end().await.failures.len(), 1);
}

#[tokio::test]
async fn a_change_that_reads_the_same_is_not_told() {
    let (_directory, path, following) = followed(2).await;
    for text in [format!("# as before\n{}", payment(2)), payment(2)] {
        replace(&path, &text);
        let told = following.until("it is told", |seen| seen.alls > 1);
        assert!(timeout(A_WHILE, told).await.is_err());
    }
    replace(&path, "services: {");
    until_failed(&following, "unclosed").await;
    replace(&path, "services: {\n# still\n");
    replace(&path, &payment(3));
    until_count(&following, 3).await;
    assert_eq!(following.end().await.alls, 2);
}

#[tokio::test]
async fn everything_is_told_again_when_asked_for_and_in_turn() {
    let (_directory, path, following) = followed(2).await;
    following.refresh().await;
    assert_eq!(following.seen().alls, 3);
    fs::remove_file(&path).unwrap();
    until_failed(&following, "No such file").await;
    following.end().await;

    fs::write(&path, payment(2)).unwrap();
    let options = Options { path: path.clone(), reconcile: Duration::from_millis(30) };
    let following = Following::start(Box::new(FileRegistry::new(options)));
    following.until("it is told in turn", |seen| seen.alls > 3).await;
    fs::remove_file(&path).unwrap();
    following.until("failures are told in turn", |seen| seen.failures.len() > 3).await;
}

#[tokio::test]
async fn files_beside_it_do_not_matter() {
    let (directory, path, following) = followed(2).await;
    for i in 0..500 {
        fs::write(directory.path().join(format!("{i}.yaml")), "services: {}").unwrap();
    }
    replace(&path, &payment(3));
    until_count(&following, 3).await;
    let seen = following.end().await;
    assert_eq!((seen.alls, seen.failures), (2, Vec::new()));
}

#[tokio::test]
async fn following_ends_when_nobody_listens() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("instances.yaml");
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    drop(receiver);
    let registry = FileRegistry::new(Options { path, reconcile: NEVER });
    timeout(
        SOON,
        registry.follow(sender, std::sync::Arc::default(), tokio_util::sync::CancellationToken::new()),
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn the_example_of_the_documentation_is_good() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples/instances.yaml");
    let following = follow(Path::new(path));
    until_count(&following, 5).await;
}

/// Writes a file of all that was put.
struct Writing {
    directory: TempDir,
    services: BTreeMap<String, Vec<Registered>>,
}

impl Writing {
    fn path(&self) -> PathBuf {
        self.directory.path().join("instances.yaml")
    }

    fn write(&self) {
        let listing = |(service, instances): (&String, &Vec<Registered>)| Listing {
            service: service.clone(),
            instances: instances.clone(),
        };
        replace(&self.path(), &render(&self.services.iter().map(listing).collect::<Vec<_>>()));
    }
}

#[async_trait]
impl Upstream for Writing {
    fn registry(&self) -> Box<dyn Registry> {
        let options = Options { path: self.path(), reconcile: Duration::from_secs(1) };
        Box::new(FileRegistry::new(options))
    }

    async fn put(&mut self, service: &str, instances: &[Registered]) {
        self.services.insert(service.to_owned(), instances.to_vec());
        self.write();
    }

    async fn remove_service(&mut self, service: &str) {
        self.services.remove(service);
        self.write();
    }

    async fn break_it(&mut self) {
        fs::remove_file(self.path()).unwrap();
    }

    async fn mend_it(&mut self) {
        self.write();
    }
}

#[tokio::test]
async fn a_file_does_what_every_registry_does() {
    conforms(Writing { directory: tempfile::tempdir().unwrap(), services: BTreeMap::new() }).await;
}

#[test]
fn options_have_defaults_and_are_checked() {
    let options: Options = serde_json::from_str(r#"{"path": "instances.yaml"}"#).unwrap();
    assert_eq!(options.reconcile, Duration::from_secs(30));
    assert_eq!(Options::new("instances.yaml").reconcile, options.reconcile);
    let faults = |options: &Options| {
        let mut faults = Faults::default();
        options.validate(&mut faults);
        faults.found().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(faults(&options), Vec::<String>::new());
    let wrong = Options { path: "/".into(), reconcile: Duration::ZERO };
    assert_eq!(faults(&wrong), ["path: must name a file", "reconcile: must be longer than nothing"]);
    let unknown = serde_json::from_str::<Options>(r#"{"path": "instances.yaml", "poll": "1s"}"#);
    assert!(unknown.unwrap_err().to_string().contains("unknown field `poll`"));
}
