//! Many tenants pinned anew by one command.

use super::change::Stage;
use crate::programs::{self, Program};
use crate::report::{Measurement, rounded, say};
use crate::rounds::Figures;
use crate::world::{self, World};
use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use grey_proto::control::{PutPinsRequest, TenantSelector, WriteOptions};
use grey_proto::router::RouteRequest;
use sea_orm::ConnectionTrait as _;
use serde_json::{Map, json};
use std::time::{Duration, Instant};

const WORLD: World = World { tenants: 10_000, services: 20, versions: 3, instances: 2 };
const ROUTERS: usize = 3;
const WARM_UP: usize = 2;
const ROUNDS: usize = 7;

/// Pins every tenant and returns the time until the last router answers with the new version.
async fn repin(stage: &mut Stage, version: &str) -> Result<Duration> {
    let service = World::service(0);
    let request = PutPinsRequest {
        tenants: Some(TenantSelector { all: true, ..TenantSelector::default() }),
        service: service.clone(),
        version: version.to_owned(),
        write: Some(WriteOptions { max_moves: Some(u64::MAX), ..WriteOptions::default() }),
        ..PutPinsRequest::default()
    };
    let call = RouteRequest {
        tenant: World::tenant(WORLD.tenants - 1),
        service,
        min_revision: stage.revision + 1,
        ..RouteRequest::default()
    };
    let begin = Instant::now();
    let answered = try_join_all(stage.routes.iter_mut().map(|router| {
        let call = call.clone();
        async move { router.route(call).await.map(|answer| (begin.elapsed(), answer.into_inner())) }
    }));
    let (put, answers) = tokio::join!(stage.pins.put_pins(request), answered);
    let put = put.context("pin many tenants")?.into_inner();
    ensure!(put.changed == WORLD.tenants as u64, "{} pins were changed", put.changed);
    let revision = put.result.context("read a result")?.revision;
    ensure!(revision == stage.revision + 1, "revision {revision} does not follow {}", stage.revision);
    stage.revision = revision;
    let answers = answers.context("route a call")?;
    let wrong = answers.iter().find(|(_, answer)| answer.version != version);
    ensure!(wrong.is_none(), "{version} was pinned, {wrong:?} is answered");
    answers.iter().map(|(took, _)| *took).max().context("find a router")
}

/// The time of one SQL insert of as many rows.
async fn insert(stage: &Stage, round: usize) -> Result<Duration> {
    let sql = format!(
        "INSERT INTO rows SELECT 'tenant-' || lpad(i::text, 7, '0'), 'service-{round}', 'v1.0', false, {round} \
         FROM generate_series(1, {}) i",
        WORLD.tenants
    );
    let begin = Instant::now();
    stage.database.execute_unprepared(&sql).await?;
    Ok(begin.elapsed())
}

pub(super) async fn repinned() -> Result<Measurement> {
    programs::build(&[Program::Router, Program::ControlPlane])?;
    let mut stage = Stage::start(WORLD, ROUTERS).await?;
    stage.declare().await?;
    let rows = "CREATE TABLE rows (tenant TEXT NOT NULL, service TEXT NOT NULL, version TEXT NOT NULL, \
                locked BOOLEAN NOT NULL, revision BIGINT NOT NULL, PRIMARY KEY (tenant, service))";
    stage.database.execute_unprepared(rows).await?;
    let (mut bulks, mut inserts) = (Vec::new(), Vec::new());
    for round in 0..WARM_UP + ROUNDS {
        let bulk = repin(&mut stage, &world::version(1 + round % 2)).await?;
        let insert = insert(&stage, round).await?;
        if round >= WARM_UP {
            bulks.push(bulk.as_secs_f64());
            inserts.push(insert.as_secs_f64());
        }
    }
    let (bulks, inserts) = (Figures::new(bulks), Figures::new(inserts));
    let ratio = bulks.median() / inserts.median();
    say(&format!(
        "bulk_10k: {:.3} s to the last of {ROUTERS} routers; one insert of as many rows {:.3} s; ratio {ratio:.2}",
        bulks.median(),
        inserts.median(),
    ));
    let more = Map::from_iter([
        ("tenants".to_owned(), json!(WORLD.tenants)),
        ("routers".to_owned(), json!(ROUTERS)),
        ("against_s".to_owned(), rounded(inserts.median())),
    ]);
    Ok(Measurement {
        name: "bulk_10k",
        value: bulks.median(),
        unit: "s",
        ratio,
        against: "one SQL insert of as many rows",
        more,
    })
}
