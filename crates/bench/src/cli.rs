//! The command lines of both programs.

use crate::report::{emit, say};
use crate::servers::{Tuned, Untuned};
use crate::targets::TARGETS;
use crate::yardsticks::Yardstick;
use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum as _};
use std::io::Write as _;
use std::process::ExitCode;

/// Measures Grey Router side by side with what else one could use, and prints one JSON object per measurement.
#[derive(Debug, Parser)]
#[command(name = "grey-bench", args_conflicts_with_subcommands = true)]
struct Bench {
    /// What to measure; everything if none is named.
    #[arg(value_name = "NAME")]
    names: Vec<Yardstick>,
    /// Lists the names and ends.
    #[arg(long)]
    list: bool,
    /// Fails if a target is missed.
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves, to be measured against.
    #[command(subcommand, hide = true)]
    Serve(Tuned),
}

#[derive(Debug, Parser)]
#[command(name = "grey-bench-untuned", about = "Servers of which nothing is tuned, to be measured against.")]
struct Plain {
    #[command(subcommand)]
    serve: Untuned,
}

/// Measures, or serves what is measured against, as the command line says.
///
/// # Errors
/// Something that is needed does not start, or answers wrongly.
pub fn bench() -> Result<ExitCode> {
    let bench = Bench::parse();
    if let Some(Command::Serve(server)) = bench.command {
        server.run()?;
        return Ok(ExitCode::SUCCESS);
    }
    if bench.list {
        for yardstick in Yardstick::value_variants() {
            writeln!(std::io::stdout(), "{:22} {}", yardstick.name(), yardstick.about())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let names = if bench.names.is_empty() { Yardstick::value_variants().to_vec() } else { bench.names };
    let mut missed = 0;
    for yardstick in names {
        say(&format!("== {}", yardstick.name()));
        let measurement = yardstick.measure()?;
        emit(&measurement, TARGETS);
        missed += measurement.missed(TARGETS).len();
    }
    if missed > 0 {
        say(&format!("{missed} of the targets are missed"));
    }
    Ok(if bench.check && missed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Serves what is measured against without any tuning.
///
/// # Errors
/// The server does not start.
pub fn untuned() -> Result<()> {
    Plain::parse().serve.run()
}
