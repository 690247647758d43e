//! What an instances file says.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use grey_core::ids::ServiceId;
use grey_core::instance::{Instance, MAX_INSTANCES};
use grey_proto::convert::InvalidMessage;
use grey_proto::router;
use serde::Deserialize;
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy};

use crate::registry::{Listing, Registered};

/// Largest file, in bytes.
pub const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Stands in for a version that is not stated, since that may be in the metadata or a default.
const ANY_VERSION: &str = "v0.0.0";
/// Longest key that may stand before its colon on one line: the limit of a metadata's size, escaped.
const MAX_KEY: usize = 64 * 1024;

/// Why a text is not a list of instances.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Too large to be meant.
    #[error("read instances: {bytes} bytes, at most {MAX_BYTES} are read")]
    TooLarge {
        /// Bytes given.
        bytes: u64,
    },
    /// It says nothing at all, as a file does that is being written.
    #[error("read instances: the file is empty; to remove every instance write `services: {{}}`")]
    Empty,
    /// It is not YAML, or not of the form that it should be.
    #[error("read instances: {place}{why}")]
    Syntax {
        /// Where, such as `services.payment[0]: `; empty if outside of any service.
        place: String,
        /// What is wrong, and what was expected.
        why: String,
    },
    /// A value cannot be taken.
    #[error("read {place}: {why}")]
    Value {
        /// Where, such as `services.payment[0].address`.
        place: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Error {
    fn value(place: String, why: &impl ToString) -> Self {
        Self::Value { place, why: why.to_string() }
    }
}

/// The whole file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    services: BTreeMap<String, Vec<Registered>>,
}

/// Writes an instances file that [`parse`] reads as `listings`.
#[must_use]
pub fn render(listings: &[Listing]) -> String {
    let listed = listings.iter().map(|listing| (listing.service.as_str(), &listing.instances));
    let file = BTreeMap::from([("services", listed.collect::<BTreeMap<_, _>>())]);
    // JSON, which is YAML as well.
    serde_json::to_string_pretty(&file).expect("texts and numbers can be written as JSON")
}

/// Reads an instances file: YAML, hence also JSON.
///
/// The services come in the order of their names, the instances of each as written. Everything is taken or nothing is:
/// one fault refuses the file as a whole.
///
/// # Errors
/// The first fault, with its place.
pub fn parse(text: &str) -> Result<Vec<Listing>, Error> {
    if text.len() > MAX_BYTES {
        return Err(Error::TooLarge { bytes: text.len() as u64 });
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            // The size of the text bounds these already.
            max_events: MAX_BYTES,
            max_nodes: MAX_BYTES,
            simple_key_max_lookahead: MAX_KEY,
            max_documents: 2,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Merge,
        with_snippet: false,
    };
    let mut place = String::new();
    let read = serde_saphyr::with_deserializer_from_str_with_options(text, options, |yaml| {
        serde_path_to_error::deserialize::<_, Option<File>>(yaml).map_err(|error| {
            place = error.path().to_string();
            error.into_inner()
        })
    });
    let file = read.map_err(|error| fault(&error, &place))?.ok_or(Error::Empty)?;
    file.services.into_iter().map(|(service, instances)| listing(service, instances)).collect()
}

fn fault(error: &serde_saphyr::Error, place: &str) -> Error {
    let error = error.without_snippet();
    let mut why = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
    let key = place.rsplit('.').next().unwrap_or_default();
    let nothing = match place.matches('.').count() {
        0 if key == "services" => "{}",
        1 if !key.is_empty() && !key.ends_with(']') => "[]",
        _ => "",
    };
    if matches!(error, serde_saphyr::Error::Unexpected { .. }) && !nothing.is_empty() {
        write!(why, "; for none write `{key}: {nothing}`").expect("writing to a string does not fail");
    }
    // A key that could not be read is told as `?`, the whole file as `.`.
    let place = match place.trim_end_matches(['?', '.']) {
        "" => String::new(),
        at => format!("{at}: "),
    };
    Error::Syntax { place, why }
}

