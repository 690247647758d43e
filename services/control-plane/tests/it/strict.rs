//! Strict moves: prepare, acknowledged by every router, then flip; or nothing.

use std::time::Duration;

use grey_control_plane::command::{Command, Writer};
use grey_control_plane::database::Database;
use grey_control_plane::metrics::Metrics;
use grey_core::change::{Change, Principal};
use grey_core::error::Reason;
use grey_core::ids::{ServiceId, TenantId};
use grey_core::key::Fact;
use grey_core::service::Hold;
use grey_core::version::Version;
use grey_proto::control::change::Change as Kind;
use grey_proto::control::{
    ApplyChangeSetRequest, Change as WireChange, DeletePinRequest, DeleteTenantRequest, DeleteVersionRequest,
    Event, GetTenantRequest, Hold as WireHold, HoldRemoved, Pin, ProposedChange, PutPinRequest,
    PutPinResponse, WriteOptions,
};
use grey_runtime::Telemetry;
use grey_state::{State, publisher};
use grey_testkit::eventually;
use pbjson_types::Duration as WireDuration;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::fixture::{Backend, Plane, SOON, Store, config, fact, on_both, pin, reason, unfollowed};
use crate::fleet::beat;

on_both! {
    a_strict_move_flips_only_what_every_router_has_acknowledged
    an_unacknowledged_move_is_taken_back_and_names_who_is_missing
    nothing_else_changes_what_is_being_moved
    a_move_is_refused_for_what_its_pin_would_be_refused_for
}

const MINUTE: Option<WireDuration> = Some(WireDuration { seconds: 60, nanos: 0 });
const BRIEF: Option<WireDuration> = Some(WireDuration { seconds: 0, nanos: 1_000_000 });

async fn move_strictly(
    plane: &Plane,
    pin: Pin,
    wait: Option<WireDuration>,
    expected: Option<u64>,
) -> Result<PutPinResponse, Status> {
    let write = WriteOptions { wait, expected_revision: expected, ..WriteOptions::default() };
    let request =
        PutPinRequest { pin: Some(pin), write: Some(write), strict: true, ..PutPinRequest::default() };
    plane.pins().put_pin(request).await.map(tonic::Response::into_inner)
}

/// What each event changed, in words.
fn told(events: &[Event]) -> Vec<Vec<String>> {
    let change = |change: &WireChange| match change.change.as_ref().unwrap() {
        Kind::HoldPut(hold) => format!("hold {} {} to {}", hold.tenant, hold.service, hold.to),
        Kind::HoldRemoved(gone) => format!("lift {} {}", gone.tenant, gone.service),
        Kind::PinPut(pin) => format!("pin {} {} to {}", pin.tenant, pin.service, pin.version),
        other => format!("{other:?}"),
    };
    events.iter().map(|event| event.changes.iter().map(change).collect()).collect()
}

/// Payment with two versions that work on any schema; acme is pinned to the first. Returns the revision.
async fn acme(plane: &Plane) -> u64 {
    plane.put_service("payment", "1.0").await;
    plane.put_version("payment", "2.0", None).await;
    plane.put_tenant("acme").await;
    plane.put_pin("acme", "payment", "1.0").await.unwrap()
}

async fn until_held(plane: &Plane) -> WireHold {
    let read = async || {
        let request = GetTenantRequest { id: "acme".into() };
        plane.tenants().get_tenant(request).await.unwrap().into_inner().holds.pop()
    };
    eventually(SOON, "the tenant is held", async || read().await.is_some()).await;
    read().await.unwrap()
}

