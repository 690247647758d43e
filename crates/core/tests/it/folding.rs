//! Events folded into a table: digests, records, persistence, order.

use crate::fixture::{Random, apply, declare, event, known, observed_schema, open, pin_to, service, tenant};
use crate::history::{SERVICES, TENANTS, asked, fold, history, some_change, some_instances, valid_history};
use grey_core::change::{Change, Position};
use grey_core::decide::{Call, choose_version, decide};
use grey_core::key::Key;
use grey_core::record::{Record, TenantRecord};
use grey_core::table::Table;
use grey_core::tenant::Tenant;
use proptest::prelude::*;
use std::collections::BTreeMap;

pub(crate) fn records(table: &Table) -> Vec<Record> {
    let services = table.service_records().map(Record::Service);
    services.chain(table.tenant_records().map(Record::Tenant)).collect()
}

/// Records in one order, for comparing tables.
pub(crate) fn sorted(table: &Table) -> Vec<String> {
    let mut texts: Vec<String> = records(table)
        .into_iter()
        .map(|record| match record {
            Record::Service(record) => format!("{record:?}"),
            Record::Tenant(mut record) => {
                record.pins.sort_by(|a, b| a.0.cmp(&b.0));
                record.schemas.sort_by(|a, b| a.0.cmp(&b.0));
                record.holds.sort_by(|a, b| a.0.cmp(&b.0));
                format!("{record:?}")
            }
        })
        .collect();
    texts.sort();
    texts
}

