//! Whatever files do, whatever the settings are and however the server is reached: the schemas of all other tenants are as
//! they were.
//!
//! Files are random, out of statements that lead elsewhere, keep something for later or end what they should not. Where
//! the role of migrations may write to other tenants, it is the migrator that has to notice; where tenants have roles
//! of their own, as `provision` makes them, also statements are among them that nobody could notice in time.

use crate::files::try_load;
use crate::run_pooler::{left_behind, poolers};
use crate::run_world::{LONG, World, job, lenient, timeouts};
use grey_runtime::Secret;
use grey_schema_migrator::files::Dialect;
use grey_schema_migrator::plan::Target as To;
use grey_schema_migrator::run::{Ended, Goal, MigrateError, Migration, Outcome, migrate};
use grey_schema_migrator::tenant::{Stop, Target, Timeouts};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// Set to the number of cases of each property, where more than a few are wanted.
const CASES: &str = "TEST_OTHERS_CASES";

/// How many other tenants there are.
const OTHERS: u8 = 3;

/// What a statement of a random file does.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Table(u8),
    Column(u8),
    Index(u8),
    Rows(u8),
    Drop(u8),
    /// Sets something, or makes something that lasts as long as the session.
    Setting(usize),
    /// Leads the session elsewhere: to that tenant.
    Leave(u8, usize),
    /// Does something where that tenant is.
    Reach(u8, usize),
}

/// What a file is made of, by kind of database.
struct Grammar {
    settings: &'static [&'static str],
    leaves: &'static [&'static str],
    reaches: &'static [&'static str],
}

/// `$S` is the other tenant's schema.
const POSTGRES: Grammar = Grammar {
    settings: &[
        "SET DateStyle = 'SQL, DMY'",
        "SET TimeZone = 'Asia/Tokyo'",
        "SET session_replication_role = replica",
        "SET client_encoding = 'LATIN1'",
        "SET row_security = off",
        "SET check_function_bodies = off",
        "CREATE TEMPORARY TABLE a (x INT)",
        "CREATE TEMPORARY TABLE t1 (id INT)",
        "CREATE TEMPORARY TABLE grey AS SELECT 1 AS one",
        "PREPARE p AS SELECT 1",
        "DO $$ BEGIN EXECUTE 'DISCARD TEMP'; END $$",
        "DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$",
        "DO $$ BEGIN COMMIT; END $$",
        "CREATE FUNCTION pg_temp.now() RETURNS INT LANGUAGE sql AS 'SELECT 1'",
    ],
    leaves: &[
        "DO $$ BEGIN EXECUTE 'SET search_path = $S'; END $$",
        "DO $$ BEGIN EXECUTE 'SET LOCAL search_path = $S, tenant_0'; END $$",
        "DO $$ BEGIN EXECUTE 'SET search_path = tenant_0, $S'; END $$",
        "DO $$ BEGIN PERFORM set_config('search_path', '$S', false); END $$",
        "DO $$ BEGIN EXECUTE 'RESET search_path'; END $$",
        "DO $$ BEGIN EXECUTE 'SET ROLE pg_monitor'; END $$",
        "SET search_path = $S",
        "DISCARD ALL",
        "COMMIT",
    ],
    reaches: &[
        "DO $$ BEGIN ALTER TABLE $S.a ADD COLUMN IF NOT EXISTS z INT; END $$",
        "DO $$ BEGIN DROP TABLE IF EXISTS $S.b; END $$",
        "DO $$ BEGIN DROP SCHEMA IF EXISTS $S CASCADE; END $$",
        "DO $$ BEGIN CREATE TABLE IF NOT EXISTS $S.made (id INT); END $$",
        "DO $$ BEGIN CREATE INDEX ON $S.a (id); END $$",
        "DO $$ BEGIN COMMENT ON TABLE $S.a IS 'mine'; END $$",
        "ALTER TABLE $S.a ADD COLUMN IF NOT EXISTS y INT",
        "CREATE TABLE IF NOT EXISTS $S.made (id INT)",
    ],
};

