#![allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

fn rules() -> Rules {
    Rules {
        managed_by: "tenant-sync".to_owned(),
        tells_maintenance: true,
        missing_pulls: 2,
        recheck: Duration::from_secs(60),
        retain: 30 * DAY,
        share: 0.1,
        allow: 1,
    }
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + 20_000 * DAY
}

fn id(text: &str) -> TenantId {
    TenantId::new(text).unwrap()
}

/// An active tenant of ours.
fn ours(text: &str) -> Tenant {
    let mut tenant = Tenant::new(id(text));
    tenant.labels.insert(key(MANAGED_BY), "tenant-sync".to_owned());
    tenant
}

fn gone(text: &str, since: SystemTime) -> Tenant {
    let mut tenant = Tenant { status: TenantStatus::Suspended, ..ours(text) };
    tenant.labels.insert(key(DELETED_AT), stamp(since));
    tenant
}

fn active() -> Sourced {
    Sourced { status: Some(TenantStatus::Active), ..Sourced::default() }
}

fn suspended() -> Sourced {
    Sourced { status: Some(TenantStatus::Suspended), ..Sourced::default() }
}

fn roster(entries: impl IntoIterator<Item = (TenantId, Sourced)>) -> Roster {
    Roster { tenants: entries.into_iter().collect(), ..Roster::default() }
}

/// A mirror of its own, to go through several syncs.
#[derive(Debug)]
struct World {
    known: Known,
    rules: Rules,
    missing: Missing,
    accepted: BTreeMap<TenantId, Loss>,
    now: SystemTime,
    uptime: Duration,
}

impl World {
    fn of(tenants: impl IntoIterator<Item = Tenant>) -> Self {
        let (known, missing, accepted) = (Known::of(tenants), Missing::default(), BTreeMap::new());
        Self { known, rules: rules(), missing, accepted, now: now(), uptime: Duration::ZERO }
    }

    /// `count` tenants of ours.
    fn many(count: usize) -> Self {
        Self::of((0..count).map(|i| ours(&format!("t{i}"))))
    }

    fn plan(&self, roster: &Roster) -> Plan {
        self.facts(roster, in_service(&self.known, roster, &self.rules)).plan(&self.known)
    }

    fn facts<'a>(&'a self, roster: &'a Roster, in_service: u64) -> Facts<'a> {
        let Self { rules, missing, accepted, now, .. } = self;
        Facts { rules, roster, missing, in_service, accepted, now: *now }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.uptime += time;
    }

    /// A reading, a minute after the one before, and what it leads to.
    fn sync(&mut self, roster: &Roster) -> Plan {
        self.pass(self.rules.recheck);
        self.missing.count(&self.known, roster, &self.rules, self.uptime);
        let plan = self.plan(roster);
        self.apply(&plan);
        self.missing.settle(&self.known);
        self.accepted.clear();
        plan
    }

    fn apply(&mut self, plan: &Plan) {
        let mut tenants: BTreeMap<TenantId, Tenant> =
            self.known.tenants().iter().map(|(id, entry)| (id.clone(), entry.tenant.clone())).collect();
        for write in &plan.writes {
            match &write.change {
                Change::TenantPut(tenant) => drop(tenants.insert(tenant.id.clone(), tenant.clone())),
                Change::TenantRemoved(id) => drop(tenants.remove(id)),
                other => panic!("{other:?}"),
            }
        }
        self.known = Known::of(tenants.into_values());
    }

    fn tenant(&self, text: &str) -> &Tenant {
        &self.known.tenants()[text].tenant
    }

    fn status(&self, text: &str) -> TenantStatus {
        self.tenant(text).status
    }
}

fn kinds(plan: &Plan) -> Vec<Kind> {
    plan.writes.iter().map(|write| write.kind).collect()
}

/// Everyone of [`World::many`] but the first ones.
fn all_but_first(missing: usize, count: usize) -> Roster {
    roster((missing..count).map(|i| (id(&format!("t{i}")), active())))
}

