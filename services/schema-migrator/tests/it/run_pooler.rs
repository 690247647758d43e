//! Behind a pooler sessions are lent: nothing is run there, and nothing is left there.

use crate::files::load;
use crate::run_world::{LONG, World, job, lenient, postgres, target, timeouts};
use crate::service_world::{PLAIN, Stage, up};
use grey_core::error::Reason;
use grey_proto::control::DatabaseKind;
use grey_proto::schema::UpgradeState;
use grey_schema_migrator::files::Dialect;
use grey_schema_migrator::plan::Target as To;
use grey_schema_migrator::run::{Goal, MigrateError, Migration, migrate};
use grey_schema_migrator::tenant::{Connection, Error, Stop, Target};
use grey_testkit::PgBouncer;
use tokio_util::sync::CancellationToken;

/// All that can be before a server.
pub(crate) async fn poolers() -> Vec<PgBouncer> {
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
pub(crate) async fn left_behind(pooler: &PgBouncer, database: &str) -> (String, String) {
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
