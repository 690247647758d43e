//! Waiting until the routers have a write.

use std::time::Duration;

use grey_core::change::{Generation, Position, Revision};
use grey_core::error::Reason;
use grey_proto::control::{
    ListRoutersRequest, PutTenantRequest, WaitForRoutersRequest, WriteOptions, WriteResult,
};
use grey_state::State;
use grey_state::heartbeats::Heartbeat;
use pbjson_types::Duration as WireDuration;

use crate::fixture::{Backend, Plane, Store, config, reason, tenant};

const TTL: Duration = Duration::from_secs(600);

fn seconds(seconds: i64) -> Option<WireDuration> {
    Some(WireDuration { seconds, nanos: 0 })
}

async fn beat(plane: &Plane, router: &str, generation: &str, revision: u64) {
    let position = Position { generation: Generation(generation.into()), revision: Revision(revision) };
    let heartbeat = Heartbeat {
        router: router.into(),
        address: "127.0.0.1:1".into(),
        region: "eu".into(),
        zone: String::new(),
        position,
        digest: 7,
        stale: false,
    };
    plane.state.heartbeats.beat(&heartbeat, TTL).await.unwrap();
}

async fn write(plane: &Plane, id: &str, wait: Option<WireDuration>) -> WriteResult {
    let write = WriteOptions { wait, ..WriteOptions::default() };
    let request = PutTenantRequest { tenant: Some(tenant(id)), write: Some(write) };
    plane.tenants().put_tenant(request).await.unwrap().into_inner().result.unwrap()
}

#[tokio::test]
async fn a_write_waits_for_every_router() {
    let plane = Plane::start(Backend::Sqlite).await;
    let generation = write(&plane, "first", None).await.generation;
    beat(&plane, "r1", &generation, 1).await;
    beat(&plane, "r2", &generation, 1).await;
    let follow = async {
        // The routers hear of it only once the write is committed.
        while plane.revision().await < 2 {}
        beat(&plane, "r1", &generation, 2).await;
        beat(&plane, "r2", &generation, 3).await;
    };
    let (result, ()) = tokio::join!(write(&plane, "second", seconds(60)), follow);
    let routers = result.routers.unwrap();
    assert_eq!((result.revision, routers.applied, routers.total), (2, 2, 2));
    assert!(routers.behind.is_empty());
}

#[tokio::test]
async fn routers_that_are_behind_are_named_and_the_write_stands() {
    let plane = Plane::start(Backend::Sqlite).await;
    let generation = write(&plane, "first", None).await.generation;
    beat(&plane, "ahead", &generation, 9).await;
    beat(&plane, "behind", &generation, 1).await;
    beat(&plane, "foreign", "another", 9).await;
    let wait = Some(WireDuration { seconds: 0, nanos: 1_000_000 });
    let result = write(&plane, "second", wait).await;
    let routers = result.routers.unwrap();
    let behind: Vec<_> = routers.behind.iter().map(|router| router.id.as_str()).collect();
    assert_eq!((routers.applied, routers.total, behind), (1, 3, vec!["behind", "foreign"]));
    assert_eq!(plane.revision().await, 2);

    let request = WaitForRoutersRequest { revision: 1, timeout: wait };
    let progress = plane.fleet().wait_for_routers(request).await.unwrap().into_inner().progress.unwrap();
    assert_eq!((progress.applied, progress.behind.len()), (2, 1));
    let listed = plane.fleet().list_routers(ListRoutersRequest {}).await.unwrap().into_inner().routers;
    let ids: Vec<_> = listed.iter().map(|router| router.id.as_str()).collect();
    assert_eq!(ids, ["ahead", "behind", "foreign"]);
}

#[tokio::test]
async fn waits_are_bounded_and_within_the_log() {
    let plane = Plane::start(Backend::Sqlite).await;
    for timeout in [seconds(61), seconds(-1), Some(WireDuration { seconds: 0, nanos: -1 })] {
        let request = WaitForRoutersRequest { revision: 0, timeout };
        assert_eq!(reason(plane.fleet().wait_for_routers(request).await), Reason::InvalidArgument);
        let write = WriteOptions { wait: timeout, ..WriteOptions::default() };
        let request = PutTenantRequest { tenant: Some(tenant("acme")), write: Some(write) };
        assert_eq!(reason(plane.tenants().put_tenant(request).await), Reason::InvalidArgument);
    }
    let request = WaitForRoutersRequest { revision: 1, timeout: None };
    assert_eq!(reason(plane.fleet().wait_for_routers(request).await), Reason::RevisionUnavailable);
    assert_eq!(plane.revision().await, 0);
    let progress =
        plane.fleet().wait_for_routers(WaitForRoutersRequest::default()).await.unwrap().into_inner();
    assert_eq!(progress.progress.unwrap().total, 0);
}

#[tokio::test]
async fn a_request_beyond_its_deadline_is_ended_in_our_own_words() {
    let store = Store::new(Backend::Sqlite).await;
    let mut config = config(&store.url);
    config.limits.request_timeout = Duration::from_millis(300);
    let plane = Plane::start_with(store, config, State::memory()).await;
    beat(&plane, "foreign", "another", 9).await;
    let request = WaitForRoutersRequest { revision: 0, timeout: seconds(60) };
    assert_eq!(reason(plane.fleet().wait_for_routers(request).await), Reason::Unavailable);
    let url = format!("{}/api/routers/wait", plane.base);
    let answer = plane.http.post(url).json(&serde_json::json!({"timeout": "60s"})).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    let body: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(body["error"]["reason"], "UNAVAILABLE");
}
