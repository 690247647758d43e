//! Pins on their way from the log to a router, one commit after another.

use super::change::Stage;
use crate::chain::Chain;
use crate::programs::{self, Program};
use crate::report::{Measurement, rounded, say};
use crate::rounds::Figures;
use crate::world::{self, USUAL, World};
use anyhow::{Context as _, Result, ensure};
use grey_core::change::{Change, Event, Principal, Revision};
use grey_core::ids::{ServiceId, TenantId};
use grey_core::key::Fact;
use grey_core::service::Pin;
use grey_core::version::Version;
use grey_proto::router::RouteRequest;
use sea_orm::{
    ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection, Statement, TransactionTrait as _,
    Value,
};
use serde_json::{Map, json};
use std::time::{Duration, Instant};

/// Pins in each commit, and commits in each round.
const SHAPES: [(usize, usize); 3] = [(1, 3_000), (50, 600), (1_000, 60)];
const ROUNDS: usize = 5;
/// Longest wait for the last commit to arrive.
const ARRIVAL: Duration = Duration::from_secs(60);

/// Tables like the control plane's, with the same indexes, that nobody reads.
const BARE: &str = "CREATE SCHEMA bare; \
     CREATE TABLE bare.log_head (LIKE public.log_head INCLUDING ALL); \
     INSERT INTO bare.log_head SELECT * FROM public.log_head; \
     CREATE TABLE bare.events (LIKE public.events INCLUDING ALL); \
     CREATE TABLE bare.pins (LIKE public.pins INCLUDING ALL); \
     CREATE TABLE bare.record_history (LIKE public.record_history INCLUDING ALL)";

/// What the control plane commits for a command that pins tenants to a version, but for what it reads before.
const COMMIT: [&str; 4] = [
    "UPDATE log_head SET revision = $1, hash = sha256($2) WHERE id = 1",
    "INSERT INTO events (revision, at_ms, principal, reason, body) VALUES ($1, 1, 'bench', '', $2)",
    "INSERT INTO pins (tenant, service, version, locked, revision) \
     SELECT value, $2, $3, false, $4 FROM json_array_elements_text(CAST($1 AS json)) AS named (value) \
     ON CONFLICT (tenant, service) DO UPDATE SET version = excluded.version, revision = excluded.revision",
    "INSERT INTO record_history (kind, id, revision) \
     SELECT 'tenant', value, $2 FROM json_array_elements_text(CAST($1 AS json)) AS named (value) \
     UNION ALL SELECT 'tied', $3, $2",
];

/// The statements of one commit.
struct Commit(Vec<Statement>);

impl Commit {
    /// Some tenants are pinned to another version of a service than by the commit before.
    fn new(revision: u64, size: usize, chain: &mut Chain, database: &DatabaseConnection) -> Result<Self> {
        let at = usize::try_from(revision)?;
        let tenants: Vec<String> =
            (0..size).map(|tenant| World::tenant((at * size + tenant) % USUAL.tenants)).collect();
        let (service, version) = (World::service(at % USUAL.services), world::version(at % USUAL.versions));
        let pin = Pin { version: Version::new(&version)?, locked: false };
        let fact = |tenant: &String| {
            Ok(Change::Put(Fact::Pin(TenantId::new(tenant)?, ServiceId::new(&service)?, pin.clone())))
        };
        let event = Event {
            revision: Revision(revision),
            at_ms: 1,
            principal: Principal::named("bench"),
            changes: tenants.iter().map(fact).collect::<Result<_>>()?,
            ..Event::default()
        };
        let body = chain.add(event);
        let (revision, tenants) = (i64::try_from(revision)?, serde_json::to_string(&tenants)?);
        let values: [Vec<Value>; 4] = [
            vec![revision.into(), body.clone().into()],
            vec![revision.into(), body.into()],
            vec![tenants.clone().into(), service.clone().into(), version.into(), revision.into()],
            vec![tenants.into(), revision.into(), service.into()],
        ];
        let backend = database.get_database_backend();
        let statement = |(sql, values)| Statement::from_sql_and_values(backend, sql, values);
        Ok(Self(COMMIT.into_iter().zip(values).map(statement).collect()))
    }

    async fn commit(self, database: &DatabaseConnection) -> Result<()> {
        let transaction = database.begin().await?;
        for statement in self.0 {
            transaction.execute_raw(statement).await?;
        }
        Ok(transaction.commit().await?)
    }
}

/// The control plane's database, and tables beside it, each on a connection of its own.
struct Logs {
    published: DatabaseConnection,
    bare: DatabaseConnection,
}

