//! Experiments and canaries: each has its place in its layer, and keeps the units that it had.

use grey_core::error::Reason;
use grey_core::policy::MAX_OVERLAYS;
use grey_proto::control::change::Change;
use grey_proto::control::overlay::Kind;
use grey_proto::control::{
    BucketRange, Canary, DeleteOverlayRequest, DeleteServiceRequest, DeleteVersionRequest, Experiment,
    GetServiceRequest, Overlay, Policy, PutOverlayRequest, PutPolicyRequest, Unit, Variant,
};
use tonic::Status;

use crate::fixture::{Plane, expecting, fact, on_both, reason};

on_both! {
    an_overlay_gets_its_place_and_the_log_has_it
    a_change_of_a_weight_moves_only_the_difference
    a_layer_is_full_at_all_of_its_units
    a_salt_is_made_for_the_layer_and_never_taken
    what_is_so_already_is_not_written
    what_an_overlay_needs_stays
    a_service_goes_with_its_overlays
    overlays_are_bounded_in_number
}

fn canary(id: &str, layer: &str, weight: u32) -> Overlay {
    let (baseline, canary) = ("1.0".into(), "2.0".into());
    let kind = Canary { baseline, canary, weight, buckets: Vec::new() };
    Overlay {
        service: "payment".into(),
        id: id.into(),
        layer: layer.into(),
        kind: Some(Kind::Canary(kind)),
        ..Overlay::default()
    }
}

fn experiment(id: &str, arms: &[(&str, u32)]) -> Overlay {
    let variants = arms.iter().map(|(id, weight)| Variant {
        id: (*id).to_owned(),
        version: "2.0".into(),
        weight: *weight,
        buckets: Vec::new(),
    });
    let kind = Experiment { variants: variants.collect(), includes_pinned: false };
    Overlay { kind: Some(Kind::Experiment(kind)), ..canary(id, "", 0) }
}

async fn put(plane: &Plane, overlay: Overlay) -> Result<Overlay, Status> {
    let request = PutOverlayRequest { overlay: Some(overlay), write: None, update_mask: Vec::new() };
    Ok(plane.catalog().put_overlay(request).await?.into_inner().overlay.unwrap())
}

async fn delete(plane: &Plane, id: &str) -> Result<(), Status> {
    let request = DeleteOverlayRequest { service: "payment".into(), id: id.into(), write: None };
    plane.catalog().delete_overlay(request).await.map(drop)
}

async fn stateless(plane: &Plane, stateless: bool) -> Result<(), Status> {
    let policy = Policy { service: "payment".into(), stateless, ..Policy::default() };
    plane
        .catalog()
        .put_policy(PutPolicyRequest { policy: Some(policy), write: None, update_mask: Vec::new() })
        .await
        .map(drop)
}

async fn listed(plane: &Plane) -> Vec<Overlay> {
    let request = GetServiceRequest { id: "payment".into() };
    plane.catalog().get_service(request).await.unwrap().into_inner().overlays
}

fn buckets(overlay: &Overlay) -> Vec<Vec<BucketRange>> {
    match overlay.kind.as_ref().unwrap() {
        Kind::Canary(canary) => vec![canary.buckets.clone()],
        Kind::Experiment(experiment) => {
            experiment.variants.iter().map(|variant| variant.buckets.clone()).collect()
        }
    }
}

fn range(start: u32, end: u32) -> BucketRange {
    BucketRange { start, end }
}

async fn an_overlay_gets_its_place_and_the_log_has_it(plane: Plane) {
    plane.acme().await;
    let one = put(&plane, canary("one", "shared", 1_000)).await.unwrap();
    let two = put(&plane, canary("two", "shared", 500)).await.unwrap();
    assert_eq!(buckets(&one), [[range(0, 1_000)]]);
    assert_eq!(buckets(&two), [[range(1_000, 1_500)]]);
    assert_eq!((one.revision, two.revision), (4, 5));
    assert_eq!(listed(&plane).await, [one.clone(), two]);
    let events = plane.events().await;
    let Some(Change::OverlayPut(logged)) = &events[3].changes[0].change else { panic!("{events:?}") };
    assert_eq!(*logged, Overlay { revision: 0, ..one });
    delete(&plane, "one").await.unwrap();
    assert_eq!(listed(&plane).await.len(), 1);
    assert_eq!(reason(delete(&plane, "one").await), Reason::UnknownOverlay);
}

async fn a_change_of_a_weight_moves_only_the_difference(plane: Plane) {
    plane.acme().await;
    let before = put(&plane, experiment("e", &[("a", 5_000), ("b", 3_000), ("c", 2_000)])).await.unwrap();
    assert_eq!(buckets(&before), [[range(0, 5_000)], [range(5_000, 8_000)], [range(8_000, 10_000)]]);
    let after = put(&plane, experiment("e", &[("a", 4_000), ("b", 3_000), ("c", 3_000)])).await.unwrap();
    let c = vec![range(4_000, 5_000), range(8_000, 10_000)];
    assert_eq!(buckets(&after), [vec![range(0, 4_000)], vec![range(5_000, 8_000)], c]);
    // Whoever puts back what was read, with another weight, means the weight.
    let mut read = listed(&plane).await.remove(0);
    let Some(Kind::Experiment(experiment)) = &mut read.kind else { panic!("{read:?}") };
    experiment.variants[2].weight = 2_500;
    let again = put(&plane, read).await.unwrap();
    assert_eq!(buckets(&again)[..2], buckets(&after)[..2]);
    assert_eq!(again.salt, before.salt);
}

