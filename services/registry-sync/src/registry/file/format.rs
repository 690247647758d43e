//! What an instances file says.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

use grey_core::ids::ServiceId;
use grey_core::instance::{Instance, MAX_INSTANCES};
use grey_proto::convert::InvalidMessage;
use grey_proto::router;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy};

use crate::registry::{Listing, Registered};

/// Largest file, in bytes.
pub const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Weight of an instance that does not state one.
pub(super) const DEFAULT_WEIGHT: u32 = 100;
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

/// One instance as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: Option<String>,
    address: String,
    version: Option<String>,
    region: Option<String>,
    zone: Option<String>,
    #[serde(default = "usual_weight")]
    weight: u32,
    #[serde(default = "yes")]
    enabled: bool,
    #[serde(default = "yes")]
    healthy: bool,
    #[serde(default)]
    ephemeral: bool,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

fn usual_weight() -> u32 {
    DEFAULT_WEIGHT
}

fn yes() -> bool {
    true
}

impl From<Entry> for Registered {
    fn from(entry: Entry) -> Self {
        let stated = |text: Option<String>| text.filter(|text| !text.is_empty());
        Self {
            id: stated(entry.id).unwrap_or_else(|| entry.address.clone()),
            address: entry.address,
            version: stated(entry.version),
            region: stated(entry.region),
            zone: stated(entry.zone),
            weight: entry.weight,
            enabled: entry.enabled,
            healthy: entry.healthy,
            ephemeral: entry.ephemeral,
            metadata: entry.metadata,
        }
    }
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
    let reached = Cell::default();
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
    let read = serde_saphyr::with_deserializer_from_str_with_options(text, options, |yaml| {
        File(&reached).deserialize(yaml)
    });
    let services = read.map_err(|error| fault(&error, reached.take()))?.ok_or(Error::Empty)?;
    services.into_iter().map(|(service, entries)| listing(service, entries)).collect()
}

/// How far the reading got, for faults that only tell a line.
#[derive(Default)]
struct Reached {
    service: Option<String>,
    index: Option<usize>,
}

fn fault(error: &serde_saphyr::Error, reached: Reached) -> Error {
    let place = match (reached.service, reached.index) {
        (None, _) => String::new(),
        (Some(service), None) => format!("services.{service}: "),
        (Some(service), Some(index)) => format!("services.{service}[{index}]: "),
    };
    let why = error.without_snippet().render_with_formatter(&serde_saphyr::UserMessageFormatter);
    Error::Syntax { place, why }
}

/// The whole file; nothing if it says nothing.
struct File<'a>(&'a Cell<Reached>);

impl<'de> DeserializeSeed<'de> for File<'_> {
    type Value = Option<BTreeMap<String, Vec<Entry>>>;

    fn deserialize<D: Deserializer<'de>>(self, yaml: D) -> Result<Self::Value, D::Error> {
        yaml.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for File<'_> {
    type Value = Option<BTreeMap<String, Vec<Entry>>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map with the key `services`")
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, yaml: D) -> Result<Self::Value, D::Error> {
        yaml.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut services = None;
        while let Some(key) = map.next_key::<String>()? {
            if key != "services" {
                return Err(A::Error::unknown_field(&key, &["services"]));
            }
            services = Some(map.next_value_seed(Services(self.0))?);
        }
        services.map(Some).ok_or_else(|| A::Error::missing_field("services"))
    }
}

/// What follows `services`.
struct Services<'a>(&'a Cell<Reached>);

impl<'de> DeserializeSeed<'de> for Services<'_> {
    type Value = BTreeMap<String, Vec<Entry>>;

    fn deserialize<D: Deserializer<'de>>(self, yaml: D) -> Result<Self::Value, D::Error> {
        yaml.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Services<'_> {
    type Value = BTreeMap<String, Vec<Entry>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of services, `{}` for none")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut services = BTreeMap::new();
        while let Some(service) = map.next_key::<String>()? {
            self.0.set(Reached { service: Some(service.clone()), index: None });
            let entries = map.next_value_seed(Entries { of: &service, reached: self.0 })?;
            self.0.take();
            services.insert(service, entries);
        }
        Ok(services)
    }
}

/// What follows the name of a service.
struct Entries<'a> {
    of: &'a str,
    reached: &'a Cell<Reached>,
}

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = Vec<Entry>;

    fn deserialize<D: Deserializer<'de>>(self, yaml: D) -> Result<Self::Value, D::Error> {
        yaml.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = Vec<Entry>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of instances, `[]` for none")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        loop {
            self.reached.set(Reached { service: Some(self.of.to_owned()), index: Some(entries.len()) });
            match list.next_element()? {
                Some(entry) => entries.push(entry),
                None => return Ok(entries),
            }
        }
    }
}

fn listing(service: String, entries: Vec<Entry>) -> Result<Listing, Error> {
    if let Err(why) = service.parse::<ServiceId>() {
        return Err(Error::value(format!("services.{service}"), &why));
    }
    if entries.len() > MAX_INSTANCES {
        let why = format!("{} instances, at most {MAX_INSTANCES} are read", entries.len());
        return Err(Error::value(format!("services.{service}"), &why));
    }
    let instances: Vec<Registered> = entries.into_iter().map(Into::into).collect();
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