fn listing(service: String, mut instances: Vec<Registered>) -> Result<Listing, Error> {
    if let Err(why) = service.parse::<ServiceId>() {
        return Err(Error::value(format!("services.{service}"), &why));
    }
    if instances.len() > MAX_INSTANCES {
        let why = format!("{} instances, at most {MAX_INSTANCES} are read", instances.len());
        return Err(Error::value(format!("services.{service}"), &why));
    }
    for instance in &mut instances {
        for place in [&mut instance.version, &mut instance.region, &mut instance.zone] {
            place.take_if(|text| text.is_empty());
        }
        if instance.id.is_empty() {
            instance.id.clone_from(&instance.address);
        }
    }
    let mut places = HashMap::with_capacity(instances.len());
    for (index, instance) in instances.iter().enumerate() {
        check(instance).map_err(|fault| {
            Error::value(format!("services.{service}[{index}].{}", fault.field), &fault.why)
        })?;
        if let Some(earlier) = places.insert(&instance.id, index) {
            let why = format!("`{}` is there already, as services.{service}[{earlier}]", instance.id);
            return Err(Error::value(format!("services.{service}[{index}].id"), &why));
        }
    }
    Ok(Listing { service, instances })
}

/// Holds an instance to the rules of the contract; only its version may be missing.
fn check(instance: &Registered) -> Result<(), InvalidMessage> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let message = router::Instance {
        id: instance.id.clone(),
        address: instance.address.clone(),
        version: instance.version.clone().unwrap_or_else(|| ANY_VERSION.to_owned()),
        region: text(&instance.region),
        zone: text(&instance.zone),
        weight: instance.weight,
        metadata: instance.metadata.clone(),
        ..router::Instance::default()
    };
    Instance::try_from(message).map(drop)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "test code panics")]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../../../docs/examples/instances.yaml");

    fn registered(address: &str, version: &str) -> Registered {
        Registered {
            id: address.to_owned(),
            address: address.to_owned(),
            version: Some(version.to_owned()),
            weight: 100,
            enabled: true,
            healthy: true,
            ..Registered::default()
        }
    }

    #[test]
    fn what_is_not_stated_has_its_usual_value() {
        let services = parse(EXAMPLE).unwrap();
        let names: Vec<_> = services.iter().map(|listing| listing.service.as_str()).collect();
        assert_eq!(names, ["invoices", "orders", "payment"]);
        assert!(services[0].instances.is_empty());
        let off = Registered { enabled: false, ..registered("[2001:db8::7]:8080", "v1.4") };
        let sick = Registered { healthy: false, ..registered("10.0.1.2:8080", "v1.4") };
        assert_eq!(services[1].instances, [off, sick]);
        let in_zone = Registered {
            region: Some("eu".to_owned()),
            zone: Some("eu-a".to_owned()),
            ..registered("10.0.0.2:8080", "v1.0")
        };
        let named = Registered {
            id: "payment-c".to_owned(),
            weight: 50,
            metadata: BTreeMap::from([("commit".to_owned(), "4f2a9c1".to_owned())]),
            ..registered("payment-c.internal:8080", "v2.0")
        };
        assert_eq!(services[2].instances, [registered("10.0.0.1:8080", "v1.0"), in_zone, named]);
    }

    #[test]
    fn numbers_and_words_of_yaml_are_texts_where_a_text_is_meant() {
        let text = "services: {pay: [{address: 'a:1', version: 2.10, metadata: {build: 0042, debug: yes}}]}";
        let instance = parse(text).unwrap().remove(0).instances.remove(0);
        assert_eq!(instance.version.as_deref(), Some("2.10"));
        let metadata: Vec<_> = instance.metadata.values().map(String::as_str).collect();
        assert_eq!(metadata, ["0042", "yes"]);
    }

    #[test]
    fn json_is_read_as_well() {
        let text =
            r#"{"services": {"pay": [{"address": "a:1", "version": "v1", "ephemeral": true}], "log": []}}"#;
        let services = parse(text).unwrap();
        assert_eq!(services[1].instances, [Registered { ephemeral: true, ..registered("a:1", "v1") }]);
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let odd = Registered {
            id: "p-2".to_owned(),
            zone: Some("eu-a".to_owned()),
            weight: 7,
            enabled: false,
            metadata: BTreeMap::from([("null".to_owned(), "said \"no\"\n: é".to_owned())]),
            ..registered("[::1]:1", "v1.0")
        };
        let payment =
            Listing { service: "payment".to_owned(), instances: vec![registered("a:1", "v2"), odd] };
        let listings = [Listing { service: "7".to_owned(), instances: Vec::new() }, payment];
        assert_eq!(parse(&render(&listings)).unwrap(), listings);
        assert_eq!(parse(&render(&[])).unwrap(), []);
    }

    #[test]
    fn anchors_spare_repetition() {
        let text =
            "services: {pay: [&a {address: 'a:1', version: v1, region: eu}, {<<: *a, address: 'b:1'}]}";
        let instances = parse(text).unwrap().remove(0).instances;
        assert_eq!((instances[1].address.as_str(), instances[1].region.as_deref()), ("b:1", Some("eu")));
    }

    #[test]
    fn a_version_may_be_left_to_the_metadata() {
        let text = "services: {pay: [{address: 'a:1', version: ~, region: ''}]}";
        let instance = parse(text).unwrap().remove(0).instances.remove(0);
        assert_eq!((instance.version, instance.region), (None, None));
    }

    #[test]
    fn an_empty_map_removes_all_instances() {
        assert_eq!(parse("services: {}").unwrap(), []);
    }

    #[test]
    fn a_file_that_says_nothing_is_a_fault() {
        for text in ["", "\n\n", "# nothing\n", "---\n", "~", "null"] {
            let fault = parse(text).unwrap_err();
            assert!(matches!(fault, Error::Empty), "{text:?}: {fault}");
        }
        insta::assert_snapshot!(parse("").unwrap_err(), @"read instances: the file is empty; to remove every instance write `services: {}`");
    }

    #[test]
    fn beginnings_of_a_file_are_not_taken_for_a_removal() {
        for end in 0..EXAMPLE.find("address").unwrap() {
            let Some(start) = EXAMPLE.get(..end) else { continue };
            assert!(parse(start).is_err(), "{start:?}");
        }
    }

    #[test]
    fn faults_of_form_are_told_with_line_and_place() {
        let fault = |text: &str| parse(text).unwrap_err().to_string();
        insta::assert_snapshot!(fault("instances: []"), @"read instances: instances: unknown field `instances`, expected one of services at line 1, column 1");
        insta::assert_snapshot!(fault("[]"), @"read instances: expected mapping start at line 1, column 1");
        insta::assert_snapshot!(fault("{"), @"read instances: unclosed bracket '{' at line 1, column 1");
        insta::assert_snapshot!(fault("services:"), @"read instances: services: expected mapping start at line 1, column 9; for none write `services: {}`");
        insta::assert_snapshot!(fault("services: {payment: ["), @"read instances: services.payment: unclosed bracket '[' at line 1, column 21");
        insta::assert_snapshot!(fault("services: []"), @"read instances: services: expected mapping start at line 1, column 11; for none write `services: {}`");
        insta::assert_snapshot!(fault("services: {}\n---\nservices: {}"), @"read instances: only single YAML document expected but multiple found at line 3, column 1");
        insta::assert_snapshot!(fault("services:\n  payment:\n"), @"read instances: services.payment: expected sequence start at line 2, column 10; for none write `payment: []`");
        insta::assert_snapshot!(fault("services:\n  payment: []\n  payment: []\n"), @"read instances: services: duplicate mapping key `payment` is not allowed here at line 3, column 3");
        insta::assert_snapshot!(fault("services:\n  payment:\n    - address: a:1\n    - id: p-1\n"), @"read instances: services.payment[1]: missing field `address` at line 4, column 7");
        insta::assert_snapshot!(fault("services:\n  payment:\n    - address: a:1\n      versoin: v1\n"), @"read instances: services.payment[0].versoin: unknown field `versoin`, expected one of id, address, version, region, zone, weight, enabled, healthy, ephemeral, metadata at line 4, column 7");
        insta::assert_snapshot!(fault("services:\n  payment:\n    - address: a:1\n      weight: -1\n"), @"read instances: services.payment[0].weight: invalid u32 at line 4, column 15");
        insta::assert_snapshot!(fault("services:\n  payment:\n    - address: a:1\n      healthy: maybe\n"), @"read instances: services.payment[0].healthy: invalid boolean at line 4, column 16");
        insta::assert_snapshot!(fault("services:\n  payment: [a:1]\n"), @"read instances: services.payment[0]: expected mapping start at line 2, column 13");
        insta::assert_snapshot!(fault("services: {payment: []}\nservice: {}\n"), @"read instances: service: unknown field `service`, expected one of services at line 2, column 1");
    }

    #[test]
    fn faulty_values_are_told_with_their_place() {
        let fault = |instance: &str| {
            parse(&format!("services: {{payment: [{{address: 'a:1'}}, {{{instance}}}]}}"))
                .unwrap_err()
                .to_string()
        };
        insta::assert_snapshot!(fault("address: nowhere"), @"read services.payment[1].address: must be host:port");
        insta::assert_snapshot!(fault("address: 'b:0'"), @"read services.payment[1].address: needs a port from 1 to 65535");
        insta::assert_snapshot!(fault("address: 'b:1', version: two"), @"read services.payment[1].version: `two` is not a version: it is not a semantic version; write one to three numbers with an optional `v`, such as v2.1");
        insta::assert_snapshot!(fault("address: 'b:1', weight: 10001"), @"read services.payment[1].weight: 10001 is more than 10000");
        insta::assert_snapshot!(fault("address: 'b:1', zone: EU"), @"read services.payment[1].zone: name `EU` does not match [a-z0-9][a-z0-9._-]{0,62}");
        insta::assert_snapshot!(fault("address: 'b:1', id: a b"), @r#"read services.payment[1].id: instance id `a b` does not match [A-Za-z0-9\[][A-Za-z0-9._:#@\[\]/-]{0,159}"#);
        insta::assert_snapshot!(fault("address: 'b:1', id: 'a:1'"), @"read services.payment[1].id: `a:1` is there already, as services.payment[0]");
        insta::assert_snapshot!(parse("services: {Payment Service: []}").unwrap_err(), @"read services.Payment Service: service id `Payment Service` does not match [a-z0-9][a-z0-9._-]{0,62}");
    }

    #[test]
    fn sizes_are_bounded() {
        let long = format!("# {}\nservices: {{}}", "x".repeat(MAX_BYTES));
        insta::assert_snapshot!(parse(&long).unwrap_err(), @"read instances: 16777231 bytes, at most 16777216 are read");
        let many = "{address: 'a:1'}, ".repeat(MAX_INSTANCES + 1);
        insta::assert_snapshot!(parse(&format!("services: {{pay: [{many}]}}")).unwrap_err(), @"read services.pay: 10001 instances, at most 10000 are read");
        let heavy = "x".repeat(9_000);
        insta::assert_snapshot!(parse(&format!("services: {{pay: [{{address: 'a:1', metadata: {{a: {heavy}}}}}]}}")).unwrap_err(), @"read services.pay[0].metadata: has 9001 bytes, at most 8192 are allowed");
        // Ten times ten times ten and so on: small to write, too much to read.
        let mut bomb =
            "services:\n  pay:\n    - address: a:1\n      metadata:\n        a: &a0 [x]\n".to_owned();
        for level in 1..10 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb.push_str(&format!("        b{level}: &a{level} [{aliases}]\n"));
        }
        assert!(parse(&bomb).is_err());
    }

    #[test]
    fn a_large_file_is_read_as_a_whole() {
        let instances: String = (0..5_000)
            .map(|i| {
                format!("    - {{id: p-{i}, address: \"10.0.{}.{}:80\", version: v1}}\n", i / 250, i % 250)
            })
            .collect();
        let text: String = ["services:\n".to_owned()]
            .into_iter()
            .chain((0..8).map(|service| format!("  s-{service}:\n{instances}")))
            .collect();
        let services = parse(&text).unwrap();
        assert_eq!(services.iter().map(|listing| listing.instances.len()).sum::<usize>(), 40_000);
    }
}
