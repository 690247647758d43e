//! How long statements may take, what is tried again, what is refused by the size of tables, and what is recorded.

use crate::files::load;
use crate::run_world::{LONG, U1, V1, World, failing, job, lenient, mariadb, postgres, timeouts, version};
use grey_core::error::Reason;
use grey_runtime::Secret;
use grey_schema_migrator::files::Dialect;
use grey_schema_migrator::lint::Rule;
use grey_schema_migrator::plan::{Options, Target};
use grey_schema_migrator::run::{Ended, Goal, MigrateError, Migration, Outcome, Progress, migrate};
use grey_schema_migrator::tenant::{Error, Stop, Timeouts};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

fn stop() -> Stop {
    Stop::within(LONG, CancellationToken::new())
}

/// Never ends by itself, writes nothing.
fn endless(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Postgres => "SELECT pg_sleep(600);",
        Dialect::MySql => "UPDATE items SET name = SLEEP(600);",
        Dialect::Sqlite => {
            "INSERT INTO items SELECT n + 100, 'x' FROM (WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL \
             SELECT n + 1 FROM c WHERE n < 100000000000) SELECT n FROM c WHERE n < 0);"
        }
    }
}

#[tokio::test]
async fn a_statement_that_takes_too_long_fails_the_upgrade_which_is_taken_back() {
    for dialect in Dialect::ALL {
        let world = World::new(dialect).await;
        let before = world.shape().await;
        let scripts = load(dialect, &[V1, U1, ("V2__slow.sql", endless(dialect))]);
        // Of what comes before and of the undo no statement may take that long.
        let timeouts = Timeouts { statement: Duration::from_secs(5), ..timeouts() };
        let goal = Goal::Up(Target::Newest);
        let migration = Migration { target: &world.target, timeouts, goal, options: lenient() };
        let ended = Box::pin(migrate(&migration, &job("u1", &scripts, stop()), &mut |_| {})).await.unwrap();
        let Outcome::Failed(failure) = &ended.outcome else { panic!("{dialect}: {ended:?}") };
        // Not the time of the whole run, which is longer.
        assert!(matches!(failure.error, Error::Statement { line: 1, .. }), "{dialect}: {failure:?}");
        assert_eq!((failure.version.clone(), ended.schema), (version("2"), None), "{dialect}");
        assert_eq!(world.shape().await, before, "{dialect}");
    }
}

/// Forwards to a server, or closes at once what connects, and counts connections.
struct Door {
    addr: SocketAddr,
    opened: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Door {
    async fn to(server: Option<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let opened = Arc::<AtomicUsize>::default();
        let (counted, mut tasks) = (Arc::clone(&opened), JoinSet::new());
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let Some(server) = server else { continue };
                open.spawn(async move {
                    let mut server = TcpStream::connect(server).await.unwrap();
                    // How it ends is the ends' matter.
                    drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
                });
            }
        });
        Self { addr, opened, _tasks: tasks }
    }

    fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }
}

async fn server(dialect: Dialect) -> SocketAddr {
    match dialect {
        Dialect::Postgres => postgres().await.addr(),
        _ => mariadb().await.addr(),
    }
}

/// In which a loaded server accepts, so that no connection is opened twice.
const CONNECT: Duration = Duration::from_secs(10);

/// Runs an upgrade through the door; `login` is that of the URL.
async fn through(
    door: &Door,
    world: &World,
    login: Option<&str>,
    connect: Duration,
    time: Duration,
    told: &mut Vec<Progress>,
) -> Result<Ended, MigrateError> {
    let mut target = world.target.clone();
    let server = server(world.dialect).await.to_string();
    let mut url = target.url.expose().replace(&server, &door.addr.to_string());
    if let (Some(login), Some((scheme, rest))) = (login, url.split_once("://")) {
        let (_, place) = rest.split_once('@').unwrap();
        url = format!("{scheme}://{login}@{place}");
    }
    target.url = Secret::new(url);
    let scripts = failing(world.dialect);
    let goal = Goal::Up(Target::Newest);
    let timeouts = Timeouts { connect, lock: Duration::from_millis(300), ..timeouts() };
    let migration = Migration { target: &target, timeouts, goal, options: lenient() };
    let stop = Stop::within(time, CancellationToken::new());
    Box::pin(migrate(&migration, &job("u1", &scripts, stop), &mut |it| told.push(it))).await
}

