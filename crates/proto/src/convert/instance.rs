//! Running instances.

use super::{Checked, InvalidMessage, at_most, convert_list, read, read_optional, text_of};
use crate::router;
use grey_core::ids::ServiceId;
use grey_core::instance::{Instance, MAX_INSTANCES, MAX_WEIGHT};
use std::collections::BTreeMap;
use std::net::Ipv6Addr;

/// Longest address, in bytes.
pub const MAX_ADDRESS: usize = 255;
/// Most metadata entries of an instance or a call.
pub const MAX_METADATA_ENTRIES: usize = 64;
/// Most bytes in the metadata of an instance or a call, keys and values together.
pub const MAX_METADATA_BYTES: usize = 8 * 1_024;

impl From<&Instance> for router::Instance {
    fn from(instance: &Instance) -> Self {
        Self {
            id: instance.id.to_string(),
            address: instance.address.to_string(),
            version: instance.version.to_string(),
            region: text_of(instance.region.as_ref()),
            zone: text_of(instance.zone.as_ref()),
            weight: instance.weight,
            disabled: !instance.enabled,
            unhealthy: !instance.healthy,
            persistent: !instance.ephemeral,
            source: text_of(instance.source.as_ref()),
            metadata: instance.metadata.clone(),
        }
    }
}

impl TryFrom<router::Instance> for Instance {
    type Error = InvalidMessage;

    fn try_from(message: router::Instance) -> Checked<Self> {
        check_address(&message.address).map_err(|why| InvalidMessage::new("address", why))?;
        check_metadata(&message.metadata)?;
        if message.weight > MAX_WEIGHT {
            let why = format!("{} is more than {MAX_WEIGHT}", message.weight);
            return Err(InvalidMessage::new("weight", why));
        }
        Ok(Self {
            id: read("id", &message.id)?,
            version: read("version", &message.version)?,
            address: message.address.into(),
            region: read_optional("region", &message.region)?,
            zone: read_optional("zone", &message.zone)?,
            weight: message.weight,
            enabled: !message.disabled,
            healthy: !message.unhealthy,
            ephemeral: !message.persistent,
            source: read_optional("source", &message.source)?,
            metadata: message.metadata,
        })
    }
}

fn check_address(address: &str) -> Result<(), &'static str> {
    if address.len() > MAX_ADDRESS {
        return Err("is longer than 255 bytes");
    }
    let (host, port) = address.rsplit_once(':').ok_or("must be host:port")?;
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    if !digits || port.parse::<u16>().map_or(true, |port| port == 0) {
        return Err("needs a port from 1 to 65535");
    }
    if let Some(v6) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return v6.parse::<Ipv6Addr>().map(|_| ()).map_err(|_| "needs an IPv6 address in its brackets");
    }
    if host.is_empty() {
        return Err("needs a host before its port");
    }
    let plain = host.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if plain { Ok(()) } else { Err("needs a host name, an IPv4 address or an IPv6 address in brackets") }
}

fn check_metadata(metadata: &BTreeMap<String, String>) -> Checked<()> {
    at_most("metadata", "entries", metadata.len(), MAX_METADATA_ENTRIES)?;
    let bytes = metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
    at_most("metadata", "bytes", bytes, MAX_METADATA_BYTES)
}

impl From<(&ServiceId, &[Instance])> for router::ServiceInstances {
    fn from((service, instances): (&ServiceId, &[Instance])) -> Self {
        Self { service: service.to_string(), instances: instances.iter().map(Into::into).collect() }
    }
}

/// The instances come out in the order of their ids.
impl TryFrom<router::ServiceInstances> for (ServiceId, Vec<Instance>) {
    type Error = InvalidMessage;

    fn try_from(message: router::ServiceInstances) -> Checked<Self> {
        let service = read("service", &message.service)?;
        let mut instances: Vec<Instance> = convert_list("instances", message.instances, MAX_INSTANCES)?;
        instances.sort_by(|a, b| a.id.cmp(&b.id));
        if let Some([twin, _]) = instances.array_windows().find(|[a, b]| a.id == b.id) {
            return Err(InvalidMessage::new("instances", format!("`{}` is there twice", twin.id)));
        }
        Ok((service, instances))
    }
}