async fn a_strict_move_flips_only_what_every_router_has_acknowledged(plane: Plane) {
    let before = acme(&plane).await;
    beat(&plane, "r1", 1, before).await;
    beat(&plane, "r2", 1, before).await;
    let acknowledge = async {
        let hold = until_held(&plane).await;
        assert_eq!((hold.to.as_str(), hold.revision), ("v2.0", before + 1));
        beat(&plane, "r1", 1, before + 1).await;
        assert_eq!(plane.revision().await, before + 1, "one of two is not every router");
        beat(&plane, "r2", 1, before + 1).await;
        eventually(SOON, "it flips", async || plane.revision().await == before + 2).await;
        beat(&plane, "r1", 1, before + 2).await;
        beat(&plane, "r2", 1, before + 2).await;
    };
    let (moved, ()) =
        tokio::join!(move_strictly(&plane, pin("acme", "payment", "2.0"), MINUTE, None), acknowledge);
    let moved = moved.unwrap();
    let result = moved.result.unwrap();
    assert_eq!((result.revision, moved.pin.unwrap().revision), (before + 2, before + 2));
    assert!(result.routers.unwrap().complete);
    let events = plane.events().await;
    let last = told(&events[events.len() - 2..]);
    let expected = [vec!["hold acme payment to v2.0"], vec!["lift acme payment", "pin acme payment to v2.0"]];
    assert_eq!(last, expected);
    let request = GetTenantRequest { id: "acme".into() };
    assert!(plane.tenants().get_tenant(request).await.unwrap().into_inner().holds.is_empty());

    // A lock changes no version, so it is set at once.
    let locked = Pin { locked: true, ..pin("acme", "payment", "2.0") };
    move_strictly(&plane, locked, BRIEF, None).await.unwrap();
    assert_eq!(plane.revision().await, before + 3);
}

async fn an_unacknowledged_move_is_taken_back_and_names_who_is_missing(plane: Plane) {
    let before = acme(&plane).await;
    let refused = move_strictly(&plane, pin("acme", "payment", "2.0"), BRIEF, None).await;
    assert!(fact(refused.clone(), "routers").contains("no router is known"), "{refused:?}");
    assert_eq!(reason(refused), Reason::RoutersBehind);

    let before = before + 2;
    beat(&plane, "ready", 1, before).await;
    beat(&plane, "slow", 1, before).await;
    let acknowledge = async {
        until_held(&plane).await;
        beat(&plane, "ready", 1, before + 1).await;
    };
    let second = Some(WireDuration { seconds: 1, nanos: 0 });
    let moving = move_strictly(&plane, pin("acme", "payment", "2.0"), second, None);
    let (refused, ()) = tokio::join!(moving, acknowledge);
    let missing = fact(refused.clone(), "routers");
    assert!(missing.contains("slow") && !missing.contains("ready"), "{missing}");
    assert_eq!(reason(refused), Reason::RoutersBehind);
    let lines = told(&plane.events().await.split_off(4));
    assert_eq!(lines, [["hold acme payment to v2.0"], ["lift acme payment"]].repeat(2));
    // Nothing of it is left: an ordinary pin takes effect.
    plane.put_pin("acme", "payment", "2.0").await.unwrap();
}

async fn nothing_else_changes_what_is_being_moved(plane: Plane) {
    let before = acme(&plane).await;
    plane.put_service("search", "1.0").await;
    beat(&plane, "slow", 1, before).await;
    let meddle = async {
        until_held(&plane).await;
        assert_eq!(reason(plane.put_pin("acme", "payment", "1.0").await), Reason::TenantMoving);
        let request = DeletePinRequest { tenant: "acme".into(), service: "payment".into(), write: None };
        assert_eq!(reason(plane.pins().delete_pin(request).await), Reason::TenantMoving);
        let again = move_strictly(&plane, pin("acme", "payment", "2.0"), BRIEF, None).await;
        assert_eq!(reason(again), Reason::TenantMoving);
        let request = DeleteVersionRequest { service: "payment".into(), version: "2.0".into(), write: None };
        assert_eq!(reason(plane.catalog().delete_version(request).await), Reason::InUse);
        // The tenant's other services are nobody's business.
        plane.put_pin("acme", "search", "1.0").await.unwrap();
        // Removing the tenant ends the move.
        let request = DeleteTenantRequest { id: "acme".into(), write: None };
        plane.tenants().delete_tenant(request).await.unwrap();
        let head = plane.revision().await;
        beat(&plane, "slow", 1, head).await;
    };
    let (moved, ()) =
        tokio::join!(move_strictly(&plane, pin("acme", "payment", "2.0"), MINUTE, None), meddle);
    assert_eq!(reason(moved), Reason::RevisionMismatch, "its hold is gone");
    let proposed = |change| ProposedChange {
        change: Some(WireChange { change: Some(change) }),
        expected_revision: None,
    };
    let set = |change| ApplyChangeSetRequest { changes: vec![proposed(change)], write: None };
    plane.put_tenant("acme").await;
    let hold = WireHold {
        tenant: "acme".into(),
        service: "payment".into(),
        to: "2.0".into(),
        until: Some(pbjson_types::Timestamp { seconds: 1, nanos: 0 }),
        revision: 0,
    };
    let refused = plane.pins().apply_change_set(set(Kind::HoldPut(hold))).await;
    assert_eq!(reason(refused), Reason::InvalidArgument, "only moves make holds");
    let nothing = HoldRemoved { tenant: "acme".into(), service: "payment".into() };
    plane.pins().apply_change_set(set(Kind::HoldRemoved(nothing))).await.unwrap();
}

