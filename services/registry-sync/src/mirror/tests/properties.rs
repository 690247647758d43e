//! What holds whatever the registry says, and whenever.

use std::collections::BTreeMap;

use grey_core::version::Version;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const IDS: usize = 8;
const WINDOW: u64 = 30;

/// What the registry says of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listed {
    Absent,
    Up(u8),
    Sick(u8),
    Off(u8),
    /// Up, without a version.
    Bare,
}

#[derive(Debug, Clone)]
enum Step {
    Say(Vec<Listed>),
    Fail,
    Pass(u64),
    /// What each instance answers: 0 refuses, 1 nothing, otherwise its version.
    Probe(Vec<u8>),
    Accept,
}

fn listed_as() -> impl Strategy<Value = Listed> {
    prop_oneof![
        3 => Just(Listed::Absent),
        6 => (1u8..3).prop_map(Listed::Up),
        2 => (1u8..3).prop_map(Listed::Sick),
        1 => (1u8..3).prop_map(Listed::Off),
        1 => Just(Listed::Bare),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => vec(listed_as(), IDS).prop_map(Step::Say),
        1 => Just(Step::Say(vec![Listed::Absent; IDS])),
        1 => Just(Step::Say(vec![Listed::Up(1); IDS])),
        1 => Just(Step::Fail),
        4 => (0u64..40).prop_map(Step::Pass),
        3 => vec(0u8..4, IDS).prop_map(Step::Probe),
        1 => Just(Step::Accept),
    ]
}

fn id(n: usize) -> String {
    format!("i{n:02}")
}

fn number(id: &str) -> usize {
    id.trim_start_matches('i').split('.').next().unwrap().parse().unwrap()
}

fn listed(words: &[Listed]) -> Vec<Listing> {
    let one = |(n, word): (usize, &Listed)| {
        let up = |version: u8| on(&id(n), &version.to_string());
        Some(match *word {
            Listed::Absent => return None,
            Listed::Up(version) => up(version),
            Listed::Sick(version) => Registered { healthy: false, ..up(version) },
            Listed::Off(version) => Registered { enabled: false, ..up(version) },
            Listed::Bare => on(&id(n), ""),
        })
    };
    vec![listing("payment", words.iter().enumerate().filter_map(one))]
}

type Routes = BTreeMap<usize, (Version, bool)>;

fn routes(world: &World) -> Routes {
    let published = world.published("payment");
    published.iter().map(|one| (number(one.id.as_str()), (one.version.clone(), one.is_routable()))).collect()
}

fn routable(routes: &Routes) -> BTreeSet<usize> {
    routes.iter().filter(|(_, (_, routable))| *routable).map(|(n, _)| *n).collect()
}

fn version(number: u8) -> Version {
    Version::new(&number.to_string()).unwrap()
}

/// What is published once everything that the registry says is believed.
fn truth(words: &[Listed]) -> Routes {
    let one = |(n, word): (usize, &Listed)| match *word {
        Listed::Absent | Listed::Bare => None,
        Listed::Up(v) => Some((n, (version(v), true))),
        Listed::Sick(v) | Listed::Off(v) => Some((n, (version(v), false))),
    };
    words.iter().enumerate().filter_map(one).collect()
}

/// Follows a mirror step by step and checks every promise on the way.
struct Watcher {
    world: World,
    began: Instant,
    words: Vec<Listed>,
    claimed: BTreeSet<(usize, Version)>,
    /// What was routable from when on.
    history: Vec<(Instant, BTreeSet<usize>)>,
    /// What was let go without confirmation.
    lost: Vec<(Instant, usize)>,
}

impl Watcher {
    fn new(confirm_after: u64) -> Self {
        let mut all = options(&["dc-1"]);
        all.guard.window = Duration::from_secs(WINDOW);
        all.guard.confirm_after = Duration::from_secs(confirm_after);
        let world = World::new(all);
        let began = world.now;
        let words = vec![Listed::Absent; IDS];
        Self {
            world,
            began,
            words,
            claimed: BTreeSet::new(),
            history: vec![(began, BTreeSet::new())],
            lost: Vec::new(),
        }
    }

    fn at(&self) -> Duration {
        self.world.now - self.began
    }

    fn take(&mut self, step: &Step) {
        let before = routes(&self.world);
        match step {
            Step::Pass(seconds) => self.world.pass(*seconds),
            Step::Fail => {
                self.world.fail(0);
                assert_eq!(routes(&self.world), before, "a failure changes nothing");
            }
            Step::Say(words) => self.say(words, &before),
            Step::Probe(answers) => drop(self.world.probe(|address| match answers[number(address)] {
                0 => Verdict::Refused,
                1 => Verdict::Unknown,
                told => alive(&told.to_string()),
            })),
            Step::Accept => self.accept(&before),
        }
        let now = routes(&self.world);
        for (n, (version, _)) in &now {
            assert!(self.claimed.contains(&(*n, version.clone())), "{n} never claimed {version}");
        }
        for (n, word) in self.words.iter().enumerate() {
            if let Listed::Up(_) = word {
                assert!(
                    now.get(&n).is_some_and(|(_, routable)| *routable),
                    "{n} is listed and not published"
                );
            }
        }
        let now = routable(&now);
        self.lost.retain(|(_, n)| !now.contains(n));
        self.history.push((self.world.now, now));
    }