fn decided(table: &Table, call: &Call<'_>, random: u64) -> String {
    format!("{:?}", decide(table, call, &Random(random).moment(1_000)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn records_in_any_order_make_the_table_that_events_made(
        events in valid_history(),
        instances in some_instances(),
        calls in prop::collection::vec(asked(), 1..12),
        seed: u64,
    ) {
        let (folded, _) = fold(&events, &instances);
        let mut parts = records(&folded);
        Random(seed).shuffle(&mut parts);
        let mut loaded = Table::default();
        // Instances have a feed of their own and may come first.
        let early = seed.is_multiple_of(2);
        let place = |table: &mut Table| instances.iter().for_each(|(of, list)| table.set_instances(of, list.clone()));
        if early { place(&mut loaded) }
        parts.into_iter().for_each(|record| loaded.insert(record));
        if !early { place(&mut loaded) }
        loaded.set_position(folded.position());
        prop_assert_eq!(loaded.digest(), folded.digest());
        prop_assert_eq!(loaded.position(), folded.position());
        prop_assert_eq!(sorted(&loaded), sorted(&folded));
        for call in &calls {
            prop_assert_eq!(decided(&loaded, &call.call(), seed), decided(&folded, &call.call(), seed));
        }
    }

    #[test]
    fn tenants_that_are_pinned_together_are_as_if_pinned_one_by_one(
        steps in prop::collection::vec((0_u8..5, 0_u8..6, 0_u8..2, 1_u8..4), 1..40),
    ) {
        let step = |&(kind, tenant, service, number): &(u8, u8, u8, u8)| {
            let (tenant, service, number) = (format!("t{tenant}"), format!("s{service}"), number.to_string());
            match kind {
                0 => known(&tenant),
                1 => observed_schema(&tenant, &service, &number),
                _ => pin_to(&tenant, &service, &number),
            }
        };
        let changes: Vec<Change> = steps.iter().map(step).collect();
        let (mut together, mut one_by_one) = (Table::default(), Table::default());
        together.apply_again(&event(1, changes.clone()));
        for change in changes {
            one_by_one.apply_again(&event(1, vec![change]));
        }
        prop_assert_eq!(together.digest(), one_by_one.digest());
        prop_assert_eq!(together.tenant_count(), one_by_one.tenant_count());
        prop_assert_eq!(sorted(&together), sorted(&one_by_one));
    }

    #[test]
    fn the_digest_depends_on_the_facts_and_not_on_their_order(events in history(), seed: u64) {
        let (folded, model) = fold(&events, &BTreeMap::new());
        let mut facts = model.puts();
        Random(seed).shuffle(&mut facts);
        let mut direct = Table::default();
        direct.apply_again(&event(1, facts));
        prop_assert_eq!(direct.digest(), folded.digest());
    }

    #[test]
    fn what_is_undone_leaves_the_digest_as_it_was(events in history(), changes in prop::collection::vec(some_change(), 1..4)) {
        let (mut table, before) = fold(&events, &BTreeMap::new());
        let digest = table.digest();
        let mut after = before.clone();
        changes.iter().for_each(|change| after.change(change));
        apply(&mut table, changes);
        apply(&mut table, after.changes_to(&before));
        prop_assert_eq!(table.digest(), digest);
    }

    #[test]
    fn a_table_from_which_everything_is_removed_is_empty(events in history()) {
        let (mut table, _) = fold(&events, &BTreeMap::new());
        let mut changes: Vec<Change> = TENANTS.iter().map(|id| Change::Removed(Key::Tenant(tenant(id)))).collect();
        changes.extend(SERVICES.iter().map(|id| Change::Removed(Key::Service(service(id)))));
        apply(&mut table, changes);
        prop_assert_eq!(table.digest(), 0);
        prop_assert_eq!((table.tenant_count(), table.service_count(), records(&table)), (0, 0, Vec::new()));
    }

    #[test]
    fn different_facts_have_different_digests(events in history(), change in some_change()) {
        let (mut table, before) = fold(&events, &BTreeMap::new());
        let (digest, mut after) = (table.digest(), before.clone());
        after.change(&change);
        apply(&mut table, vec![change]);
        // A default policy is none, and names are not part of decisions; neither is generated to differ alone.
        let none = |model: &crate::model::Model| {
            let mut model = model.clone();
            model.policies.retain(|_, policy| *policy != Default::default());
            model
        };
        prop_assert_eq!(table.digest() == digest, none(&before) == none(&after));
    }

    #[test]
    fn older_tables_answer_as_before(
        events in history(),
        instances in some_instances(),
        calls in prop::collection::vec(asked(), 1..6),
    ) {
        let answer = |table: &Table| -> Vec<String> {
            let version = |call: &crate::history::Asked| format!("{:?}", choose_version(table, &call.call()).map(|c| (c.version, c.rule, c.detour, c.schema)));
            calls.iter().map(version).chain([table.digest().to_string()]).chain(sorted(table)).collect()
        };
        let mut table = Table::default();
        let mut kept = Vec::new();
        for (at, event) in events.iter().enumerate() {
            table.apply(event).unwrap();
            if at == events.len() / 2 {
                instances.iter().for_each(|(of, list)| table.set_instances(of, list.clone()));
            }
            kept.push((table.clone(), answer(&table)));
        }
        for (older, said) in kept {
            prop_assert_eq!(answer(&older), said);
        }
    }
}

#[test]
fn an_event_out_of_order_is_refused_and_changes_nothing() {
    let mut table = Table::default();
    apply(&mut table, vec![declare("s", "1")]);
    apply(&mut table, vec![open("s", "1")]);
    let before = (table.digest(), table.position());
    for revision in [0, 1, 2, 4, u64::MAX] {
        let refused = table.apply(&event(revision, vec![declare("s", "2")])).unwrap_err();
        assert_eq!((refused.event, refused.table), (revision, 2));
    }
    assert_eq!((table.digest(), table.position()), before);
    table.apply(&event(3, vec![declare("s", "2")])).unwrap();
}

#[test]
fn a_tenants_pins_to_several_services_change_at_once() {
    let services: Vec<String> = (0..40).map(|at| format!("s{at}")).collect();
    let mut table = Table::default();
    let declared = services.iter().flat_map(|id| [declare(id, "1"), open(id, "1"), open(id, "2")]);
    apply(&mut table, declared.chain([known("t")]).collect());
    let versions = |table: &Table| -> Vec<String> {
        services
            .iter()
            .map(|id| choose_version(table, &Call::new("t", id)).unwrap().version.to_string())
            .collect()
    };
    let before = table.clone();
    apply(&mut table, services.iter().map(|id| pin_to("t", id, "2")).collect());
    assert_eq!(versions(&before), vec!["v1.0"; 40]);
    assert_eq!(versions(&table), vec!["v2.0"; 40]);
}

#[test]
fn of_two_pins_in_a_record_the_last_one_counts() {
    let mut twice = Table::default();
    apply(&mut twice, vec![declare("s", "1"), open("s", "1"), open("s", "2")]);
    let mut once = twice.clone();
    let record = |pins: &[&str]| {
        Record::Tenant(TenantRecord {
            pins: pins.iter().map(|of| (service("s"), crate::fixture::pin(of))).collect(),
            ..Tenant::new(tenant("t")).into()
        })
    };
    twice.insert(record(&["1", "2"]));
    once.insert(record(&["2"]));
    assert_eq!(twice.digest(), once.digest());
    assert_eq!(choose_version(&twice, &Call::new("t", "s")).unwrap().version.as_str(), "v2.0");
    apply(&mut twice, vec![Change::Removed(Key::Tenant(tenant("t")))]);
    apply(&mut once, vec![Change::Removed(Key::Tenant(tenant("t")))]);
    assert_eq!(twice.digest(), once.digest());
}

#[test]
fn a_record_replaces_what_was_known_of_its_tenant() {
    let mut table = Table::default();
    apply(&mut table, vec![declare("s", "1"), known("t"), pin_to("t", "s", "2")]);
    let digest = table.digest();
    let record = table.tenant_records().next().unwrap();
    table.insert(Record::Tenant(record));
    assert_eq!(table.digest(), digest);
    assert_eq!(
        table.position(),
        Position { revision: grey_core::change::Revision(1), ..Position::default() }
    );
}
