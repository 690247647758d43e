//! Load generator and yardsticks: one JSON line per measurement.
//!
//! Each measurement is a ratio of two things measured in turn in one run, since absolute figures are the machine's.
//! Routers and control planes under test are the real programs with their real configuration on real stores; what
//! they are compared with lives here (`servers`). The generator (`blast`) is hand-framed HTTP/2, so that it is
//! never what is measured.
//!
//! What it does *not* do: it holds no product code, and nothing depends on it.

mod cli;
mod targets;
mod yardsticks;

mod blast;
mod chain;
mod cores;
mod programs;
mod report;
mod rounds;
mod servers;
mod world;

pub use cli::{bench, untuned};
