//! Promoting what an overlay tries out moves nobody.

use crate::fixture::{
    apply, declare, instance, known, name, open, overlay, pin_to, policy, service, table, tenant, version,
};
use crate::history::{SERVICES, TENANTS, fold, some_instances, some_overlay, valid_history};
use crate::overlays::{canary, experiment, lay};
use grey_core::balance::Moment;
use grey_core::change::Change;
use grey_core::decide::{Call, choose_version, decide};
use grey_core::ids::OverlayId;
use grey_core::key::{Fact, Key};
use grey_core::moves::moves;
use grey_core::policy::{Failover, Overlay, OverlayKind, Policy, Predicate, Strategy as Balance, Test, Unit};
use grey_core::promotion::{NotPromotable, promotion};
use grey_core::service::Pin;
use grey_core::table::Table;
use grey_core::tenant::{Tenant, TenantStatus};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

fn after(table: &Table, changes: &[Change]) -> Table {
    let mut after = table.clone();
    apply(&mut after, changes.to_vec());
    after
}

/// The table with every tenant active.
fn woken(table: &Table) -> Table {
    let records = table.tenant_records();
    let wake =
        |tenant| Change::Put(Fact::Tenant(Box::new(Tenant { status: TenantStatus::Active, ..tenant })));
    after(table, &records.map(|record| wake(record.tenant)).collect::<Vec<_>>())
}

/// The overlay as one that splits by tenant alone.
fn by_tenant(mut overlay: Overlay) -> Overlay {
    overlay.unit = Unit::Tenant;
    overlay.matching.metadata.clear();
    overlay
}

fn winner(overlay: &Overlay) -> Option<OverlayId> {
    match &overlay.kind {
        OverlayKind::Canary(_) => None,
        OverlayKind::Experiment(experiment) => Some(experiment.variants[0].id.clone()),
    }
}

fn promoted(table: &Table, laid: &Overlay) -> Result<Vec<Change>, NotPromotable> {
    promotion(table, &service(SERVICES[0]), &laid.id, winner(laid).as_ref())
}

fn with(table: &Table, overlay: &Overlay) -> Table {
    after(table, &[Change::Put(Fact::Overlay(service(SERVICES[0]), Box::new(overlay.clone())))])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_promotion_moves_nobody_at_any_percentage(
        events in valid_history(),
        instances in some_instances(),
        laid in some_overlay().prop_map(by_tenant),
    ) {
        let table = with(&fold(&events, &instances).0, &laid);
        let Ok(changes) = promoted(&table, &laid) else { return Ok(()) };
        let told = moves(&table, &changes, 1);
        prop_assert_eq!(told.by_service().len(), 0, "{:?}", told);
        let then = after(&table, &changes);
        let (table, then) = (woken(&table), woken(&then));
        for tenant in TENANTS.into_iter().filter(|id| table.tenant(id).is_some_and(|row| row.profile().is_some())) {
            let call = Call::new(tenant, SERVICES[0]);
            let chosen = |table: &Table| choose_version(table, &call).map(|choice| choice.version.clone());
            prop_assert_eq!(chosen(&table).ok(), chosen(&then).ok());
            let decided = |table: &Table| decide(table, &call, &Moment::default()).map(|d| d.version.clone());
            if let Ok(version) = decided(&table) {
                prop_assert_eq!(decided(&then), Ok(version));
            }
        }
        let of = then.service(SERVICES[0]).unwrap();
        prop_assert!(of.overlays().iter().all(|overlay| overlay.id != laid.id));
    }
}

#[test]
fn many_random_overlays_can_be_promoted() {
    let mut runner = TestRunner::deterministic();
    let world = (valid_history(), some_instances(), some_overlay().prop_map(by_tenant));
    let mut done = 0;
    for _ in 0..300 {
        let (events, instances, laid) = world.new_tree(&mut runner).unwrap().current();
        done += usize::from(promoted(&with(&fold(&events, &instances).0, &laid), &laid).is_ok());
    }
    // Half of them lie beside one that splits by user, by request or by metadata.
    assert!(done > 75, "{done} of 300");
}

