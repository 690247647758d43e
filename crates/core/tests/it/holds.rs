//! Holds: a strict move refuses exactly the calls of the tenants that it moves.

use crate::fixture::{Random, apply, declare, instance, known, open, pin_to, service, tenant, version};
use crate::history::{asked, fold, history, some_instances};
use grey_core::balance::Moment;
use grey_core::change::Change;
use grey_core::decide::{Call, choose_version, decide};
use grey_core::error::{Reason, Refusal};
use grey_core::explain::explain;
use grey_core::key::{Fact, Key};
use grey_core::service::Hold;
use grey_core::table::Table;
use grey_core::tenant::TenantStatus;
use proptest::prelude::*;

fn hold(tenant_id: &str, service_id: &str, to: &str) -> Change {
    let hold = Hold { to: version(to), until_ms: 7 };
    Change::Put(Fact::Hold(tenant(tenant_id), service(service_id), hold))
}

fn lifted(table: &Table) -> Vec<Change> {
    let keys = table.holds().map(|(tenant, service, _)| Key::Hold(tenant.clone(), service.clone()));
    keys.map(Change::Removed).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn exactly_the_calls_of_held_pairs_are_refused(
        events in history(),
        instances in some_instances(),
        calls in prop::collection::vec(asked(), 1..24),
        more in prop::collection::btree_set((0..3usize, 0..2usize), 0..4),
        seed: u64,
    ) {
        let (mut table, model) = fold(&events, &instances);
        let pair = |(of, to): &(usize, usize)| (crate::history::TENANTS[*of], crate::history::SERVICES[*to]);
        apply(&mut table, more.iter().map(|at| hold(pair(at).0, pair(at).1, "2.0")).collect());
        let mut free = table.clone();
        apply(&mut free, lifted(&table));
        prop_assert_eq!(free.holds().count(), 0);
        let held = |call: &Call<'_>| {
            let declared = model.tenants.get(call.tenant).is_some_and(|tenant| tenant.status == TenantStatus::Active);
            let before = model.holds.keys().any(|(of, to)| (of.as_str(), to.as_str()) == (call.tenant, call.service));
            let present = before || more.iter().any(|at| pair(at) == (call.tenant, call.service));
            declared && present && model.defaults.contains_key(call.service)
        };
        let mut random = Random(seed);
        for call in &calls {
            let call = call.call();
            let without = choose_version(&free, &call).map(|choice| (choice.version.clone(), choice.detour.is_some()));
            let with = choose_version(&table, &call).map(|choice| (choice.version.clone(), choice.detour.is_some()));
            if held(&call) {
                let refused = decide(&table, &call, &random.moment(1_000)).unwrap_err();
                prop_assert!(matches!(refused, Refusal::Moving { .. }), "{:?}", refused);
            } else {
                prop_assert_eq!(with, without);
            }
        }
    }
}

#[test]
fn a_held_tenant_is_refused_until_its_flip_and_no_other_is() {
    let mut table = Table::default();
    let declared = ["s", "other"].iter().flat_map(|id| [declare(id, "1"), open(id, "1"), open(id, "2")]);
    apply(&mut table, declared.chain([known("t"), known("u"), pin_to("t", "s", "1")]).collect());
    for id in ["s", "other"] {
        table.set_instances(&service(id), vec![instance("a", "1"), instance("b", "2")]);
    }
    let served = |table: &Table, tenant: &str, service: &str| {
        decide(table, &Call::new(tenant, service), &Moment::default())
            .map(|decision| decision.version.to_string())
    };
    let before = table.digest();
    apply(&mut table, vec![hold("t", "s", "2")]);
    assert_ne!(table.digest(), before, "routers that have it differ from those that have not");
    let refused = served(&table, "t", "s").unwrap_err();
    assert_eq!((&refused, refused.reason()), (&Refusal::Moving { to: version("2") }, Reason::TenantMoving));
    assert!(refused.reason().retry_after().is_some(), "asking again helps");
    let told = explain(&table, &Call::new("t", "s"), &Moment::default());
    let last = told.steps.last().unwrap();
    assert_eq!((last.name, last.outcome.as_str()), ("hold", "refused while it is moved to v2.0"));
    for (tenant, service) in [("u", "s"), ("t", "other")] {
        assert_eq!(served(&table, tenant, service).unwrap(), "v1.0", "{tenant} {service}");
    }
    let lift = Change::Removed(Key::Hold(tenant("t"), service("s")));
    let mut taken_back = table.clone();
    apply(&mut taken_back, vec![lift.clone()]);
    assert_eq!((served(&taken_back, "t", "s").unwrap().as_str(), taken_back.digest()), ("v1.0", before));
    apply(&mut table, vec![lift, pin_to("t", "s", "2")]);
    assert_eq!(served(&table, "t", "s").unwrap(), "v2.0");
}
