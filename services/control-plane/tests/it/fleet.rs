//! Waiting until the routers have a write, and which routers are waited for.

use std::time::Duration;

use grey_core::change::{Epoch, FormatLevel, Position, Revision};
use grey_core::error::Reason;
use grey_proto::control::{
    DismissRouterRequest, ListRoutersRequest, PutTenantRequest, RouterProgress, RouterState, RouterStatus,
    WaitForRoutersRequest, WriteOptions, WriteResult,
};
use grey_state::State;
use grey_state::heartbeats::{Goodbye, Heartbeat};
use grey_testkit::{ReservedPort, eventually};
use pbjson_types::Duration as WireDuration;
use sea_orm::{ConnectionTrait, Statement};
use tokio::net::TcpListener;

use crate::fixture::{Backend, Plane, SOON, Store, config, on_both, reason, tenant};

on_both! {
    a_router_counts_until_it_says_goodbye
    a_silent_router_counts_until_it_is_dismissed_and_again_when_it_is_back
    a_router_that_is_told_of_is_noted_by_then
}

const LONG: Duration = Duration::from_secs(600);
const BRIEF: Option<WireDuration> = Some(WireDuration { seconds: 0, nanos: 1_000_000 });

fn seconds(seconds: i64) -> Option<WireDuration> {
    Some(WireDuration { seconds, nanos: 0 })
}

/// Which run every router here is in.
const RUN: u64 = 7;

pub(crate) fn goodbye(router: &str) -> Goodbye {
    Goodbye { router: router.into(), run: RUN }
}

pub(crate) fn heartbeat(router: &str, epoch: u64, revision: u64) -> Heartbeat {
    Heartbeat {
        router: router.into(),
        run: RUN,
        address: "127.0.0.1:1".into(),
        region: "eu".into(),
        zone: String::new(),
        position: Position { epoch: Epoch(epoch), revision: Revision(revision) },
        digest: 7,
        stale: false,
        level: FormatLevel::CURRENT,
        lease: LONG,
    }
}

pub(crate) async fn beat(plane: &Plane, router: &str, epoch: u64, revision: u64) {
    plane.state.heartbeats.beat(&heartbeat(router, epoch, revision)).await.unwrap();
}

async fn write(plane: &Plane, id: &str, wait: Option<WireDuration>) -> WriteResult {
    let write = WriteOptions { wait, ..WriteOptions::default() };
    let request = PutTenantRequest { tenant: Some(tenant(id)), write: Some(write), update_mask: Vec::new() };
    plane.tenants().put_tenant(request).await.unwrap().into_inner().result.unwrap()
}

async fn wait(plane: &Plane, timeout: Option<WireDuration>) -> RouterProgress {
    let request = WaitForRoutersRequest { revision: 0, timeout };
    plane.fleet().wait_for_routers(request).await.unwrap().into_inner().progress.unwrap()
}

/// Each router with how it stands.
fn standing(routers: &[RouterState]) -> Vec<(&str, RouterStatus)> {
    routers.iter().map(|router| (router.id.as_str(), router.status())).collect()
}

async fn list(plane: &Plane, former: bool) -> Vec<RouterState> {
    plane.fleet().list_routers(ListRoutersRequest { former }).await.unwrap().into_inner().routers
}

/// Waits until the router is noted to stand so.
async fn until(plane: &Plane, router: &str, status: RouterStatus) {
    eventually(SOON, &format!("{router} is {status:?}"), async || {
        standing(&list(plane, true).await).contains(&(router, status))
    })
    .await;
}

/// Announces the router until the control plane has noted it, and not only seen it.
async fn until_noted(plane: &Plane, router: &Heartbeat) {
    let lease = Some(router.lease.into());
    eventually(SOON, &format!("{} is noted", router.router), async || {
        plane.state.heartbeats.beat(router).await.unwrap();
        let noted = |state: &RouterState| state.first_seen.is_some() && state.lease == lease;
        list(plane, false).await.iter().any(|state| state.id == router.router && noted(state))
    })
    .await;
}

/// A router that is heard of no more, without a goodbye.
async fn falls_silent(plane: &Plane, router: Heartbeat) {
    until_noted(plane, &router).await;
    let brief = Heartbeat { lease: Duration::from_millis(1), ..router };
    plane.state.heartbeats.beat(&brief).await.unwrap();
    until(plane, &brief.router, RouterStatus::Unreachable).await;
}

