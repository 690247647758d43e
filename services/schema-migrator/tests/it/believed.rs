//! What is there is believed: histories of others, tables of others, and what was changed by hand.

use crate::files::load;
use crate::run_world::{LONG, V1, World, lenient, scripts, target, timeouts, version};
use grey_schema_migrator::files::{Dialect, Scripts};
use grey_schema_migrator::lint::Rule;
use grey_schema_migrator::plan::{Facts, History, Options, Outcome as Entry, Plan, Target};
use grey_schema_migrator::run::{Goal, Outcome, plan_on};
use grey_schema_migrator::tenant::{Baseline, Change, Connection, Drift, Stop, baseline, facts_of_many};
use std::collections::BTreeSet;
use tokio_util::sync::CancellationToken;

const FLYWAY: &str = "CREATE TABLE flyway_schema_history (installed_rank INTEGER PRIMARY KEY, version VARCHAR(50), \
                      type VARCHAR(20), success BOOLEAN)";

/// Four migrations, of which Flyway has run the first and the third.
async fn half_run_by_flyway(dialect: Dialect) -> (World, Scripts) {
    let world = World::new(dialect).await;
    let files: Vec<_> =
        (1..=4).map(|n| (format!("V{n}__t{n}.sql"), format!("CREATE TABLE t{n} (id INT);"))).collect();
    let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    for sql in ["CREATE TABLE t1 (id INT)", "CREATE TABLE t3 (id INT)", FLYWAY] {
        world.sql(sql).await;
    }
    world.sql("INSERT INTO flyway_schema_history VALUES (1, '1', 'SQL', TRUE), (2, '3', 'SQL', TRUE)").await;
    (world, load(dialect, &files))
}

async fn planned(world: &World, scripts: &Scripts, options: &Options) -> Plan {
    let connection = world.open().await;
    let history = connection.history().await.unwrap();
    let goal = Goal::Up(Target::Newest);
    Box::pin(plan_on(&connection, scripts, &history, &goal, options)).await.unwrap()
}

fn rules(plan: &Plan) -> Vec<&str> {
    plan.verdict().err().map(|it| it.findings.iter().map(|it| it.rule).collect()).unwrap_or_default()
}

#[tokio::test]
async fn a_baseline_refuses_what_it_would_skip_for_ever() {
    for dialect in Dialect::ALL {
        let (world, scripts) = half_run_by_flyway(dialect).await;
        let mut connection = world.open().await;
        connection.lock(&Stop::within(LONG, CancellationToken::new())).await.unwrap();
        let (three, five) = (version("3"), version("5"));
        let none: Vec<String> = Vec::new();
        for schema in [None, Some(&three)] {
            let wanted = Baseline { schema, scripts: &scripts, skip: &none, actor: "test", id: "b" };
            let refused = Box::pin(baseline(&connection, &wanted)).await.unwrap_err().to_string();
            assert!(refused.contains("Flyway has not run V2__t2.sql"), "{dialect}: {refused}");
        }
        let wanted = Baseline { schema: Some(&five), scripts: &scripts, skip: &none, actor: "test", id: "b" };
        let refused = Box::pin(baseline(&connection, &wanted)).await.unwrap_err().to_string();
        assert!(refused.contains("there is no file of 5, the newest is of 4"), "{dialect}: {refused}");
        assert!(connection.history().await.unwrap().is_blank(), "{dialect}");
        // Accepted by name.
        let skip = vec!["V2__t2.sql".to_owned()];
        let wanted = Baseline { schema: None, scripts: &scripts, skip: &skip, actor: "test", id: "b" };
        let declared = Box::pin(baseline(&connection, &wanted)).await.unwrap();
        assert_eq!(declared.schema, three, "{dialect}");
        assert_eq!(declared.covered, ["V1__t1.sql", "V2__t2.sql", "V3__t3.sql"], "{dialect}");
        drop(connection);
        assert_eq!(world.up(&scripts).await.unwrap().outcome, Outcome::Succeeded, "{dialect}");
        assert_eq!(world.history().await, ["3 baseline", "4 applied"], "{dialect}");
    }
}

#[tokio::test]
async fn what_was_there_before_flyway_is_no_gap() {
    for dialect in Dialect::ALL {
        let (world, scripts) = half_run_by_flyway(dialect).await;
        world
            .sql("UPDATE flyway_schema_history SET version = '2', type = 'BASELINE' WHERE installed_rank = 1")
            .await;
        let mut connection = world.open().await;
        connection.lock(&Stop::within(LONG, CancellationToken::new())).await.unwrap();
        let wanted = Baseline { schema: None, scripts: &scripts, skip: &[], actor: "test", id: "b" };
        assert_eq!(Box::pin(baseline(&connection, &wanted)).await.unwrap().schema, version("3"), "{dialect}");
    }
}