#[test]
fn a_tenant_that_is_not_listed_goes_after_two_readings_and_comes_back() {
    let mut world = World::many(20);
    world.known = Known::of(world.known.tenants().values().map(|entry| {
        let mut tenant = entry.tenant.clone();
        tenant.labels.insert(key("color"), "red".to_owned());
        tenant
    }));
    let first = world.sync(&all_but_first(1, 20));
    assert_eq!((kinds(&first), first.missing), (vec![], 1));
    assert!(world.missing.is_open(&world.rules));
    let second = world.sync(&all_but_first(1, 20));
    assert_eq!((kinds(&second), second.missing), (vec![Kind::Tombstone], 0));
    assert_eq!(gone_since(world.tenant("t0")), Some(world.now));
    assert!(!world.missing.is_any());
    assert_eq!(kinds(&world.sync(&all_but_first(1, 20))), []);
    let back = world.sync(&all_but_first(0, 20));
    assert_eq!(kinds(&back), [Kind::Restore]);
    assert_eq!(world.status("t0"), TenantStatus::Active);
    assert!(!world.tenant("t0").labels.contains_key(DELETED_AT));
    assert_eq!(world.tenant("t0").labels["color"], "red");
}

#[test]
fn a_tenant_that_was_missing_once_is_counted_from_the_start() {
    let mut world = World::many(20);
    for _ in 0..3 {
        assert_eq!(kinds(&world.sync(&all_but_first(1, 20))), []);
        assert_eq!(kinds(&world.sync(&all_but_first(0, 20))), []);
    }
}

#[test]
fn readings_in_quick_succession_count_as_one() {
    let mut world = World::many(20);
    let roster = all_but_first(1, 20);
    for _ in 0..5 {
        world.uptime += Duration::from_secs(10);
        world.missing.count(&world.known, &roster, &world.rules, world.uptime);
        assert_eq!(kinds(&world.plan(&roster)), []);
        assert!(world.missing.is_open(&world.rules));
    }
    world.uptime += Duration::from_secs(20);
    world.missing.count(&world.known, &roster, &world.rules, world.uptime);
    assert_eq!(kinds(&world.plan(&roster)), [Kind::Tombstone]);
}

#[test]
fn a_tenant_that_is_gone_for_long_is_removed() {
    let now = now();
    let mut world = World::of([ours("a"), gone("b", now - 30 * DAY), gone("c", now - 29 * DAY)]);
    let list = roster([(id("a"), active())]);
    assert_eq!(kinds(&world.plan(&list)), [Kind::Remove]);
    world.apply(&world.plan(&list));
    assert_eq!(world.known.tenants().keys().collect::<Vec<_>>(), [&id("a"), &id("c")]);
}

#[test]
fn nobody_is_removed_by_a_doubtful_list() {
    let mut world = World::of([ours("a"), gone("b", now() - 40 * DAY)]);
    let empty = Roster::default();
    for _ in 0..3 {
        let plan = world.sync(&empty);
        assert_eq!(kinds(&plan), []);
        assert!(plan.hold.unwrap().doubt.empty);
    }
    let strange = Roster { unidentified: 1, ..roster([(id("a"), active())]) };
    assert_eq!(kinds(&world.sync(&strange)), []);
}

#[test]
fn a_tenant_put_back_into_service_by_hand_is_not_removed_with_its_old_mark() {
    let tenant = Tenant { status: TenantStatus::Active, ..gone("a", now() - 40 * DAY) };
    let mut world = World::of([tenant, ours("b")]);
    let list = roster([(id("b"), active())]);
    assert_eq!(kinds(&world.sync(&list)), []);
    assert_eq!(kinds(&world.sync(&list)), [Kind::Tombstone]);
    assert_eq!(gone_since(world.tenant("a")), Some(world.now));
}

