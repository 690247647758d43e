use grey_testkit::Spawned;

use crate::grey::{self, DEADLINE, PROGRAM};

#[tokio::test]
async fn every_step_of_the_story_holds() {
    let done = grey::run(&["demo", "--check"], &[], "").await.ok();
    for step in [
        "1 pin",
        "2 death",
        "its first call came",
        "3 gate",
        "NO_LEGAL_VERSION",
        "initech's database 1.1 -> 1.2, 3 orders backfilled, then the pin",
        "an archived order is never changed",
        "undone, it is at 1.1 as before, and its calls still go to v1.1",
        "4 canary",
        "5 rollback",
        "6 doubt",
        "registry-sync is FAILING",
        "the file is empty",
        "7 of 7 instances is held",
        "nothing is held any more",
        "every step held",
    ] {
        assert!(done.out.contains(step), "{step}: {done}");
    }
    assert!(done.out.contains("├─ base"), "no explanation: {done}");
    assert!(done.out.contains(" 0 failed"), "{done}");
}

#[tokio::test]
async fn a_check_that_is_cut_short_fails() {
    let demo = ["demo", "--check"]
        .iter()
        .fold(Spawned::builder(PROGRAM), |demo, arg| demo.arg(arg))
        .start()
        .unwrap();
    demo.wait_for_line("the world", DEADLINE).await.unwrap();
    let status = demo.terminate(DEADLINE).await.unwrap();
    assert_eq!(status.code(), Some(1), "{}", demo.output());
    assert!(demo.output().contains("before the story ended"), "{}", demo.output());
}

#[tokio::test]
async fn the_plain_demo_ends_when_its_time_is_over() {
    let done = grey::run(&["demo", "--plain", "--free-ports", "--seconds", "3"], &[], "").await.ok();
    assert!(done.out.contains("the world") && done.out.contains(" 0 failed"), "{done}");
    assert!(done.out.contains("/api/grey-router/route"), "nothing to try: {done}");
}
