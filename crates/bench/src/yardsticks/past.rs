//! Explaining a revision that is long past.

use super::change::{channel, declare};
use super::route::{redis_options, router_settings};
use crate::chain::Chain;
use crate::programs::{self, Program, Service};
use crate::report::{Measurement, rounded, say};
use crate::rounds::Figures;
use crate::world::{self, World};
use anyhow::{Context as _, Result, ensure};
use grey_core::change::{Change, Event, Principal, Revision};
use grey_core::ids::{ServiceId, TenantId};
use grey_core::key::{Fact, Key};
use grey_core::policy::{Failover, Policy};
use grey_core::service::Pin;
use grey_core::version::Version;
use grey_proto::control::ExplainAtRequest;
use grey_proto::control::history_service_client::HistoryServiceClient;
use grey_proto::control::pin_service_client::PinServiceClient;
use grey_proto::router::RouteRequest;
use grey_proto::router::route_outcome::Outcome;
use grey_state::State;
use grey_testkit::{Postgres, Redis};
use sea_orm::{ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection, sqlx};
use serde_json::{Map, json};
use std::time::{Duration, Instant};
use tonic::transport::Channel;

/// The first tenant and the first service have the long histories.
const WORLD: World = World { tenants: 200, services: 20, versions: 3, instances: 5 };
/// Revisions between the one that is explained and the log's end.
const BACK: u64 = 1_000_000;
/// Events before it: a quarter of all are the service's, a quarter the tenant's.
const BEFORE: u64 = 100_000;
/// Events written at once.
const AT_ONCE: usize = 20_000;
const WARM_UP: u64 = 20;
const ROUNDS: u64 = 300;

/// What each pair of events puts and removes again, so that the present state is that of before all of them.
struct Seed {
    tenant: TenantId,
    service: ServiceId,
    pin: Pin,
}

impl Seed {
    fn new() -> Result<Self> {
        Ok(Self {
            tenant: TenantId::new(&World::tenant(0))?,
            service: ServiceId::new(&World::service(0))?,
            pin: Pin { version: Version::new(&world::version(1))?, locked: false },
        })
    }

    fn change(&self, at: u64) -> Result<Change> {
        let pair = at / 2;
        let (put, removed) = match pair % 4 {
            0 => {
                let policy = Policy { failover: Failover::ToNearest, ..Policy::default() };
                (Fact::Policy(self.service.clone(), policy), Key::Policy(self.service.clone()))
            }
            1 => self.pinned(self.tenant.clone(), self.service.clone()),
            _ => {
                let other = usize::try_from(pair)?;
                let tenant = TenantId::new(&World::tenant(1 + other % (WORLD.tenants - 1)))?;
                self.pinned(tenant, ServiceId::new(&World::service(1 + other % (WORLD.services - 1)))?)
            }
        };
        Ok(if at.is_multiple_of(2) { Change::Put(put) } else { Change::Removed(removed) })
    }

    fn pinned(&self, tenant: TenantId, service: ServiceId) -> (Fact, Key) {
        let key = Key::Pin(tenant.clone(), service.clone());
        (Fact::Pin(tenant, service, self.pin.clone()), key)
    }
}

/// Rows of the log and of its index.
#[derive(Default)]
struct Rows {
    revisions: Vec<i64>,
    bodies: Vec<Vec<u8>>,
    kinds: Vec<&'static str>,
    ids: Vec<String>,
    named: Vec<i64>,
}

impl Rows {
    fn add(&mut self, revision: u64, change: Change, chain: &mut Chain) -> Result<()> {
        let key = change.key();
        let at = i64::try_from(revision)?;
        let mut name = |kind, id: Option<&str>| {
            let Some(id) = id else { return };
            self.kinds.push(kind);
            self.ids.push(id.to_owned());
            self.named.push(at);
        };
        let service = key.service().map(ServiceId::as_str);
        match key.tenant() {
            Some(tenant) => {
                name("tenant", Some(tenant.as_str()));
                name("tied", service);
            }
            None => name("service", service),
        }
        let event = Event {
            revision: Revision(revision),
            at_ms: 1,
            principal: Principal::named("bench"),
            changes: vec![change],
            ..Event::default()
        };
        self.revisions.push(at);
        self.bodies.push(chain.add(event));
        Ok(())
    }

    async fn write(self, database: &DatabaseConnection) -> Result<()> {
        let pool = database.get_postgres_connection_pool();
        let head = self.revisions.last().zip(self.bodies.last()).context("write no events")?;
        sqlx::query("UPDATE log_head SET revision = $1, hash = sha256($2) WHERE id = 1")
            .bind(head.0)
            .bind(head.1)
            .execute(pool)
            .await?;
        let events = "INSERT INTO events SELECT revision, 1, 'bench', '', body \
                      FROM unnest($1::bigint[], $2::bytea[]) AS seeded (revision, body)";
        sqlx::query(events).bind(&self.revisions).bind(&self.bodies).execute(pool).await?;
        let index = "INSERT INTO record_history SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[])";
        sqlx::query(index).bind(&self.kinds).bind(&self.ids).bind(&self.named).execute(pool).await?;
        Ok(())
    }
}