/// What commits before anybody can look: only the role's rights are in its way.
const POSTGRES_AT_ONCE: &[&str] = &[
    "DO $$ BEGIN EXECUTE 'SET search_path = $S'; COMMIT; CREATE TABLE made (id INT); COMMIT; END $$",
    "DO $$ BEGIN ALTER TABLE $S.a ADD COLUMN x INT; COMMIT; END $$",
];

/// The MySQL family commits each of its statements, so a session that is elsewhere is noticed too late: it must never be.
const FAMILY: Grammar = Grammar {
    settings: &[
        "SET sql_mode = ''",
        "SET foreign_key_checks = 0",
        "SET NAMES latin1",
        "SET @left = 5",
        "SET time_zone = '+09:00'",
        "CREATE TEMPORARY TABLE a (x INT)",
        "CREATE TEMPORARY TABLE t1 (id INT)",
        "PREPARE p FROM 'SELECT 1'",
        "PREPARE p FROM 'CREATE TABLE IF NOT EXISTS t2 (id INT)'",
        "EXECUTE p",
    ],
    leaves: &[
        "USE $S",
        "PREPARE p FROM 'USE $S'",
        "EXECUTE IMMEDIATE 'USE $S'",
        "CREATE PROCEDURE leave_it() USE $S",
        "COMMIT",
        "SET autocommit = 0",
        "SET ROLE NONE",
    ],
    reaches: &[],
};

const FAMILY_AT_ONCE: &[&str] = &[
    "ALTER TABLE $S.a ADD COLUMN z INT",
    "CREATE TABLE $S.made (id INT)",
    "DROP TABLE $S.b",
    "RENAME TABLE a TO $S.made",
    "EXECUTE IMMEDIATE 'ALTER TABLE $S.a ADD COLUMN y INT'",
    "DROP DATABASE $S",
];

impl Deed {
    fn sql(self, grammar: &Grammar, at_once: &[&str], others: &[String], number: usize) -> String {
        let other = |it: u8| others.get(usize::from(it) % others.len()).cloned().unwrap();
        let one_of = |all: &[&str], which: usize, it: u8| match all.len() {
            0 => "SELECT 1".to_owned(),
            many => all[which % many].replace("$S", &other(it)),
        };
        match self {
            Self::Table(it) => format!("CREATE TABLE IF NOT EXISTS t{it} (id INT)"),
            Self::Column(it) => format!("ALTER TABLE t{it} ADD COLUMN c{number} INT"),
            Self::Index(it) => format!("CREATE INDEX i{number} ON t{it} (id)"),
            Self::Rows(it) => format!("INSERT INTO a VALUES ({it})"),
            Self::Drop(it) => format!("DROP TABLE IF EXISTS t{it}"),
            Self::Setting(which) => one_of(grammar.settings, which, 0),
            Self::Leave(it, which) => one_of(grammar.leaves, which, it),
            Self::Reach(it, which) => one_of(&[grammar.reaches, at_once].concat(), which, it),
        }
    }
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => (0..3_u8).prop_map(Deed::Table),
        2 => (0..3_u8).prop_map(Deed::Column),
        1 => (0..3_u8).prop_map(Deed::Index),
        2 => any::<u8>().prop_map(Deed::Rows),
        1 => (0..3_u8).prop_map(Deed::Drop),
        3 => any::<usize>().prop_map(Deed::Setting),
        1 => (0..OTHERS, any::<usize>()).prop_map(|(to, how)| Deed::Leave(to, how)),
        1 => (0..OTHERS, any::<usize>()).prop_map(|(to, how)| Deed::Reach(to, how)),
    ]
}

/// Files, and under which circumstances they run.
#[derive(Clone, Debug)]
struct Case {
    /// Their statements, and whether each file is one transaction.
    files: Vec<(Vec<Deed>, bool)>,
    /// Which way the server is reached: 0 is direct, others are poolers.
    way: usize,
    /// Whether the role is the tenant's own.
    own: bool,
    /// How long is waited for locks and statements.
    patience: (u64, u64),
}