#[test]
fn a_shrink_is_held_and_only_what_was_accepted_is_applied() {
    let mut world = World::many(100);
    let half = all_but_first(50, 100);
    let held = world.sync(&half).hold.unwrap();
    let again = world.sync(&half);
    assert_eq!(again.hold.as_ref(), Some(&held));
    assert_eq!((kinds(&again), held.losses.len(), held.total), (vec![], 50, 100));
    assert_eq!(held.summary(), "of 100 active tenants, 50 are not listed any more");

    world.accepted = held.losses;
    let applied = world.sync(&all_but_first(61, 100));
    assert_eq!(kinds(&applied), [Kind::Tombstone; 50]);
    assert_eq!(applied.hold.unwrap().losses.len(), 11, "they were not accepted");
    assert_eq!(world.status("t49"), TenantStatus::Suspended);
    assert_eq!(world.status("t50"), TenantStatus::Active);
}

#[test]
fn a_hold_ends_when_the_api_has_recovered() {
    let mut world = World::many(100);
    assert!(world.sync(&all_but_first(50, 100)).hold.is_some());
    let recovered = world.sync(&all_but_first(0, 100));
    assert_eq!((recovered.hold, recovered.unchanged), (None, 100));
    // What was accepted while it still stood concerns nobody any more.
    world.accepted = (0..50).map(|i| (id(&format!("t{i}")), Loss::Vanished)).collect();
    assert_eq!(kinds(&world.sync(&all_but_first(0, 100))), []);
}

#[test]
fn suspensions_are_held_like_disappearances_while_the_rest_goes_on() {
    let mut world = World::many(10);
    let mut list = roster((0..10).map(|i| (id(&format!("t{i}")), suspended())));
    list.tenants.get_mut("t0").unwrap().name = Some("Zero".to_owned());
    list.tenants.insert(id("new"), active());
    let plan = world.sync(&list);
    assert_eq!(kinds(&plan), [Kind::Create, Kind::Update]);
    assert_eq!(plan.hold.as_ref().unwrap().losses.len(), 10);
    assert_eq!((world.status("t0"), world.tenant("t0").name.as_str()), (TenantStatus::Active, "Zero"));

    world.accepted = plan.hold.unwrap().losses;
    assert_eq!(kinds(&world.sync(&list)), [Kind::Suspend; 10]);
}

#[test]
fn one_tenant_may_always_go_but_never_the_last_one() {
    let mut world = World::many(2);
    assert_eq!(kinds(&world.sync(&all_but_first(1, 2))), []);
    assert_eq!(kinds(&world.sync(&all_but_first(1, 2))), [Kind::Tombstone]);
    for _ in 0..3 {
        let plan = world.sync(&Roster::default());
        assert!(kinds(&plan).is_empty() && plan.hold.is_some());
    }
}

#[test]
fn whoever_may_be_behind_an_entry_without_an_id_stays() {
    let mut world = World::many(100);
    let list = Roster { unidentified: 1, ..all_but_first(2, 100) };
    for _ in 0..3 {
        let plan = world.sync(&list);
        assert!(kinds(&plan).is_empty());
        assert_eq!(plan.hold.unwrap().losses.len(), 2);
    }
    let mut list = list;
    list.tenants.insert(id("t50"), suspended());
    let plan = world.sync(&list);
    assert_eq!(kinds(&plan), [Kind::Suspend], "that is not in doubt");
}

#[test]
fn an_entry_that_cannot_be_read_leaves_its_tenant_alone() {
    let mut world = World::of([ours("a"), ours("b"), gone("c", now() - 40 * DAY)]);
    let present = ["b", "c"].map(id).into();
    let list = Roster { present, ..roster([(id("a"), active())]) };
    for _ in 0..3 {
        assert_eq!(kinds(&world.sync(&list)), []);
    }
}