async fn a_move_is_refused_for_what_its_pin_would_be_refused_for(plane: Plane) {
    let pinned = acme(&plane).await;
    plane.put_version("payment", "3.0", Some(("2", ""))).await;
    let before = plane.revision().await;
    beat(&plane, "r1", 1, before).await;
    for (moving, expected, why) in [
        (pin("nobody", "payment", "2.0"), None, Reason::UnknownTenant),
        (pin("acme", "nothing", "2.0"), None, Reason::UnknownService),
        (pin("acme", "payment", "9.0"), None, Reason::UnknownVersion),
        (pin("acme", "payment", "3.0"), None, Reason::NoLegalVersion),
        (pin("acme", "payment", "2.0"), Some(0), Reason::RevisionMismatch),
        (pin("acme", "payment", "2.0"), Some(pinned + 1), Reason::RevisionMismatch),
    ] {
        let refused = move_strictly(&plane, moving.clone(), BRIEF, expected).await;
        assert_eq!(reason(refused), why, "{moving:?}");
    }
    let both = PutPinRequest {
        pin: Some(pin("acme", "payment", "3.0")),
        migrate: true,
        strict: true,
        ..PutPinRequest::default()
    };
    assert_eq!(reason(plane.pins().put_pin(both).await), Reason::InvalidArgument);
    let write = WriteOptions { max_moves: Some(0), wait: BRIEF, ..WriteOptions::default() };
    let over = PutPinRequest {
        pin: Some(pin("acme", "payment", "2.0")),
        write: Some(write),
        strict: true,
        ..PutPinRequest::default()
    };
    assert_eq!(reason(plane.pins().put_pin(over).await), Reason::MovesOverBudget);
    assert_eq!(plane.revision().await, before, "no call was refused for it");
    let acknowledge = async {
        until_held(&plane).await;
        beat(&plane, "r1", 1, before + 1).await;
        eventually(SOON, "it flips", async || plane.revision().await == before + 2).await;
        beat(&plane, "r1", 1, before + 2).await;
    };
    let moving = move_strictly(&plane, pin("acme", "payment", "2.0"), MINUTE, Some(pinned));
    let (moved, ()) = tokio::join!(moving, acknowledge);
    moved.unwrap();
}

#[tokio::test]
async fn a_hold_that_was_left_behind_is_taken_back_at_its_deadline() {
    let store = Store::new(Backend::Sqlite).await;
    let plane = Plane::start_with(Store::borrowed(&store.url), config(&store.url), State::memory()).await;
    acme(&plane).await;
    plane.stop().await;
    // What a control plane leaves that dies between the two halves.
    let config = config(&store.url);
    let telemetry = Telemetry::start("grey-control-plane", &config.telemetry).unwrap();
    let database = Database::open(&config.database).await.unwrap();
    let position = database.head().await.unwrap();
    let (handle, metrics) = (publisher::Handle::default(), Metrics::new(telemetry.meter()));
    let heartbeats = grey_state::State::memory().heartbeats;
    let (writer, commands) = Writer::new(
        database.clone(),
        position,
        unfollowed(),
        config.commands.clone(),
        handle,
        heartbeats,
        metrics,
    );
    let stop = CancellationToken::new();
    let writing = tokio::spawn(writer.run(stop.clone()));
    let (tenant, service) = (TenantId::new("acme").unwrap(), ServiceId::new("payment").unwrap());
    let hold = Hold { to: Version::new("2.0").unwrap(), until_ms: 1 };
    let put = Change::Put(Fact::Hold(tenant, service, hold));
    commands.execute(Command::single(Principal::named("tester"), put)).await.unwrap();
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(10), writing).await.unwrap().unwrap();

    let plane = Plane::start_with(store, config, State::memory()).await;
    eventually(SOON, "the hold is taken back", async || {
        told(&plane.events().await).last().unwrap() == &["lift acme payment"]
    })
    .await;
    plane.put_pin("acme", "payment", "2.0").await.unwrap();
}
