//! What the control plane counts. Labels are closed sets.

use std::time::Duration;

use grey_runtime::telemetry::LATENCY_SECONDS;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter};

use crate::command::{Committed, Error};

/// The instruments. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    commands: Counter<u64>,
    durations: Histogram<f64>,
}

impl Metrics {
    /// Instruments of `meter`.
    #[must_use]
    pub fn new(meter: &Meter) -> Self {
        let commands =
            meter.u64_counter("grey_control_commands").with_description("Commands, by outcome.").build();
        let durations = meter
            .f64_histogram("grey_control_command_duration")
            .with_unit("s")
            .with_boundaries(LATENCY_SECONDS.to_vec())
            .with_description("Time from a command's beginning to its commit.")
            .build();
        Self { commands, durations }
    }

    pub(crate) fn command(&self, result: &Result<Committed, Error>, took: Duration) {
        let outcome = match result {
            Ok(_) => "done",
            Err(Error::Refused(_)) => "refused",
            Err(Error::Database(_) | Error::Stopped) => "failed",
            Err(Error::Unknown(_)) => "unknown",
            Err(Error::Late(_) | Error::Busy) => "late",
        };
        self.commands.add(1, &[KeyValue::new("outcome", outcome)]);
        self.durations.record(took.as_secs_f64(), &[]);
    }
}