    fn say(&mut self, words: &[Listed], before: &Routes) {
        self.words = words.to_vec();
        self.claimed.extend(words.iter().enumerate().filter_map(|(n, word)| match word {
            Listed::Up(v) | Listed::Sick(v) | Listed::Off(v) => Some((n, version(*v))),
            Listed::Absent | Listed::Bare => None,
        }));
        self.world.all(0, listed(words));
        let now = routes(&self.world);
        let before = routable(before);
        let gone = before.difference(&routable(&now)).copied().collect::<BTreeSet<_>>();
        let lost: Vec<usize> =
            gone.into_iter().filter(|n| matches!(words[*n], Listed::Absent | Listed::Sick(_))).collect();
        if lost.is_empty() {
            return;
        }
        assert!(
            routable(&now).iter().any(|n| matches!(words[*n], Listed::Up(_) | Listed::Bare)),
            "the last ones are gone"
        );
        self.lost.extend(lost.iter().map(|n| (self.world.now, *n)));
        let window = Duration::from_secs(WINDOW);
        let recent = |at: Instant| self.world.now - at < window;
        let lost: BTreeSet<usize> = self.lost.iter().filter(|(at, _)| recent(*at)).map(|(_, n)| *n).collect();
        let lost = lost.difference(&routable(&now)).count();
        // What was in force when the window began counts as well.
        let from = self.history.iter().rposition(|(at, _)| !recent(*at)).unwrap_or(0);
        let seen: BTreeSet<usize> =
            self.history[from..].iter().flat_map(|(_, routable)| routable).copied().collect();
        assert!(lost * 2 <= seen.len(), "{lost} of {} are lost", seen.len());
    }

    fn accept(&mut self, before: &Routes) {
        let Some(held) = self.world.status().held.into_iter().next() else { return };
        self.world.mirror.accept(&held.id, self.world.now).unwrap();
        self.world.write();
        let meant: BTreeSet<usize> =
            held.items.iter().map(|item| number(item.split(':').next().unwrap())).collect();
        let now = routes(&self.world);
        let truth = truth(&self.words);
        for n in 0..IDS {
            match (meant.contains(&n), held.reason()) {
                (false, _) => assert_eq!(now.get(&n), before.get(&n), "{n} was not meant"),
                (true, HoldReason::InstanceDrop) => {
                    assert!(now.get(&n).is_none_or(|(_, routable)| !routable), "{n} stays");
                }
                (true, _) => {
                    let version = |routes: &Routes| routes.get(&n).map(|(version, _)| version.clone());
                    assert_eq!(version(&now), version(&truth), "{n} keeps its version");
                }
            }
        }
        assert!(self.world.status().held.iter().all(|other| other.id != held.id));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn promises_hold_at_every_step(steps in vec(step(), 1..60)) {
        // Nothing is believed by time: whatever goes was allowed to, refused, or accepted.
        let mut watcher = Watcher::new(1_000_000);
        for step in &steps {
            watcher.take(step);
        }
    }

    #[test]
    fn what_persists_is_believed_in_the_end(steps in vec(step(), 1..30), words in vec(listed_as(), IDS)) {
        let mut watcher = Watcher::new(300);
        for step in &steps {
            if !matches!(step, Step::Accept) {
                match step {
                    Step::Say(words) => watcher.world.all(0, listed(words)),
                    Step::Fail => watcher.world.fail(0),
                    Step::Pass(seconds) => watcher.world.pass(*seconds),
                    _ => {}
                }
            }
        }
        let stable = watcher.at() + Duration::from_secs(300 + WINDOW + 10);
        while watcher.at() <= stable {
            watcher.world.all(0, listed(&words));
            watcher.world.probe(|address| match words[number(address)] {
                Listed::Absent => Verdict::Refused,
                Listed::Up(v) | Listed::Sick(v) | Listed::Off(v) => alive(&v.to_string()),
                Listed::Bare => alive(""),
            });
            watcher.world.pass(10);
        }
        prop_assert_eq!(routes(&watcher.world), truth(&words));
        prop_assert!(watcher.world.nothing_held());
    }

    #[test]
    fn a_takeover_changes_nothing_by_itself(steps in vec(step(), 1..30)) {
        let mut watcher = Watcher::new(300);
        let mut successor = World::new(options(&["dc-1"]));
        for step in &steps {
            watcher.take(step);
        }
        let published = watcher.world.published("payment");
        successor.now = watcher.world.now;
        let id = ServiceId::new("payment").unwrap();
        successor.mirror.adopt(vec![ServiceInstances { service: id, instances: published }], &[], successor.now);
        prop_assert_eq!(routes(&successor), routes(&watcher.world));
    }
}
