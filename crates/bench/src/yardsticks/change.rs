//! From an operator's command to a router that obeys it.

use super::route::{redis_options, router_settings};
use crate::programs::{self, Program, Service};
use crate::report::{Measurement, rounded, say};
use crate::rounds::Figures;
use crate::world::{self, USUAL, World};
use anyhow::{Context as _, Result, ensure};
use grey_proto::control::pin_service_client::PinServiceClient;
use grey_proto::control::{self, ApplyChangeSetRequest, Pin, ProposedChange, PutPinRequest, change::Change};
use grey_proto::router::RouteRequest;
use grey_proto::router::router_service_client::RouterServiceClient;
use grey_state::State;
use grey_testkit::{Postgres, Redis};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use sea_orm::{ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection};
use serde_json::{Map, json};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint};

/// Changes before anything counts.
const WARM_UP: usize = 50;
/// Changes that count.
const CHANGES: usize = 600;
/// Changes in one command while the world is set up.
const AT_ONCE: usize = 1_000;
/// Longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(10);

/// The services of the product on real stores, each in a process of its own.
pub(super) struct Stage {
    world: World,
    pub(super) pins: PinServiceClient<Channel>,
    pub(super) routes: Vec<RouterServiceClient<Channel>>,
    pub(super) database: DatabaseConnection,
    /// Where the control plane's database is.
    pub(super) control: String,
    redis: redis::aio::MultiplexedConnection,
    pub(super) revision: u64,
    _control_plane: Service,
    _routers: Vec<Service>,
    _servers: (Postgres, Redis),
}

impl Stage {
    pub(super) async fn start(world: World, routers: usize) -> Result<Self> {
        let postgres = Postgres::builder().durable(true).start().await?;
        let redis = Redis::start().await?;
        let mut settings = router_settings(&redis.url());
        let routers: Vec<Service> =
            (0..routers).map(|_| Service::start(Program::Router, &settings)).collect::<Result<_>>()?;
        settings.retain(|(name, _)| !name.starts_with("GREY__GRPC"));
        let control = postgres.database("control").await?;
        settings.push(("GREY__DATABASE__URL", control.clone()));
        let control_plane = Service::start(Program::ControlPlane, &settings)?;
        control_plane.ready().await?;
        let mut routes = Vec::new();
        for router in &routers {
            router.ready().await?;
            routes.push(RouterServiceClient::new(channel(router.grpc).await?));
        }
        world.publish_instances(&State::redis(&redis_options(&redis.url())).await?).await?;

        let mut options = ConnectOptions::new(postgres.database("beside").await?);
        options.max_connections(1).sqlx_logging(false);
        let database = Database::connect(options).await.context("connect to postgres")?;
        database
            .execute_unprepared("CREATE TABLE commits (id BIGSERIAL PRIMARY KEY, body TEXT NOT NULL)")
            .await?;
        Ok(Self {
            world,
            pins: PinServiceClient::new(channel(control_plane.grpc).await?),
            routes,
            database,
            control,
            redis: redis.connection().await?,
            revision: 0,
            _control_plane: control_plane,
            _routers: routers,
            _servers: (postgres, redis),
        })
    }

    /// Declares the world's tenants, services and versions.
    pub(super) async fn declare(&mut self) -> Result<()> {
        self.revision = declare(self.world, &mut self.pins).await?;
        Ok(())
    }

    /// Pins a tenant and returns the time until a router answers with the new version.
    ///
    /// A call that asks for the change's revision waits in the router and is answered as soon as it is there: exactly
    /// the first right answer, without the load that asking over and over would be.
    async fn change(&mut self, tenant: &str, service: &str, version: &str) -> Result<Duration> {
        let pin = Pin {
            tenant: tenant.to_owned(),
            service: service.to_owned(),
            version: version.to_owned(),
            ..Pin::default()
        };
        let put = PutPinRequest { pin: Some(pin), ..PutPinRequest::default() };
        let call = RouteRequest {
            tenant: tenant.to_owned(),
            service: service.to_owned(),
            min_revision: self.revision + 1,
            ..RouteRequest::default()
        };
        let begin = Instant::now();
        let answered = async {
            let router = self.routes.first_mut().context("find a router")?;
            let answer = router.route(call).await.context("route a call")?;
            Ok::<_, anyhow::Error>((begin.elapsed(), answer.into_inner()))
        };
        let (put, (effect, answer)) =
            tokio::try_join!(async { self.pins.put_pin(put).await.context("pin a tenant") }, answered)?;
        let revision = put.into_inner().result.context("read a result")?.revision;
        ensure!(revision == self.revision + 1, "revision {revision} does not follow {}", self.revision);
        self.revision = revision;
        ensure!(answer.version == version, "{version} was pinned, {} is answered", answer.version);
        Ok(effect)
    }

