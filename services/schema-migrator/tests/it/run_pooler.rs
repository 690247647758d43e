//! Behind a pooler sessions are lent: nothing is run there, and nothing is left there.

use crate::files::load;
use crate::run_world::{LONG, World, job, lenient, postgres, target, timeouts};
use crate::service_world::{PLAIN, Stage, up};
use grey_core::error::Reason;
use grey_proto::control::DatabaseKind;
use grey_proto::schema::UpgradeState;
use grey_runtime::Secret;
use grey_schema_migrator::files::Dialect;
use grey_schema_migrator::plan::Target as To;
use grey_schema_migrator::run::{Goal, MigrateError, Migration, Outcome, migrate};
use grey_schema_migrator::tenant::{Connection, Error, Stop, Target};
use grey_testkit::PgBouncer;
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

/// All that can be before a server.
async fn poolers() -> Vec<PgBouncer> {
    let server = postgres().await;
    let builder = PgBouncer::builder;
    let mut poolers = Vec::new();
    for builder in [
        builder(),
        builder().ignores_options(),
        builder().mode("session"),
        builder().mode("session").ignores_options().size(20),
    ] {
        poolers.push(builder.start(server).await.unwrap());
    }
    poolers
}

/// What the pool's sessions on the server hold that other clients would find.
async fn left_behind(pooler: &PgBouncer, database: &str) -> (String, String) {
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = \
                 (SELECT oid FROM pg_database WHERE datname = current_database())";
    let locks = postgres().await.query(database, locks).await.unwrap();
    // By the command line client, which prepares nothing that the next client would find.
    let path = "SELECT current_setting('search_path')";
    (locks, postgres().await.query_at(&pooler.url_of(database), path).await.unwrap())
}

fn through(pooler: &PgBouncer, database: &str, schema: &str) -> Target {
    Target { schema: Some(schema.to_owned()), ..target(Dialect::Postgres, pooler.url_of(database)) }
}

#[tokio::test]
async fn nothing_is_run_through_a_pooler_and_nothing_is_left_in_it() {
    let world = World::new(Dialect::Postgres).await;
    world.sql("CREATE SCHEMA tenant_a").await;
    let scripts = load(Dialect::Postgres, &[("V1__a.sql", "CREATE TABLE a (id INT);")]);
    for pooler in poolers().await {
        let target = through(&pooler, &world.name, "tenant_a");
        let migration = Migration {
            target: &target,
            timeouts: timeouts(),
            goal: Goal::Up(To::Newest),
            options: lenient(),
        };
        let stop = Stop::within(LONG, CancellationToken::new());
        let refused =
            Box::pin(migrate(&migration, &job("u1", &scripts, stop), &mut |_| {})).await.unwrap_err();
        assert_eq!(refused, MigrateError::Database(Error::Pooled), "{pooler:?}");
        assert_eq!(refused.reason(), Reason::DatabaseRefused);
        assert!(
            refused.to_string().contains("pooler") && refused.to_string().contains("direct"),
            "{refused}"
        );
        assert_eq!(Connection::open(&target, &timeouts()).await.map(drop), Err(Error::Pooled));
        let (locks, path) = left_behind(&pooler, &world.name).await;
        assert_eq!((locks.as_str(), path.as_str()), ("0", "\"$user\", public"), "{pooler:?}");
    }
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'tenant_a'";
    assert_eq!(world.sql(tables).await, "0");
}

#[tokio::test]
async fn a_database_behind_a_pooler_is_migrated_by_its_direct_url() {
    let world = World::new(Dialect::Postgres).await;
    let pooler = PgBouncer::builder().start(postgres().await).await.unwrap();
    let stage = Stage::new(&PLAIN).await;
    let replica = stage.replica().await;
    stage.plane.put_tenant("acme").await;
    let pooled = pooler.url_of(&world.name);
    stage.plane.register("acme", DatabaseKind::Database, "", &pooled).await;
    let refused = replica.try_start(up("acme")).await.unwrap_err();
    assert!(refused.message().contains("pooler"), "{refused}");
    let direct = world.target.url.expose();
    stage.plane.register_with_direct("acme", DatabaseKind::Database, "", &pooled, direct).await;
    let upgrade = replica.up("acme").await;
    let ended = replica.ended(&upgrade.id).await;
    assert_eq!(ended.state(), UpgradeState::Succeeded, "{ended:?}");
    assert!(!world.applied().await.is_empty());
    replica.stop().await;
    stage.plane.stop().await;
}

/// What a statement of a random file does.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Table(u8),
    Column(u8),
    Rows(u8),
    Drop(u8),
    /// Sets something, or makes something that lasts as long as the session.
    Setting(usize),
    /// Leads the session elsewhere.
    Leave(u8, bool),
    /// Does something where another tenant is.
    Reach(u8, usize),
}

const SETTINGS: [&str; 6] = [
    "SET DateStyle = 'SQL, DMY'",
    "SET session_replication_role = replica",
    "CREATE TEMPORARY TABLE a (x INT)",
    "SET client_encoding = 'LATIN1'",
    "SET row_security = off",
    "CREATE TEMPORARY TABLE grey AS SELECT 1 AS one",
];

const REACHES: [&str; 5] = [
    "ALTER TABLE $S.a ADD COLUMN IF NOT EXISTS z INT",
    "DROP TABLE IF EXISTS $S.b",
    "CREATE TABLE IF NOT EXISTS $S.made (id INT)",
    "CREATE INDEX ON $S.a (id)",
    "COMMENT ON TABLE $S.a IS 'mine'",
];

