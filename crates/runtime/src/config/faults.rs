//! What is wrong with a configuration, and the rules that say so.

use std::fmt::{self, Write};

use super::layers::Layers;

/// Rules that types alone cannot express.
pub trait Validate {
    /// Adds every broken rule to `faults`; never stops at the first.
    fn validate(&self, faults: &mut Faults);
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The dotted key, such as `server.port`; empty if no key is to blame.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
    /// The layer that the value came from, if any layer has it.
    pub origin: Option<String>,
}

impl Fault {
    pub(super) fn with_origin(mut self, layers: &Layers) -> Self {
        self.origin = layers.origin(&self.path);
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.origin {
            Some(origin) => write!(f, " ({origin})"),
            None => Ok(()),
        }
    }
}

/// Collects broken rules; keys are relative to the section being checked.
#[derive(Debug, Default)]
pub struct Faults {
    prefix: Vec<String>,
    found: Vec<Fault>,
}

impl Faults {
    /// Records that `key` of the current section breaks a rule.
    pub fn add(&mut self, key: &str, message: impl Into<String>) {
        let mut path = self.prefix.join(".");
        if !path.is_empty() && !key.is_empty() {
            path.push('.');
        }
        path.push_str(key);
        self.found.push(Fault { path, message: message.into(), origin: None });
    }

    /// Records a fault unless `holds`.
    pub fn check(&mut self, holds: bool, key: &str, message: impl Into<String>) {
        if !holds {
            self.add(key, message);
        }
    }

    /// Checks a nested section whose key is `key`.
    pub fn section(&mut self, key: &str, part: &impl Validate) {
        self.prefix.push(key.to_owned());
        part.validate(self);
        self.prefix.pop();
    }

    /// The faults found so far, in the order in which they were added.
    pub fn found(&self) -> &[Fault] {
        &self.found
    }

    pub(super) fn into_vec(self) -> Vec<Fault> {
        self.found
    }
}

pub(super) fn list(faults: &[Fault]) -> String {
    let mut text = match faults.len() {
        1 => "configuration has 1 fault".to_owned(),
        count => format!("configuration has {count} faults"),
    };
    for fault in faults {
        write!(text, "\n  {fault}").expect("writing to a string does not fail");
    }
    text
}
