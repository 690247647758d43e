//! What is printed: one JSON object per measurement for programs, the rest for people.

use crate::targets::{Limit, Target};
use grey_testkit::others::QUIET;
use serde_json::{Map, Value, json};
use std::io::Write as _;

/// A figure and what it was compared with.
#[derive(Debug)]
pub(crate) struct Measurement {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    /// What the target is about.
    pub(crate) ratio: f64,
    pub(crate) against: &'static str,
    /// Further fields.
    pub(crate) more: Map<String, Value>,
}

impl Measurement {
    /// The line for programs, with the targets of `targets` that are about it.
    fn line(&self, targets: &[Target]) -> Value {
        let mut line = json!({
            "name": self.name,
            "value": rounded(self.value),
            "unit": self.unit,
            "ratio": rounded(self.ratio),
            "against": self.against,
        });
        let fields = line.as_object_mut().expect("made as an object");
        for target in targets.iter().filter(|target| target.name == self.name) {
            let key = if target.field == "ratio" {
                "target".to_owned()
            } else {
                format!("{}_target", target.field)
            };
            fields.insert(key, target.limit.to_string().into());
        }
        fields.extend(self.more.clone());
        line
    }

    /// Notes how many cores others kept busy meanwhile, at the worst; one who knows it of each round notes it sooner.
    pub(crate) fn note_others(&mut self, others: f64) {
        self.more.insert("others".to_owned(), rounded(others));
        if others > QUIET {
            self.more.insert("busy".to_owned(), json!(true));
        }
    }

    /// How many cores others kept busy, if that was noted.
    pub(crate) fn others(&self) -> Option<f64> {
        self.more.get("others").and_then(Value::as_f64)
    }

    /// Whether others kept the machine too busy for the figures to mean anything.
    pub(crate) fn is_busy(&self) -> bool {
        self.more.contains_key("busy")
    }

    /// The targets that are missed; none if the machine was too busy to tell.
    pub(crate) fn missed<'t>(&self, targets: &'t [Target]) -> Vec<&'t Target> {
        let figure = |field: &str| match field {
            "ratio" => Some(self.ratio),
            "value" => Some(self.value),
            field => self.more.get(field).and_then(Value::as_f64),
        };
        let missed = |target: &&Target| {
            !self.is_busy()
                && target.name == self.name
                && !figure(target.field).is_some_and(|figure| match target.limit {
                    Limit::AtLeast(least) => figure >= least,
                    Limit::AtMost(most) => figure <= most,
                })
        };
        targets.iter().filter(missed).collect()
    }
}

/// Prints a measurement, and whether it met its targets.
pub(crate) fn emit(measurement: &Measurement, targets: &[Target]) {
    if measurement.is_busy() {
        say(&format!("{}: the machine was too busy with other programs to measure", measurement.name));
    }
    for target in measurement.missed(targets) {
        say(&format!("{}: {} misses its target of {}", measurement.name, target.field, target.limit));
    }
    let mut out = std::io::stdout();
    // Fails only if nobody reads.
    writeln!(out, "{}", measurement.line(targets)).and_then(|()| out.flush()).ok();
}

/// Tells people something.
pub(crate) fn say(text: &str) {
    writeln!(std::io::stderr(), "{text}").ok();
}

/// Four digits are more than a measurement has.
pub(crate) fn rounded(value: f64) -> Value {
    if value == 0.0 || !value.is_finite() {
        return json!(0.0);
    }
    let digits = 3.0 - value.abs().log10().floor();
    if digits <= 0.0 {
        return json!(value.round());
    }
    let scale = 10f64.powf(digits);
    json!((value * scale).round() / scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::TARGETS;

    fn measurement(others: f64) -> Measurement {
        let (value, ratio, more) = (1.0, 0.1, Map::new());
        let mut measurement =
            Measurement { name: "route_vs_echo", value, unit: "calls/s", ratio, against: "an echo", more };
        measurement.note_others(others);
        measurement
    }

    #[test]
    fn what_was_measured_on_a_busy_machine_misses_nothing_and_says_so() {
        let quiet = measurement(QUIET);
        assert_eq!((quiet.missed(TARGETS).len(), quiet.is_busy()), (1, false));
        assert!(quiet.line(TARGETS).get("busy").is_none());
        let busy = measurement(QUIET + 0.01);
        assert_eq!((busy.missed(TARGETS).len(), busy.is_busy()), (0, true));
        assert_eq!(busy.line(TARGETS)["busy"], true);
    }
}
