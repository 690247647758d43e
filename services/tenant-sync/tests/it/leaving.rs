//! Tenants that are no longer listed, one by one and many at once.

use std::time::Duration;

use grey_core::error::Reason;
use grey_proto::control::TenantStatus::{Active, Suspended};
use grey_proto::control::catalog_service_client::CatalogServiceClient;
use grey_proto::control::{Pin, PutPinRequest, PutServiceRequest, Service};
use grey_proto::status::from_status;
use grey_proto::sync::{HeldChange, HoldReason};
use grey_testkit::eventually;

use crate::upstream::tenants;
use crate::world::{AT_ONCE, Replica, SOON, World, config, counts, did, entry};

#[tokio::test]
async fn a_tenant_that_is_gone_is_suspended_keeps_its_pins_and_comes_back() {
    let world = World::start_with(&tenants(0..20), |config| config.tombstone.recheck = AT_ONCE).await;
    let service = Service { id: "payment".into(), default_version: "1.0".into(), revision: 0 };
    let request = PutServiceRequest { service: Some(service), write: None };
    CatalogServiceClient::new(world.plane.channel()).put_service(request).await.unwrap();
    let pin =
        Pin { tenant: "t000000".into(), service: "payment".into(), version: "1.0".into(), ..Pin::default() };
    let request = PutPinRequest { pin: Some(pin), ..PutPinRequest::default() };
    world.plane.pins().put_pin(request).await.unwrap();

    world.list(&tenants(1..20)).await;
    // The second look comes by itself.
    eventually(SOON, "the tenant is suspended", async || world.plane.status("t000000").await == Suspended)
        .await;
    let gone = world.plane.get("t000000").await.unwrap();
    assert_eq!(gone.pins.len(), 1);
    let label = &gone.tenant.unwrap().labels["deleted-at"];
    assert!(label.ends_with('Z') && label.len() == "2026-01-01T00:00:00Z".len(), "{label}");
    eventually(SOON, "it is counted", async || world.replica.status().await.counts["tombstoned"] == 1).await;
    assert_eq!(counts(&world.replica.run().await), did([("unchanged", 19)]));

    let run = world.list(&tenants(0..20)).await;
    assert_eq!(counts(&run), did([("restored", 1), ("unchanged", 19)]));
    let back = world.plane.get("t000000").await.unwrap();
    assert_eq!(back.pins.len(), 1);
    let tenant = back.tenant.unwrap();
    assert!(tenant.status() == Active && !tenant.labels.contains_key("deleted-at"));
    world.stop().await;
}

#[tokio::test]
async fn one_reading_is_not_enough_however_often_it_is_asked_for() {
    let world = World::start(&tenants(0..20)).await;
    for _ in 0..3 {
        let run = world.list(&tenants(1..20)).await;
        assert_eq!(counts(&run), did([("unchanged", 19), ("missing", 1)]));
    }
    assert_eq!(world.plane.status("t000000").await, Active);
    world.stop().await;
}

#[tokio::test]
async fn an_entry_that_never_fits_makes_nobody_wait_for_a_person() {
    let with_misfit =
        |range| tenants(range).into_iter().chain([entry("ACME Corp", "active")]).collect::<Vec<_>>();
    let world = World::start_with(&with_misfit(0..20), |config| config.tombstone.recheck = AT_ONCE).await;
    world.list(&with_misfit(1..20)).await;
    eventually(SOON, "the tenant is suspended", async || world.plane.status("t000000").await == Suspended)
        .await;
    let told = world.replica.status().await.quarantined;
    assert_eq!(told[0].subject, "ACME Corp");
    world.stop().await;
}

#[tokio::test]
async fn a_tenant_that_is_gone_for_long_is_removed() {
    let world = World::start_with(&tenants(0..20), |config| {
        config.tombstone.recheck = AT_ONCE;
        config.tombstone.retain = Duration::from_secs(1);
    })
    .await;
    world.list(&tenants(1..20)).await;
    eventually(SOON, "the tenant is removed", async || {
        world.replica.run().await;
        world.plane.get("t000000").await.is_err()
    })
    .await;
    assert_eq!(world.plane.all().await.len(), 19);
    world.stop().await;
}

async fn held(world: &World) -> HeldChange {
    let status = world.replica.status().await;
    assert_eq!((status.held.len(), status.held_total), (1, 1));
    status.held.into_iter().next().unwrap()
}

