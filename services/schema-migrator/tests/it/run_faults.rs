//! Databases that are away, refuse, or are cut off in the middle.

use crate::files::load;
use crate::run_world::{
    LONG, U1, U2, V1, V2, World, job, lenient, mariadb, postgres, scripts, target, timeouts,
};
use grey_core::error::Reason;
use grey_runtime::Secret;
use grey_schema_migrator::files::Dialect;
use grey_schema_migrator::plan::Target;
use grey_schema_migrator::run::{Goal, Migration, Outcome, Progress, migrate};
use grey_schema_migrator::tenant::{Connection, Error, Stop};
use grey_testkit::Proxy;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const SERVERS: [Dialect; 2] = [Dialect::Postgres, Dialect::MySql];

/// The database through a proxy that can be cut.
async fn behind_proxy(world: &mut World) -> Proxy {
    let server = match world.dialect {
        Dialect::Postgres => postgres().await.addr(),
        _ => mariadb().await.addr(),
    };
    let proxy = Proxy::start(server).await.unwrap();
    let url = world.target.url.expose().replace(&server.to_string(), &proxy.addr().to_string());
    world.target.url = Secret::new(url);
    proxy
}

#[tokio::test]
async fn a_refused_login_is_told_at_once_and_without_the_password() {
    for dialect in SERVERS {
        let world = World::new(dialect).await;
        let url = world.target.url.expose().replace("grey@", "nobody:s3cret@").replace(":grey:", ":s3cret:");
        let url = url.replace("grey:nobody", "grey").replace("grey:grey@", "grey:s3cret@");
        let error = Connection::open(&target(dialect, url), &timeouts()).await.unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{dialect}: {error:?}");
        assert_eq!(error.reason(), Reason::DatabaseRefused, "{dialect}");
        assert!(!format!("{error:?} {error}").contains("s3cret"), "{dialect}: {error:?}");
    }
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_refused() {
    for dialect in Dialect::ALL {
        let world = World::new(dialect).await;
        let url = world.target.url.expose().replace(&world.name, "nowhere").replace("tenant.db", "gone.db");
        let error = Connection::open(&target(dialect, url), &timeouts()).await.unwrap_err();
        assert_eq!(error.reason(), Reason::DatabaseRefused, "{dialect}: {error:?}");
    }
    let mut world = World::new(Dialect::Postgres).await;
    world.target.schema = Some("nowhere".to_owned());
    let error = Connection::open(&world.target, &timeouts()).await.unwrap_err();
    assert!(error.to_string().contains("schema nowhere does not exist"), "{error}");
    // A file that is no database.
    let world = World::new(Dialect::Sqlite).await;
    std::fs::write(world.folder.path().join("tenant.db"), "not a database".repeat(100)).unwrap();
    let error = Connection::open(&world.target, &timeouts()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::DatabaseRefused, "{error:?}");
}

#[tokio::test]
async fn a_database_that_is_away_is_tried_until_the_deadline() {
    for dialect in SERVERS {
        let mut world = World::new(dialect).await;
        let proxy = behind_proxy(&mut world).await;
        proxy.cut().await.unwrap();
        let scripts = scripts(dialect);
        let mut short = timeouts();
        short.connect = Duration::from_millis(200);
        let goal = Goal::Up(Target::Newest);
        let migration = Migration { target: &world.target, timeouts: short, goal, options: lenient() };
        let stop = Stop::within(Duration::from_secs(2), CancellationToken::new());
        let mut told = 0;
        let error = migrate(&migration, &job("u1", &scripts, stop), &mut |_| told += 1).await.unwrap_err();
        assert_eq!(error.reason(), Reason::DatabaseUnavailable, "{dialect}: {error:?}");
        assert_eq!(told, 0);
        // It comes back while it is tried again.
        let stop = Stop::within(LONG, CancellationToken::new());
        let running = job("u1", &scripts, stop);
        let mut ignore = |_| {};
        let (ended, ()) = tokio::join!(Box::pin(migrate(&migration, &running, &mut ignore)), async {
            proxy.heal().await.unwrap();
        });
        assert_eq!(ended.unwrap().outcome, Outcome::Succeeded, "{dialect}");
    }
}

/// Cuts the connection once, at the `nth` thing that is told, and heals it when it was.
async fn cut_at(world: &World, proxy: &Proxy, nth: usize, failing: bool) -> Outcome {
    let dialect = world.dialect;
    let text = V2.1.replace("CREATE INDEX", "CREATE INDEXX");
    let scripts = if failing { load(dialect, &[V1, U1, (V2.0, &text), U2]) } else { scripts(dialect) };
    let (cut, mut cuts) = tokio::sync::mpsc::unbounded_channel();
    let mut seen = 0;
    let mut listener = |_: Progress| {
        seen += 1;
        if seen == nth {
            cut.send(()).unwrap();
        }
    };
    let goal = Goal::Up(Target::Newest);
    let stop = Stop::within(LONG, CancellationToken::new());
    let cutting = async {
        while cuts.recv().await.is_some() {
            proxy.cut().await.unwrap();
            proxy.heal().await.unwrap();
        }
    };
    tokio::select! {
        ended = world.migrate_as("u1", &scripts, goal, stop, &mut listener) => ended.unwrap().outcome,
        () = cutting => panic!("the listener is gone"),
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_anywhere_is_recovered_from() {
    for dialect in SERVERS {
        for nth in [1, 3, 5, 7, 9, 12, 14, 16, 18] {
            let mut world = World::new(dialect).await;
            let proxy = behind_proxy(&mut world).await;
            let outcome = cut_at(&world, &proxy, nth, false).await;
            assert_eq!(outcome, Outcome::Succeeded, "{dialect} {nth}");
            assert_eq!(world.history().await, ["1 applied", "2 applied"], "{dialect} {nth}");
            assert_eq!(world.sql("SELECT count(*) FROM items").await, "2", "{dialect} {nth}");
            assert_eq!(world.sql("SELECT count(*) FROM notes").await, "1", "{dialect} {nth}");
        }
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_while_an_upgrade_is_taken_back_is_recovered_from() {
    for dialect in SERVERS {
        for nth in [14, 15, 16, 17, 18, 20] {
            let mut world = World::new(dialect).await;
            let before = world.shape().await;
            let proxy = behind_proxy(&mut world).await;
            let outcome = cut_at(&world, &proxy, nth, true).await;
            assert!(matches!(outcome, Outcome::Failed(_)), "{dialect} {nth}: {outcome:?}");
            assert_eq!(world.shape().await, before, "{dialect} {nth}");
            assert!(world.applied().await.is_empty(), "{dialect} {nth}");
        }
    }
}

#[tokio::test]
async fn a_fleet_is_migrated_but_for_the_tenant_that_fails() {
    let mut worlds = Vec::new();
    for number in 0..50 {
        let dialect = if number == 17 { Dialect::Postgres } else { Dialect::Sqlite };
        worlds.push(World::new(dialect).await);
    }
    for (number, world) in worlds.iter().enumerate() {
        let scripts =
            if number == 17 { crate::run_world::failing(world.dialect) } else { scripts(world.dialect) };
        let ended = world.up(&scripts).await.unwrap();
        let expected: &[&str] = if number == 17 { &[] } else { &["1", "2"] };
        assert_eq!(matches!(ended.outcome, Outcome::Failed(_)), number == 17);
        assert_eq!(world.applied().await, expected);
    }
}