#[tokio::test]
async fn a_write_waits_for_every_router() {
    let plane = Plane::start(Backend::Sqlite).await;
    let epoch = write(&plane, "first", None).await.epoch;
    beat(&plane, "r1", epoch, 1).await;
    beat(&plane, "r2", epoch, 1).await;
    let follow = async {
        // The routers hear of it only once the write is committed.
        while plane.revision().await < 2 {}
        beat(&plane, "r1", epoch, 2).await;
        beat(&plane, "r2", epoch, 3).await;
    };
    let (result, ()) = tokio::join!(write(&plane, "second", seconds(60)), follow);
    let routers = result.routers.unwrap();
    assert_eq!((result.revision, routers.applied, routers.total, routers.complete), (2, 2, 2, true));
    let applied = RouterStatus::Applied;
    assert_eq!(standing(&routers.routers), [("r1", applied), ("r2", applied)]);
}

#[tokio::test]
async fn whom_one_answer_counts_the_next_one_counts_too() {
    let plane = Plane::start(Backend::Sqlite).await;
    let epoch = write(&plane, "first", None).await.epoch;
    // The control plane looks by itself only once a second: most of these it hears of by the answer alone.
    for router in ["r1", "r2", "r3", "r4"] {
        beat(&plane, router, epoch, 1).await;
        let counted = wait(&plane, seconds(60)).await;
        assert!(counted.routers.iter().any(|state| state.id == router), "{counted:?}");
        let lost = Heartbeat { lease: Duration::from_millis(1), ..heartbeat(router, epoch, 1) };
        plane.state.heartbeats.beat(&lost).await.unwrap();
        until(&plane, router, RouterStatus::Unreachable).await;
        let request = DismissRouterRequest { id: router.into(), reason: "lost".into() };
        plane.fleet().dismiss_router(request).await.unwrap();
    }
}

#[tokio::test]
async fn every_router_is_named_with_how_it_stands_and_the_write_stands() {
    let plane = Plane::start(Backend::Sqlite).await;
    let epoch = write(&plane, "first", None).await.epoch;
    falls_silent(&plane, heartbeat("mute", epoch, 1)).await;
    beat(&plane, "behind", epoch, 1).await;
    let lost = Heartbeat { stale: true, ..heartbeat("lost", epoch, 1) };
    plane.state.heartbeats.beat(&lost).await.unwrap();
    beat(&plane, "quick", epoch, 1).await;
    let follow = async {
        while plane.revision().await < 2 {}
        beat(&plane, "quick", epoch, 2).await;
        plane.state.heartbeats.beat(&Heartbeat { stale: true, ..heartbeat("lost", epoch, 2) }).await.unwrap();
    };
    let (result, ()) = tokio::join!(write(&plane, "second", seconds(1)), follow);
    let routers = result.routers.unwrap();
    assert_eq!((routers.applied, routers.total, routers.complete), (1, 4, false));
    let expected = [
        ("behind", RouterStatus::Behind),
        ("lost", RouterStatus::NotCurrent),
        ("mute", RouterStatus::Unreachable),
        ("quick", RouterStatus::Applied),
    ];
    assert_eq!(standing(&routers.routers), expected);
    assert_eq!(plane.revision().await, 2, "the write stands");

    let request = WaitForRoutersRequest { revision: 1, timeout: BRIEF };
    let progress = plane.fleet().wait_for_routers(request).await.unwrap().into_inner().progress.unwrap();
    assert_eq!((progress.applied, progress.complete), (2, false));
    assert_eq!(standing(&list(&plane, false).await), expected);
}

#[tokio::test]
async fn nobody_having_it_is_no_success() {
    let plane = Plane::start(Backend::Sqlite).await;
    let routers = write(&plane, "acme", BRIEF).await.routers.unwrap();
    assert_eq!((routers.applied, routers.total, routers.complete), (0, 0, false));
    let url = format!("{}/api/tenants/beta?wait=1ms", plane.base);
    let answer = plane.http.put(url).json(&serde_json::json!({})).send().await.unwrap();
    assert_eq!(answer.status(), 200, "the write stands");
    let body: serde_json::Value = answer.json().await.unwrap();
    let routers = &body["result"]["routers"];
    assert!(routers.is_object() && routers["complete"].as_bool() != Some(true), "{body}");
}

#[tokio::test]
async fn routers_that_cannot_be_looked_at_have_applied_nothing() {
    let store = Store::new(Backend::Sqlite).await;
    let urls = vec![format!("redis://127.0.0.1:{}", grey_testkit::free_port().unwrap())];
    let away = grey_state::redis::Options { urls, ..Default::default() };
    let state = State { heartbeats: State::redis(&away).await.unwrap().heartbeats, ..State::memory() };
    let config = config(&store.url);
    let plane = Plane::start_with(store, config, state).await;
    let routers = write(&plane, "acme", BRIEF).await.routers.unwrap();
    assert!(!routers.complete && !routers.fault.is_empty(), "{routers:?}");
    assert_eq!(plane.revision().await, 1);
    let listed = plane.fleet().list_routers(ListRoutersRequest { former: false }).await.unwrap().into_inner();
    assert!(!listed.fault.is_empty(), "{listed:?}");
}

