//! Experiments and canaries: requests state weights, what is stored has buckets as well.

use super::{refused, s};
use crate::control::{self, metadata_predicate, overlay};
use crate::convert::{MAX_METADATA_KEY, MAX_METADATA_VALUE};
use grey_core::ids::ServiceId;
use grey_core::policy::{MAX_LIST, Match, Overlay, OverlayKind, Predicate, Test, Unit};
use grey_core::record::ServiceRecord;
use std::collections::BTreeMap;

type Ranges<'a> = &'a [(u32, u32)];

fn ranges(ranges: Ranges<'_>) -> Vec<control::BucketRange> {
    ranges.iter().map(|(start, end)| control::BucketRange { start: *start, end: *end }).collect()
}

fn overlay(id: &str, kind: overlay::Kind) -> control::Overlay {
    control::Overlay { service: s("payment"), id: s(id), kind: Some(kind), ..Default::default() }
}

fn canary(weight: u32, buckets: Ranges<'_>) -> control::Overlay {
    let (baseline, canary) = (s("1"), s("2"));
    overlay(
        "c",
        overlay::Kind::Canary(control::Canary { baseline, canary, weight, buckets: ranges(buckets) }),
    )
}

/// An experiment whose arms `a`, `b` and so on have these weights and buckets.
fn experiment(arms: &[(u32, Ranges<'_>)]) -> control::Overlay {
    let arm = |(id, (weight, buckets)): (char, &(u32, Ranges<'_>))| control::Variant {
        id: id.to_string(),
        version: s("2"),
        weight: *weight,
        buckets: ranges(buckets),
    };
    split(('a'..).zip(arms).map(arm).collect())
}

fn split(variants: Vec<control::Variant>) -> control::Overlay {
    overlay("e", overlay::Kind::Experiment(control::Experiment { variants, includes_pinned: false }))
}

fn read(message: control::Overlay) -> Overlay {
    Overlay::try_from(message).unwrap()
}

/// The buckets of each arm; a canary has one.
fn buckets_of(overlay: &Overlay) -> Vec<Vec<(u32, u32)>> {
    match &overlay.kind {
        OverlayKind::Canary(canary) => vec![canary.buckets.ranges().to_vec()],
        OverlayKind::Experiment(experiment) => {
            experiment.variants.iter().map(|arm| arm.buckets.ranges().to_vec()).collect()
        }
    }
}

#[test]
fn absent_things_read_as_the_documented_defaults() {
    let read = read(canary(1, &[]));
    assert_eq!(read.unit, Unit::Tenant);
    assert_eq!(read.matching, Match::default());
    assert_eq!(read.order, 0);
    assert_eq!(read.layer, read.id, "a layer of its own");
    assert!(!read.salt.is_empty(), "what splits units has a salt");
}

#[test]
fn weights_without_buckets_get_the_first_free_ones() {
    assert_eq!(buckets_of(&read(canary(0, &[]))), [[]]);
    assert_eq!(buckets_of(&read(canary(10_000, &[]))), [[(0, 10_000)]]);
    let arms = buckets_of(&read(experiment(&[(500, &[]), (0, &[]), (9_500, &[])])));
    assert_eq!(arms, [vec![(0, 500)], vec![], vec![(500, 10_000)]]);
    let arms = buckets_of(&read(experiment(&[(200, &[(100, 300)]), (150, &[])])));
    assert_eq!(arms, [vec![(100, 300)], vec![(0, 100), (300, 350)]], "around what is given");
}

#[test]
fn buckets_that_are_given_are_kept() {
    let apart: Ranges<'_> = &[(0, 10), (9_000, 10_000)];
    assert_eq!(buckets_of(&read(canary(1_010, apart))), [apart]);
    let arms = read(experiment(&[(10, &[(10, 20)]), (10, &[(0, 10)])]));
    assert_eq!(buckets_of(&arms), [[(10, 20)], [(0, 10)]]);
    let written = control::Overlay::from(&read(canary(1_010, apart)));
    let Some(overlay::Kind::Canary(written)) = written.kind else { panic!("{written:?}") };
    assert_eq!((written.weight, written.buckets), (1_010, ranges(apart)));
}

#[test]
fn buckets_that_are_no_set_of_their_weight_are_refused_by_path() {
    let arm = "experiment.variants[1]";
    let second = |weight, buckets| experiment(&[(1, &[]), (weight, buckets)]);
    for wrong in [&[(5, 5)][..], &[(9, 5)], &[(0, 5), (5, 9)], &[(5, 9), (0, 2)], &[(9_999, 10_001)]] {
        refused::<Overlay, _>(canary(4, wrong), "canary.buckets", "must be in order");
        refused::<Overlay, _>(second(4, wrong), &format!("{arm}.buckets"), "must be in order");
    }
    refused::<Overlay, _>(canary(3, &[(0, 2)]), "canary.buckets", "are 2 parts, not 3");
    refused::<Overlay, _>(canary(0, &[(0, 2)]), "canary.buckets", "are 2 parts, not 0");
    refused::<Overlay, _>(second(3, &[(7, 9)]), &format!("{arm}.buckets"), "are 2 parts, not 3");
    refused::<Overlay, _>(canary(10_001, &[]), "canary.weight", "10001 is more than what is left of 10000");
    refused::<Overlay, _>(canary(u32::MAX, &[]), "canary.weight", "more than what is left");
    let weights = experiment(&[(9_000, &[]), (1_001, &[])]);
    refused::<Overlay, _>(weights, &format!("{arm}.weight"), "1001 is more than what is left");
    let shared = experiment(&[(4, &[(0, 4)]), (4, &[(3, 7)])]);
    refused::<Overlay, _>(shared, "kind", "variants `a` and `b` share buckets");
}

#[test]
fn a_malformed_overlay_is_refused_by_path() {
    type Whole = (ServiceId, Overlay);
    let good = || canary(1, &[]);
    assert!(Whole::try_from(good()).is_ok());
    refused::<Whole, _>(control::Overlay { service: s(""), ..good() }, "service", "is empty");
    refused::<Whole, _>(control::Overlay { id: s(""), ..good() }, "id", "is empty");
    refused::<Whole, _>(control::Overlay { layer: s("{}"), ..good() }, "layer", "does not match");
    refused::<Whole, _>(control::Overlay { salt: "s".repeat(129), ..good() }, "salt", "at most 128");
    refused::<Whole, _>(control::Overlay { unit: 9, ..good() }, "unit", "9 is not");
    refused::<Whole, _>(control::Overlay { kind: None, ..good() }, "kind", "is required");
    let tenants = Some(control::Match { tenants: vec![s("")], ..Default::default() });
    refused::<Whole, _>(control::Overlay { r#match: tenants, ..good() }, "match.tenants[0]", "is empty");

    let pair = |baseline: &str, canary: &str| {
        let (baseline, canary) = (s(baseline), s(canary));
        overlay("c", overlay::Kind::Canary(control::Canary { baseline, canary, ..Default::default() }))
    };
    refused::<Whole, _>(pair("", "1"), "canary.baseline", "not a version");
    refused::<Whole, _>(pair("1", ""), "canary.canary", "not a version");
    refused::<Whole, _>(pair("1", "1.0"), "kind", "same version");

    let arm = |id: &str, version: &str| control::Variant {
        id: s(id),
        version: s(version),
        weight: 1,
        ..Default::default()
    };
    refused::<Whole, _>(split(vec![arm("", "1")]), "experiment.variants[0].id", "is empty");
    refused::<Whole, _>(split(vec![arm("a", "x")]), "experiment.variants[0].version", "not a version");
    refused::<Whole, _>(split(vec![arm("a", "1"); 17]), "experiment.variants", "at most 16");
    refused::<Whole, _>(split(vec![arm("a", "1"), arm("a", "2")]), "kind", "share an id");
    refused::<Whole, _>(split(Vec::new()), "kind", "no variants");
}

#[test]
fn an_overlay_in_a_record_is_about_the_records_service() {
    let service = control::Service { id: s("payment"), default_version: s("1"), revision: 0 };
    let record =
        |overlays| control::ServiceRecord { service: Some(service.clone()), overlays, ..Default::default() };
    let named =
        |id: &str, service: &str| control::Overlay { id: s(id), service: s(service), ..canary(1, &[]) };
    let read = ServiceRecord::try_from(record(vec![named("b", ""), named("a", "payment")])).unwrap();
    let ids: Vec<&str> = read.overlays.iter().map(|overlay| overlay.id.as_str()).collect();
    assert_eq!(ids, ["a", "b"], "by id, whatever the order was");
    let other = record(vec![named("a", ""), named("b", "other")]);
    refused::<ServiceRecord, _>(other, "overlays[1].service", "another service");
    refused::<ServiceRecord, _>(record(vec![named("", "")]), "overlays[0].id", "is empty");
    let twice = record(vec![named("a", ""), named("b", ""), named("a", "")]);
    refused::<ServiceRecord, _>(twice, "overlays", "`a` is there twice");
    let written = control::ServiceRecord::from(&read);
    assert!(written.overlays.iter().all(|overlay| overlay.service.is_empty()), "the service is named once");
}

#[test]
fn a_malformed_match_is_refused_by_path() {
    let many = || vec![s("a"); MAX_LIST + 1];
    let none = control::Match::default;
    refused::<Match, _>(control::Match { tenants: vec![s("")], ..none() }, "tenants[0]", "is empty");
    refused::<Match, _>(control::Match { tenants: many(), ..none() }, "tenants", "at most 1000");
    refused::<Match, _>(control::Match { tiers: vec![s("")], ..none() }, "tiers[0]", "is empty");
    refused::<Match, _>(control::Match { tiers: many(), ..none() }, "tiers", "at most 1000");
    refused::<Match, _>(control::Match { regions: vec![s("")], ..none() }, "regions[0]", "is empty");
    refused::<Match, _>(control::Match { regions: many(), ..none() }, "regions", "at most 1000");

    let label = |key: &str, values| BTreeMap::from([(s(key), control::Values { values })]);
    refused::<Match, _>(control::Match { labels: label("K", vec![]), ..none() }, "labels", "does not match");
    refused::<Match, _>(control::Match { labels: label("k", many()), ..none() }, "labels[k]", "at most 1000");
    let labels = label("k", vec!["v".repeat(129)]);
    refused::<Match, _>(control::Match { labels, ..none() }, "labels[k].values[0]", "at most 128");
    let labels = (0..=MAX_LIST).map(|i| (format!("k{i}"), control::Values::default())).collect();
    refused::<Match, _>(control::Match { labels, ..none() }, "labels", "at most 1000");

    let predicate = |key: &str, test| control::MetadataPredicate { key: s(key), test };
    refused::<Predicate, _>(predicate("", None), "key", "is required");
    refused::<Predicate, _>(predicate(&"k".repeat(MAX_METADATA_KEY + 1), None), "key", "at most 256");
    let long = || "v".repeat(MAX_METADATA_VALUE + 1);
    let test = Some(metadata_predicate::Test::Prefix(long()));
    refused::<Predicate, _>(predicate("k", test), "prefix", "at most 1024");
    let test = |values| Some(metadata_predicate::Test::In(control::Values { values }));
    refused::<Predicate, _>(predicate("k", test(vec![long()])), "in.values[0]", "at most 1024");
    refused::<Predicate, _>(predicate("k", test(many())), "in", "at most 1000");
    assert_eq!(Predicate::try_from(predicate("k", None)).unwrap().test, Test::Present);
    let metadata = vec![predicate("k", None), predicate("", None)];
    refused::<Match, _>(control::Match { metadata, ..none() }, "metadata[1].key", "is required");
    let metadata = vec![predicate("k", None); MAX_LIST + 1];
    refused::<Match, _>(control::Match { metadata, ..none() }, "metadata", "at most 1000");
}