#[test]
fn nothing_is_promoted_beside_an_overlay_that_splits_the_calls_of_a_tenant() {
    let table = half_pinned(10_000);
    for unit in [Unit::User, Unit::Request] {
        let beside = Overlay { unit, ..canary("u", ["2", "3"], 10_000) };
        let refused = promote(&after(&table, &[lay(beside)]));
        assert_eq!(refused, Err(NotPromotable::Beside(overlay("u"))));
    }
    let beside = canary("t", ["2", "3"], 1);
    assert!(!matches!(promote(&after(&table, &[lay(beside)])), Err(NotPromotable::Beside(_))));
}

/// 2,000 tenants, half of them pinned to the baseline 1, of a service whose default is 1.
fn half_pinned(weight: u32) -> Table {
    let mut table = table(Balance::RoundRobin, Vec::new());
    apply(&mut table, vec![open("s", "2"), open("s", "3"), declare("s", "1")]);
    let id = |at: usize| format!("t{at:04}");
    apply(&mut table, (0..2_000).map(|at| known(&id(at))).collect());
    apply(&mut table, (0..1_000).map(|at| pin_to(&id(at), "s", "1")).collect());
    table.set_instances(&service("s"), ["1", "2", "3"].map(|of| instance(&format!("i{of}"), of)).to_vec());
    apply(&mut table, vec![lay(canary("c", ["1", "2"], weight))]);
    table
}

fn promote(table: &Table) -> Result<Vec<Change>, NotPromotable> {
    promotion(table, &service("s"), &overlay("c"), None)
}

fn pins(changes: &[Change]) -> Vec<&Pin> {
    let pin = |change| match change {
        &Change::Put(Fact::Pin(_, _, ref pin)) => Some(pin),
        _ => None,
    };
    changes.iter().filter_map(pin).collect()
}

#[test]
fn a_full_canary_takes_its_pinned_tenants_along_and_pins_nobody_else() {
    let table = half_pinned(10_000);
    let changes = promote(&table).unwrap();
    assert_eq!(moves(&table, &changes, 1).groups, []);
    let pins = pins(&changes);
    assert_eq!(pins.len(), 1_000);
    assert!(pins.iter().all(|pin| pin.version == version("2") && !pin.locked));
    let then = after(&table, &changes);
    assert_eq!(then.service("s").unwrap().default_version(), Some(&version("2")));
    assert!(then.service("s").unwrap().overlays().is_empty());
    // Without those pins they would all have gone back.
    let ending = [declare("s", "2"), Change::Removed(Key::Overlay(service("s"), overlay("c")))];
    assert_eq!(moves(&table, &ending, 1).largest(), 1_000);
}

#[test]
fn a_canary_of_a_share_holds_the_others_where_they_are() {
    let table = half_pinned(3_000);
    let changes = promote(&table).unwrap();
    assert_eq!(moves(&table, &changes, 1).groups, []);
    let (to_new, to_old): (Vec<&Pin>, Vec<&Pin>) =
        pins(&changes).into_iter().partition(|pin| pin.version == version("2"));
    assert!(
        (200..400).contains(&to_new.len()),
        "pinned to the baseline, taken by the canary: {}",
        to_new.len()
    );
    assert!((600..800).contains(&to_old.len()), "not pinned, left by the canary: {}", to_old.len());
    assert!(to_old.iter().all(|pin| pin.version == version("1")));
}

#[test]
fn locked_pins_and_sleeping_tenants_stay_what_they_are() {
    let mut table = half_pinned(10_000);
    let locked = Pin { version: version("1"), locked: true };
    apply(&mut table, vec![Change::Put(Fact::Pin(tenant("t0000"), service("s"), locked))]);
    let asleep = Tenant { status: TenantStatus::Suspended, ..Tenant::new(tenant("t0001")) };
    apply(&mut table, vec![Change::Put(Fact::Tenant(Box::new(asleep)))]);
    let changes = promote(&table).unwrap();
    let pinned = |id: &str| changes.iter().any(|change| change.key() == Key::Pin(tenant(id), service("s")));
    assert!(!pinned("t0000"));
    assert!(pinned("t0001"), "it wakes up on the canary's version");
}

