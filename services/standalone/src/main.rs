//! One program for the whole of Grey Router: the services in one process, the demo, and the command line.

use std::process::ExitCode;

use clap::Parser;
use grey_standalone::cli::{self, Cli};

/// The router in this process allocates its answers; the system's allocator would cost a quarter of the throughput.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let json = cli.target.json;
    match Box::pin(cli::run(cli)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json),
    }
}
