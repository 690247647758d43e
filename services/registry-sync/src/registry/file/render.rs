//! Writes an instances file.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::format::DEFAULT_WEIGHT;
use crate::registry::{Listing, Registered};

/// Writes an instances file that [`parse`](super::parse) reads as `listings`.
///
/// What has its usual value is left out.
#[must_use]
pub fn render(listings: &[Listing]) -> String {
    if listings.is_empty() {
        return "services: {}\n".to_owned();
    }
    let mut text = "services:\n".to_owned();
    for listing in listings {
        if listing.instances.is_empty() {
            line(&mut text, 1, &listing.service, "[]");
            continue;
        }
        line(&mut text, 1, &listing.service, "");
        for instance in &listing.instances {
            render_instance(&mut text, instance);
        }
    }
    text
}

fn render_instance(text: &mut String, instance: &Registered) {
    text.push_str("    - ");
    let start = text.len();
    let depth = 3;
    if instance.id != instance.address {
        line(text, depth, "id", &quoted(&instance.id));
    }
    line(text, depth, "address", &quoted(&instance.address));
    for (key, value) in
        [("version", &instance.version), ("region", &instance.region), ("zone", &instance.zone)]
    {
        if let Some(value) = value {
            line(text, depth, key, &quoted(value));
        }
    }
    if instance.weight != DEFAULT_WEIGHT {
        line(text, depth, "weight", &instance.weight.to_string());
    }
    for (key, value, usual) in [
        ("enabled", instance.enabled, true),
        ("healthy", instance.healthy, true),
        ("ephemeral", instance.ephemeral, false),
    ] {
        if value != usual {
            line(text, depth, key, &value.to_string());
        }
    }
    if !instance.metadata.is_empty() {
        line(text, depth, "metadata", "");
        for (key, value) in &instance.metadata {
            line(text, depth + 1, key, &quoted(value));
        }
    }
    // The dash stands where the first line has its indentation.
    text.replace_range(start..start + 2 * depth, "");
}

fn line(text: &mut String, depth: usize, key: &str, value: &str) {
    let key = if is_plain(key) { Cow::Borrowed(key) } else { Cow::Owned(quoted(key)) };
    let gap = if value.is_empty() { "" } else { " " };
    writeln!(text, "{:indent$}{key}:{gap}{value}", "", indent = 2 * depth)
        .expect("writing to a string does not fail");
}

/// Whether YAML reads a key as this text without quotes.
fn is_plain(key: &str) -> bool {
    let first = key.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    first && key != "null" && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// As JSON writes it, which is YAML as well, with escapes for what YAML does not allow or folds.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\u{20}'..='\u{7e}' | '\u{a0}'..='\u{d7ff}' if !matches!(c, '\u{2028}' | '\u{2029}') => {
                quoted.push(c);
            }
            _ => write!(quoted, "\\U{:08x}", u32::from(c)).expect("writing to a string does not fail"),
        }
    }
    quoted.push('"');
    quoted
}
