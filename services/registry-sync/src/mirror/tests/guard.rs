//! What is held, and what ends a hold.

use super::*;

#[test]
fn drops_within_a_window_add_up_to_what_may_vanish_at_once() {
    // What is left of so many and for how many seconds; what stays, and how many of it are held.
    let cases: [(_, &[_], _, _); 4] = [
        (4, &[(2, 0)], 2, 0),
        (10, &[(8, 1), (6, 1), (5, 1)], 5, 0),
        (10, &[(8, 1), (6, 1), (5, 1), (4, 0)], 5, 1),
        (10, &[(5, 31), (3, 0)], 3, 0),
    ];
    for (first, drops, stay, held) in cases {
        let mut world = World::with(first);
        for (left, seconds) in drops {
            world.payment(many(*left));
            world.pass(*seconds);
        }
        assert_eq!((world.count(), world.status().counts["held"]), (stay, held), "{drops:?}");
    }
}

#[test]
fn a_drop_beyond_the_share_is_held_whole() {
    let mut world = World::with(20);
    world.payment(many(5));
    assert_eq!(world.count(), 20);
    let held = world.only_held();
    assert_eq!((held.reason(), held.subject.as_str()), (HoldReason::InstanceDrop, "payment@dc-1"));
    assert_eq!((held.affected, held.total, held.items.len()), (15, 20, 15));
    let seconds = held.believed_at.unwrap().seconds - held.held_since.unwrap().seconds;
    assert_eq!(u64::try_from(seconds), Ok(Guard::default().confirm_after.as_secs()));
    assert_eq!(world.status().counts["held"], 15);
}

#[test]
fn while_something_is_held_nothing_more_is_let_go() {
    let mut world = World::with(10);
    world.payment(many(2));
    let first = world.only_held().id;
    world.pass(60);
    world.payment(many(1));
    assert_eq!(world.count(), 10);
    assert_ne!(world.only_held().id, first, "what was shown is not what is held");
}

#[test]
fn an_empty_list_is_held_for_every_size() {
    for count in 1..5 {
        let mut world = World::with(count);
        world.payment(Vec::new());
        assert_eq!(world.count(), count);
        world.pass(60);
        world.all(0, Vec::new());
        assert_eq!(world.count(), count, "the service is not listed at all");
        assert_eq!(world.only_held().believed_at, None);
    }
}

#[test]
fn unhealthy_instances_are_lost_ones() {
    let mut world = World::with(4);
    let sick =
        |count| (0..4).map(move |n| Registered { healthy: n >= count, ..many(4)[n].clone() }).collect();
    world.payment(sick(2));
    assert_eq!(world.count(), 2);
    assert_eq!(world.published("payment").len(), 4, "they are told as unhealthy");
    world.payment(sick(4));
    assert_eq!(world.count(), 2);
    assert_eq!(world.only_held().affected, 2);
}

#[test]
fn what_an_operator_takes_out_is_out_at_once() {
    let mut world = World::with(2);
    let mut off = many(2);
    off[0].enabled = false;
    off[1].weight = 0;
    world.payment(off);
    assert_eq!(world.routes("payment"), "(i00 v1.0), (i01 v1.0)");
    world.payment(Vec::new());
    assert_eq!(world.routes("payment"), "");
    assert!(world.nothing_held());
}

#[test]
fn a_hold_ends_when_the_instances_come_back() {
    let mut world = World::with(4);
    world.payment(Vec::new());
    world.payment(many(3));
    assert_eq!(world.only_held().items, ["i03"]);
    world.payment(many(4));
    assert!(world.nothing_held());
    assert_eq!(world.count(), 4);
}

