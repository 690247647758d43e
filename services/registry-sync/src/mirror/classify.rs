//! From what a registry lists to what can be routed to, or why it cannot.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use grey_core::ids::{InstanceId, Name, ServiceId};
use grey_core::instance::Instance;
use grey_core::text::plain;
use grey_core::version::Version;
use grey_proto::router;

use super::options::{Naming, Source};
use crate::registry::Registered;

/// Stands in for a version that is not known; never published.
const NO_VERSION: &str = "v0.0";
/// Longest text of a registry that is repeated in a report, in characters.
pub(super) const MAX_SHOWN: usize = 100;

/// One listed instance.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Sight {
    /// It can be routed to.
    Versioned(Arc<Instance>),
    /// Its version is not known, for this reason; all else of it is fine.
    Unversioned(Arc<Instance>, String),
}

/// What a source lists of one service.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Seen {
    /// The service by its name there.
    pub(super) name: String,
    pub(super) instances: BTreeMap<InstanceId, Sight>,
    /// Entries that cannot be taken, by what they call themselves, and why.
    pub(super) refused: Vec<(String, String)>,
}

impl Seen {
    pub(super) fn is_empty(&self) -> bool {
        self.instances.is_empty() && self.refused.is_empty()
    }
}

/// Reads one service's listing.
pub(super) fn classify(
    source: &Source,
    naming: &Naming,
    service: &ServiceId,
    name: &str,
    listed: Vec<Registered>,
) -> Seen {
    let mut seen = Seen { name: name.to_owned(), ..Seen::default() };
    for registered in listed {
        let id = shown(&registered.id);
        match sight(source, naming, service, registered) {
            Ok((key, sight)) => match seen.instances.entry(key) {
                Entry::Vacant(free) => drop(free.insert(sight)),
                Entry::Occupied(_) => seen.refused.push((id, "its id is listed twice".to_owned())),
            },
            Err(why) => seen.refused.push((id, why)),
        }
    }
    seen
}

/// What may be repeated of a registry's text.
pub(super) fn shown(text: &str) -> String {
    let shown: String = text.chars().take(MAX_SHOWN).collect();
    plain(&shown).into_owned()
}

fn sight(
    source: &Source,
    naming: &Naming,
    service: &ServiceId,
    listed: Registered,
) -> Result<(InstanceId, Sight), String> {
    let version = version(naming, service, &listed);
    let own = |field: Option<String>, key: &str| -> Option<String> {
        let text = field.or_else(|| listed.metadata.get(key).cloned()).unwrap_or_default();
        let text = text.trim().to_ascii_lowercase();
        (!text.is_empty()).then_some(text)
    };
    let region = own(listed.region.clone(), &naming.region_key);
    let zone = own(listed.zone.clone(), &naming.zone_key);
    let message = router::Instance {
        id: listed.id,
        address: listed.address,
        version: version.as_deref().unwrap_or(NO_VERSION).to_owned(),
        region: region.or_else(|| source.region.as_ref().map(Name::to_string)).unwrap_or_default(),
        zone: zone.unwrap_or_default(),
        weight: listed.weight,
        disabled: !listed.enabled,
        unhealthy: !listed.healthy,
        persistent: !listed.ephemeral,
        source: source.name.to_string(),
        metadata: listed.metadata.into_iter().map(plain_entry).collect(),
    };
    let instance = Instance::try_from(message).map_err(|fault| fault.to_string())?;
    let id = instance.id.clone();
    let instance = Arc::new(instance);
    let sight = match version {
        Ok(_) => Sight::Versioned(instance),
        Err(why) => Sight::Unversioned(instance, why),
    };
    Ok((id, sight))
}

/// The canonical version of an instance, or why there is none.
fn version(naming: &Naming, service: &ServiceId, listed: &Registered) -> Result<String, String> {
    let named =
        listed.version.as_deref().or_else(|| listed.metadata.get(&naming.version_key).map(String::as_str));
    let text =
        named.map(str::trim).filter(|text| !text.is_empty()).or_else(|| naming.default_version(service));
    let Some(text) = text else {
        return Err(format!("no version: neither of its own nor as metadata `{}`", naming.version_key));
    };
    Version::new(text).map(|version| version.to_string()).map_err(|why| why.to_string())
}

/// Whatever it is that stands there, it is shown to people as well.
fn plain_entry((key, value): (String, String)) -> (String, String) {
    (plain(&key).into_owned(), plain(&value).into_owned())
}
