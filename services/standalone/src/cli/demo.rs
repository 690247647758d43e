//! `grey demo`: a story with real backends and traffic.

use std::io::IsTerminal as _;

use clap::Args;

use super::Failure;
use crate::demo::{self, Mode, Options};

/// How to tell the story.
#[derive(Debug, Args)]
pub struct Demo {
    /// Assert every step on free ports, then exit; not zero if one does not hold
    #[arg(long)]
    check: bool,
    /// End after so many seconds; else at `q` or Ctrl-C (with --check: after the story, 60 at most)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: Option<u64>,
    /// Print lines, also in a terminal
    #[arg(long)]
    plain: bool,
    /// Use ports that are free instead of the usual ones
    #[arg(long)]
    free_ports: bool,
}

impl Demo {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
        let mode = match (self.check, self.plain || !terminal) {
            (true, _) => Mode::Check,
            (false, true) => Mode::Plain,
            (false, false) => Mode::Live,
        };
        let options = Options {
            mode,
            limit: self.seconds.map(std::time::Duration::from_secs),
            free_ports: self.check || self.free_ports,
        };
        Box::pin(demo::run(&options)).await.map_err(Failure::Server)
    }
}
