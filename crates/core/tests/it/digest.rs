//! The digest covers all of an overlay that decisions look at.

use crate::fixture::{apply, declare, known, open};
use crate::history::{asked, fold, history, some_overlay};
use crate::overlays::{canary, experiment, lay, with_pinned};
use grey_core::change::Change;
use grey_core::decide::choose_version;
use grey_core::ids::ServiceId;
use grey_core::key::Fact;
use grey_core::policy::{Buckets, Overlay, OverlayKind};
use grey_core::table::Table;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Takes one part of another overlay over.
type Graft = fn(&mut Overlay, &Overlay);

const GRAFTS: [Graft; 15] = [
    |into, from| into.id = from.id.clone(),
    |into, from| into.order = from.order,
    |into, from| into.salt.clone_from(&from.salt),
    |into, from| into.unit = from.unit,
    |into, from| into.matching.tenants.clone_from(&from.matching.tenants),
    |into, from| into.matching.tiers.clone_from(&from.matching.tiers),
    |into, from| into.matching.regions.clone_from(&from.matching.regions),
    |into, from| into.matching.labels.clone_from(&from.matching.labels),
    |into, from| into.matching.metadata.clone_from(&from.matching.metadata),
    |into, from| into.kind = from.kind.clone(),
    |into, from| match (&mut into.kind, &from.kind) {
        (OverlayKind::Canary(into), OverlayKind::Canary(from)) => into.baseline = from.baseline.clone(),
        (OverlayKind::Experiment(into), OverlayKind::Experiment(from)) => {
            into.includes_pinned = from.includes_pinned;
        }
        _ => {}
    },
    |into, from| match (&mut into.kind, &from.kind) {
        (OverlayKind::Canary(into), OverlayKind::Canary(from)) => into.canary = from.canary.clone(),
        (OverlayKind::Experiment(into), OverlayKind::Experiment(from)) => {
            into.variants[0].version = from.variants[0].version.clone();
        }
        _ => {}
    },
    |into, from| match (&mut into.kind, &from.kind) {
        (OverlayKind::Canary(into), OverlayKind::Canary(from)) => into.buckets = from.buckets.clone(),
        (OverlayKind::Experiment(into), OverlayKind::Experiment(from)) => {
            into.variants[0].buckets = from.variants[0].buckets.clone();
        }
        _ => {}
    },
    |into, _| {
        if let OverlayKind::Experiment(experiment) = &mut into.kind {
            experiment.variants.truncate(1);
        }
    },
    |into, _| {
        if let OverlayKind::Experiment(experiment) = &mut into.kind {
            experiment.variants[0].id = crate::fixture::overlay("another-arm");
        }
    },
];

fn digest(overlay: &Overlay) -> u64 {
    let mut table = Table::default();
    apply(&mut table, vec![lay(overlay.clone())]);
    table.digest()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn overlays_that_differ_in_any_part_have_different_digests(one in some_overlay(), other in some_overlay()) {
        for (at, graft) in GRAFTS.iter().enumerate() {
            let mut mixed = one.clone();
            graft(&mut mixed, &other);
            prop_assert_eq!(digest(&mixed) == digest(&one), mixed == one, "part {}: {:?}", at, mixed);
        }
    }

    #[test]
    fn tables_that_differ_in_a_decision_differ_in_their_digest(
        events in history(),
        overlays in (some_overlay(), some_overlay()),
        calls in prop::collection::vec(asked(), 1..12),
    ) {
        let (table, model) = fold(&events, &BTreeMap::new());
        let tables = [Some(&overlays.0), Some(&overlays.1), None].map(|overlay| {
            let mut table = table.clone();
            let lay = |of: &ServiceId| Some(Change::Put(Fact::Overlay(of.clone(), Box::new(overlay?.clone()))));
            apply(&mut table, model.defaults.keys().filter_map(lay).collect());
            table
        });
        for call in &calls {
            let chosen = |table: &Table| {
                choose_version(table, &call.call()).map(|c| format!("{} {:?} {:?}", c.version, c.rule, c.detour))
            };
            for (one, other) in [(0, 1), (0, 2), (1, 2)] {
                let same = chosen(&tables[one]) == chosen(&tables[other]);
                prop_assert!(same || tables[one].digest() != tables[other].digest());
            }
        }
    }
}

#[test]
fn the_digest_tells_weights_ranges_and_arms_apart() {
    let ranges = |ranges: &[(u32, u32)]| {
        let mut overlay = canary("o", ["1", "2"], 0);
        if let OverlayKind::Canary(canary) = &mut overlay.kind {
            canary.buckets = Buckets::from_ranges(ranges.to_vec()).unwrap();
        }
        overlay
    };
    let arms = |a: &str, b: &str| experiment("o", &[("a", a, 5_000), ("b", b, 5_000)]);
    let overlays = [
        ranges(&[]),
        ranges(&[(0, 2)]),
        ranges(&[(0, 1), (2, 3)]),
        ranges(&[(1, 3)]),
        ranges(&[(0, 10_000)]),
        arms("1", "2"),
        arms("2", "1"),
        with_pinned(arms("1", "2")),
        experiment("o", &[("a", "1", 5_000)]),
        experiment("o", &[("a", "1", 5_000), ("b", "2", 4_999)]),
    ];
    for (at, one) in overlays.iter().enumerate() {
        for other in &overlays[at + 1..] {
            assert_ne!(digest(one), digest(other), "{one:?} {other:?}");
        }
    }
}

#[test]
fn a_removed_overlay_leaves_the_digest_as_it_was() {
    let mut table = Table::default();
    apply(&mut table, vec![declare("s", "1"), open("s", "1"), open("s", "2"), known("t")]);
    let digest = table.digest();
    apply(&mut table, vec![lay(canary("c", ["1", "2"], 100))]);
    let first = table.digest();
    apply(&mut table, vec![lay(canary("c", ["1", "2"], 200))]);
    apply(&mut table, vec![lay(canary("c", ["1", "2"], 100))]);
    assert_eq!(table.digest(), first);
    let key = grey_core::key::Key::Overlay(crate::fixture::service("s"), crate::fixture::overlay("c"));
    apply(&mut table, vec![Change::Removed(key)]);
    assert_eq!(table.digest(), digest);
}
