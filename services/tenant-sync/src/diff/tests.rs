#![allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]

mod properties;

use super::*;
use std::sync::Arc;

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
        window: Duration::from_secs(3_600),
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
    let tenants = entries.into_iter().map(|(id, sourced)| (id, sourced.into()));
    Roster { tenants: tenants.collect(), ..Roster::default() }
}

/// Entries of the same unreadable id.
fn strangers(count: u64) -> BTreeMap<String, u64> {
    [("ACME Corp".to_owned(), count)].into_iter().filter(|(_, count)| *count > 0).collect()
}

/// A mirror of its own, to go through several syncs.
#[derive(Debug)]
struct World {
    known: Known,
    rules: Rules,
    missing: Missing,
    accepted: BTreeMap<TenantId, Loss>,
    lately: Lately,
    now: SystemTime,
    uptime: Duration,
}

impl World {
    fn of(tenants: impl IntoIterator<Item = Tenant>) -> Self {
        let (known, missing, accepted) = (Known::of(tenants), Missing::default(), BTreeMap::new());
        let (lately, uptime) = (Lately::default(), Duration::ZERO);
        Self { known, rules: rules(), missing, accepted, lately, now: now(), uptime }
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
        let lately = self.lately.count();
        Facts { rules, roster, missing, in_service, lately, accepted, now: *now }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.uptime += time;
    }

    /// A reading, a minute after the one before, and what it leads to.
    fn sync(&mut self, roster: &Roster) -> Plan {
        self.pass(self.rules.recheck);
        self.missing.count(&self.known, roster, &self.rules, self.uptime);
        self.lately.forget(&self.known, &self.rules, self.now);
        let plan = self.plan(roster);
        self.apply(&plan);
        self.lately.note(plan.leaving.iter().cloned(), self.now);
        self.missing.settle(&self.known);
        self.accepted.clear();
        plan
    }

    fn apply(&mut self, plan: &Plan) {
        let mut tenants: BTreeMap<TenantId, Tenant> =
            self.known.tenants().iter().map(|(id, entry)| (id.clone(), entry.tenant.clone())).collect();
        for write in &plan.writes {
            match &write.change {
                Change::Put(Fact::Tenant(tenant)) => {
                    drop(tenants.insert(tenant.id.clone(), Tenant::clone(tenant)));
                }
                Change::Removed(Key::Tenant(id)) => drop(tenants.remove(id)),
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
    let strange = Roster { unidentified: strangers(1), ..roster([(id("a"), active())]) };
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
    Arc::make_mut(list.tenants.get_mut("t0").unwrap()).name = Some("Zero".to_owned());
    list.tenants.insert(id("new"), active().into());
    let plan = world.sync(&list);
    assert_eq!(kinds(&plan), [Kind::Create, Kind::Update]);
    assert_eq!(plan.hold.as_ref().unwrap().losses.len(), 10);
    assert_eq!((world.status("t0"), world.tenant("t0").name.as_str()), (TenantStatus::Active, "Zero"));

    world.accepted = plan.hold.unwrap().losses;
    assert_eq!(kinds(&world.sync(&list)), [Kind::Suspend; 10]);
}

#[test]
fn few_at_a_time_are_held_like_many_at_once() {
    let take = |gone: usize| {
        let mut list = all_but_first(0, 100);
        // Suspended and vanished alike.
        for i in 0..gone {
            match i % 2 {
                0 => drop(list.tenants.insert(id(&format!("t{i}")), suspended().into())),
                _ => drop(list.tenants.remove(&id(&format!("t{i}")))),
            }
        }
        list
    };
    let mut world = World::many(100);
    for gone in (4..=40).step_by(4) {
        for _ in 0..2 {
            world.sync(&take(gone));
        }
    }
    let held = world.sync(&take(40)).hold.unwrap();
    let out = world.known.tenants().values().filter(|it| it.tenant.status != TenantStatus::Active).count();
    assert!((5..=10).contains(&out) && held.losses.len() == 40 - out, "{out}: {held:?}");
    assert_eq!((held.total, held.lately), (100, u64::try_from(out).unwrap()));
    assert!(held.summary().ends_with(&format!("; {out} others left shortly before")), "{}", held.summary());

    // The next leader knows it, and the window ends.
    let mut heir = Lately::default();
    heir.take_over(&world.lately.to_bytes());
    heir.take_over(b"nonsense\n7\n");
    heir.forget(&world.known, &world.rules, world.now);
    assert_eq!(heir, world.lately);
    world.pass(world.rules.window);
    heir.forget(&world.known, &world.rules, world.now);
    assert_eq!(heir.count(), 0);

    // What was accepted makes no room smaller, and who is back has not left.
    let mut world = World::many(100);
    world.accepted = world.sync(&take(30)).hold.unwrap().losses;
    assert!(world.sync(&take(30)).leaving.is_empty());
    assert_eq!(world.lately.count(), 0);
    assert_eq!(kinds(&world.sync(&take(32))), [Kind::Suspend]);
    assert_eq!(world.lately.count(), 1);
    world.sync(&take(0));
    world.sync(&take(0));
    assert_eq!(world.lately.count(), 0);
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
    let list = Roster { unidentified: strangers(1), ..all_but_first(2, 100) };
    for _ in 0..3 {
        let plan = world.sync(&list);
        assert!(kinds(&plan).is_empty());
        assert_eq!(plan.hold.unwrap().losses.len(), 2);
    }
    let mut list = list;
    list.tenants.insert(id("t50"), suspended().into());
    let plan = world.sync(&list);
    assert_eq!(kinds(&plan), [Kind::Suspend], "that is not in doubt");
}

#[test]
fn an_entry_that_never_fits_keeps_nobody_from_leaving() {
    let mut world =
        World::of((0..100).map(|i| ours(&format!("t{i}"))).chain([gone("old", now() - 40 * DAY)]));
    let misfits = |list: Roster| Roster { unidentified: strangers(1), ..list };
    assert_eq!(kinds(&world.sync(&misfits(all_but_first(0, 100)))), [], "somebody may be behind it");
    assert_eq!(kinds(&world.sync(&misfits(all_but_first(0, 100)))), [Kind::Remove]);
    assert_eq!(kinds(&world.sync(&misfits(all_but_first(1, 100)))), []);
    assert_eq!(kinds(&world.sync(&misfits(all_but_first(1, 100)))), [Kind::Tombstone]);
    // One more of the same kind has not been there before.
    let two = Roster { unidentified: strangers(2), ..all_but_first(2, 100) };
    for _ in 0..3 {
        assert_eq!(world.sync(&two).hold.unwrap().losses.len(), 1);
    }
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