/// Writes what makes the log long; returns the first and the last revision of it.
async fn seed(control: &str, declared: u64) -> Result<(u64, u64)> {
    let mut options = ConnectOptions::new(control);
    options.max_connections(1).sqlx_logging(false);
    let database = Database::connect(options).await.context("connect to the control plane's database")?;
    let seed = Seed::new()?;
    let (first, events) = (declared + 1, BEFORE + BACK);
    let (mut rows, mut chain) = (Rows::default(), Chain::of(&database).await?);
    for at in 0..events {
        rows.add(first + at, seed.change(at)?, &mut chain)?;
        if rows.revisions.len() == AT_ONCE || at + 1 == events {
            std::mem::take(&mut rows).write(&database).await?;
        }
    }
    database.execute_unprepared("VACUUM ANALYZE").await?;
    Ok((first, first + events - 1))
}

/// The time of an explanation, which must name the version.
async fn explain(
    history: &mut HistoryServiceClient<Channel>,
    revision: u64,
    version: &str,
) -> Result<Duration> {
    let (tenant, service) = (World::tenant(0), World::service(0));
    let call = Some(RouteRequest { tenant, service, ..RouteRequest::default() });
    let begin = Instant::now();
    let answer = history.explain_at(ExplainAtRequest { call, revision }).await;
    let took = begin.elapsed();
    let answer = answer.with_context(|| format!("explain revision {revision}"))?.into_inner();
    let outcome = answer.explanation.and_then(|explained| explained.outcome?.outcome);
    let Some(Outcome::Decision(decision)) = outcome else {
        anyhow::bail!("revision {revision} is explained by {outcome:?}")
    };
    ensure!(decision.version == version, "{} at revision {revision}, not {version}", decision.version);
    Ok(took)
}

/// An explanation as of a million revisions ago against one of the present, by turns.
///
/// The log is written by SQL between two lives of the control plane, the second of which begins with an empty Redis: nothing
/// publishes a million events meanwhile. A quarter of them are changes of the service, a quarter of the tenant. Each
/// round explains another revision. The first explanation of all folds the history up to there, and is told apart.
pub(super) async fn explained() -> Result<Measurement> {
    programs::build(&[Program::ControlPlane])?;
    let postgres = Postgres::start().await?;
    let control = postgres.database("control").await?;
    let start = async |redis: &Redis| {
        let mut settings = router_settings(&redis.url());
        settings.retain(|(name, _)| !name.starts_with("GREY__GRPC"));
        settings.push(("GREY__DATABASE__URL", control.clone()));
        let service = Service::start(Program::ControlPlane, &settings)?;
        service.ready().await?;
        Ok::<_, anyhow::Error>(service)
    };
    let redis = Redis::start().await?;
    let service = start(&redis).await?;
    let declared = declare(WORLD, &mut PinServiceClient::new(channel(service.grpc).await?)).await?;
    drop((service, redis));
    let (first, last) = seed(&control, declared).await?;
    let redis = Redis::start().await?;
    WORLD.publish_instances(&State::redis(&redis_options(&redis.url())).await?).await?;
    let service = start(&redis).await?;
    let mut history = HistoryServiceClient::new(channel(service.grpc).await?);

    let (unpinned, pinned) = (world::version(0), world::version(1));
    // Of each eight events, the third pins the tenant.
    let target = first + (last - BACK - first - 2) / 8 * 8 + 2;
    let cold = explain(&mut history, target, &pinned).await?;
    let (mut pasts, mut presents) = (Vec::new(), Vec::new());
    for round in 0..WARM_UP + ROUNDS {
        let past = explain(&mut history, target - 8 * round, &pinned).await?;
        let present = explain(&mut history, 0, &unpinned).await?;
        if round >= WARM_UP {
            pasts.push(past.as_secs_f64() * 1e3);
            presents.push(present.as_secs_f64() * 1e3);
        }
    }
    let ratio = Figures::ratios(&pasts, &presents).median();
    let (pasts, presents) = (Figures::new(pasts), Figures::new(presents));
    let cold_ms = cold.as_secs_f64() * 1e3;
    say(&format!(
        "explain_past: {:.2} ms, {:.2} ms now, ratio {ratio:.2}; the very first {cold_ms:.0} ms",
        pasts.median(),
        presents.median(),
    ));
    let more = Map::from_iter([
        ("revisions_back".to_owned(), json!(BACK)),
        ("against_ms".to_owned(), rounded(presents.median())),
        ("p99_ms".to_owned(), rounded(pasts.quantile(0.99))),
        ("first_ms".to_owned(), rounded(cold_ms)),
    ]);
    Ok(Measurement {
        name: "explain_past",
        value: pasts.median(),
        unit: "ms",
        ratio,
        against: "explaining the present",
        more,
    })
}