#[test]
fn the_winner_of_an_experiment_becomes_the_default_and_losers_stay() {
    let mut table = half_pinned(0);
    let removed = Change::Removed(Key::Overlay(service("s"), overlay("c")));
    apply(&mut table, vec![removed, lay(experiment("e", &[("a", "2", 5_000), ("b", "3", 5_000)]))]);
    let changes = promotion(&table, &service("s"), &overlay("e"), Some(&overlay("a"))).unwrap();
    assert_eq!(moves(&table, &changes, 1).groups, []);
    assert!(pins(&changes).iter().all(|pin| pin.version == version("3")), "the pinned ones take no part");
    assert_eq!(after(&table, &changes).service("s").unwrap().default_version(), Some(&version("2")));
    let unnamed = promotion(&table, &service("s"), &overlay("e"), None);
    assert_eq!(unnamed, Err(NotPromotable::Variant));
}

#[test]
fn what_no_pin_can_hold_is_refused_by_name() {
    let mut table = half_pinned(10_000);
    apply(&mut table, vec![lay(canary("next", ["2", "3"], 10_000))]);
    match promote(&table) {
        Err(NotPromotable::WouldMove { tenants: 2_000, example, from }) => {
            assert_eq!((example, from), (tenant("t0000"), version("2")));
        }
        other => panic!("{other:?}"),
    }
    // One whose version is down is served by the default, and would be by the new one.
    let mut table = half_pinned(0);
    apply(&mut table, vec![open("s", "4"), pin_to("t0000", "s", "4")]);
    apply(&mut table, vec![policy(Policy { failover: Failover::ToDefault, ..Policy::default() })]);
    assert!(matches!(promote(&table), Err(NotPromotable::WouldMove { tenants: 1, .. })));
}

#[test]
fn overlays_that_split_tenants_are_not_promoted() {
    let mut table = half_pinned(10_000);
    assert_eq!(
        promotion(&table, &service("t"), &overlay("c"), None),
        Err(NotPromotable::UnknownService(service("t")))
    );
    assert_eq!(
        promotion(&table, &service("s"), &overlay("d"), None),
        Err(NotPromotable::UnknownOverlay(service("s"), overlay("d")))
    );
    let refused = Err(NotPromotable::NotByTenant(overlay("c")));
    let mut about_calls = canary("c", ["1", "2"], 10_000);
    about_calls.matching.metadata = vec![Predicate { key: "beta".to_owned(), test: Test::Present }];
    apply(&mut table, vec![lay(about_calls)]);
    assert_eq!(promote(&table), refused);
    apply(&mut table, vec![lay(Overlay { unit: Unit::User, ..canary("c", ["1", "2"], 10_000) })]);
    assert_eq!(promote(&table), refused);
    apply(&mut table, vec![lay(canary("c", ["1", "9"], 10_000))]);
    assert_eq!(promote(&table), Err(NotPromotable::Undeclared(version("9"))));
}

#[test]
fn a_match_is_heeded() {
    let mut table = half_pinned(0);
    let mut of_gold = canary("c", ["1", "2"], 10_000);
    of_gold.matching.tiers = [name("gold")].into();
    let gold = Tenant { tier: Some(name("gold")), ..Tenant::new(tenant("t0000")) };
    apply(&mut table, vec![Change::Put(Fact::Tenant(Box::new(gold))), lay(of_gold)]);
    let changes = promote(&table).unwrap();
    assert_eq!(moves(&table, &changes, 1).groups, []);
    assert_eq!(pins(&changes).len(), 1 + 1_000, "the pinned gold one, and those that follow the default");
}
