use std::time::Duration;

use grey_core::ids::Name;
use grey_state::{State, redis};
use grey_testkit::Redis;

use crate::grey::run;

const FILE: &str =
    r#"{"instances": [{"id": "p-1", "version": "v2.1", "address": "10.0.0.1:80", "zone": "eu-a"}]}"#;

#[tokio::test]
async fn instances_are_written_to_redis_and_listed() {
    let server = Redis::start().await.unwrap();
    let url = server.url();
    let set = ["instance", "set", "payment", "-f", "-", "--redis", &url];
    let done = run(&set, &[], FILE).await.ok();
    assert_eq!(done.out, "set 1 instances of payment\n");
    let list = run(&["instance", "list"], &[("GREY_REDIS", &url)], "").await.ok().out;
    assert!(list.contains("payment  v2.1     p-1       10.0.0.1:80"), "{list}");

    // The lease was given back, so the next command need not wait.
    run(&set, &[], "instances = []").await.ok();
    let list = run(&["instance", "list", "--json", "--redis", &url], &[], "").await.ok().json();
    assert!(!list.to_string().contains("p-1"), "{list}");
}

#[tokio::test]
async fn a_registry_mirror_is_not_fought() {
    let server = Redis::start().await.unwrap();
    let url = server.url();
    let state =
        State::redis(&redis::Options { urls: vec![url.clone()], ..redis::Options::default() }).await.unwrap();
    let lease = Name::new("instances").unwrap();
    let ttl = Duration::from_secs(60);
    state.leases.acquire(&lease, "mirror", ttl).await.unwrap().unwrap();
    let set = ["instance", "set", "payment", "-f", "-", "--redis", &url];
    run(&set, &[], FILE).await.refused(1, "another writer");
    let (lists, _) = state.instances.load().await.unwrap();
    assert!(lists.is_empty(), "{lists:?}");
    // Nor is the mirror's lease taken away from it.
    assert!(state.leases.acquire(&lease, "other", ttl).await.unwrap().is_none());
}

#[tokio::test]
async fn wrong_files_are_refused_before_anything_is_written() {
    let set = ["instance", "set", "payment", "-f", "-", "--redis", "redis://127.0.0.1:1"];
    run(&set, &[], r#"instances = [{ id = "p", version = "one", address = "a:1" }]"#)
        .await
        .refused(2, "version");
    run(&set, &[], "instances = [{").await.refused(2, "read instances");
    run(&set, &[], FILE).await.refused(1, "refused");
}