#[tokio::test]
async fn a_database_that_others_have_filled_is_not_upgraded() {
    for dialect in Dialect::ALL {
        let (world, scripts) = half_run_by_flyway(dialect).await;
        // Nothing accepts running Flyway's files again.
        let plan = planned(&world, &scripts, &lenient()).await;
        assert_eq!(rules(&plan), ["flyway-history"], "{dialect}");
        let refused = plan.verdict().unwrap_err().to_string();
        assert!(refused.contains("`grey migrate baseline shop`"), "{dialect}: {refused}");
        let facts =
            facts_of_many(std::slice::from_ref(&world.target), &BTreeSet::new(), &timeouts(), 1).await;
        let alone = facts.into_iter().next().unwrap().unwrap();
        let plan = Goal::Up(Target::Newest).plan(&scripts, &History::default(), &lenient(), &alone);
        assert_eq!(rules(&plan), ["flyway-history"], "{dialect}");

        let world = World::new(dialect).await;
        world.sql("CREATE TABLE somebodys (id INT)").await;
        let plan = planned(&world, &scripts, &Options::default()).await;
        assert_eq!(rules(&plan), ["not-empty"], "{dialect}");
        assert!(plan.verdict().unwrap_err().to_string().contains("`somebodys`"), "{dialect}");
        let accepted = Options { accept: [Rule::NotEmpty].into(), ..Options::default() };
        assert!(rules(&planned(&world, &scripts, &accepted).await).is_empty(), "{dialect}");
        // What another service of ours has made is no reason.
        let world = World::new(dialect).await;
        assert_eq!(world.up(&scripts).await.unwrap().outcome, Outcome::Succeeded, "{dialect}");
        let mut other = target(dialect, world.target.url.expose().to_owned());
        other.service = grey_core::ids::ServiceId::new("billing").unwrap();
        let connection = Connection::open(&other, &timeouts()).await.unwrap();
        let (goal, options) = (Goal::Up(Target::Newest), Options::default());
        let history = History::default();
        let plan = Box::pin(plan_on(&connection, &scripts, &history, &goal, &options)).await.unwrap();
        assert!(rules(&plan).is_empty(), "{dialect}: {:?}", rules(&plan));
    }
}

#[tokio::test]
async fn many_databases_of_one_server_are_looked_into_together() {
    for dialect in [Dialect::Postgres, Dialect::MySql] {
        let (full, empty) = (World::new(dialect).await, World::new(dialect).await);
        full.sql("CREATE TABLE somebodys (id INT)").await;
        let mut targets = vec![full.target.clone(), empty.target.clone()];
        if dialect == Dialect::Postgres {
            // Those that share a database are read together.
            for schema in ["one", "two"] {
                full.sql(&format!("CREATE SCHEMA {schema}")).await;
            }
            full.sql("CREATE TABLE one.theirs (id int)").await;
            let of = |schema: &str| grey_schema_migrator::tenant::Target {
                schema: Some(schema.to_owned()),
                ..full.target.clone()
            };
            targets = vec![of("one"), of("two")];
        }
        let all = facts_of_many(&targets, &BTreeSet::new(), &timeouts(), 1).await;
        let all: Vec<Facts> = all.into_iter().map(Result::unwrap).collect();
        let files = load(dialect, &[V1]);
        let refused = |facts: &Facts| {
            let plan = Goal::Up(Target::Newest).plan(&files, &History::default(), &Options::default(), facts);
            plan.verdict().is_err()
        };
        assert_eq!(all.iter().map(refused).collect::<Vec<_>>(), [true, false], "{dialect}");
    }
}

async fn drift(world: &World, scripts: &Scripts) -> Drift {
    world.open().await.drift(Some(scripts)).await.unwrap()
}

#[tokio::test]
async fn what_is_changed_by_hand_is_told_object_by_object() {
    for dialect in Dialect::ALL {
        let (world, scripts) = (World::new(dialect).await, scripts(dialect));
        assert_eq!(drift(&world, &scripts).await, Drift::default(), "{dialect}: nothing to compare with");
        world.up(&scripts).await.unwrap();
        let well = drift(&world, &scripts).await;
        assert!(well.left_at_ms.is_some() && well.differences.is_empty(), "{dialect}: {well:?}");
        // Rows are none of its business.
        world.sql("INSERT INTO items (id, name) VALUES (9, 'nine')").await;
        assert!(drift(&world, &scripts).await.differences.is_empty(), "{dialect}");
        for sql in
            ["ALTER TABLE items ADD COLUMN extra INT", "DROP TABLE notes", "CREATE TABLE mine (id INT)"]
        {
            world.sql(sql).await;
        }
        let found = drift(&world, &scripts).await.differences;
        let told = |object: &str, change| found.iter().any(|it| it.object == object && it.change == change);
        assert!(told("items", Change::Changed), "{dialect}: {found:?}");
        assert!(told("notes", Change::Removed), "{dialect}: {found:?}");
        assert!(told("mine", Change::Added), "{dialect}: {found:?}");
        // Accepted, it is what is compared with from then on.
        world.open().await.keep_catalog().await.unwrap();
        assert!(drift(&world, &scripts).await.differences.is_empty(), "{dialect}");
        // An upgrade that is undone leaves what it leaves.
        let goal = Goal::Down(Some(version("1")));
        world.sql("CREATE TABLE notes (id INT)").await;
        world.migrate(&scripts, goal, LONG, &mut |_| {}).await.unwrap();
        assert!(drift(&world, &scripts).await.differences.is_empty(), "{dialect}");
    }
}

#[tokio::test]
async fn what_another_service_does_is_no_drift() {
    for dialect in Dialect::ALL {
        let (world, scripts) = (World::new(dialect).await, scripts(dialect));
        world.up(&scripts).await.unwrap();
        let mut other = World::new(dialect).await;
        other.target.url = world.target.url.clone();
        other.target.service = grey_core::ids::ServiceId::new("billing").unwrap();
        let theirs = load(dialect, &[("V1__bills.sql", "CREATE TABLE bills (id INT);")]);
        other.up(&theirs).await.unwrap();
        let found = drift(&world, &scripts).await;
        assert!(found.differences.is_empty(), "{dialect}: {found:?}");
        world.sql("ALTER TABLE items ADD COLUMN extra INT").await;
        assert!(!drift(&world, &scripts).await.differences.is_empty(), "{dialect}");
    }
}

#[test]
fn every_outcome_of_a_history_has_its_word() {
    let words: BTreeSet<&str> = Entry::ALL.iter().map(|it| it.as_str()).collect();
    assert_eq!(words.len(), Entry::ALL.len());
}