impl Logs {
    async fn open(url: &str) -> Result<Self> {
        let connect = async |path: &'static str| {
            let mut options = ConnectOptions::new(url);
            options.max_connections(1).sqlx_logging(false).set_schema_search_path(path);
            Database::connect(options).await.context("connect to the control plane's database")
        };
        let published = connect("public").await?;
        published.execute_unprepared(BARE).await.context("create tables that nobody reads")?;
        Ok(Self { published, bare: connect("bare").await? })
    }
}

/// Commits one after another; the time of all.
async fn commit_all(commits: Vec<Commit>, database: &DatabaseConnection) -> Result<Duration> {
    let begin = Instant::now();
    for commit in commits {
        commit.commit(database).await?;
    }
    Ok(begin.elapsed())
}

/// Waits for a router to answer by a table that has everything up to a revision.
async fn arrived(stage: &mut Stage, revision: u64) -> Result<()> {
    let router = stage.routes.first_mut().context("find a router")?;
    let begin = Instant::now();
    let call = RouteRequest {
        tenant: World::tenant(0),
        service: World::service(0),
        min_revision: revision,
        ..RouteRequest::default()
    };
    // A router waits for the revision that is asked for, but not for as long as this may take.
    while let Err(refused) = router.route(call.clone()).await {
        ensure!(begin.elapsed() < ARRIVAL, "wait for revision {revision}: {refused}");
    }
    Ok(())
}

/// Pins per second of bare commits, and of the same commits until a router's table has the last of them.
async fn round(stage: &mut Stage, logs: &Logs, size: usize, commits: usize) -> Result<(f64, f64)> {
    let first = stage.revision + 1;
    let last = stage.revision + commits as u64;
    let prepare = async |database| {
        let mut chain = Chain::of(database).await?;
        let commits = (first..=last).map(|revision| Commit::new(revision, size, &mut chain, database));
        commits.collect::<Result<Vec<_>>>()
    };
    let bare = commit_all(prepare(&logs.bare).await?, &logs.bare).await?;
    let prepared = prepare(&logs.published).await?;
    let begin = Instant::now();
    commit_all(prepared, &logs.published).await?;
    arrived(stage, last).await?;
    let published = begin.elapsed();
    stage.revision = last;
    #[expect(clippy::cast_precision_loss, reason = "far less than 2^52 pins")]
    let pins = (size * commits) as f64;
    Ok((pins / bare.as_secs_f64(), pins / published.as_secs_f64()))
}

/// How many pins per second come from the log into a router's table, for as long as they are committed: sustained.
///
/// One connection commits as fast as PostgreSQL takes it, each commit being the rows that the control plane writes for
/// one command (head, event, pins, index of the history). The clock runs from the first commit's begin until a router
/// answers by a table that has the last one; in between are PostgreSQL, the control plane's publisher, Redis and the router.
/// What a command costs before its rows are written is not part of it. Beside it, in the same round, the same commits go
/// into tables of the same form that nobody reads. The ratio is that of the shape that fares worst.
pub(super) async fn rate() -> Result<Measurement> {
    programs::build(&[Program::Router, Program::ControlPlane])?;
    let mut stage = Stage::start(USUAL, 1).await?;
    stage.declare().await?;
    let declared = stage.revision;
    arrived(&mut stage, declared).await?;
    let logs = Logs::open(&stage.control).await?;
    let mut shapes = Vec::new();
    for (size, commits) in SHAPES {
        let (mut bares, mut rates) = (Vec::new(), Vec::new());
        round(&mut stage, &logs, size, commits / 10).await?;
        for _ in 0..ROUNDS {
            let (bare, rate) = round(&mut stage, &logs, size, commits).await?;
            bares.push(bare);
            rates.push(rate);
        }
        let ratios = Figures::ratios(&rates, &bares);
        let (bare, rate) = (Figures::new(bares).median(), Figures::new(rates).median());
        say(&format!("publish_rate: {size} a commit: {rate:.0} pins/s, bare {bare:.0}, ratio {ratios}"));
        shapes.push((size, rate, bare, ratios.median()));
    }
    let worst = shapes.iter().min_by(|one, other| one.3.total_cmp(&other.3)).context("find a shape")?;
    let mut more = Map::from_iter([
        ("pins_a_commit".to_owned(), json!(worst.0)),
        ("against_pins_s".to_owned(), rounded(worst.2)),
    ]);
    for (size, rate, _, ratio) in &shapes {
        more.insert(format!("pins_s_by_{size}"), rounded(*rate));
        more.insert(format!("ratio_by_{size}"), rounded(*ratio));
    }
    Ok(Measurement {
        name: "publish_rate",
        value: worst.1,
        unit: "pins/s",
        ratio: worst.3,
        against: "the same commits into tables that nobody reads",
        more,
    })
}