#[tokio::test]
async fn only_a_lost_connection_is_tried_again() {
    for dialect in [Dialect::Postgres, Dialect::MySql] {
        let world = World::new(dialect).await;
        // A statement that fails runs once.
        let door = Door::to(Some(server(dialect).await)).await;
        let mut told = Vec::new();
        let ended = through(&door, &world, None, CONNECT, LONG, &mut told).await.unwrap();
        assert!(matches!(ended.outcome, Outcome::Failed(_)), "{dialect}: {ended:?}");
        let third = |it: &&Progress| match it {
            Progress::Step { version, step: 3, .. } => version.to_string() == "2",
            _ => false,
        };
        assert_eq!(told.iter().filter(third).count(), 1, "{dialect}: {told:?}");
        // In the MySQL family the lock has a connection of its own, and so has each file that is run or undone.
        let sessions = if dialect == Dialect::MySql { 5 } else { 1 };
        assert_eq!(door.opened(), sessions, "{dialect}");
        // A login that is refused is not repeated, which could lock the account.
        let door = Door::to(Some(server(dialect).await)).await;
        let refused =
            through(&door, &world, Some("nobody:wrong"), CONNECT, LONG, &mut told).await.unwrap_err();
        assert_eq!((refused.reason(), door.opened()), (Reason::DatabaseRefused, 1), "{dialect}");
        // Nor is the lock that another session holds.
        let mut holder = world.open_patiently().await;
        holder.lock(&stop()).await.unwrap();
        let door = Door::to(Some(server(dialect).await)).await;
        let locked = through(&door, &world, None, CONNECT, LONG, &mut told).await.unwrap_err();
        assert_eq!((locked.reason(), door.opened()), (Reason::UpgradeRunning, 1), "{dialect}");
        // A server that hangs up is tried again, after longer and longer waits: at once it would be thousands of times.
        let door = Door::to(None).await;
        let (connect, time) = (Duration::from_secs(2), Duration::from_secs(4));
        let away = through(&door, &world, None, connect, time, &mut told).await.unwrap_err();
        assert_eq!(away.reason(), Reason::DatabaseUnavailable, "{dialect}: {away}");
        assert!((2..=8).contains(&door.opened()), "{dialect}: {}", door.opened());
    }
}

#[tokio::test]
async fn what_holds_up_a_table_is_refused_by_the_rows_that_the_database_estimates() {
    for (dialect, change, rule) in [
        (Dialect::Postgres, "CREATE INDEX items_name ON items (name);", Rule::BigTableLock),
        (Dialect::MySql, "ALTER TABLE items ADD COLUMN note INTEGER NULL;", Rule::Rewrite),
    ] {
        let world = World::new(dialect).await;
        let scripts = load(dialect, &[V1, U1, ("V2__change.sql", change), ("U2__change.sql", "SELECT 1;")]);
        let goal = Goal::Up(Target::Version(version("1")));
        world.migrate_as("u0", &scripts, goal, stop(), &mut |_| {}).await.unwrap();
        let rows: Vec<_> = (10..500).map(|id| format!("({id}, 'x')")).collect();
        world.sql(&format!("INSERT INTO items VALUES {}", rows.join(","))).await;
        world.sql(if dialect == Dialect::MySql { "ANALYZE TABLE items" } else { "ANALYZE items" }).await;
        let before = world.shape().await;
        let up = async |big_table_rows: u64| {
            let options = Options { big_table_rows, ..Options::default() };
            let goal = Goal::Up(Target::Newest);
            let migration = Migration { target: &world.target, timeouts: timeouts(), goal, options };
            Box::pin(migrate(&migration, &job("u1", &scripts, stop()), &mut |_| {})).await
        };
        // Estimates are not exact.
        let Err(MigrateError::Refused(refused)) = up(100).await else { panic!("{dialect}") };
        assert!(refused.findings.iter().any(|it| it.rule == rule.as_str()), "{dialect}: {refused:?}");
        assert_eq!((world.shape().await, world.applied().await), (before, vec!["1".to_owned()]), "{dialect}");
        assert_eq!(up(100_000).await.unwrap().outcome, Outcome::Succeeded, "{dialect}");
    }
}

#[tokio::test]
async fn the_history_tells_what_ran_when_and_on_whose_behalf() {
    for dialect in Dialect::ALL {
        let world = World::new(dialect).await;
        let scripts = failing(dialect);
        world.up(&scripts).await.unwrap();
        let history = "FROM grey_schema_history_shop WHERE version = '1' AND outcome = 'applied'";
        let read = async |column: &str| world.sql(&format!("SELECT {column} {history}")).await;
        let told = (read("actor").await, read("upgrade").await, read("description").await);
        assert_eq!(told, ("test".to_owned(), "u1".to_owned(), "items".to_owned()), "{dialect}");
        let checksum = scripts.migrations.first().unwrap().checksum.as_str().to_owned();
        assert_eq!(read("checksum").await, checksum, "{dialect}");
        let number = async |column: &str| read(column).await.parse::<u128>().unwrap();
        let (started, ended) = (number("started_at").await, number("ended_at").await);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        assert!(0 < started && started <= ended && ended <= now, "{dialect}: {started} {ended} {now}");
        let all = "SELECT count(*) FROM grey_schema_history_shop WHERE actor = 'test' AND ended_at > 0";
        // 1 applied, 2 failed, 1 undone.
        assert_eq!(world.sql(all).await, "3", "{dialect}");
    }
}