#[test]
fn two_refused_connections_prove_an_instance_gone() {
    let mut world = World::with(3);
    world.payment(Vec::new());
    let id = world.only_held().id;
    assert_eq!(
        world.probe(|address| if address.starts_with("i00") { Verdict::Refused } else { alive("") }),
        3
    );
    assert_eq!(world.count(), 3);
    assert_eq!(world.probe(|_| Verdict::Refused), 0, "they were asked just now");
    world.pass(2);
    world.probe(|address| if address.starts_with("i00") { Verdict::Refused } else { alive("") });
    assert_eq!(world.routes("payment"), "i01 v1.0, i02 v1.0");
    assert_eq!(world.only_held().id, id, "what is still held was shown");
    world.pass(2);
    world.probe(|_| Verdict::Refused);
    world.pass(2);
    world.probe(|_| Verdict::Unknown);
    world.pass(2);
    world.probe(|_| Verdict::Refused);
    assert_eq!(world.count(), 2, "the refusals were not in a row");
    world.pass(2);
    world.probe(|_| Verdict::Refused);
    assert_eq!(world.count(), 0);
    assert!(world.nothing_held());
}

#[test]
fn a_persisting_drop_is_believed_by_time() {
    let mut world = World::with(20);
    world.payment(many(5));
    world.probe(|_| alive(""));
    world.pass(299);
    world.payment(many(5));
    assert_eq!(world.count(), 20);
    assert!(world.mirror.rereads(world.now).is_empty());
    world.pass(1);
    assert_eq!(world.mirror.rereads(world.now), [0], "the source is asked before it is believed");
    assert_eq!(world.mirror.rereads(world.now), [0; 0], "but not all the time");
    world.payment(many(5));
    assert_eq!(world.count(), 5);
}

#[test]
fn what_cannot_be_read_in_between_has_to_begin_again() {
    let interruptions: [fn(&mut World); 2] = [|world| world.fail(0), |world| unread(world, "payment")];
    for interrupt in interruptions {
        let mut world = World::with(20);
        world.payment(many(5));
        world.pass(290);
        interrupt(&mut world);
        world.pass(290);
        world.payment(many(5));
        assert_eq!(world.count(), 20);
        world.pass(10);
        world.payment(many(5));
        assert_eq!(world.count(), 5);
    }
}

#[test]
fn an_empty_list_is_not_believed_against_instances_that_answer() {
    let mut world = World::with(2);
    world.payment(Vec::new());
    world.probe(|address| if address.starts_with("i00") { alive("") } else { Verdict::Unknown });
    world.pass(1_000);
    world.payment(Vec::new());
    assert_eq!(world.routes("payment"), "i00 v1.0");
    let held = world.only_held();
    assert_eq!(held.believed_at, None);
    world.mirror.accept(&held.id, world.now).unwrap();
    assert_eq!(world.count(), 0);
}

#[test]
fn an_empty_list_is_not_believed_without_asking() {
    let mut world = World::new(Options { probe_interval: None, ..options(&["dc-1"]) });
    world.payment(many(2));
    world.payment(Vec::new());
    assert_eq!(world.probe(|_| Verdict::Refused), 0);
    world.pass(10_000);
    world.payment(Vec::new());
    assert_eq!(world.count(), 2);
}

#[test]
fn an_operator_accepts_what_was_shown() {
    let mut world = World::with(20);
    world.payment(many(5));
    let shown = world.only_held().id;
    world.payment(many(4));
    let unknown = world.mirror.accept(&shown, world.now).unwrap_err();
    assert_eq!(
        unknown.to_string(),
        format!("nothing is held as `{shown}`: it has ended, or more is held than was shown")
    );
    assert_eq!(world.count(), 20);
    world.mirror.accept(&world.only_held().id, world.now).unwrap();
    assert_eq!(world.count(), 4);
    assert!(world.mirror.accept(&shown, world.now).is_err());
}

