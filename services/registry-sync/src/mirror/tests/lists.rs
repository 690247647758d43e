//! How listings become lists, and how lists are taken over.

use grey_core::text::is_plain;
use grey_state::instances::Damaged;

use super::*;

fn list(service: &str, instances: Vec<Instance>) -> ServiceInstances {
    ServiceInstances { service: ServiceId::new(service).unwrap(), instances }
}

fn stored(id: &str, source: Option<&str>) -> Instance {
    Instance {
        id: id.parse().unwrap(),
        version: "1".parse().unwrap(),
        address: "stored.test:80".into(),
        region: None,
        zone: None,
        weight: 100,
        enabled: true,
        healthy: true,
        ephemeral: true,
        source: source.map(|name| name.parse().unwrap()),
        metadata: BTreeMap::new(),
    }
}

#[test]
fn everything_told_of_an_instance_is_carried_along() {
    let mut all = options(&["dc-1"]);
    all.sources[0].region = Some("eu".parse().unwrap());
    let mut world = World::new(all);
    let metadata = [("version", " 2.1.0 "), ("zone", "EU-A"), ("commit", "abc")];
    let metadata: BTreeMap<_, _> = metadata.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let listed =
        Registered { version: None, ephemeral: true, weight: 7, metadata: metadata.clone(), ..on("a", "") };
    world.payment(vec![listed]);
    let one = world.published("payment").remove(0);
    assert_eq!((one.version.as_str(), one.weight, one.ephemeral), ("v2.1", 7, true));
    assert_eq!(one.region.unwrap().as_str(), "eu");
    assert_eq!(one.zone.unwrap().as_str(), "eu-a");
    assert_eq!(one.source.unwrap().as_str(), "dc-1");
    assert_eq!((one.address.as_str(), one.metadata), ("a.test:80", metadata));
}

#[test]
fn what_is_not_shown_is_cleaned_wherever_a_registry_says_it() {
    let mut world = World::new(options(&["dc-1"]));
    let metadata = [("no\u{feff}te".to_owned(), "a\u{3164}b".to_owned())].into();
    world.payment(vec![Registered { metadata, ..on("a", "1") }, on("b\u{2800}", "1")]);
    let one = world.published("payment").remove(0);
    assert_eq!(one.metadata, [("no te".to_owned(), "a b".to_owned())].into());
    let told = world.status().quarantined.remove(0);
    assert_eq!(told.subject, "payment b ");
    assert!(is_plain(&told.why), "{}", told.why);
}

#[test]
fn what_cannot_be_routed_to_is_left_out_and_told() {
    let mut world = World::new(options(&["dc-1"]));
    let bad_address = Registered { address: "nowhere".to_owned(), ..on("b", "1") };
    let heavy = Registered { weight: 10_001, ..on("c", "1") };
    let listed =
        vec![on("a", ""), bad_address, heavy, on("d", "one"), on("e", "1"), on("e", "2"), on("", "1")];
    world.all(0, vec![listing("payment", listed), listing("Bad Name", many(1))]);
    assert_eq!(world.routes("payment"), "e v1.0");
    let SyncStatus { quarantined, counts, .. } = world.status();
    let told: Vec<String> =
        quarantined.iter().map(|one| format!("{} ({}): {}", one.subject, one.source, one.why)).collect();
    let expected = [
        "Bad Name (dc-1): service id `Bad Name` does not match",
        "payment b (dc-1): address: must be host:port",
        "payment c (dc-1): weight: 10001 is more than 10000",
        "payment e (dc-1): its id is listed twice",
        "payment  (dc-1): id: instance id is empty",
        "payment a (dc-1): no version: neither of its own nor as metadata `version`",
        "payment d (dc-1): `one` is not a version",
    ];
    assert_eq!(told.len(), expected.len(), "{told:?}");
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.starts_with(expected), "{told} is not {expected}");
    }
    let counts = ["services", "routable", "quarantined", "skipped_services"].map(|state| counts[state]);
    assert_eq!(counts, [1, 1, 6, 1]);
    world.all(0, vec![]);
    assert_eq!(world.status().counts["skipped_services"], 0);
}

#[test]
fn a_default_version_stands_in_for_none_but_not_for_nonsense() {
    let mut all = options(&["dc-1"]);
    all.naming.default_versions.insert("payment".to_owned(), "3".to_owned());
    all.naming.renames.insert("PaymentService".to_owned(), "payment".to_owned());
    let mut world = World::new(all);
    world.all(0, vec![listing("PaymentService", vec![on("a", ""), on("b", "x"), on("c", "1")])]);
    assert_eq!(world.routes("payment"), "a v3.0, c v1.0");
}