fn case(ways: usize) -> impl Strategy<Value = Case> {
    let file = (prop::collection::vec(deed(), 1..5), prop::bool::weighted(0.7));
    let way = prop_oneof![4 => Just(0), 1 => 0..ways];
    let patience = (100..3_000_u64, 1_000..20_000_u64);
    (prop::collection::vec(file, 1..5), way, any::<bool>(), patience)
        .prop_map(|(files, way, own, patience)| Case { files, way, own, patience })
}

/// The files' names and texts, after one that all tenants have.
fn texts(case: &Case, grammar: &Grammar, at_once: &[&str], others: &[String]) -> Vec<(String, String)> {
    let at_once = if case.own { at_once } else { &[] };
    let mut texts = vec![first()];
    for (index, (deeds, together)) in case.files.iter().enumerate() {
        let mut text = if *together { String::new() } else { "-- grey: no-transaction\n".to_owned() };
        for (number, deed) in deeds.iter().enumerate() {
            text.push_str(&format!("{};\n", deed.sql(grammar, at_once, others, index * 10 + number)));
        }
        texts.push((format!("V{}__x.sql", index + 2), text));
    }
    texts
}

fn first() -> (String, String) {
    ("V1__a.sql".to_owned(), "CREATE TABLE a (id INT);\nCREATE TABLE b (id INT);\n".to_owned())
}

