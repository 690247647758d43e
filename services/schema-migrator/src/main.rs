//! Runs the schema migrations of tenants' databases.

use anyhow::Context;
use grey_runtime::{Shutdown, Telemetry, config, files, tls};
use grey_schema_migrator::{App, Config, DEFAULTS};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = config::from_args::<Config>("grey-schema-migrator", DEFAULTS)?.or_print()?;
    let Some(config) = config else { return Ok(()) };
    tls::install_provider();
    let telemetry = Telemetry::start("grey-schema-migrator", &config.telemetry)?;
    files::raise_limit();
    let shutdown = Shutdown::new();
    shutdown.on_signals()?;
    let result = Box::pin(serve(config, telemetry.clone(), &shutdown)).await;
    telemetry.shutdown().await;
    result
}

async fn serve(config: Config, telemetry: Telemetry, shutdown: &Shutdown) -> anyhow::Result<()> {
    let app = Box::pin(App::bind(config, telemetry)).await.context("bind schema migrator")?;
    Box::pin(app.serve(shutdown)).await
}
