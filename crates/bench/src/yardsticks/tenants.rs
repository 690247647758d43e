//! A tenant API of 100,000 tenants, mirrored into the control plane.

use crate::programs::{self, Program, Service};
use crate::report::{Measurement, rounded, say};
use crate::rounds::Figures;
use anyhow::{Context as _, Result, ensure};
use axum::Router;
use axum::extract::{Query, State};
use grey_proto::sync::sync_service_client::SyncServiceClient;
use grey_proto::sync::{GetStatusRequest, SyncRun, TriggerRequest};
use grey_testkit::{Postgres, Redis};
use sea_orm::{ConnectionTrait as _, Database, DatabaseConnection, DbBackend, QueryResult, Statement};
use serde::Deserialize;
use serde_json::{Map, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::transport::Channel;

/// Tenants that the API lists.
const TENANTS: usize = 100_000;
/// Tenants on one page.
const PAGE: usize = 1_000;
/// Syncs without a change that count.
const SYNCS: usize = 5;
/// Longest wait for a sync.
const SYNC: Duration = Duration::from_secs(170);

/// The tenant API, in whole pages.
struct Upstream {
    pages: Vec<String>,
}

#[derive(Deserialize)]
struct Wanted {
    page: usize,
}

impl Upstream {
    fn new() -> Self {
        let (tiers, regions) = (["free", "silver", "gold"], ["eu", "us"]);
        let tenant = |number: usize| {
            json!({
                "id": format!("tenant-{number:06}"),
                "name": format!("Tenant Number {number}"),
                "status": "active",
                "tier": tiers[number % tiers.len()],
                "region": regions[number % regions.len()],
                "arr": number % 1_000_000,
            })
        };
        let page = |first: usize| {
            let tenants: Vec<_> = (first..first + PAGE).map(tenant).collect();
            json!({ "tenants": tenants, "total": TENANTS }).to_string()
        };
        Self { pages: (0..TENANTS).step_by(PAGE).map(page).collect() }
    }

    /// Serves on a port of its own for as long as this process runs.
    async fn serve(self: Arc<Self>) -> Result<SocketAddr> {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let routes = Router::new().route("/api/tenants", axum::routing::get(page)).with_state(self);
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Ok(address)
    }
}

async fn page(State(upstream): State<Arc<Upstream>>, Query(wanted): Query<Wanted>) -> String {
    let empty = || json!({ "tenants": [], "total": TENANTS }).to_string();
    wanted.page.checked_sub(1).and_then(|at| upstream.pages.get(at)).cloned().unwrap_or_else(empty)
}

/// Reads and parses the whole list, one page after the other, and nothing else.
async fn read_alone(upstream: SocketAddr) -> Result<Duration> {
    grey_runtime::tls::install_provider();
    let http = reqwest::Client::new();
    let begin = Instant::now();
    let mut tenants = 0;
    for page in 1..=TENANTS / PAGE {
        let url = format!("http://{upstream}/api/tenants?size={PAGE}&page={page}");
        let body = http.get(url).send().await?.bytes().await?;
        let document: serde_json::Value = serde_json::from_slice(&body)?;
        tenants += document["tenants"].as_array().map_or(0, Vec::len);
    }
    ensure!(tenants == TENANTS, "{tenants} tenants were read");
    Ok(begin.elapsed())
}

/// The services of the product on real stores, each in a process of its own.
struct Stage {
    syncs: SyncServiceClient<Channel>,
    database: DatabaseConnection,
    _services: [Service; 2],
    _servers: (Postgres, Redis),
}

impl Stage {
    /// Starts everything; the first sync begins by itself.
    async fn start(upstream: SocketAddr) -> Result<Self> {
        let postgres = Postgres::builder().durable(true).start().await?;
        let redis = Redis::start().await?;
        let common = [
            ("GREY__REDIS__URLS", format!("['{}']", redis.url())),
            ("GREY__TELEMETRY__LOG_FILTER", "warn".to_owned()),
        ];
        let mut settings = common.to_vec();
        let url = postgres.database("control").await?;
        settings.push(("GREY__DATABASE__URL", url.clone()));
        let control_plane = Service::start(Program::ControlPlane, &settings)?;
        control_plane.ready().await?;
        let mut settings = common.to_vec();
        settings.extend([
            ("GREY__CONTROL__URL", format!("http://{}", control_plane.grpc)),
            ("GREY__SOURCE__URL", format!("http://{upstream}")),
            ("GREY__SOURCE__PAGING__KIND", "page".to_owned()),
            ("GREY__SOURCE__PAGING__TOTAL", "/total".to_owned()),
            ("GREY__MAPPING__TIER", "/tier".to_owned()),
            ("GREY__MAPPING__REGION", "/region".to_owned()),
        ]);
        let mirror = Service::start(Program::TenantSync, &settings)?;
        let end = Instant::now() + SYNC;
        let syncs = loop {
            match SyncServiceClient::connect(format!("http://{}", mirror.grpc)).await {
                Ok(client) => break client,
                Err(error) => ensure!(Instant::now() < end, "connect to tenant-sync: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let database = Database::connect(url).await.context("connect to the control database")?;
        Ok(Self { syncs, database, _services: [control_plane, mirror], _servers: (postgres, redis) })
    }

    /// The newest of the runs that are over.
    async fn last_run(&mut self) -> Result<Option<SyncRun>> {
        let status = self.syncs.get_status(GetStatusRequest {}).await?.into_inner().status;
        Ok(status.and_then(|status| status.runs.into_iter().next()))
    }

    /// Waits until a run is over.
    async fn first_run(&mut self) -> Result<SyncRun> {
        let end = Instant::now() + SYNC;
        loop {
            if let Some(run) = self.last_run().await? {
                return Ok(run);
            }
            ensure!(Instant::now() < end, "no sync within {SYNC:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Asks for a sync that finds nothing new, and how long it took.
    async fn idle_run(&mut self) -> Result<Duration> {
        let wait = Some(pbjson_types::Duration { seconds: 60, nanos: 0 });
        let handled = self.syncs.trigger(TriggerRequest { wait }).await?.into_inner().handled;
        let handled = handled.context("wait for a sync")?;
        ensure!(handled.error.is_empty(), "sync: {}", handled.error);
        let run = self.last_run().await?.context("read a run")?;
        let changed = run.counts.iter().filter(|(kind, count)| kind.as_str() != "unchanged" && **count > 0);
        ensure!(changed.count() == 0, "the sync changed something: {:?}", run.counts);
        took(&run)
    }

    /// The time of inserting the rows of all tenants into a table of the same form, by as many statements as the first
    /// sync had batches.
    async fn insert(&self) -> Result<Duration> {
        let count = "SELECT count(*) AS batches FROM events";
        let batches = self.database.query_one_raw(Statement::from_string(DbBackend::Postgres, count)).await?;
        let batches: i64 = batches.context("count the batches")?.try_get("", "batches")?;
        let rows = "SELECT id, name, status, tier, region, residency, labels FROM tenants ORDER BY id";
        let rows = self.database.query_all_raw(Statement::from_string(DbBackend::Postgres, rows)).await?;
        let literal = |row: &QueryResult| -> Result<String> {
            let columns = ["id", "name", "status", "tier", "region", "residency", "labels"];
            let texts =
                columns.map(|column| row.try_get::<String>("", column).map(|text| format!("'{text}'")));
            Ok(format!("({})", texts.into_iter().collect::<Result<Vec<_>, _>>()?.join(",")))
        };
        let rows = rows.iter().map(literal).collect::<Result<Vec<_>>>()?;
        let statements = rows.chunks(rows.len().div_ceil(usize::try_from(batches)?.max(1)));
        let statements: Vec<_> =
            statements.map(|rows| format!("INSERT INTO rows VALUES {}", rows.join(","))).collect();
        let table = "DROP TABLE IF EXISTS rows; CREATE TABLE rows (LIKE tenants INCLUDING ALL)";
        self.database.execute_unprepared(table).await?;
        let begin = Instant::now();
        for statement in &statements {
            self.database.execute_unprepared(statement).await?;
        }
        Ok(begin.elapsed())
    }
}

fn took(run: &SyncRun) -> Result<Duration> {
    ensure!(run.error.is_empty(), "sync: {}", run.error);
    let elapsed = run.elapsed.context("read how long a run took")?;
    Duration::try_from(elapsed).ok().context("read how long a run took")
}

pub(super) async fn sync() -> Result<Measurement> {
    programs::build(&[Program::ControlPlane, Program::TenantSync])?;
    let upstream = Arc::new(Upstream::new()).serve().await?;
    let mut stage = Stage::start(upstream).await?;
    let first = stage.first_run().await?;
    ensure!(first.counts.get("created") == Some(&(TENANTS as u64)), "the first sync did {:?}", first.counts);
    let first = took(&first)?.as_secs_f64();
    let (mut idle, mut alone, mut inserts) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..SYNCS {
        idle.push(stage.idle_run().await?.as_secs_f64());
        alone.push(read_alone(upstream).await?.as_secs_f64());
        inserts.push(stage.insert().await?.as_secs_f64());
    }
    let (idle, alone, inserts) = (Figures::new(idle), Figures::new(alone), Figures::new(inserts));
    say(&format!(
        "tenant_sync_100k: without a change {:.3} s, reading alone {:.3} s; first {first:.2} s, inserting alone {:.2} s",
        idle.median(),
        alone.median(),
        inserts.median(),
    ));
    let more = Map::from_iter([
        ("tenants".to_owned(), json!(TENANTS)),
        ("against_ms".to_owned(), rounded(alone.median() * 1e3)),
        ("first_s".to_owned(), rounded(first)),
        ("first_ratio".to_owned(), rounded(first / inserts.median())),
    ]);
    Ok(Measurement {
        name: "tenant_sync_100k",
        value: idle.median() * 1e3,
        unit: "ms",
        ratio: idle.median() / alone.median(),
        against: "reading and parsing the list alone",
        more,
    })
}