impl Deed {
    fn sql(self, number: usize) -> String {
        match self {
            Self::Table(it) => format!("CREATE TABLE IF NOT EXISTS t{it} (id INT)"),
            Self::Column(it) => format!("ALTER TABLE IF EXISTS t{it} ADD COLUMN IF NOT EXISTS c{number} INT"),
            Self::Rows(it) => format!("INSERT INTO a VALUES ({it})"),
            Self::Drop(it) => format!("DROP TABLE IF EXISTS t{it}"),
            Self::Setting(it) => SETTINGS[it % SETTINGS.len()].to_owned(),
            Self::Leave(to, true) => format!("DO $$ BEGIN EXECUTE 'SET search_path = tenant_{to}'; END $$"),
            Self::Leave(to, false) => {
                format!("DO $$ BEGIN EXECUTE 'SET LOCAL search_path = tenant_{to}, tenant_0'; END $$")
            }
            Self::Reach(to, how) => {
                let reach = REACHES[how % REACHES.len()].replace("$S", &format!("tenant_{to}"));
                format!("DO $$ BEGIN EXECUTE '{}'; END $$", reach.replace('\'', "''"))
            }
        }
    }
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        3 => (0..3_u8).prop_map(Deed::Table),
        3 => (0..3_u8).prop_map(Deed::Column),
        2 => any::<u8>().prop_map(Deed::Rows),
        1 => (0..3_u8).prop_map(Deed::Drop),
        2 => any::<usize>().prop_map(Deed::Setting),
        1 => (0..4_u8, any::<bool>()).prop_map(|(to, session)| Deed::Leave(to, session)),
        1 => (0..4_u8, any::<usize>()).prop_map(|(to, how)| Deed::Reach(to, how)),
    ]
}

/// Files of a few statements, whether each is one transaction, and which way the server is reached: 0 is direct.
fn case() -> impl Strategy<Value = (Vec<(Vec<Deed>, bool)>, usize)> {
    let file = (prop::collection::vec(deed(), 1..5), prop::bool::weighted(0.8));
    (prop::collection::vec(file, 1..5), prop_oneof![3 => Just(0_usize), 1 => 1..5_usize])
}

/// Everything that is in the schemas of all tenants but the first.
const OTHERS: &str = "SELECT string_agg(line, E'\\n' ORDER BY line) FROM (\
     SELECT concat_ws(' ', n.nspname, c.relname, c.relkind, a.attname, a.atttypid, obj_description(c.oid)) AS line \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_attribute a ON a.attrelid = c.oid \
     WHERE n.nspname ~ '^tenant_[1-9]' AND c.relkind <> 't' \
     UNION ALL SELECT 'row 1 ' || count(*) FROM tenant_1.a UNION ALL SELECT 'row 2 ' || count(*) FROM tenant_2.a \
     UNION ALL SELECT 'row 3 ' || count(*) FROM tenant_3.a \
     UNION ALL SELECT 'history ' || count(*) FROM tenant_1.grey_schema_history_shop \
     UNION ALL SELECT 'history ' || count(*) FROM tenant_2.grey_schema_history_shop \
     UNION ALL SELECT 'history ' || count(*) FROM tenant_3.grey_schema_history_shop) AS it";

#[test]
fn whatever_files_do_other_tenants_are_as_they_were() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let first = ("V1__a.sql".to_owned(), "CREATE TABLE a (id INT); CREATE TABLE b (id INT);".to_owned());
    let one = load(Dialect::Postgres, &[(&first.0, &first.1)]);
    let (world, ways) = runtime.block_on(async {
        let mut world = World::new(Dialect::Postgres).await;
        for number in 0..4 {
            world.sql(&format!("CREATE SCHEMA tenant_{number}")).await;
            world.target.schema = Some(format!("tenant_{number}"));
            assert_eq!(world.up(&one).await.unwrap().outcome, Outcome::Succeeded);
        }
        let direct = world.target.url.expose().to_owned();
        let mut ways = vec![direct];
        let poolers = poolers().await;
        ways.extend(poolers.iter().map(|pooler| pooler.url_of(&world.name)));
        (world, (ways, poolers))
    });
    let (ways, poolers) = ways;
    let before = runtime.block_on(world.sql(OTHERS));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 40,
        max_shrink_iters: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let result = runner.run(&case(), |(files, way)| {
        let mut named = vec![first.clone()];
        for (index, (deeds, together)) in files.iter().enumerate() {
            let mut text = if *together { String::new() } else { "-- grey: no-transaction\n".to_owned() };
            for (number, deed) in deeds.iter().enumerate() {
                text.push_str(&format!("{};\n", deed.sql(index * 10 + number)));
            }
            named.push((format!("V{}__x.sql", index + 2), text));
        }
        let named: Vec<(&str, &str)> =
            named.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let scripts = load(Dialect::Postgres, &named);
        runtime.block_on(async {
            world.sql("DROP SCHEMA tenant_0 CASCADE; CREATE SCHEMA tenant_0").await;
            let schema = Some("tenant_0".to_owned());
            let target = Target { url: Secret::new(ways[way].clone()), schema, ..world.target.clone() };
            let (target, options) = (&target, lenient());
            let goal = Goal::Up(To::Newest);
            let migration = Migration { target, timeouts: timeouts(), goal, options };
            let stop = Stop::within(LONG, CancellationToken::new());
            let ended = Box::pin(migrate(&migration, &job("u1", &scripts, stop), &mut |_| {})).await;
            assert_eq!(ended.is_err(), way > 0, "{ended:?}");
        });
        prop_assert_eq!(runtime.block_on(world.sql(OTHERS)), before.clone());
        if way > 0 {
            let left = runtime.block_on(left_behind(&poolers[way - 1], &world.name));
            prop_assert_eq!(left, ("0".to_owned(), "\"$user\", public".to_owned()));
        }
        Ok(())
    });
    result.unwrap();
    // Servers that are shared by all tests outlive this one's runtime.
    runtime.shutdown_background();
}
