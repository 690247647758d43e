//! Keeps tenants, services and pins, and tells the routers.

use anyhow::Context;
use grey_control_plane::{App, Config, DEFAULTS};
use grey_runtime::{Shutdown, Telemetry, config, files, tls};
use grey_state::State;

/// Commands about many tenants allocate by the ten thousand.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = config::from_args::<Config>("grey-control-plane", DEFAULTS)?.or_print()?;
    let Some(config) = config else { return Ok(()) };
    tls::install_provider();
    let telemetry = Telemetry::start("grey-control-plane", &config.telemetry)?;
    files::raise_limit();
    let shutdown = Shutdown::new();
    shutdown.on_signals()?;
    let result = Box::pin(serve(config, telemetry.clone(), &shutdown)).await;
    telemetry.shutdown().await;
    result
}

async fn serve(config: Config, telemetry: Telemetry, shutdown: &Shutdown) -> anyhow::Result<()> {
    let state = State::redis(&config.redis).await.context("connect to redis")?;
    let app = Box::pin(App::bind(config, state, telemetry)).await.context("bind control plane")?;
    Box::pin(app.serve(shutdown)).await
}