#[test]
fn the_earlier_of_two_sources_wins() {
    let mut world = World::new(options(&["dc-1", "dc-2"]));
    world.all(1, vec![listing("payment", vec![on("a", "2"), on("b", "2")])]);
    world.all(0, vec![listing("payment", vec![on("a", "1")])]);
    assert_eq!(world.routes("payment"), "a v1.0, b v2.0");
    let left_out = world.status().quarantined;
    assert_eq!((left_out[0].source.as_str(), left_out[0].why.as_str()), ("dc-2", "listed by `dc-1` as well"));
    // A source that fails or is empty takes nothing from the other.
    world.fail(0);
    world.all(1, vec![listing("payment", vec![on("a", "2"), on("b", "2"), on("c", "2")])]);
    assert_eq!(world.routes("payment"), "a v1.0, b v2.0, c v2.0");
}

#[test]
fn two_names_of_one_service_at_one_source_are_not_mixed() {
    let mut all = options(&["dc-1"]);
    all.naming.renames.insert("pay".to_owned(), "payment".to_owned());
    let mut world = World::new(all);
    world.all(0, vec![listing("payment", vec![on("b", "1")]), listing("pay", vec![on("a", "1")])]);
    assert_eq!(world.routes("payment"), "a v1.0");
    world.mirror.observe(0, Sighting::Some(listing("payment", vec![on("c", "1")])), world.now);
    assert_eq!(world.routes("payment"), "a v1.0");
    assert_eq!(world.status().counts["skipped_services"], 1);
}

#[test]
fn one_service_is_told_alone() {
    let mut world = World::new(options(&["dc-1"]));
    world.all(0, vec![listing("basket", many(1)), listing("payment", many(1))]);
    world.mirror.observe(
        0,
        Sighting::Some(listing("payment", vec![on("i00", "1"), on("x", "2")])),
        world.now,
    );
    assert_eq!(world.routes("payment"), "i00 v1.0, x v2.0");
    assert_eq!(world.routes("basket"), "i00 v1.0");
    let pending = world.mirror.pending(&BTreeSet::new(), usize::MAX);
    assert_eq!(pending.len(), 1, "only what changed is written");
    assert!(world.mirror.pending(&[pending[0].list.service.clone()].into(), 1).is_empty());
}

#[test]
fn a_version_whose_last_instance_left_disappears_at_once() {
    let mut world = World::new(options(&["dc-1"]));
    world.payment(vec![on("a", "1"), on("b", "1"), on("c", "2")]);
    world.payment(vec![on("a", "1"), on("b", "1")]);
    assert_eq!(world.routes("payment"), "a v1.0, b v1.0");
}

#[test]
fn what_is_taken_over_stays_until_its_source_is_seen() {
    let mut world = World::new(options(&["dc-1", "dc-2"]));
    let lists =
        vec![list("payment", vec![stored("a", Some("dc-1")), stored("b", Some("dc-2")), stored("c", None)])];
    world.mirror.adopt(lists, &[], world.now);
    let pending = world.mirror.pending(&BTreeSet::new(), 9);
    assert_eq!(pending[0].list.instances.len(), 3, "written again as it is");
    world.write();
    world.pass(1_000);
    world.payment(vec![on("a", "1"), on("d", "1")]);
    assert_eq!(world.routes("payment"), "a v1.0, b v1.0, c v1.0, d v1.0");
    // Once every source is seen, what belongs to none is replaced.
    world.all(1, vec![listing("payment", vec![on("b", "1")])]);
    assert_eq!(world.routes("payment"), "a v1.0, b v1.0, d v1.0");
    assert!(world.nothing_held());
}

#[test]
fn what_belonged_to_a_former_source_is_held_where_nothing_replaces_it() {
    let mut world = World::new(options(&["dc-1"]));
    world.mirror.adopt(vec![list("payment", vec![stored("a", Some("gone"))])], &[], world.now);
    world.all(0, vec![]);
    assert_eq!(world.routes("payment"), "a v1.0");
    assert_eq!(world.only_held().subject, "payment@former");
    world.probe(|_| Verdict::Refused);
    world.pass(2);
    world.probe(|_| Verdict::Refused);
    assert_eq!(world.routes("payment"), "");
}

#[test]
fn a_warm_standby_that_takes_over_guards_what_was_published() {
    let mut world = World::new(options(&["dc-1"]));
    world.payment(many(2));
    let published: Vec<Instance> = (0..10).map(|n| stored(&format!("i{n:02}"), Some("dc-1"))).collect();
    world.mirror.adopt(
        vec![list("payment", published), list("basket", vec![stored("x", Some("dc-1"))])],
        &[],
        world.now,
    );
    assert_eq!(world.count(), 10);
    assert_eq!(world.routes("basket"), "x v1.0");
    assert_eq!(world.status().held_total, 2);
}

#[test]
fn what_a_standby_believes_is_written_where_shared_state_has_nothing() {
    let mut world = World::new(options(&["dc-1"]));
    world.mirror.observe(0, Sighting::All(vec![listing("payment", many(2))]), world.now);
    world.mirror.adopt(vec![], &[], world.now);
    assert_eq!(world.mirror.pending(&BTreeSet::new(), 9)[0].list.instances.len(), 2);
}

