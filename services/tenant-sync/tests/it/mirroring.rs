//! What the tenant API lists is what the control plane has.

use std::collections::BTreeMap;

use grey_proto::control::TenantStatus::{Active, Maintenance, Suspended};
use grey_proto::control::{Tenant, TenantStatus};
use grey_proto::sync::SourceState;
use serde_json::json;

use crate::upstream::tenants;
use crate::world::{World, counts, did, entry};

fn labels<const N: usize>(labels: [(&str, &str); N]) -> BTreeMap<String, String> {
    labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

fn by_hand(id: &str, status: TenantStatus) -> Tenant {
    let labels = labels([("note", "vip"), ("color", "white")]);
    let residency = vec!["eu".to_owned()];
    Tenant { id: id.to_owned(), status: status.into(), residency, labels, ..Tenant::default() }
}

#[tokio::test]
async fn the_first_sync_creates_what_is_listed() {
    let list = [
        json!({"id": "a", "name": "Acme", "status": "trial", "tier": "gold", "color": "red"}),
        json!({"id": "b", "name": "Beta", "status": "suspended"}),
    ];
    let world = World::start(&list).await;
    let run = world.replica.first_run().await;
    assert_eq!(counts(&run), did([("created", 2)]));

    let a = world.plane.tenant("a").await;
    assert_eq!((a.name.as_str(), a.status(), a.tier.as_str()), ("Acme", Active, "gold"));
    assert_eq!(a.labels, labels([("color", "red"), ("managed-by", "tenant-sync")]));
    assert_eq!(world.plane.status("b").await, Suspended);
    let events = world.plane.events().await;
    assert_eq!((events.len(), events[0].reason.as_str()), (1, "tenant-sync"));

    let status = world.replica.status().await;
    assert_eq!(status.service, "tenant-sync");
    assert_eq!((status.counts["active"], status.counts["suspended"], status.counts["unmanaged"]), (1, 1, 0));
    let source = &status.sources[0];
    assert_eq!(
        (source.name.as_str(), source.kind.as_str(), source.state()),
        ("tenant-api", "http", SourceState::Ok)
    );
    assert!(source.last_success.is_some() && source.last_attempt.is_some());
    let metrics = world.replica.metrics().await;
    for line in [
        "grey_tenant_sync_changes_total{kind=\"created\"",
        "grey_tenant_sync_runs_total{outcome=\"done\"",
        "grey_tenant_sync_pull_duration_seconds_count{outcome=\"read\"",
        "grey_sync_items{",
        "grey_sync_leading",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_sync_that_finds_nothing_new_writes_nothing() {
    let world = World::start(&tenants(0..50)).await;
    let before = world.plane.revision().await;
    for _ in 0..3 {
        assert_eq!(counts(&world.replica.run().await), did([("unchanged", 50)]));
    }
    assert_eq!(world.plane.revision().await, before);
    world.stop().await;
}

#[tokio::test]
async fn changes_are_brought_over_and_the_rest_stays() {
    let world = World::start(&[entry("a", "active"), entry("b", "active"), entry("c", "active")]).await;
    let list = [
        json!({"id": "a", "name": "Renamed", "status": "active"}),
        json!({"id": "b", "name": "Tenant b", "status": "suspended"}),
        json!({"id": "c", "name": "Tenant c", "status": "active", "color": "blue", "tier": "gold"}),
        entry("d", "active"),
    ];
    let run = world.list(&list).await;
    let expected = did([("created", 1), ("updated", 2), ("suspended", 1)]);
    assert_eq!(counts(&run), expected);
    assert_eq!(world.plane.tenant("a").await.name, "Renamed");
    assert_eq!(world.plane.status("b").await, Suspended);
    let c = world.plane.tenant("c").await;
    assert_eq!((c.tier.as_str(), c.labels["color"].as_str()), ("gold", "blue"));

    let run = world.list(&["a", "b", "c", "d"].map(|id| entry(id, "active"))).await;
    assert_eq!(counts(&run), did([("updated", 3), ("unchanged", 1)]));
    let c = world.plane.tenant("c").await;
    assert!(c.tier.is_empty() && !c.labels.contains_key("color"));
    assert_eq!(world.plane.status("b").await, Active);
    world.stop().await;
}

#[tokio::test]
async fn tenants_made_by_hand_are_left_alone_until_the_api_lists_them() {
    let world = World::start(&[entry("a", "active")]).await;
    world.plane.put(by_hand("hand", Maintenance)).await;
    world.plane.put(by_hand("other", Active)).await;
    assert_eq!(counts(&world.replica.run().await), did([("unchanged", 1)]));
    assert_eq!(world.replica.status().await.counts["unmanaged"], 2);

    let run = world.list(&[entry("a", "active"), entry("hand", "active")]).await;
    assert_eq!(counts(&run), did([("updated", 1), ("unchanged", 1)]));
    let hand = world.plane.tenant("hand").await;
    assert_eq!((hand.name.as_str(), hand.status()), ("Tenant hand", Active));
    assert_eq!(hand.residency, ["eu"], "that is not mapped");
    assert_eq!(hand.labels, labels([("note", "vip"), ("managed-by", "tenant-sync")]));
    assert_eq!(world.plane.tenant("other").await.labels, by_hand("other", Active).labels);
    world.stop().await;
}

#[tokio::test]
async fn what_others_write_meanwhile_is_not_overwritten_unseen() {
    let world = World::start(&tenants(0..20)).await;
    // Behind the back of the replica, which last looked before this.
    let mut edited = world.plane.tenant("t000003").await;
    edited.region = "eu-central".to_owned();
    edited.labels.insert("note".to_owned(), "vip".to_owned());
    edited.name = "Wrong".to_owned();
    world.plane.put(edited).await;
    let mut list = tenants(0..20);
    list[3]["tier"] = "gold".into();
    let run = world.list(&list).await;
    assert_eq!(counts(&run), did([("updated", 1), ("unchanged", 19)]));
    let tenant = world.plane.tenant("t000003").await;
    assert_eq!((tenant.name.as_str(), tenant.tier.as_str()), ("Tenant 3", "gold"));
    assert_eq!((tenant.region.as_str(), tenant.labels["note"].as_str()), ("eu-central", "vip"));
    world.stop().await;
}

#[tokio::test]
async fn edits_in_the_middle_of_a_sync_are_kept() {
    let world = World::start_with(&tenants(0..400), |config| config.apply.batch = 10).await;
    let mut list = tenants(0..400);
    for tenant in &mut list {
        tenant["tier"] = "gold".into();
    }
    world.upstream.list(&list);
    let editing = async {
        let mut edited = Vec::new();
        for i in (0..400).rev().step_by(7) {
            let mut tenant = world.plane.tenant(&format!("t{i:06}")).await;
            tenant.region = "eu".to_owned();
            // Whatever tier it had: the sync brings it to what the API says.
            world.plane.put(tenant.clone()).await;
            edited.push(tenant.id);
        }
        edited
    };
    let (run, edited) = tokio::join!(world.replica.run(), editing);
    assert_eq!(run.error, "");
    world.replica.run().await;
    let all = world.plane.all().await;
    assert!(all.values().all(|tenant| tenant.tier == "gold"));
    for id in edited {
        assert_eq!(all[&id].region, "eu", "{id}");
    }
    world.stop().await;
}

#[tokio::test]
async fn entries_that_fit_no_tenant_are_told_and_change_nothing() {
    let world = World::start(&[entry("a", "active"), entry("b", "active")]).await;
    let list = [
        entry("a", "exploded"),
        entry("b", "active"),
        entry("b", "active"),
        entry("c", "active"),
        json!({"id": "c", "name": "Another", "status": "active"}),
        entry("Not An Id", "active"),
    ];
    let run = world.list(&list).await;
    let expected = did([("unchanged", 1), ("invalid", 3), ("duplicates", 2)]);
    assert_eq!(counts(&run), expected);
    assert_eq!(world.plane.status("a").await, Active);
    assert!(world.plane.get("c").await.is_err());
    let status = world.replica.status().await;
    assert_eq!(status.quarantined_total, 3);
    let subjects: Vec<_> = status.quarantined.iter().map(|left| left.subject.as_str()).collect();
    assert_eq!(subjects, ["a", "c", "Not An Id"]);
    assert!(status.quarantined.iter().all(|left| !left.why.is_empty() && left.source == "tenant-api"));
    world.stop().await;
}