async fn a_router_counts_until_it_says_goodbye(plane: Plane) {
    let epoch = write(&plane, "first", None).await.epoch;
    beat(&plane, "stays", epoch, 1).await;
    falls_silent(&plane, heartbeat("leaves", epoch, 1)).await;
    let progress = wait(&plane, BRIEF).await;
    assert!(!progress.complete, "silence is no goodbye: {progress:?}");
    plane.state.heartbeats.leave(&goodbye("leaves")).await.unwrap();
    let progress = wait(&plane, seconds(30)).await;
    assert_eq!(
        (progress.complete, standing(&progress.routers)),
        (true, vec![("stays", RouterStatus::Applied)])
    );
    until(&plane, "leaves", RouterStatus::Left).await;
    assert_eq!(standing(&list(&plane, false).await), [("stays", RouterStatus::Applied)]);
}

async fn a_silent_router_counts_until_it_is_dismissed_and_again_when_it_is_back(plane: Plane) {
    let epoch = write(&plane, "first", None).await.epoch;
    beat(&plane, "stays", epoch, 1).await;
    let dismiss = |id: &str, reason: &str| {
        let request = DismissRouterRequest { id: id.to_owned(), reason: reason.to_owned() };
        async { plane.fleet().dismiss_router(request).await }
    };
    assert_eq!(reason(dismiss("stays", "sold").await), Reason::InUse, "it is live");
    assert_eq!(reason(dismiss("nobody", "sold").await), Reason::UnknownRouter);
    falls_silent(&plane, heartbeat("sold", epoch, 1)).await;
    for why in ["", "  ", &"x".repeat(501)] {
        assert_eq!(reason(dismiss("sold", why).await), Reason::InvalidArgument);
    }
    assert!(!wait(&plane, BRIEF).await.complete);
    let dismissed = dismiss("sold", "its machine was sold").await.unwrap().into_inner().router.unwrap();
    assert_eq!(dismissed.status(), RouterStatus::Dismissed);
    assert!(dismissed.remark.contains("its machine was sold"), "{}", dismissed.remark);
    assert!(wait(&plane, BRIEF).await.complete, "a dismissed router is not waited for");
    assert_eq!(standing(&list(&plane, true).await)[0], ("sold", RouterStatus::Dismissed));

    beat(&plane, "sold", epoch, 1).await;
    until(&plane, "sold", RouterStatus::Applied).await;
    eventually(SOON, "that it is back is noted", async || {
        let health = plane.http.get(format!("{}/health/ready", plane.base)).send().await.unwrap();
        health.text().await.unwrap().contains("2 count, 0 of them silent")
    })
    .await;
    falls_silent(&plane, heartbeat("sold", epoch, 1)).await;
    assert!(!wait(&plane, BRIEF).await.complete, "who was heard of again counts again");
}

/// Otherwise it would be forgotten if shared state were lost right after.
async fn a_router_that_is_told_of_is_noted_by_then(plane: Plane) {
    let epoch = write(&plane, "first", None).await.epoch;
    let database = sea_orm::Database::connect(&plane.store.url).await.unwrap();
    let noted = async || {
        let sql = "SELECT id FROM routers WHERE state = 'member' ORDER BY id";
        let rows = database.query_all_raw(Statement::from_string(database.get_database_backend(), sql)).await;
        rows.unwrap().iter().map(|row| row.try_get("", "id").unwrap()).collect::<Vec<String>>()
    };
    for round in 0..4 {
        beat(&plane, &format!("r{round}-listed"), epoch, 1).await;
        let listed: Vec<String> = list(&plane, false).await.into_iter().map(|router| router.id).collect();
        assert_eq!(noted().await, listed);
        beat(&plane, &format!("r{round}-waited"), epoch, 1).await;
        let progress = wait(&plane, seconds(30)).await;
        assert!(progress.complete && progress.total == 2 * (round + 1), "{progress:?}");
        assert_eq!(noted().await.len(), progress.routers.len());
    }
}

