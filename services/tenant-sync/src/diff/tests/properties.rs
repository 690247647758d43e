//! Any control plane, any list.

use grey_core::ids::Name;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use super::*;

fn any_id() -> impl Strategy<Value = TenantId> {
    "[a-f][0-4]".prop_map(|text| id(&text))
}

fn any_status() -> impl Strategy<Value = TenantStatus> {
    prop_oneof![
        6 => Just(TenantStatus::Active),
        1 => Just(TenantStatus::Suspended),
        1 => Just(TenantStatus::Maintenance),
    ]
}

fn any_name() -> impl Strategy<Value = Name> {
    "[xyz]".prop_map(|text| key(&text))
}

fn any_tenant() -> impl Strategy<Value = Tenant> {
    let marks = (option::weighted(0.8, Just("tenant-sync")), option::weighted(0.2, 0_u64..60));
    let attributes = (option::of(any_name()), vec(any_name(), 0..2), btree_map(any_name(), "[ab]", 0..3));
    (any_id(), any_status(), "[AB]", attributes, marks).prop_map(|(id, status, name, attributes, marks)| {
        let (tier, residency, mut labels) = attributes;
        if let Some(by) = marks.0 {
            labels.insert(key(MANAGED_BY), by.to_owned());
        }
        if let Some(days) = marks.1 {
            labels.insert(key(DELETED_AT), stamp(now() - DAY * u32::try_from(days).unwrap()));
        }
        Tenant { name, status, tier, residency, labels, ..Tenant::new(id) }
    })
}

fn any_sourced() -> impl Strategy<Value = Arc<Sourced>> {
    let labels = btree_map(any_name(), option::of("[ab]"), 0..3);
    let name = option::of("[AB]");
    let tier = option::of(option::of(any_name()));
    (name, option::weighted(0.9, any_status()), tier, labels).prop_map(|(name, status, tier, labels)| {
        Arc::new(Sourced { name, status, tier, labels, ..Sourced::default() })
    })
}

fn any_roster() -> impl Strategy<Value = Roster> {
    (btree_map(any_id(), any_sourced(), 0..25), btree_set(any_id(), 0..3), 0_u64..2).prop_map(
        |(mut tenants, present, unidentified)| {
            tenants.retain(|id, _| !present.contains(id));
            Roster { tenants, present, unidentified: strangers(unidentified), ..Roster::default() }
        },
    )
}

fn any_world() -> impl Strategy<Value = World> {
    let tenants = btree_map(any_id(), any_tenant(), 0..30);
    (tenants, 0.0..=1.0_f64, 0_u64..4, any::<bool>()).prop_map(
        |(tenants, share, allow, tells_maintenance)| {
            let mut world = World::of(tenants.into_iter().map(|(id, tenant)| Tenant { id, ..tenant }));
            world.rules = Rules { share, allow, tells_maintenance, ..rules() };
            world
        },
    )
}

fn lost(before: &Known, after: &Known) -> Vec<TenantId> {
    let active = |known: &Known, id: &TenantId| {
        known.tenants().get(id).is_some_and(|entry| entry.tenant.status == TenantStatus::Active)
    };
    before.tenants().keys().filter(|id| active(before, id) && !active(after, id)).cloned().collect()
}

proptest! {
    #[test]
    fn afterwards_the_control_plane_says_what_the_list_says(world in any_world(), list in any_roster()) {
        let mut world = world;
        world.sync(&list);
        let plan = world.sync(&list);
        let held = plan.hold.as_ref().map(|hold| hold.losses.clone()).unwrap_or_default();
        for (id, sourced) in &list.tenants {
            let tenant = world.tenant(id.as_str());
            let kept = Tenant { status: world.status(id.as_str()), ..tenant.clone() };
            prop_assert!(world.rules.manages(tenant));
            prop_assert!(!tenant.labels.contains_key(DELETED_AT));
            if held.contains_key(id) {
                prop_assert_eq!(kept.status, TenantStatus::Active);
                continue;
            }
            prop_assert_eq!(merge::merged(&kept, sourced, &world.rules), None);
        }
        for (id, entry) in world.known.tenants() {
            let is_ours = world.rules.manages(&entry.tenant) && !lists(&list, id);
            if is_ours && !held.contains_key(id) {
                prop_assert!(gone_since(&entry.tenant).is_some(), "{:?}", entry);
            }
        }
    }

    #[test]
    fn a_plan_that_was_applied_leaves_nothing_to_do(world in any_world(), list in any_roster()) {
        let mut world = world;
        world.missing.count(&world.known, &list, &world.rules, world.uptime);
        let in_service = in_service(&world.known, &list, &world.rules);
        let first = world.facts(&list, in_service).plan(&world.known);
        world.apply(&first);
        let second = world.facts(&list, in_service).plan(&world.known);
        prop_assert_eq!(kinds(&second), []);
        prop_assert_eq!(second.hold, first.hold);
    }

    #[test]
    fn whoever_is_neither_ours_nor_listed_is_left_alone(world in any_world(), list in any_roster()) {
        let mut world = world;
        world.sync(&list);
        world.pass(world.rules.recheck);
        world.missing.count(&world.known, &list, &world.rules, world.uptime);
        for id in world.plan(&list).writes.into_iter().map(|write| write.tenant) {
            let entry = world.known.tenants().get(&id);
            let is_ours = entry.is_some_and(|entry| world.rules.manages(&entry.tenant));
            prop_assert!(is_ours || list.tenants.contains_key(&id));
            prop_assert!(!list.present.contains(&id));
        }
    }

    #[test]
    fn no_sync_takes_more_out_of_service_than_is_allowed(world in any_world(), list in any_roster()) {
        let mut world = world;
        for _ in 0..3 {
            let before = world.known.clone();
            let answers_for = count(before.tenants().iter().filter(|(id, entry)| {
                let is_ours = world.rules.manages(&entry.tenant) || lists(&list, id);
                is_ours && entry.tenant.status == TenantStatus::Active
            }));
            world.sync(&list);
            let lost = lost(&before, &world.known);
            let most = (world.rules.share * answers_for as f64).max(world.rules.allow as f64);
            prop_assert!(lost.len() as f64 <= most, "{lost:?} of {answers_for}");
        }
    }

    #[test]
    fn exactly_what_was_accepted_is_applied(world in any_world(), list in any_roster()) {
        let mut world = world;
        world.rules.share = 0.0;
        world.rules.allow = 0;
        world.sync(&list);
        let before = world.sync(&list);
        let Some(hold) = before.hold else { return Ok(()) };
        world.accepted = hold.losses.clone();
        let state = world.known.clone();
        let plan = world.sync(&list);
        prop_assert_eq!(plan.hold, None);
        let lost = lost(&state, &world.known);
        let was_active = |id: &&TenantId| state.tenants()[*id].tenant.status == TenantStatus::Active;
        let expected: Vec<_> = hold.losses.keys().filter(was_active).collect();
        prop_assert_eq!(lost.iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_quick_look_agrees_with_the_merge(tenant in any_tenant(), sourced in any_sourced(), tells in any::<bool>()) {
        let rules = Rules { tells_maintenance: tells, ..rules() };
        let mut overwritten = tenant.clone();
        if let Some(merged) = merge::merged(&tenant, &sourced, &rules) {
            prop_assert_ne!(&merged, &tenant);
            overwritten = merged;
        }
        prop_assert_eq!(merge::merged(&overwritten, &sourced, &rules), None);
    }
}