#[test]
fn a_failing_source_changes_nothing() {
    let mut world = World::with(3);
    for _ in 0..5 {
        world.fail(0);
        world.pass(600);
    }
    assert_eq!(world.count(), 3);
    let source = world.status().sources.remove(0);
    assert_eq!((source.failures, source.error.as_str()), (5, "away"));
    let [success, attempt] = [source.last_success, source.last_attempt].map(|at| at.unwrap().seconds);
    assert!(success < attempt);
    world.payment(many(3));
    let source = world.status().sources.remove(0);
    assert_eq!((source.failures, source.error.as_str()), (0, ""));
}

#[test]
fn a_trusted_source_is_believed() {
    let mut all = options(&["file"]);
    all.sources[0].trusted = true;
    let mut world = World::new(all);
    world.payment(many(20));
    world.payment(
        many(20).into_iter().map(|one| Registered { version: Some("2".to_owned()), ..one }).collect(),
    );
    assert!(world.routes("payment").starts_with("i00 v2.0, i01 v2.0"));
    world.payment(Vec::new());
    assert_eq!(world.count(), 0);
    assert!(world.nothing_held());
}

fn with_versions(versions: &[&str]) -> Vec<Registered> {
    versions.iter().enumerate().map(|(n, version)| on(&format!("i{n:02}"), version)).collect()
}

#[test]
fn one_by_one_instances_change_their_version_at_once() {
    let mut world = World::with(4);
    world.payment(with_versions(&["2", "1", "1", "1"]));
    world.payment(with_versions(&["2", "2", "1", "1"]));
    assert_eq!(world.routes("payment"), "i00 v2.0, i01 v2.0, i02 v1.0, i03 v1.0");
    world.payment(with_versions(&["2", "2", "2", "1"]));
    assert_eq!(world.routes("payment"), "i00 v2.0, i01 v2.0, i02 v1.0, i03 v1.0");
    assert_eq!(world.only_held().items, ["i02: v1.0 to v2.0"]);
    // Going back is no further change.
    world.payment(with_versions(&["1", "2", "1", "1"]));
    assert!(world.nothing_held());
    assert_eq!(world.routes("payment"), "i00 v1.0, i01 v2.0, i02 v1.0, i03 v1.0");
}

#[test]
fn a_single_instance_changes_its_version_at_once() {
    let mut world = World::with(1);
    world.payment(with_versions(&["2"]));
    assert_eq!(world.routes("payment"), "i00 v2.0");
}

#[test]
fn a_flip_of_many_versions_is_held_until_the_instances_say_so() {
    let mut world = World::with(3);
    world.payment(with_versions(&["2", "2", "2"]));
    assert_eq!(world.routes("payment"), "i00 v1.0, i01 v1.0, i02 v1.0");
    assert_eq!(world.only_held().reason(), HoldReason::VersionFlip);
    world.probe(|address| match address.split('.').next() {
        Some("i00") => alive("2.0.0"),
        Some("i01") => alive("1.0"),
        _ => alive(""),
    });
    assert_eq!(world.routes("payment"), "i00 v2.0, i01 v1.0, i02 v1.0");
    world.pass(300);
    world.payment(with_versions(&["2", "2", "2"]));
    assert_eq!(world.routes("payment"), "i00 v2.0, i01 v2.0, i02 v2.0");
    assert!(world.nothing_held());
}

#[test]
fn metadata_of_a_held_instance_goes_on() {
    let mut world = World::with(3);
    let mut flipped = with_versions(&["2", "2", "2"]);
    flipped[0].weight = 7;
    world.payment(flipped);
    let first = world.published("payment").remove(0);
    assert_eq!((first.version.as_str(), first.weight), ("v1.0", 7));
}

#[test]
fn lost_versions_are_quarantined_one_by_one_and_held_in_mass() {
    let mut world = World::with(4);
    world.payment(with_versions(&["", "1", "1", "1"]));
    assert_eq!(world.routes("payment"), "i01 v1.0, i02 v1.0, i03 v1.0");
    assert_eq!(world.status().quarantined[0].subject, "payment i00");
    let mut world = World::with(4);
    world.payment(with_versions(&["", "", "", ""]));
    assert_eq!(world.count(), 4);
    assert!(world.status().quarantined.is_empty());
    world.mirror.accept(&world.only_held().id, world.now).unwrap();
    assert_eq!(world.count(), 0);
    assert_eq!(world.status().counts["quarantined"], 4);
}

