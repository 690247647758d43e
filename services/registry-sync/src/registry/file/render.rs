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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "test code panics")]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::super::parse;
    use super::*;

    #[test]
    fn what_has_its_usual_value_is_left_out() {
        let usual = Registered {
            id: "a:1".to_owned(),
            address: "a:1".to_owned(),
            version: Some("v1.0".to_owned()),
            weight: 100,
            enabled: true,
            healthy: true,
            ..Registered::default()
        };
        let unusual = Registered {
            id: "payment-2".to_owned(),
            region: Some("eu".to_owned()),
            weight: 0,
            enabled: false,
            healthy: false,
            ephemeral: true,
            metadata: BTreeMap::from([("null".to_owned(), "said \"no\"\n".to_owned())]),
            ..usual.clone()
        };
        let listings = [
            Listing { service: "7".to_owned(), instances: Vec::new() },
            Listing { service: "payment".to_owned(), instances: vec![usual, unusual] },
        ];
        insta::assert_snapshot!(render(&listings), @r#"
        services:
          "7": []
          payment:
            - address: "a:1"
              version: "v1.0"
            - id: "payment-2"
              address: "a:1"
              version: "v1.0"
              region: "eu"
              weight: 0
              enabled: false
              healthy: false
              ephemeral: true
              metadata:
                "null": "said \"no\"\U0000000a"
        "#);
        insta::assert_snapshot!(render(&[]), @"services: {}");
    }

    fn registered() -> impl Strategy<Value = Registered> {
        let place = || proptest::option::of("[a-z0-9][a-z0-9._-]{0,8}");
        let address = ("[a-z0-9]{1,8}|\\[::[0-9a-f]{1,4}\\]", 1_u16..)
            .prop_map(|(host, port)| format!("{host}:{port}"));
        let flags = any::<(bool, bool, bool)>();
        let version = proptest::option::of("v?[0-9]\\.(0|[1-9][0-9]?)");
        let metadata = proptest::collection::btree_map(any::<String>(), any::<String>(), 0..4);
        (
            proptest::option::of("[a-zA-Z0-9][a-zA-Z0-9._:#@/-]{0,12}"),
            address,
            version,
            place(),
            place(),
            0..=10_000_u32,
            flags,
            metadata,
        )
            .prop_map(
                |(id, address, version, region, zone, weight, (enabled, healthy, ephemeral), metadata)| {
                    Registered {
                        id: id.unwrap_or_else(|| address.clone()),
                        address,
                        version,
                        region,
                        zone,
                        weight,
                        enabled,
                        healthy,
                        ephemeral,
                        metadata,
                    }
                },
            )
    }

    fn listings() -> impl Strategy<Value = Vec<Listing>> {
        let instances = proptest::collection::vec(registered(), 0..5).prop_map(|mut instances| {
            let mut ids = BTreeSet::new();
            instances.retain(|instance| ids.insert(instance.id.clone()));
            instances
        });
        let name = prop_oneof!["[a-z0-9][a-z0-9._-]{0,8}", Just("null".to_owned()), Just("true".to_owned())];
        proptest::collection::btree_map(name, instances, 0..4).prop_map(|services| {
            services.into_iter().map(|(service, instances)| Listing { service, instances }).collect()
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(listings in listings()) {
            let text = render(&listings);
            let read = parse(&text).map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
            prop_assert_eq!(read, listings, "{}", text);
        }
    }
}