async fn a_layer_is_full_at_all_of_its_units(plane: Plane) {
    plane.acme().await;
    put(&plane, canary("one", "shared", 9_000)).await.unwrap();
    let before = plane.revision().await;
    let refused = put(&plane, canary("two", "shared", 1_500)).await.map(drop);
    let facts = ["layer", "free", "wanted"].map(|key| fact(refused.clone(), key));
    assert_eq!(facts, ["shared", "1000", "1500"]);
    let message = refused.clone().unwrap_err().message().to_owned();
    assert!(message.contains("lower the weight") && message.contains("another layer"), "{message}");
    assert_eq!(reason(refused), Reason::InUse);
    stateless(&plane, true).await.unwrap();
    let by_user = Overlay { unit: Unit::User.into(), ..canary("two", "shared", 1) };
    assert_eq!(fact(put(&plane, by_user).await, "layer"), "shared");
    assert_eq!(plane.revision().await, before + 1);
    put(&plane, canary("two", "other", 1_500)).await.unwrap();
}

async fn a_salt_is_made_for_the_layer_and_never_taken(plane: Plane) {
    plane.acme().await;
    let one = put(&plane, Overlay { salt: "mine".into(), ..canary("one", "shared", 1) }).await.unwrap();
    let two = put(&plane, canary("two", "shared", 1)).await.unwrap();
    let alone = put(&plane, canary("three", "", 1)).await.unwrap();
    assert!(uuid::Uuid::parse_str(&one.salt).is_ok(), "{one:?}");
    assert_eq!(two.salt, one.salt);
    assert_eq!(alone.layer, "three");
    assert_ne!(alone.salt, one.salt);
}

async fn what_is_so_already_is_not_written(plane: Plane) {
    plane.acme().await;
    let first = put(&plane, canary("c", "", 100)).await.unwrap();
    plane.put_tenant("other").await;
    let before = plane.revision().await;
    assert_eq!(put(&plane, canary("c", "", 100)).await.unwrap(), first);
    assert_eq!(plane.revision().await, before);
    let request = |expected| PutOverlayRequest {
        overlay: Some(canary("c", "", 200)),
        write: expected,
        update_mask: Vec::new(),
    };
    for wrong in [0, first.revision + 1] {
        let refused = plane.catalog().put_overlay(request(expecting(wrong))).await.map(drop);
        assert_eq!(fact(refused.clone(), "present"), first.revision.to_string());
        assert_eq!(reason(refused), Reason::RevisionMismatch);
    }
    plane.catalog().put_overlay(request(expecting(first.revision))).await.unwrap();
}

async fn what_an_overlay_needs_stays(plane: Plane) {
    plane.acme().await;
    let by_user = |unit: Unit| Overlay { unit: unit.into(), ..canary("c", "", 100) };
    let refused = put(&plane, by_user(Unit::User)).await.map(drop);
    assert!(refused.clone().unwrap_err().message().contains("stateless"), "{refused:?}");
    assert_eq!(reason(refused), Reason::InvalidArgument);
    let elsewhere = Overlay { service: "nothing".into(), ..canary("c", "", 100) };
    assert_eq!(reason(put(&plane, elsewhere).await), Reason::UnknownService);
    let kind = Canary { baseline: "1.0".into(), canary: "7.0".into(), weight: 1, buckets: Vec::new() };
    let unknown = Overlay { kind: Some(Kind::Canary(kind)), ..canary("c", "", 1) };
    assert_eq!(fact(put(&plane, unknown).await, "version"), "v7.0");
    assert_eq!(reason(put(&plane, canary("c", "", 10_001)).await), Reason::InvalidArgument);

    stateless(&plane, true).await.unwrap();
    put(&plane, by_user(Unit::Request)).await.unwrap();
    let before = plane.revision().await;
    let refused = stateless(&plane, false).await;
    assert_eq!(
        (fact(refused.clone(), "by"), fact(refused.clone(), "overlays")),
        ("overlays".into(), "c".into())
    );
    assert_eq!(reason(refused), Reason::InUse);
    let version = |version: &str| DeleteVersionRequest {
        service: "payment".into(),
        version: version.into(),
        write: None,
    };
    assert_eq!(fact(plane.catalog().delete_version(version("2.0")).await, "by"), "overlays");
    assert_eq!(fact(plane.catalog().delete_version(version("1.0")).await, "by"), "default,overlays");
    assert_eq!(plane.revision().await, before);
    delete(&plane, "c").await.unwrap();
    stateless(&plane, false).await.unwrap();
    plane.catalog().delete_version(version("2.0")).await.unwrap();
}

async fn a_service_goes_with_its_overlays(plane: Plane) {
    plane.acme().await;
    put(&plane, canary("c", "", 100)).await.unwrap();
    let request = DeleteServiceRequest { id: "payment".into(), write: None };
    plane.catalog().delete_service(request).await.unwrap();
    plane.put_service("payment", "1.0").await;
    assert!(listed(&plane).await.is_empty());
}

async fn overlays_are_bounded_in_number(plane: Plane) {
    plane.acme().await;
    for i in 0..MAX_OVERLAYS {
        put(&plane, canary(&format!("c{i}"), "shared", 1)).await.unwrap();
    }
    assert_eq!(reason(put(&plane, canary("one-more", "shared", 1)).await), Reason::TooLarge);
    put(&plane, canary("c0", "shared", 2)).await.unwrap();
}