#[tokio::test]
async fn half_of_the_tenants_stay_until_someone_accepts_exactly_that() {
    let world = World::start_with(&tenants(0..100), |config| config.tombstone.recheck = AT_ONCE).await;
    let before = world.plane.revision().await;
    for _ in 0..3 {
        let run = world.list(&tenants(50..100)).await;
        assert_eq!(counts(&run), did([("unchanged", 50), ("held", 50)]));
    }
    assert_eq!((world.plane.count(Active).await, world.plane.revision().await), (100, before));
    let change = held(&world).await;
    assert_eq!(change.reason(), HoldReason::TenantShrink);
    assert_eq!((change.subject.as_str(), change.affected, change.total), ("tenants", 50, 100));
    assert_eq!((change.items.len(), change.items[0].as_str()), (50, "t000000"));
    assert!(world.replica.metrics().await.contains("grey_tenant_sync_runs_total{outcome=\"held\""));

    let unknown = world.replica.accept("shrink-of-nobody").await.unwrap_err();
    assert_eq!(from_status(&unknown).reason, Reason::UnknownChange);

    // More vanish before it is applied: they were not accepted.
    world.upstream.list(&tenants(65..100));
    let handled = world.replica.accept(&change.id).await.unwrap();
    assert_eq!(handled.error, "");
    let all = world.plane.all().await;
    let suspended: Vec<_> = all.values().filter(|tenant| tenant.status() == Suspended).collect();
    assert_eq!(suspended.len(), 50);
    assert!(suspended.iter().all(|tenant| tenant.id.as_str() < "t000050"));
    assert_eq!(held(&world).await.affected, 15);
    world.stop().await;
}

#[tokio::test]
async fn a_held_change_ends_by_itself_once_the_api_has_recovered() {
    let world = World::start(&tenants(0..30)).await;
    world.list(&tenants(10..30)).await;
    let change = held(&world).await;
    world.list(&tenants(0..30)).await;
    assert!(world.replica.status().await.held.is_empty());
    let unknown = world.replica.accept(&change.id).await.unwrap_err();
    assert_eq!(from_status(&unknown).reason, Reason::UnknownChange);
    assert_eq!(world.plane.count(Active).await, 30);
    world.stop().await;
}

#[tokio::test]
async fn an_empty_list_is_never_believed() {
    let world = World::start_with(&[entry("a", "active")], |config| {
        config.tombstone.recheck = AT_ONCE;
        config.shrink.share = 1.0;
        config.shrink.allow = 100;
    })
    .await;
    for _ in 0..3 {
        assert_eq!(counts(&world.list(&[]).await), did([("held", 1)]));
    }
    assert_eq!(world.plane.status("a").await, Active);
    let change = held(&world).await;
    assert!(change.summary.contains("lists nobody"), "{}", change.summary);
    assert_eq!(world.replica.accept(&change.id).await.unwrap().error, "");
    assert_eq!(world.plane.status("a").await, Suspended);
    world.stop().await;
}

#[tokio::test]
async fn many_suspensions_are_held_while_everything_else_is_brought_over() {
    let world = World::start(&tenants(0..30)).await;
    let mut list = tenants(0..31);
    for tenant in list.iter_mut().take(20) {
        tenant["status"] = "suspended".into();
        tenant["tier"] = "gold".into();
    }
    let run = world.list(&list).await;
    let expected = did([("created", 1), ("updated", 20), ("unchanged", 10), ("held", 20)]);
    assert_eq!(counts(&run), expected);
    assert_eq!(world.plane.count(Active).await, 31);
    assert_eq!(world.plane.tenant("t000000").await.tier, "gold");
    assert_eq!(world.replica.accept(&held(&world).await.id).await.unwrap().error, "");
    assert_eq!((world.plane.count(Suspended).await, world.plane.count(Active).await), (20, 11));
    world.stop().await;
}

#[tokio::test]
async fn few_at_a_time_are_held_after_a_change_of_leader_too() {
    let world = World::start(&tenants(0..100)).await;
    let suspended = |first: usize| {
        let mut list = tenants(0..100);
        list.iter_mut().take(first).for_each(|tenant| tenant["status"] = "suspended".into());
        list
    };
    world.list(&suspended(4)).await;
    world.list(&suspended(8)).await;
    assert_eq!(world.plane.count(Suspended).await, 8);
    let run = world.list(&suspended(12)).await;
    assert_eq!(counts(&run), did([("unchanged", 96), ("held", 4)]));
    let World { upstream, plane, replica, state } = world;
    replica.stop().await;

    let replica = Replica::start(config(&upstream, &plane.url()), &state).await;
    eventually(SOON, "the next leader has read the list", async || {
        let status = replica.status().await;
        status.leader == status.answered_by && !status.runs.is_empty()
    })
    .await;
    let world = World { upstream, plane, replica, state };
    assert_eq!(world.plane.count(Suspended).await, 8);
    let change = held(&world).await;
    assert_eq!((change.affected, change.total), (4, 100));
    assert!(change.summary.contains("8 others left shortly before"), "{}", change.summary);
    assert_eq!(world.replica.accept(&change.id).await.unwrap().error, "");
    assert_eq!(world.plane.count(Suspended).await, 12);
    world.stop().await;
}