#[test]
fn what_is_not_mapped_stays() {
    let mut tenant = ours("a");
    tenant.tier = Some(key("gold"));
    tenant.region = Some(key("eu"));
    tenant.residency = vec![key("eu")];
    tenant.labels.insert(key("color"), "red".to_owned());
    tenant.labels.insert(key("old"), "1".to_owned());
    let sourced = Sourced {
        name: Some("Acme".to_owned()),
        tier: Some(None),
        labels: [(key("old"), None), (key("new"), Some("2".to_owned()))].into(),
        ..active()
    };
    let mut world = World::of([tenant]);
    assert_eq!(kinds(&world.sync(&roster([(id("a"), sourced)]))), [Kind::Update]);
    let after = world.tenant("a");
    assert_eq!((after.name.as_str(), &after.tier, &after.region), ("Acme", &None, &Some(key("eu"))));
    assert_eq!(after.residency, [key("eu")]);
    let labels: Vec<_> = after.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(labels, [("color", "red"), ("managed-by", "tenant-sync"), ("new", "2")]);
}

#[test]
fn maintenance_is_the_control_planes_unless_the_api_tells_it() {
    let tenant = Tenant { status: TenantStatus::Maintenance, ..ours("a") };
    let mut world = World::of([tenant]);
    world.rules.tells_maintenance = false;
    assert_eq!(kinds(&world.plan(&roster([(id("a"), active())]))), []);
    assert_eq!(kinds(&world.plan(&roster([(id("a"), suspended())]))), [Kind::Suspend]);
    world.rules.tells_maintenance = true;
    assert_eq!(kinds(&world.plan(&roster([(id("a"), active())]))), [Kind::Update]);
}

#[test]
fn a_tenant_that_the_control_plane_would_refuse_is_reported_and_spoils_nothing() {
    let mut full = Tenant::new(id("full"));
    for i in 0..32 {
        full.labels.insert(key(&format!("l{i}")), String::new());
    }
    let mut world = World::of([full]);
    let plan = world.sync(&roster([(id("full"), active()), (id("new"), active())]));
    assert_eq!(kinds(&plan), [Kind::Create]);
    assert_eq!(plan.unfit[0].tenant, id("full"));
    assert!(plan.unfit[0].why.contains("labels"), "{:?}", plan.unfit);
}

#[test]
fn tenants_are_counted_by_state() {
    let held = Tenant { status: TenantStatus::Suspended, ..ours("b") };
    let world = World::of([ours("a"), held, gone("c", now()), Tenant::new(id("d"))]);
    let census = census(&world.known, &world.rules);
    let counts: Vec<_> = census.into_iter().collect();
    let expected = [("active", 1), ("maintenance", 0), ("suspended", 1), ("tombstoned", 1), ("unmanaged", 1)];
    assert_eq!(counts, expected);
}

#[test]
fn times_read_back() {
    assert_eq!(stamp(now()), "2024-10-04T00:00:00Z");
    assert_eq!(gone_since(&gone("a", now())), Some(now()));
    let mut broken = gone("a", now());
    broken.labels.insert(key(DELETED_AT), "yesterday".to_owned());
    assert_eq!(gone_since(&broken), None);
}

// === any control plane, any list ===

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

fn any_sourced() -> impl Strategy<Value = Sourced> {
    let labels = btree_map(any_name(), option::of("[ab]"), 0..3);
    let name = option::of("[AB]");
    let tier = option::of(option::of(any_name()));
    (name, option::weighted(0.9, any_status()), tier, labels)
        .prop_map(|(name, status, tier, labels)| Sourced { name, status, tier, labels, ..Sourced::default() })
}

fn any_roster() -> impl Strategy<Value = Roster> {
    (btree_map(any_id(), any_sourced(), 0..25), btree_set(any_id(), 0..3), 0_u64..2).prop_map(
        |(mut tenants, present, unidentified)| {
            tenants.retain(|id, _| !present.contains(id));
            Roster { tenants, present, unidentified, ..Roster::default() }
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
        for id in written(&world.plan(&list)) {
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
