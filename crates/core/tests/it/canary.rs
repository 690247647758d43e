//! Shares of overlays: exact, monotone, independent.

use crate::fixture::{apply, declare, open, overlay, service, table, tenant, version};
use grey_core::change::Change;
use grey_core::decide::{Call, Rule, choose_version};
use grey_core::policy::{Match, Overlay, OverlayKind, Policy, Strategy, Unit, UnknownTenant, Variant};
use grey_core::table::Table;
use std::collections::BTreeSet;

const TENANTS: usize = 4_000;

fn overlaid(overlays: Vec<Overlay>) -> Table {
    let mut table = table(Strategy::RoundRobin, Vec::new());
    apply(&mut table, ["1", "2", "3"].map(|of| open("s", of)).to_vec());
    let policy =
        Policy { overlays, unknown_tenant: UnknownTenant::UseDefault, stateless: true, ..Policy::default() };
    apply(&mut table, vec![Change::PolicyPut { service: service("s"), policy }]);
    table
}

fn canary(id: &str, to: &str, weight: u32) -> Overlay {
    let kind = OverlayKind::Canary { baseline: version("1"), canary: version(to), weight };
    Overlay { id: overlay(id), salt: id.to_owned(), unit: Unit::Tenant, matching: Match::default(), kind }
}

fn experiment(weights: [u32; 2]) -> Overlay {
    let variant = |id, of, weight| Variant { id: overlay(id), version: version(of), weight };
    let kind = OverlayKind::Experiment(vec![variant("a", "2", weights[0]), variant("b", "3", weights[1])]);
    Overlay { kind, ..canary("e", "2", 0) }
}

/// Tenants that get this version.
fn on(table: &Table, of: &str) -> BTreeSet<String> {
    let all = (0..TENANTS).map(|at| format!("t{at}"));
    all.filter(|id| choose_version(table, &Call::new(id, "s")).unwrap().version == &version(of)).collect()
}

#[test]
fn raising_a_canary_only_adds_tenants() {
    let mut before = BTreeSet::new();
    for weight in [0, 100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000] {
        let now = on(&overlaid(vec![canary("c", "2", weight)]), "2");
        assert!(now.is_superset(&before), "{weight}");
        let expected = TENANTS as f64 * f64::from(weight) / 10_000.0;
        // Four standard deviations of a binomial share.
        let slack = 4.0 * (expected * (1.0 - f64::from(weight) / 10_000.0)).sqrt();
        assert!((now.len() as f64 - expected).abs() <= slack, "{} of {expected} at {weight}", now.len());
        before = now;
    }
}

#[test]
fn raising_an_experiments_last_arm_moves_nobody_else() {
    let (small, large) =
        (overlaid(vec![experiment([2_000, 1_000])]), overlaid(vec![experiment([2_000, 3_000])]));
    assert_eq!(on(&small, "2"), on(&large, "2"));
    assert!(on(&large, "3").is_superset(&on(&small, "3")));
    assert!(on(&small, "2").is_disjoint(&on(&small, "3")));
}

#[test]
fn overlays_with_salts_of_their_own_choose_independently() {
    let first = on(&overlaid(vec![canary("c1", "2", 5_000)]), "2");
    let second = on(&overlaid(vec![canary("c2", "2", 5_000)]), "2");
    let both = first.intersection(&second).count();
    assert!((880..1_120).contains(&both), "{both} of {TENANTS}, a quarter expected");
}

#[test]
fn experiments_come_first_and_a_locked_pin_is_left_alone() {
    let mut table = overlaid(vec![canary("c", "2", 10_000), experiment([0, 10_000])]);
    let rule = |table: &Table| format!("{:?}", choose_version(table, &Call::new("t", "s")).unwrap().rule);
    let expected = Rule::Experiment { overlay: &overlay("e"), variant: &overlay("b") };
    assert_eq!(rule(&table), format!("{expected:?}"));
    let put = Change::TenantPut(grey_core::tenant::Tenant::new(tenant("t")));
    let pin = |locked| Change::PinPut {
        tenant: tenant("t"),
        service: service("s"),
        pin: grey_core::service::Pin { version: version("1"), locked },
    };
    apply(&mut table, vec![put, pin(true)]);
    assert_eq!(rule(&table), "Pin");
    apply(&mut table, vec![pin(false)]);
    assert_eq!(rule(&table), format!("{expected:?}"));
}

#[test]
fn a_canary_takes_only_from_its_baseline() {
    let mut table = overlaid(vec![canary("c", "3", 10_000)]);
    assert_eq!(on(&table, "3").len(), TENANTS);
    apply(&mut table, vec![declare("s", "2")]);
    assert_eq!(on(&table, "3").len(), 0);
}