/// Runs the files; none: they are refused before anything runs.
async fn run(
    target: &Target,
    texts: &[(String, String)],
    (lock, statement): (u64, u64),
) -> Option<Result<Ended, MigrateError>> {
    let texts: Vec<_> = texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let scripts = try_load(target.dialect, &texts).ok()?;
    let timeouts = Timeouts {
        lock: Duration::from_millis(lock),
        statement: Duration::from_millis(statement),
        ..timeouts()
    };
    let migration = Migration { target, timeouts, goal: Goal::Up(To::Newest), options: lenient() };
    let stop = Stop::within(LONG, CancellationToken::new());
    Some(Box::pin(migrate(&migration, &job("u1", &scripts, stop), &mut |_| {})).await)
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn runner(usual: u32) -> TestRunner {
    let cases = std::env::var(CASES).ok().map_or(usual, |cases| cases.parse().unwrap());
    TestRunner::new(ProptestConfig {
        cases,
        max_shrink_iters: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    })
}

/// Everything that is in the schemas of the other tenants.
const IN_SCHEMAS: &str = "SELECT string_agg(line, E'\\n' ORDER BY line) FROM (\
     SELECT concat_ws(' ', n.nspname, c.relname, c.relkind, a.attname, a.atttypid, obj_description(c.oid)) AS line \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_attribute a ON a.attrelid = c.oid \
     WHERE n.nspname ~ '^tenant_[1-9]' AND c.relkind <> 't' \
     UNION ALL SELECT 'row 1 ' || count(*) FROM tenant_1.a UNION ALL SELECT 'row 2 ' || count(*) FROM tenant_2.a \
     UNION ALL SELECT 'row 3 ' || count(*) FROM tenant_3.a \
     UNION ALL SELECT 'history ' || count(*) FROM tenant_1.grey_schema_history_shop \
     UNION ALL SELECT 'history ' || count(*) FROM tenant_2.grey_schema_history_shop \
     UNION ALL SELECT 'history ' || count(*) FROM tenant_3.grey_schema_history_shop) AS it";

#[test]
fn tenants_that_share_a_postgres_database_do_not_meet() {
    let runtime = runtime();
    let others: Vec<_> = (1..=OTHERS).map(|number| format!("tenant_{number}")).collect();
    let (world, ways, poolers, role) = runtime.block_on(async {
        let mut world = World::new(Dialect::Postgres).await;
        for schema in &others {
            world.sql(&format!("CREATE SCHEMA {schema}")).await;
            world.target.schema = Some(schema.clone());
            let ended = run(&world.target, &[first()], (3_000, 60_000)).await.unwrap().unwrap();
            assert_eq!(ended.outcome, Outcome::Succeeded);
        }
        let role = format!("own_{}", world.name);
        world.sql(&format!("CREATE ROLE {role} LOGIN; CREATE SCHEMA tenant_0")).await;
        let poolers = poolers().await;
        let mut ways = vec![world.target.url.expose().to_owned()];
        ways.extend(poolers.iter().map(|pooler| pooler.url_of(&world.name)));
        (world, ways, poolers, role)
    });
    let before = runtime.block_on(world.sql(IN_SCHEMAS));
    let result = runner(40).run(&case(ways.len()), |case| {
        let texts = texts(&case, &POSTGRES, POSTGRES_AT_ONCE, &others);
        let ran = runtime.block_on(async {
            let owner = if case.own { role.as_str() } else { "CURRENT_USER" };
            world
                .sql(&format!(
                    "DROP SCHEMA IF EXISTS tenant_0 CASCADE; CREATE SCHEMA tenant_0 AUTHORIZATION {owner}"
                ))
                .await;
            let mut url = ways[case.way].clone();
            if case.own && case.way == 0 {
                url = url.replacen("grey@", &format!("{role}@"), 1);
            }
            let schema = Some("tenant_0".to_owned());
            let target = Target { url: Secret::new(url), schema, ..world.target.clone() };
            run(&target, &texts, case.patience).await
        });
        let refused = ran.as_ref().is_none_or(Result::is_err);
        prop_assert!(case.way == 0 || refused, "through a pooler: {ran:?}");
        prop_assert_eq!(runtime.block_on(world.sql(IN_SCHEMAS)), before.clone());
        if case.way > 0 {
            let left = runtime.block_on(left_behind(&poolers[case.way - 1], &world.name));
            prop_assert_eq!(left, ("0".to_owned(), "\"$user\", public".to_owned()));
        }
        Ok(())
    });
    result.unwrap();
    // Servers that are shared by all tests outlive this one's runtime.
    runtime.shutdown_background();
}

#[test]
fn tenants_of_a_server_of_the_mysql_family_do_not_meet() {
    let runtime = runtime();
    let (neighbours, world, user) = runtime.block_on(async {
        let mut neighbours = Vec::new();
        for _ in 0..OTHERS {
            let world = World::new(Dialect::MySql).await;
            let ended = run(&world.target, &[first()], (3_000, 60_000)).await.unwrap().unwrap();
            assert_eq!(ended.outcome, Outcome::Succeeded);
            neighbours.push(world);
        }
        let world = World::new(Dialect::MySql).await;
        let user = format!("own_{}", world.name);
        let pattern = world.name.replace('_', "\\_");
        world
            .sql(&format!(
                "CREATE USER '{user}'@'%' IDENTIFIED BY 'grey'; GRANT ALL PRIVILEGES ON `{pattern}`.* TO '{user}'@'%'"
            ))
            .await;
        (neighbours, world, user)
    });
    let others: Vec<_> = neighbours.iter().map(|neighbour| neighbour.name.clone()).collect();
    let state = || {
        runtime.block_on(async {
            let mut state = Vec::new();
            for neighbour in &neighbours {
                let rows = "SELECT CONCAT((SELECT COUNT(*) FROM a), ' ', (SELECT COUNT(*) FROM b), ' ', \
                            (SELECT COUNT(*) FROM grey_schema_history_shop))";
                state.push((neighbour.shape().await, neighbour.sql(rows).await));
            }
            state
        })
    };
    let before = state();
    let result = runner(40).run(&case(1), |case| {
        let texts = texts(&case, &FAMILY, FAMILY_AT_ONCE, &others);
        runtime.block_on(async {
            world.sql(&format!("DROP DATABASE IF EXISTS {0}; CREATE DATABASE {0}", world.name)).await;
            let url = world.target.url.expose();
            let url = if case.own { url.replacen("grey:", &format!("{user}:"), 1) } else { url.to_owned() };
            let target = Target { url: Secret::new(url), ..world.target.clone() };
            run(&target, &texts, case.patience).await
        });
        prop_assert_eq!(state(), before.clone());
        Ok(())
    });
    result.unwrap();
    runtime.shutdown_background();
}
