//! One drain for all tasks.

use std::time::Duration;

use grey_runtime::Shutdown;
use nix::sys::signal::{Signal, raise};

use crate::{DEADLINE, eventually, within};

#[tokio::test]
async fn waits_for_tasks_that_end_with_the_drain() {
    let shutdown = Shutdown::new();
    let token = shutdown.token();
    shutdown.spawn("worker", async move { token.cancelled().await });
    assert_eq!(shutdown.running(), ["worker"]);
    shutdown.begin();
    assert!(within(shutdown.wait(DEADLINE)).await);
    assert!(shutdown.running().is_empty());
}

#[tokio::test]
async fn stuck_task_is_reported_by_name() {
    let shutdown = Shutdown::new();
    let token = shutdown.token();
    shutdown.spawn("obedient", async move { token.cancelled().await });
    shutdown.spawn("stuck", std::future::pending());
    shutdown.begin();
    assert!(!within(shutdown.wait(Duration::from_millis(50))).await);
    assert_eq!(shutdown.running(), ["stuck"]);
}

#[tokio::test]
async fn panic_begins_the_drain() {
    let shutdown = Shutdown::new();
    shutdown.spawn("doomed", async { panic!("planted") });
    within(shutdown.token().cancelled()).await;
    assert!(within(shutdown.wait(DEADLINE)).await);
}

#[tokio::test]
async fn wait_does_not_end_before_the_drain_begins() {
    let shutdown = Shutdown::new();
    let waiting = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { shutdown.wait(DEADLINE).await }
    });
    let probe = shutdown.spawn("probe", async {});
    within(probe).await.unwrap();
    assert!(!waiting.is_finished());
    shutdown.begin();
    assert!(within(waiting).await.unwrap());
}

#[tokio::test]
async fn terminate_signal_begins_the_drain() {
    let shutdown = Shutdown::new();
    shutdown.on_signals().unwrap();
    assert!(!shutdown.token().is_cancelled());
    raise(Signal::SIGTERM).unwrap();
    within(shutdown.token().cancelled()).await;
    assert!(within(shutdown.wait(DEADLINE)).await);
}

#[tokio::test]
async fn finished_tasks_are_forgotten() {
    let shutdown = Shutdown::new();
    for _ in 0..100 {
        shutdown.spawn("brief", async {});
    }
    eventually("no task is listed", || shutdown.running().is_empty()).await;
}
