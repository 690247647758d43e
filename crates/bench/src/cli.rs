//! The command lines of both programs.

use crate::cores;
use crate::report::{Measurement, emit, say};
use crate::rounds::quietest;
use crate::servers::{Tuned, Untuned};
use crate::targets::TARGETS;
use crate::yardsticks::Yardstick;
use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum as _};
use grey_testkit::others::Watch;
use std::io::Write as _;
use std::process::ExitCode;

/// Exit code where nothing is missed, as far as other programs let it be measured.
const BUSY: u8 = 2;

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
    /// Fails if a target is missed, with 1; with 2 if the machine was too busy to tell.
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
    if !cores::come_first() {
        say(
            "the system does not let this come before other programs: their time slices are part of the tails",
        );
    }
    let names = if bench.names.is_empty() { Yardstick::value_variants().to_vec() } else { bench.names };
    let (mut missed, mut busy) = (0, 0);
    for yardstick in names {
        say(&format!("== {}", yardstick.name()));
        let measurement = measure(yardstick)?;
        emit(&measurement, TARGETS);
        missed += measurement.missed(TARGETS).len();
        busy += usize::from(measurement.is_busy());
    }
    if missed > 0 {
        say(&format!("{missed} of the targets are missed"));
    }
    if busy > 0 {
        say(&format!("{busy} could not be measured, since other programs kept the machine busy"));
    }
    Ok(match (missed, busy) {
        _ if !bench.check => ExitCode::SUCCESS,
        (0, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::from(BUSY),
        _ => ExitCode::FAILURE,
    })
}

/// Measures, again if others kept the machine busy; who looks at each round has repeated those.
fn measure(yardstick: Yardstick) -> Result<Measurement> {
    let (mut measurement, others) = quietest(|| {
        let watch = Watch::begin()?;
        let measurement = yardstick.measure()?;
        let others = if measurement.others().is_some() { 0.0 } else { watch.others()? };
        Ok((measurement, others))
    })?;
    let of_rounds = measurement.others();
    measurement.note_others(of_rounds.unwrap_or(others));
    Ok(measurement)
}

/// Serves what is measured against without any tuning.
///
/// # Errors
/// The server does not start.
pub fn untuned() -> Result<()> {
    Plain::parse().serve.run()
}
