//! A story on live backends: tenants move, an instance dies and is replaced, a version waits for its schema, a migration
//! fails and is undone, a canary grows, a pin is rolled back, a registry errs.
//!
//! Nothing in it is pretended. The services are those that ship, the backends are HTTP servers on ports of their own,
//! every call is routed by gRPC and then made, and the backend that answers must be of the version that was routed.

mod admin;
mod backends;
mod calls;
mod databases;
mod live;
mod registry;
mod screen;
mod story;
mod tally;
mod world;

use std::time::Duration;

use anyhow::{Context, bail};
use grey_runtime::{Shutdown, tls};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::standalone::{Addresses, Ports, Standalone};
use admin::Admin;
use backends::Backends;
use calls::Caller;
use databases::{Databases, Migrator};
use registry::{Mirror, RegistryFile};
use screen::Screen;
use story::{Cast, Story};

/// Longest time for the story when it is only checked.
const CHECK_LIMIT: Duration = Duration::from_secs(60);

/// What is told beside the story. A router that starts together with its control plane warns until the first
/// publication, and a mirror when it gives up the lead at the end.
const LOG_FILTER: &str = "warn,grey_state::follower=error,grey_sync::leadership=error";

/// How the demo is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// How the story is shown.
    pub mode: Mode,
    /// When to end, whatever happens; none: when asked.
    pub limit: Option<Duration>,
    /// Use ports that are free instead of the usual ones.
    pub free_ports: bool,
}

/// How the story is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In a terminal, redrawn several times a second.
    Live,
    /// As lines.
    Plain,
    /// As lines, without pauses, and over at its end.
    Check,
}

impl Mode {
    fn pause(self) -> Duration {
        match self {
            Self::Live => Duration::from_secs(5),
            Self::Plain => Duration::from_secs(2),
            Self::Check => Duration::ZERO,
        }
    }
}

/// Runs the demo to its end.
///
/// # Errors
/// A step of the story does not hold, a call failed, or a service cannot be started.
pub async fn run(options: &Options) -> anyhow::Result<()> {
    tls::install_provider();
    let mut config = Config::load(None, [])?;
    // Nothing but the view may write to a terminal that it draws on.
    config.telemetry.log_filter = if options.mode == Mode::Live { "off" } else { LOG_FILTER }.to_owned();
    config.router.region = world::REGION.to_owned();
    let backends = Backends::start().await.context("start the backends")?;
    let registry = RegistryFile::create(&backends.listings())?;
    registry.path().clone_into(&mut config.standalone.instances);
    // As a registry of others is treated: when it drops most of a service, that waits for confirmation.
    config.registry_sync.trusted = false;
    let databases = Databases::create()?;
    databases.migrations().clone_into(&mut config.schema_migrator.migrations);
    if options.free_ports {
        config = config.on_free_ports();
    }
    let shutdown = Shutdown::new();
    shutdown.on_signals().context("listen for signals")?;
    let standalone = Box::pin(Standalone::bind(&config))
        .await
        .context("start the demo (--free-ports avoids taken ports)")?;
    let addresses = standalone.addresses(&config);
    let serve = Box::pin(standalone.serve(&shutdown));
    let show = Box::pin(async {
        let shown = Box::pin(show(options, addresses, backends, registry, databases, &shutdown)).await;
        shutdown.begin();
        shown
    });
    let (served, shown) = tokio::join!(serve, show);
    shown.and(served)
}

/// Starts what is around the services, then tells the story.
async fn show(
    options: &Options,
    addresses: Addresses,
    backends: Backends,
    registry: RegistryFile,
    databases: Databases,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let screen = Screen::new(options.mode);
    let admin = Admin::connect(addresses.control.grpc).await?;
    let caller = Caller::connect(addresses.router.grpc).await?;
    let mirror = addresses.registry_sync.context("the demo has a registry")?;
    let mirror = Mirror::connect(mirror.grpc).await?;
    let migrator = addresses.schema_migrator.context("the demo has a schema migrator")?;
    let migrator = Migrator::connect(migrator.grpc).await?;
    let cast = Cast { admin, caller: caller.clone(), backends, registry, mirror, databases, migrator };
    let mut story = Story::new(cast, screen.clone());
    story.declare().await.context("declare the world")?;

    let introduction = introduction(&addresses);
    screen.head(&introduction);
    let draining = shutdown.token();
    for worker in 0..world::WORKERS {
        let (caller, draining) = (caller.clone(), draining.clone());
        shutdown.spawn("traffic", async move { caller.traffic(worker, draining).await });
    }
    let view = screen.clone();
    let (tally, token) = (caller.tally(), draining.clone());
    let view = tokio::task::spawn_blocking(move || live::run(&view, &tally, &token));

    let told = tell(options, &mut story, &introduction, &draining).await;
    draining.cancel();
    view.await.context("draw")?.context("draw")?;
    told?;
    screen.end(&caller.tally().summary());
    let failed = caller.tally().failures();
    if failed.count > 0 {
        bail!("{} calls failed, the last one: {}", failed.count, failed.last);
    }
    Ok(())
}

/// The story, then traffic until the end.
async fn tell(
    options: &Options,
    story: &mut Story,
    introduction: &[String],
    draining: &CancellationToken,
) -> anyhow::Result<()> {
    let check = options.mode == Mode::Check;
    let limit = options.limit.or(check.then_some(CHECK_LIMIT));
    let over = async {
        match limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let told = async {
        Box::pin(story.tell(options.mode.pause())).await?;
        if !check {
            story.goes_on(introduction);
            draining.cancelled().await;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        told = told => told,
        () = draining.cancelled() => interrupted(check, "interrupted"),
        () = over => interrupted(check, "the time is over"),
    }
}

fn interrupted(check: bool, why: &str) -> anyhow::Result<()> {
    if check { bail!("{why} before the story ended") } else { Ok(()) }
}

fn introduction(addresses: &Addresses) -> Vec<String> {
    let program =
        std::env::current_exe().map_or_else(|_| "grey".to_owned(), |path| path.display().to_string());
    let Addresses { control: Ports { grpc: control, .. }, router, registry_sync, schema_migrator, .. } =
        addresses;
    let Ports { grpc: router, http } = router;
    let mut lines: Vec<String> = addresses.to_string().lines().map(str::to_owned).collect();
    lines.push(format!("try            {program} route acme payment --router http://{router}"));
    lines.push(format!("               {program} explain acme payment --router http://{router}"));
    lines.push(format!("               {program} events --control http://{control}"));
    if let Some(Ports { grpc, .. }) = registry_sync {
        lines.push(format!("               {program} sync status registry --registry-sync http://{grpc}"));
    }
    if let Some(Ports { grpc, .. }) = schema_migrator {
        lines.push(format!("               {program} migrate status --migrator http://{grpc}"));
        lines.push(format!(
            "               {program} migrate plan orders --tenants acme --migrator http://{grpc}"
        ));
    }
    lines.push(format!(
        "               curl -s http://{http}/api/grey-router/route -H 'content-type: application/json' \
         -d '{{\"tenant\":\"acme\",\"service\":\"payment\"}}'"
    ));
    lines
}
