//! The snapshot file: what a router starts from when shared state is away.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use grey_core::error::Reason;
use grey_proto::router::ExplainRequest;
use grey_router::Config;
use grey_state::State;

use crate::world::{Router, World, call, eventually, payment, pin, told, within};

fn keep(file: &Path) -> impl FnOnce(&mut Config) + use<> {
    let file = file.to_owned();
    move |config| config.snapshot.file = Some(file)
}

/// A file with the table of `with_payment`, left behind by a router that has ended.
async fn left_behind(directory: &Path) -> PathBuf {
    let file = directory.join("state/router.snapshot");
    let world = World::memory().await.with_payment().await;
    let router = Router::start(world.state.clone(), keep(&file)).await;
    router.follows(&world).await;
    router.stop().await;
    assert!(file.exists(), "the drain writes it");
    file
}

#[tokio::test]
async fn router_starts_from_its_file_without_shared_state_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let file = left_behind(directory.path()).await;
    let router = Router::start(State::memory(), keep(&file)).await;
    let answer = router.route(call("beta", "payment")).await.unwrap();
    assert_eq!((answer.version.as_str(), answer.revision, answer.stale), ("v2.0", 1, true));
    assert_eq!(answer.epoch, 1);
    let ready = router.get("/health/ready").await;
    assert!(ready.0 == 200 && ready.1.contains("stale"), "{ready:?}");
    router.stop().await;
}

#[tokio::test]
async fn router_goes_on_from_its_file_when_shared_state_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("router.snapshot");
    let mut world = World::memory().await.with_payment().await;
    let router = Router::start(world.state.clone(), keep(&file)).await;
    router.follows(&world).await;
    router.stop().await;
    world.publish(vec![pin("acme", "payment", "v2.0")]).await;
    let router = Router::start(world.state.clone(), keep(&file)).await;
    router.follows(&world).await;
    let answer = router.route(call("acme", "payment")).await.unwrap();
    assert_eq!((answer.version.as_str(), answer.stale), ("v2.0", false));
    router.stop().await;
}

#[tokio::test]
async fn damaged_file_is_set_aside_and_never_fatal() {
    let directory = tempfile::tempdir().unwrap();
    let file = left_behind(directory.path()).await;
    let good = fs::read(&file).unwrap();
    let mut flipped = good.clone();
    // Inside a tenant's pin, where the message still decodes.
    let at = good.windows(4).rposition(|bytes| bytes == b"v2.0").unwrap();
    flipped[at + 1] = b'1';
    let mut long = good.clone();
    long.push(0);
    let damaged = [
        b"".to_vec(),
        b"\xff\xff\xff\xff\xff\xff".to_vec(),
        b"[snapshot]\nof = \"something else\"\n".to_vec(),
        good[..good.len() / 2].to_vec(),
        good[..good.len() - 3].to_vec(),
        flipped,
        long,
    ];
    for (number, bytes) in damaged.into_iter().enumerate() {
        fs::write(&file, &bytes).unwrap();
        let router = Router::start_unready(State::memory(), keep(&file)).await;
        assert_eq!(told(router.route(call("acme", "payment")).await).reason, Reason::Unavailable, "{number}");
        assert_eq!(router.get("/health/ready").await.0, 503);
        router.stop().await;
        let aside = file.with_file_name("router.snapshot.damaged");
        assert_eq!(fs::read(&aside).unwrap(), bytes, "{number} is kept for a look at it");
        assert!(!file.exists(), "nothing to write yet");
    }
    let world = World::memory().await.with_payment().await;
    let router = Router::start(world.state.clone(), keep(&file)).await;
    router.follows(&world).await;
    router.stop().await;
    assert!(file.exists());
}

#[tokio::test]
async fn file_of_another_history_serves_only_until_the_present_one_is_seen() {
    let directory = tempfile::tempdir().unwrap();
    let file = left_behind(directory.path()).await;
    let mut world = World::on(State::memory(), 2).await;
    world.publish(payment()).await;
    world.publish(vec![pin("acme", "payment", "v2.0")]).await;
    world.run("payment", &[("n1", "v1.0"), ("n2", "v2.0")]).await;
    let router = Router::start(world.state.clone(), keep(&file)).await;
    router.follows(&world).await;
    let answer = router.route(call("acme", "payment")).await.unwrap();
    assert_eq!((answer.epoch, answer.version.as_str()), (2, "v2.0"));
    assert_eq!(answer.instance.unwrap().id, "n2");
    let explain = ExplainRequest { call: Some(call("acme", "payment")), revision: 1 };
    let explained = within(router.client.clone().explain(explain)).await;
    assert_eq!(told(explained).reason, Reason::RevisionUnavailable, "the file's revision 1 is another one");
    router.stop().await;
}

#[tokio::test]
async fn file_is_written_while_serving() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("router.snapshot");
    let mut world = World::memory().await.with_payment().await;
    let path = file.clone();
    let router = Router::start(world.state.clone(), move |config| {
        config.snapshot.file = Some(path);
        config.snapshot.interval = Duration::from_millis(10);
    })
    .await;
    eventually("the file is there", async || file.exists()).await;
    let first = fs::read(&file).unwrap();
    world.publish(vec![pin("acme", "payment", "v2.0")]).await;
    eventually("the change is in the file", async || fs::read(&file).unwrap() != first).await;
    assert!(
        !file.with_file_name("router.snapshot.tmp").exists() || file.exists(),
        "never half a file in its place"
    );
    router.stop().await;
}

#[tokio::test]
async fn file_that_cannot_be_written_does_not_stop_the_router() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("taken"), b"").unwrap();
    let file = directory.path().join("taken/router.snapshot");
    let world = World::memory().await.with_payment().await;
    let router = Router::start(world.state.clone(), keep(&file)).await;
    router.follows(&world).await;
    assert_eq!(router.version("acme", "payment").await, "v1.0");
    router.stop().await;
}