/// An instance at the address of the first one of [`many`].
fn at_the_same_place(id: &str) -> Registered {
    Registered { address: many(1)[0].address.clone(), ..on(id, "1.0") }
}

#[test]
fn an_address_that_another_instance_has_taken_over_proves_departure() {
    // Whichever the registry tells first: that one left, or that the other came.
    for order in [["payment", "orders"], ["orders", "payment"]] {
        let mut world = World::with(1);
        for service in order {
            let now = if service == "orders" { vec![at_the_same_place("b")] } else { Vec::new() };
            world.mirror.observe(0, Sighting::Some(listing(service, now)), world.now);
            world.pass(1);
        }
        world.write();
        assert_eq!((world.routes("payment"), world.routes("orders")), (String::new(), "b v1.0".to_owned()));
        assert!(world.nothing_held());
    }
}

#[test]
fn an_address_that_two_services_have_shared_proves_nothing() {
    let mut world = World::new(options(&["dc-1", "dc-2"]));
    let both = vec![listing("payment", many(1)), listing("orders", vec![at_the_same_place("b")])];
    world.all(0, both);
    world.all(1, Vec::new());
    world.pass(1);
    world.all(0, vec![listing("orders", vec![at_the_same_place("b")])]);
    assert_eq!(world.count(), 1, "it may be that the registry lost one of them");
    // What another registry lists there may be another network's.
    world.all(1, vec![listing("stock", vec![at_the_same_place("c")])]);
    assert_eq!(world.count(), 1);
    assert_eq!(world.only_held().affected, 1);
}

fn unread(world: &mut World, service: &str) {
    let sighting = Sighting::Unread { service: service.to_owned(), why: "too large".to_owned() };
    world.mirror.observe(0, sighting, world.now);
    world.write();
}

#[test]
fn a_service_that_cannot_be_read_stays_and_stops_no_other() {
    let mut world = World::with(4);
    world.all(0, vec![listing("payment", many(4)), listing("orders", vec![on("b", "1.0")])]);
    world.all(0, vec![listing("payment", many(1)), listing("orders", vec![on("b", "1.0")])]);
    assert_eq!(world.only_held().affected, 3);
    for _ in 0..10 {
        world.pass(30);
        unread(&mut world, "orders");
        world.all(0, vec![listing("payment", many(1))]);
    }
    assert_eq!(world.count(), 1, "its timers went on");
    assert_eq!(world.routes("orders"), "b v1.0");
    let SyncStatus { sources, quarantined: left_out, .. } = world.status();
    assert_eq!((sources[0].failures, sources[0].error.as_str()), (0, ""));
    assert_eq!((left_out.len(), left_out[0].subject.as_str()), (1, "orders"));
    assert!(left_out[0].why.contains("too large"), "{}", left_out[0].why);
    // It can be read again, or is not listed any more.
    let mut gone = World { mirror: world.mirror, now: world.now };
    gone.all(0, vec![listing("payment", many(1))]);
    assert_eq!((gone.status().quarantined.len(), gone.only_held().subject.as_str()), (0, "orders@dc-1"));
}

#[test]
fn a_service_that_could_not_be_read_yet_is_not_taken_as_empty() {
    let mut world = World::new(options(&["dc-1"]));
    unread(&mut world, "payment");
    world.all(0, Vec::new());
    let mut instance = World::with(1).published("payment").remove(0);
    instance.source = Some(Name::new("dc-1").unwrap());
    let list = ServiceInstances { service: ServiceId::new("payment").unwrap(), instances: vec![instance] };
    world.mirror.adopt(vec![list], &[], world.now);
    world.write();
    assert_eq!(world.count(), 1);
    assert!(world.nothing_held());
}
