//! Whatever is commanded: the moves that are told are those that a router's table shows.

use std::collections::BTreeMap;

use grey_core::balance::Moment;
use grey_core::change::{Change, Revision};
use grey_core::decide::{Call, decide};
use grey_core::error::Refusal;
use grey_core::ids::ServiceId;
use grey_core::table::Table;
use grey_core::version::Version;
use grey_proto::control::change::Change as Kind;
use grey_proto::control::{self, Moves, WriteResult};
use grey_state::follower::{Follower, Options, Tables};
use grey_state::instances::ServiceInstances;
use grey_state::{FencingToken, State, redis};
use grey_testkit::{Redis, eventually};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tokio_util::sync::CancellationToken;

use crate::explain::instance;
use crate::fixture::{Backend, Plane, SOON, Store, config};
use crate::folding::a_change;
use crate::moves::{apply, at_most, dry_run};

const TENANTS: [&str; 4] = ["a", "a.b", "a-b", "b"];
/// Those that are changed, and one by which it is seen that the control plane knows what runs.
const SERVICES: [&str; 3] = ["x", "y", "probe"];
const COMMANDS: usize = 60;

type Groups = BTreeMap<(String, String, String), u64>;

/// The version that answers, and the one that was decided.
fn versions(table: &Table, tenant: &str, service: &str) -> (Option<Version>, Option<Version>) {
    match decide(table, &Call::new(tenant, service), &Moment::default()) {
        Ok(decision) => (Some(decision.version.clone()), Some(decision.version.clone())),
        Err(Refusal::NoInstance { version }) => (None, Some(version)),
        Err(_) => (None, None),
    }
}

/// What a router with the one table and then the other shows.
fn seen(before: &Table, after: &Table) -> Groups {
    let declared = |table: &Table, id: &str| table.tenant(id).is_some_and(|row| row.profile().is_some());
    let mut groups = Groups::new();
    for service in SERVICES {
        for tenant in TENANTS.into_iter().filter(|id| declared(before, id) || declared(after, id)) {
            let (was, then) = (versions(before, tenant, service), versions(after, tenant, service));
            let nobody_served = was.0.is_none() && then.0.is_none();
            let (from, to) = if nobody_served { (was.1, then.1) } else { (was.0, then.0) };
            if from != to {
                let text = |version: Option<Version>| version.map_or_else(String::new, |v| v.to_string());
                *groups.entry((service.to_owned(), text(from), text(to))).or_default() += 1;
            }
        }
    }
    groups
}

fn told(moves: Option<Moves>) -> Groups {
    let mut groups = Groups::new();
    for group in moves.unwrap().groups {
        *groups.entry((group.service, group.from, group.to)).or_default() += group.tenants;
    }
    groups
}

/// A router's table, kept up to date.
fn follow(state: &State, stop: &CancellationToken) -> Tables {
    let (follower, tables) = Follower::new(state.clone(), Options::default());
    tokio::spawn(follower.run(stop.clone()));
    tables
}

async fn reach(tables: &Tables, revision: u64) -> std::sync::Arc<Table> {
    let reached = tables.wait_until(|position| position.revision >= Revision(revision), SOON).await;
    assert!(reached, "the router does not reach revision {revision}");
    tables.load_full()
}

/// Instances of versions 1 and 2 of each service, known to the control plane and to the router.
async fn run_instances(plane: &Plane, tables: &Tables) {
    let lists = SERVICES.into_iter().map(|service| match service {
        "probe" => (service, vec![instance("a", "1")]),
        _ => (service, vec![instance("a", "1"), instance("b", "2")]),
    });
    for (service, instances) in lists {
        let list = ServiceInstances { service: ServiceId::new(service).unwrap(), instances };
        plane.state.instances.replace(FencingToken(1), &list).await.unwrap();
    }
    plane.put_service("probe", "1").await;
    plane.put_version("probe", "2", None).await;
    plane.put_tenant("a").await;
    let knows = async || {
        let service = control::Service { id: "probe".into(), default_version: "2".into(), revision: 0 };
        let result: WriteResult = apply(plane, vec![Kind::ServicePut(service)], dry_run()).await.unwrap();
        told(result.moves).contains_key(&("probe".into(), "v1.0".into(), String::new()))
    };
    eventually(SOON, "the control plane knows what runs", knows).await;
    eventually(SOON, "the router knows what runs", async || {
        tables.load().service("probe").is_some_and(|probe| probe.instances_digest() != 0)
    })
    .await;
}

async fn told_is_seen(backend: Backend, state: State) {
    let store = Store::new(backend).await;
    let config = config(&store.url);
    let plane = Plane::start_with(store, config, state).await;
    let stop = CancellationToken::new();
    let tables = follow(&plane.state, &stop);
    run_instances(&plane, &tables).await;
    let mut runner = TestRunner::deterministic();
    let (mut written, mut moved) = (0, 0);
    while written < COMMANDS {
        let changes = vec(a_change(), 1..4).new_tree(&mut runner).unwrap().current();
        let wire = |change: &Change| control::Change::from(change).change.unwrap();
        let changes: Vec<Kind> = changes.iter().map(wire).collect();
        let before = reach(&tables, plane.revision().await).await;
        let Ok(dry) = apply(&plane, changes.clone(), dry_run()).await else { continue };
        let result = apply(&plane, changes, at_most(u64::MAX)).await.unwrap();
        let after = reach(&tables, result.revision).await;
        let seen = seen(&before, &after);
        assert_eq!(told(result.moves.clone()), seen, "{:?}", plane.events().await.last());
        assert_eq!(dry.moves, result.moves, "a dry run tells what the write does");
        written += 1;
        moved += usize::from(!seen.is_empty());
    }
    assert!(moved > COMMANDS / 4, "{moved} of {COMMANDS} commands moved someone");
    stop.cancel();
}

#[tokio::test]
async fn told_moves_are_seen_by_a_router_on_sqlite() {
    told_is_seen(Backend::Sqlite, State::memory()).await;
}

#[tokio::test]
async fn told_moves_are_seen_by_a_router_through_redis_on_postgres() {
    let redis = Redis::start().await.unwrap();
    let options = redis::Options { urls: vec![redis.url()], ..redis::Options::default() };
    told_is_seen(Backend::Postgres, State::redis(&options).await.unwrap()).await;
}