    /// The time of one SQL commit and one round trip to Redis.
    async fn beside(&mut self) -> Result<Duration> {
        let begin = Instant::now();
        self.database.execute_unprepared("INSERT INTO commits (body) VALUES ('a pin')").await?;
        let () = redis::cmd("PING").query_async(&mut self.redis).await?;
        Ok(begin.elapsed())
    }
}

/// Declares a world's tenants, services and versions; returns the last revision.
pub(super) async fn declare(world: World, pins: &mut PinServiceClient<Channel>) -> Result<u64> {
    let service = |at| control::Service {
        id: World::service(at),
        default_version: world::version(0),
        ..control::Service::default()
    };
    let versions = (0..world.services).flat_map(|at| (1..world.versions).map(move |number| (at, number)));
    let version = |(at, number)| control::ServiceVersion {
        service: World::service(at),
        version: world::version(number),
        ..control::ServiceVersion::default()
    };
    let tenant = |at| control::Tenant { id: World::tenant(at), ..control::Tenant::default() };
    let changes: Vec<_> = (0..world.services)
        .map(|at| Change::ServicePut(service(at)))
        .chain(versions.map(|version_of| Change::VersionPut(version(version_of))))
        .chain((0..world.tenants).map(|at| Change::TenantPut(tenant(at))))
        .map(|change| ProposedChange {
            change: Some(control::Change { change: Some(change) }),
            expected_revision: None,
        })
        .collect();
    let mut revision = 0;
    for changes in changes.chunks(AT_ONCE) {
        let request = ApplyChangeSetRequest { changes: changes.to_vec(), write: None };
        let applied = pins.apply_change_set(request).await.context("declare the world")?;
        revision = applied.into_inner().result.context("read a result")?.revision;
    }
    Ok(revision)
}

pub(super) async fn channel(addr: std::net::SocketAddr) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}"))?.tcp_nodelay(true).timeout(ANSWER);
    endpoint.connect().await.with_context(|| format!("connect to {addr}"))
}

pub(super) async fn to_effect() -> Result<Measurement> {
    programs::build(&[Program::Router, Program::ControlPlane])?;
    let mut stage = Stage::start(USUAL, 1).await?;
    stage.declare().await?;
    let mut random = SmallRng::seed_from_u64(17);
    let mut pinned = HashMap::new();
    let (mut effects, mut besides) = (Vec::new(), Vec::new());
    for change in 0..WARM_UP + CHANGES {
        let place = (random.random_range(0..USUAL.tenants), random.random_range(0..USUAL.services));
        let number = pinned.get(&place).map_or(1, |number| (number + 1) % USUAL.versions);
        pinned.insert(place, number);
        let (tenant, service) = (World::tenant(place.0), World::service(place.1));
        let effect = stage.change(&tenant, &service, &world::version(number)).await?;
        let beside = stage.beside().await?;
        if change >= WARM_UP {
            effects.push(effect.as_secs_f64() * 1e3);
            besides.push(beside.as_secs_f64() * 1e3);
        }
    }
    let (effects, besides) = (Figures::new(effects), Figures::new(besides));
    let ratio = |share| effects.quantile(share) / besides.quantile(share);
    say(&format!(
        "change_to_effect: {:.2} ms (p99 {:.2}); a commit and a round trip {:.2} ms (p99 {:.2}); ratio {:.2}, p99 {:.2}",
        effects.median(),
        effects.quantile(0.99),
        besides.median(),
        besides.quantile(0.99),
        ratio(0.5),
        ratio(0.99),
    ));
    let more = Map::from_iter([
        ("changes".to_owned(), json!(CHANGES)),
        ("p99_ms".to_owned(), rounded(effects.quantile(0.99))),
        ("p99_ratio".to_owned(), rounded(ratio(0.99))),
        ("against_ms".to_owned(), rounded(besides.median())),
        ("against_p99_ms".to_owned(), rounded(besides.quantile(0.99))),
    ]);
    Ok(Measurement {
        name: "change_to_effect",
        value: effects.median(),
        unit: "ms",
        ratio: ratio(0.5),
        against: "one SQL commit and one Redis round trip",
        more,
    })
}
