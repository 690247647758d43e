//! A router and a million pins in Redis: what they weigh, and how soon it serves.

use super::route::{redis_options, router_settings};
use crate::cores;
use crate::programs::{self, Program, Service};
use crate::report::{Measurement, rounded, say};
use crate::rounds::Figures;
use crate::world::World;
use anyhow::{Context as _, Result, ensure};
use grey_state::State;
use grey_testkit::{Redis, Spawned};
use serde_json::{Map, json};
use std::time::{Duration, Instant};

const WORLD: World = World { tenants: 10_000, services: 100, versions: 3, instances: 5 };
/// Starts of a router, and as many reads by the bare client.
const STARTS: usize = 7;
/// Looks at a process's memory in a row that must agree, and most looks.
const SETTLED: usize = 20;
const LOOKS: usize = 100;
/// Longest read by the bare client.
const READ: Duration = Duration::from_secs(60);

async fn filled() -> Result<Redis> {
    let redis = Redis::start().await?;
    let state = State::redis(&redis_options(&redis.url())).await?;
    say(&format!("writing a projection of {} pins", WORLD.pins()));
    WORLD.publish(&state).await?;
    Ok(redis)
}

fn start(redis: &Redis) -> Result<Service> {
    Service::start(Program::Router, &router_settings(&redis.url()))
}

pub(super) async fn memory_per_pin() -> Result<Measurement> {
    programs::build(&[Program::Router])?;
    let redis = filled().await?;
    let router = start(&redis)?;
    router.ready().await?;
    let (resident, anonymous) = settled(router.process.id()).await?;
    let (in_redis, _) = cores::resident(redis.id().context("find redis")?)?;
    #[expect(clippy::cast_precision_loss, reason = "far less than 2^52 bytes")]
    let per_pin = |bytes: u64| bytes as f64 / WORLD.pins() as f64;
    say(&format!(
        "memory_per_pin: {:.1} bytes resident, {:.1} of them anonymous, {:.1} in redis",
        per_pin(resident),
        per_pin(anonymous),
        per_pin(in_redis)
    ));
    let more = Map::from_iter([
        ("pins".to_owned(), json!(WORLD.pins())),
        ("resident_bytes".to_owned(), json!(resident)),
        ("anonymous_bytes".to_owned(), json!(anonymous)),
    ]);
    Ok(Measurement {
        name: "memory_per_pin",
        value: per_pin(resident),
        unit: "bytes/pin",
        ratio: per_pin(resident) / per_pin(in_redis),
        against: "resident bytes of Redis with the same pins",
        more,
    })
}

pub(super) async fn cold_start() -> Result<Measurement> {
    programs::build(&[Program::Router])?;
    let redis = filled().await?;
    let (mut routers, mut reads) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let begin = Instant::now();
        let router = start(&redis)?;
        router.ready().await?;
        routers.push(begin.elapsed().as_secs_f64() * 1e3);
        drop(router);
        let begin = Instant::now();
        let read =
            Spawned::builder(std::env::current_exe()?).arg("serve").arg("read-projection").arg(redis.url());
        let read = read.start()?;
        ended(&read).await?;
        reads.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    let ratios = Figures::ratios(&routers, &reads);
    let (routers, reads) = (Figures::new(routers), Figures::new(reads));
    say(&format!("cold_start: {routers} ms to ready, bare read {reads} ms, ratio {ratios}"));
    let more = Map::from_iter([
        ("pins".to_owned(), json!(WORLD.pins())),
        ("read_ms".to_owned(), rounded(reads.median())),
    ]);
    Ok(Measurement {
        name: "cold_start",
        value: routers.median(),
        unit: "ms",
        ratio: ratios.median(),
        against: "a bare client's read of the same projection",
        more,
    })
}

/// The memory of a process once it has given back what it needed for loading.
pub(super) async fn settled(process: u32) -> Result<(u64, u64)> {
    let mut looks = Vec::with_capacity(LOOKS);
    loop {
        let resident = cores::resident(process)?;
        let same = looks.iter().rev().take_while(|look| **look == resident).count();
        if same >= SETTLED || looks.len() >= LOOKS {
            return Ok(resident);
        }
        looks.push(resident);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits for the end of a program with the same patience as for a router's readiness.
async fn ended(program: &Spawned) -> Result<()> {
    let end = Instant::now() + READ;
    loop {
        if let Some(status) = program.exit_status()? {
            ensure!(status.success(), "read the projection: {status}: {}", program.output());
            return Ok(());
        }
        ensure!(Instant::now() < end, "read the projection within {READ:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
