use std::time::Duration;

use grey_core::ids::Name;
use grey_core::instance::Instance;
use grey_state::instances::{ServiceInstances, WRITER};
use grey_state::{State, redis};
use grey_testkit::Redis;

use crate::grey::run;

#[tokio::test]
async fn instances_are_listed_as_shared_state_has_them() {
    let server = Redis::start().await.unwrap();
    let url = server.url();
    let state =
        State::redis(&redis::Options { urls: vec![url.clone()], ..redis::Options::default() }).await.unwrap();
    let lease = Name::new(WRITER).unwrap();
    let token = state.leases.acquire(&lease, "mirror", Duration::from_secs(60)).await.unwrap().unwrap();
    let instance = Instance {
        id: "p-1".parse().unwrap(),
        version: "v2.1".parse().unwrap(),
        address: "10.0.0.1:80".into(),
        region: None,
        zone: Some("eu-a".parse().unwrap()),
        weight: 100,
        enabled: true,
        healthy: true,
        ephemeral: true,
        source: Some("dc-1".parse().unwrap()),
        metadata: Default::default(),
    };
    let list = ServiceInstances { service: "payment".parse().unwrap(), instances: vec![instance] };
    state.instances.replace(token, &list).await.unwrap();
    let list = run(&["instance", "list"], &[("GREY_REDIS", &url)], "").await.ok().out;
    assert!(list.contains("payment  v2.1     p-1       10.0.0.1:80") && list.contains("dc-1"), "{list}");
    let list = run(&["instance", "list", "--json", "--redis", &url], &[], "").await.ok().json();
    assert_eq!(list[0]["instances"][0]["id"], "p-1", "{list}");
}

#[tokio::test]
async fn a_store_that_is_not_there_is_told() {
    let list = ["instance", "list", "--redis", "redis://127.0.0.1:1"];
    run(&list, &[], "").await.refused(1, "refused");
}
