use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use grey_testkit::eventually;

#[tokio::test]
async fn condition_is_polled_until_it_holds() {
    let looks = AtomicU32::new(0);
    eventually(Duration::from_secs(20), "three looks", async || looks.fetch_add(1, Ordering::Relaxed) == 2)
        .await;
    assert_eq!(looks.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn missed_deadline_names_the_condition_and_the_caller() {
    let waiting = tokio::spawn(eventually(Duration::from_millis(50), "pigs fly", async || false));
    let panic = waiting.await.unwrap_err().into_panic();
    let text = panic.downcast::<String>().unwrap();
    assert!(text.contains("pigs fly") && text.contains("eventually.rs"), "{text}");
}

#[tokio::test]
async fn hanging_condition_counts_as_false() {
    let waiting = eventually(Duration::from_millis(50), "an answer", async || std::future::pending().await);
    assert!(tokio::spawn(waiting).await.unwrap_err().is_panic());
}