#[tokio::test]
async fn routers_are_remembered_by_a_control_plane_that_starts_anew() {
    let store = Store::new(Backend::Sqlite).await;
    let config = config(&store.url);
    let plane = Plane::start_with(store, config.clone(), State::memory()).await;
    let epoch = write(&plane, "first", None).await.epoch;
    until_noted(&plane, &heartbeat("r1", epoch, 1)).await;
    let store = plane.stop().await;
    // With another memory: what was shared is lost.
    let plane = Plane::start_with(store, config, State::memory()).await;
    let progress = wait(&plane, BRIEF).await;
    assert_eq!(standing(&progress.routers), [("r1", RouterStatus::Unreachable)]);
    // And nothing proves the log to be the one that was published.
    eventually(SOON, "another epoch is published", async || {
        let head = plane.state.feed.head().await.unwrap();
        head.is_some_and(|head| head.epoch.0 == epoch + 1)
    })
    .await;
    let epoch = epoch + 1;
    beat(&plane, "r2", epoch, 1).await;
    assert!(!wait(&plane, BRIEF).await.complete);
    beat(&plane, "r1", epoch, 1).await;
    assert!(wait(&plane, seconds(30)).await.complete);
}

#[tokio::test]
async fn a_router_is_gone_once_its_address_refuses_throughout_its_lease() {
    let plane = Plane::start(Backend::Sqlite).await;
    let epoch = write(&plane, "first", None).await.epoch;
    beat(&plane, "stays", epoch, 1).await;
    // Bound and not listening: connections are refused.
    let port = ReservedPort::any().unwrap();
    let dead = Heartbeat {
        address: port.addr().to_string(),
        lease: Duration::from_millis(300),
        ..heartbeat("dead", epoch, 1)
    };
    until_noted(&plane, &dead).await;
    until(&plane, "dead", RouterStatus::Gone).await;
    assert!(wait(&plane, BRIEF).await.complete);
    let gone = list(&plane, true).await.into_iter().find(|router| router.id == "dead").unwrap();
    assert!(gone.remark.contains("refused"), "{}", gone.remark);
    beat(&plane, "dead", epoch, 1).await;
    until(&plane, "dead", RouterStatus::Applied).await;
}

#[tokio::test]
async fn a_router_that_merely_does_not_answer_counts_on() {
    let store = Store::new(Backend::Sqlite).await;
    let mut config = config(&store.url);
    config.routers.timeout = Duration::from_millis(50);
    let plane = Plane::start_with(store, config, State::memory()).await;
    let epoch = write(&plane, "first", None).await.epoch;
    let frozen = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mute = Heartbeat {
        address: frozen.local_addr().unwrap().to_string(),
        lease: Duration::from_millis(50),
        ..heartbeat("frozen", epoch, 1)
    };
    until_noted(&plane, &mute).await;
    // It is asked at most once in 200 ms, far longer than its lease.
    let mut kept = Vec::new();
    for _ in 0..4 {
        kept.push(tokio::time::timeout(SOON, frozen.accept()).await.unwrap().unwrap());
    }
    let progress = wait(&plane, BRIEF).await;
    assert_eq!(standing(&progress.routers), [("frozen", RouterStatus::Unreachable)]);
}

#[tokio::test]
async fn waits_are_bounded_and_within_the_log() {
    let plane = Plane::start(Backend::Sqlite).await;
    for timeout in [seconds(61), seconds(-1), Some(WireDuration { seconds: 0, nanos: -1 })] {
        let request = WaitForRoutersRequest { revision: 0, timeout };
        assert_eq!(reason(plane.fleet().wait_for_routers(request).await), Reason::InvalidArgument);
        let write = WriteOptions { wait: timeout, ..WriteOptions::default() };
        let request =
            PutTenantRequest { tenant: Some(tenant("acme")), write: Some(write), update_mask: Vec::new() };
        assert_eq!(reason(plane.tenants().put_tenant(request).await), Reason::InvalidArgument);
    }
    let request = WaitForRoutersRequest { revision: 1, timeout: None };
    assert_eq!(reason(plane.fleet().wait_for_routers(request).await), Reason::RevisionUnavailable);
    assert_eq!(plane.revision().await, 0);
}

#[tokio::test]
async fn a_request_beyond_its_deadline_is_ended_in_our_own_words() {
    let store = Store::new(Backend::Sqlite).await;
    let mut config = config(&store.url);
    config.limits.request_timeout = Duration::from_millis(300);
    let plane = Plane::start_with(store, config, State::memory()).await;
    beat(&plane, "foreign", 77, 9).await;
    let request = WaitForRoutersRequest { revision: 0, timeout: seconds(60) };
    assert_eq!(reason(plane.fleet().wait_for_routers(request).await), Reason::Unavailable);
    let url = format!("{}/api/routers/wait", plane.base);
    let answer = plane.http.post(url).json(&serde_json::json!({"timeout": "60s"})).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    let body: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(body["error"]["reason"], "UNAVAILABLE");
}