#[test]
fn what_shared_state_has_lost_is_written_again() {
    let mut world = World::with(3);
    world.all(0, vec![listing("payment", many(3)), listing("basket", many(1))]);
    let basket = list("basket", world.published("basket"));
    world.mirror.verify(vec![basket], &[], &BTreeSet::new(), world.now);
    let pending = world.mirror.pending(&BTreeSet::new(), 9);
    assert_eq!(pending.iter().map(|write| write.list.service.as_str()).collect::<Vec<_>>(), ["payment"]);
    assert_eq!(pending[0].list.instances.len(), 3);
    world.write();
    world.mirror.verify(vec![], &[], &[pending[0].list.service.clone()].into(), world.now);
    let pending = world.mirror.pending(&BTreeSet::new(), 9);
    assert_eq!(pending.iter().map(|write| write.list.service.as_str()).collect::<Vec<_>>(), ["basket"]);
}

#[test]
fn a_write_that_may_have_arrived_is_repeated() {
    let mut world = World::new(options(&["dc-1"]));
    world.mirror.observe(0, Sighting::All(vec![listing("payment", many(1))]), world.now);
    let write = world.mirror.pending(&BTreeSet::new(), 9).remove(0);
    world.mirror.write_failed(&write.list.service, world.now);
    world.payment(vec![Registered { enabled: false, ..on("i00", "1") }]);
    world.mirror.write_failed(&write.list.service, world.now);
    world.mirror.observe(0, Sighting::All(vec![]), world.now);
    let write = world.mirror.pending(&BTreeSet::new(), 9).remove(0);
    assert!(write.list.instances.is_empty());
    world.mirror.written(write.list, world.now);
    assert!(world.mirror.services.is_empty(), "nothing is remembered of what is gone");
}

#[test]
fn lists_are_bounded() {
    let mut world = World::new(options(&["dc-1"]));
    let crowd = (0..grey_core::instance::MAX_INSTANCES + 3).map(|n| on(&format!("i{n}"), "1"));
    world.payment(crowd.collect());
    assert_eq!(world.count(), grey_core::instance::MAX_INSTANCES);
    assert_eq!(world.status().counts["quarantined"], 3);
}

fn damaged(service: &str) -> Damaged {
    Damaged { service: Some(ServiceId::new(service).unwrap()), why: "read `x`: y".to_owned() }
}

fn pending(world: &World) -> Vec<(String, usize)> {
    let writes = world.mirror.pending(&BTreeSet::new(), 9);
    writes.iter().map(|write| (write.list.service.to_string(), write.list.instances.len())).collect()
}

#[test]
fn what_is_damaged_is_written_again_whole() {
    let mut world = World::with(3);
    let half = list("payment", world.published("payment").split_off(1));
    assert_eq!(world.mirror.stored_digest(), list("payment", world.published("payment")).digest());
    world.mirror.verify(vec![half], &[damaged("payment")], &BTreeSet::new(), world.now);
    assert_eq!(pending(&world), [("payment".to_owned(), 3)]);
    world.write();
    // What all lists share is mended by writing any.
    let whole = list("payment", world.published("payment"));
    let shared = Damaged { service: None, ..damaged("payment") };
    world.mirror.verify(vec![whole], std::slice::from_ref(&shared), &BTreeSet::new(), world.now);
    assert_eq!(pending(&world), [("payment".to_owned(), 3)]);
    world.write();
    // Nothing is concluded about what is being written.
    let payment = ServiceId::new("payment").unwrap();
    world.mirror.verify(vec![], &[damaged("payment"), shared], &[payment].into(), world.now);
    assert_eq!(pending(&world), []);
}

#[test]
fn half_a_list_is_not_written_before_every_source_was_seen() {
    let mut world = World::new(options(&["dc-1", "dc-2"]));
    let lists =
        vec![list("payment", vec![stored("a", Some("dc-2"))]), list("basket", vec![stored("x", None)])];
    world.mirror.adopt(lists, &[damaged("payment")], world.now);
    assert_eq!(pending(&world), [("basket".to_owned(), 1)]);
    let seen = Sighting::All(vec![listing("payment", vec![on("b", "1")])]);
    world.mirror.observe(0, seen, world.now);
    assert_eq!(pending(&world), [("basket".to_owned(), 1)], "dc-2 may list more of payment");
    world.all(1, vec![listing("payment", vec![on("a", "1"), on("c", "1")])]);
    assert_eq!(world.routes("payment"), "a v1.0, b v1.0, c v1.0");
}

#[test]
fn what_a_reader_remembers_is_held_like_what_was_published() {
    let mut world = World::with(1);
    let remembered = || list("gone", vec![stored("a", Some("dc-1"))]);
    world.mirror.remind(list("payment", vec![stored("z", None)]), world.now);
    assert_eq!(pending(&world), [], "what is known needs no reminder");
    world.mirror.remind(remembered(), world.now);
    world.write();
    assert_eq!(world.routes("gone"), "a v1.0");
    for _ in 0..2 {
        world.pass(2);
        world.probe(|_| Verdict::Refused);
    }
    assert_eq!(world.routes("gone"), "");
    let mut unseen = World::new(options(&["dc-1"]));
    unseen.mirror.remind(remembered(), unseen.now);
    assert_eq!(pending(&unseen), [], "it may be listed yet");
}
