//! Answers which version of which instance serves a tenant's call.

use anyhow::Context;
use grey_router::{App, Config, DEFAULTS};
use grey_runtime::{Shutdown, Telemetry, config, files, tls};
use grey_state::State;

/// Decisions allocate their answers; the system's allocator would cost a quarter of the throughput.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let Some(config) = config::from_args::<Config>("grey-router", DEFAULTS)?.or_print()? else {
        return Ok(());
    };
    // With huge pages the allocator's arenas occupy about 20 MB that nothing uses.
    nix::sys::prctl::set_thp_disable(true).context("turn transparent huge pages off")?;
    // Control traffic alone: decisions have threads of their own.
    let control = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    control.block_on(run(config))
}

async fn run(config: Config) -> anyhow::Result<()> {
    tls::install_provider();
    let telemetry = Telemetry::start("grey-router", &config.telemetry)?;
    files::raise_limit();
    let shutdown = Shutdown::new();
    shutdown.on_signals()?;
    let result = serve(config, telemetry.clone(), &shutdown).await;
    telemetry.shutdown().await;
    result
}

async fn serve(config: Config, telemetry: Telemetry, shutdown: &Shutdown) -> anyhow::Result<()> {
    let state = State::redis(&config.redis).await.context("connect to redis")?;
    App::bind(config, state, telemetry).await.context("bind router")?.serve(shutdown).await
}
