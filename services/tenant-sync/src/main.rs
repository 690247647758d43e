//! Mirrors tenants from the tenant-management API into the control plane.

use anyhow::Context;
use grey_runtime::{Shutdown, Telemetry, config, files, tls};
use grey_state::State;
use grey_tenant_sync::{App, Config, DEFAULTS};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = config::from_args::<Config>("grey-tenant-sync", DEFAULTS)?.or_print()?;
    let Some(config) = config else { return Ok(()) };
    tls::install_provider();
    let telemetry = Telemetry::start("grey-tenant-sync", &config.telemetry)?;
    files::raise_limit();
    let shutdown = Shutdown::new();
    shutdown.on_signals()?;
    let result = Box::pin(serve(config, telemetry.clone(), &shutdown)).await;
    telemetry.shutdown().await;
    result
}

async fn serve(config: Config, telemetry: Telemetry, shutdown: &Shutdown) -> anyhow::Result<()> {
    let state = State::redis(&config.redis).await.context("connect to redis")?;
    let app = Box::pin(App::bind(config, state, telemetry)).await.context("bind tenant-sync")?;
    Box::pin(app.serve(shutdown)).await
}
