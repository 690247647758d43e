//! Measures Grey Router side by side with what else one could use.

use std::process::ExitCode;

/// The router's allocator: what is measured in process, and the echo on the router's server, must not differ in it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<ExitCode> {
    grey_bench::bench()
}
