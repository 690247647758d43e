//! Two sessions on one tenant's database.

use crate::files::load;
use crate::run_world::{
    LONG, U1, V1, World, job, lenient, mariadb, patient, scripts, target, timeouts, version,
};
use grey_core::error::Reason;
use grey_schema_migrator::files::Dialect;
use grey_schema_migrator::plan::Target;
use grey_schema_migrator::run::{Goal, MigrateError, Migration, Outcome, Progress, migrate};
use grey_schema_migrator::tenant::{Connection, Error, Stop};
use sea_orm::{ConnectionTrait, Database, TransactionTrait};
use std::future::{Future as _, poll_fn};
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

fn stop() -> Stop {
    Stop::within(LONG, CancellationToken::new())
}

/// Where a server is reached whose answers come byte by byte.
async fn dripping(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let server = TcpStream::connect(server).await?;
                client.set_nodelay(true)?;
                let (mut asked, mut answers) = client.into_split();
                let (mut from, mut to) = server.into_split();
                let answer = async {
                    while let Ok(byte) = from.read_u8().await {
                        answers.write_u8(byte).await?;
                        tokio::task::yield_now().await;
                    }
                    answers.shutdown().await
                };
                let ask = async {
                    tokio::io::copy(&mut asked, &mut to).await?;
                    to.shutdown().await
                };
                tokio::try_join!(answer, ask)
            });
        }
    });
    addr
}

/// Whoever ran an upgrade may be dropped at any moment: when it has lost its lease, for one. The driver for the MySQL family
/// knows no way back from an answer that it has read in part.
#[tokio::test]
async fn a_session_that_is_dropped_amid_an_answer_gives_its_locks_back() {
    let world = World::new(Dialect::MySql).await;
    let server = mariadb().await.addr();
    let url = world.target.url.expose().replace(&server.to_string(), &dripping(server).await.to_string());
    let far = target(Dialect::MySql, url);
    for polls in (1..400).step_by(19) {
        let mut connection = Connection::open(&far, &patient()).await.unwrap();
        connection.lock(&stop()).await.unwrap();
        connection.prepare().await.unwrap();
        let (mut asked, mut left) = (Box::pin(connection.history()), polls);
        poll_fn(|cx| {
            left -= 1;
            match asked.as_mut().poll(cx) {
                Poll::Pending if left > 0 => Poll::Pending,
                Poll::Pending | Poll::Ready(_) => Poll::Ready(()),
            }
        })
        .await;
        drop(asked);
        drop(connection);
        let mut next = world.open_patiently().await;
        next.lock(&stop()).await.unwrap_or_else(|error| panic!("after {polls} polls: {error}"));
    }
}

#[tokio::test]
async fn of_two_migrators_one_runs_and_the_other_finds_nothing_to_do() {
    for dialect in Dialect::ALL {
        let world = World::new(dialect).await;
        let scripts = scripts(dialect);
        let goal = || Goal::Up(Target::Newest);
        let (mut one, mut two) = (0, 0);
        let (mut count_one, mut count_two) = (|_| one += 1, |_| two += 1);
        // The other one waits for as long as the first takes.
        let run = async |upgrade: &str, listener: &mut (dyn FnMut(Progress) + Send + Sync)| {
            let (target, options) = (&world.target, lenient());
            let migration = Migration { target, timeouts: patient(), goal: goal(), options };
            Box::pin(migrate(&migration, &job(upgrade, &scripts, stop()), listener)).await
        };
        let (first, second) = tokio::join!(run("u1", &mut count_one), run("u2", &mut count_two));
        assert_eq!(first.unwrap().outcome, Outcome::Succeeded, "{dialect}");
        assert_eq!(second.unwrap().outcome, Outcome::Succeeded, "{dialect}");
        assert_eq!(world.history().await, ["1 applied", "2 applied"], "{dialect}");
        assert!(one == 0 || two == 0, "{dialect}: both ran something");
    }
}

#[tokio::test]
async fn a_history_that_is_locked_is_left_alone() {
    for dialect in Dialect::ALL {
        let world = World::new(dialect).await;
        let mut holder = world.open().await;
        holder.lock(&stop()).await.unwrap();
        holder.verify_lock().await.unwrap();
        let mut short = timeouts();
        short.lock = Duration::from_millis(300);
        let mut other = Connection::open(&world.target, &short).await.unwrap();
        let error = other.lock(&stop()).await.unwrap_err();
        assert_eq!(error, Error::Locked { waited: short.lock }, "{dialect}");
        assert_eq!(error.reason(), Reason::UpgradeRunning);
        // It ends with the session that holds it.
        drop(holder);
        let mut patient = world.open().await;
        patient.lock(&stop()).await.unwrap();
    }
}

#[tokio::test]
async fn services_of_one_database_do_not_lock_each_other_out() {
    for dialect in [Dialect::Postgres, Dialect::MySql] {
        let world = World::new(dialect).await;
        let mut shop = world.open().await;
        shop.lock(&stop()).await.unwrap();
        let mut target = world.target.clone();
        target.service = grey_core::ids::ServiceId::new("billing").unwrap();
        let mut billing = Connection::open(&target, &timeouts()).await.unwrap();
        billing.lock(&stop()).await.unwrap();
    }
}

#[tokio::test]
async fn a_plan_is_not_run_without_the_lock() {
    for dialect in Dialect::ALL {
        let world = World::new(dialect).await;
        let scripts = scripts(dialect);
        let connection = world.open().await;
        let job = job("u1", &scripts, stop());
        let error = grey_schema_migrator::run::recover(&connection, &job, &mut |_| {}).await.unwrap_err();
        assert!(error.is_unreachable(), "{dialect}: {error:?}");
        assert!(world.shape().await.is_empty(), "{dialect}");
    }
}

#[tokio::test]
async fn a_table_that_someone_else_holds_fails_the_upgrade_in_time() {
    for dialect in Dialect::ALL {
        let world = World::new(dialect).await;
        let goal = Goal::Up(Target::Version(version("1")));
        world.migrate_as("u0", &scripts(dialect), goal, stop(), &mut |_| {}).await.unwrap();
        let before = world.shape().await;
        let db = Database::connect(world.target.url.expose()).await.unwrap();
        let holder = db.begin().await.unwrap();
        holder.execute_unprepared("UPDATE items SET name = 'held' WHERE id = 1").await.unwrap();
        let alter = ("V2__held.sql", "ALTER TABLE items ADD COLUMN held INTEGER;");
        let scripts = load(dialect, &[V1, U1, alter]);
        let result = world.up(&scripts).await;
        let error = match (dialect, result) {
            // There nothing can be written meanwhile, so nothing is begun.
            (Dialect::Sqlite, Err(MigrateError::Database(error))) => error,
            (_, Ok(ended)) => match ended.outcome {
                Outcome::Failed(failure) => failure.error,
                other => panic!("{dialect}: {other:?}"),
            },
            (_, other) => panic!("{dialect}: {other:?}"),
        };
        assert!(error.is_lock_timeout(), "{dialect}: {error:?}");
        holder.rollback().await.unwrap();
        assert_eq!(world.shape().await, before, "{dialect}");
        assert_eq!(world.up(&scripts).await.unwrap().outcome, Outcome::Succeeded, "{dialect}");
    }
}
