//! Mirrors running instances from registries into shared state.

use anyhow::Context;
use grey_registry_sync::{App, Config, DEFAULTS};
use grey_runtime::{Shutdown, Telemetry, config, files, tls};
use grey_state::State;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = config::from_args::<Config>("grey-registry-sync", DEFAULTS)?.or_print()?;
    let Some(config) = config else { return Ok(()) };
    tls::install_provider();
    let telemetry = Telemetry::start("grey-registry-sync", &config.telemetry)?;
    files::raise_limit();
    let shutdown = Shutdown::new();
    shutdown.on_signals()?;
    let result = Box::pin(serve(config, telemetry.clone(), &shutdown)).await;
    telemetry.shutdown().await;
    result
}

async fn serve(config: Config, telemetry: Telemetry, shutdown: &Shutdown) -> anyhow::Result<()> {
    let state = State::redis(&config.redis).await.context("connect to redis")?;
    let app = Box::pin(App::bind(config, state, telemetry)).await.context("bind registry mirror")?;
    Box::pin(app.serve(shutdown)).await
}
