//! Placeholders in files: `${name}` stands for what is configured, for the service, or for the tenant.

use grey_core::ids::ServiceId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;

/// Stands for the tenant, so it is known only where a file is run.
const TENANT: &str = "tenant";
/// Stands for the service.
const SERVICE: &str = "service";

/// Values of placeholders, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Placeholders(BTreeMap<String, String>);

impl Placeholders {
    /// Placeholders with these values.
    #[must_use]
    pub fn new(values: BTreeMap<String, String>) -> Self {
        Self(values)
    }

    /// What is wrong with names and values.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (name, value) in &self.0 {
            if name == TENANT || name == SERVICE {
                faults.push(format!("{name}: has a value already"));
            } else if !is_name(name) {
                faults.push(format!("{name}: a name has letters, digits, `_`, `-`, `.` and `:`"));
            }
            // A value with lines would make faults be told at the wrong ones.
            if value.contains(char::is_control) {
                faults.push(format!("{name}: the value must have no control characters"));
            }
        }
        faults
    }

    /// The text with everything in the place of placeholders that is known without a tenant.
    pub(super) fn fill(&self, text: &str, service: &ServiceId) -> String {
        replace(text, |name| match name {
            SERVICE => Some(service.as_str()),
            name => self.0.get(name).map(String::as_str),
        })
    }
}

/// The text for one tenant.
pub(super) fn for_tenant(text: &str, tenant: &str) -> String {
    replace(text, |name| (name == TENANT).then_some(tenant))
}

/// Whether `name` is known where a file is run.
pub(super) fn is_of_tenant(name: &str) -> bool {
    name == TENANT
}

/// Every placeholder in `text`: where it is, and its name.
pub(super) fn places(text: &str) -> Vec<(Range<usize>, &str)> {
    let mut places = Vec::new();
    for (at, _) in text.match_indices("${") {
        let rest = text.get(at + 2..).unwrap_or_default();
        let Some(end) = rest.find('}') else { break };
        let name = rest.get(..end).unwrap_or_default();
        if is_name(name) {
            places.push((at..at + end + 3, name));
        }
    }
    places
}

fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
    !name.is_empty() && name.len() <= 64 && name.chars().all(plain)
}

fn replace<'v>(text: &str, value: impl Fn(&str) -> Option<&'v str>) -> String {
    let (mut filled, mut done) = (String::with_capacity(text.len()), 0);
    for (range, name) in places(text) {
        let Some(value) = value(name) else { continue };
        filled.push_str(text.get(done..range.start).unwrap_or_default());
        filled.push_str(value);
        done = range.end;
    }
    filled.push_str(text.get(done..).unwrap_or_default());
    filled
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;

    #[test]
    fn what_is_known_is_filled_in_and_nothing_else() {
        let values = Placeholders::new([("region".to_owned(), "eu".to_owned())].into());
        let service = ServiceId::new("shop").unwrap();
        let text = "a ${region} ${service} ${tenant} ${other} ${a b} $1 ${";
        let filled = values.fill(text, &service);
        assert_eq!(filled, "a eu shop ${tenant} ${other} ${a b} $1 ${");
        assert_eq!(for_tenant(&filled, "acme"), "a eu shop acme ${other} ${a b} $1 ${");
        let names: Vec<_> = places(&filled).into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["tenant", "other"]);
    }

    #[test]
    fn names_that_are_taken_and_values_with_lines_are_faults() {
        let values = [("tenant", "x"), ("a b", "x"), ("fine", "x\ny")];
        let values = values.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(Placeholders::new(values.into()).faults().len(), 3);
    }
}
