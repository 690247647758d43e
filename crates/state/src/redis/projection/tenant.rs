//! A tenant as three hashes that people can read.

use super::super::keys;
use super::super::values::{corrupt, fields, parsed, text};
use super::damage::Damages;
use crate::Error;
use grey_core::ids::{Name, ServiceId, TenantId};
use grey_core::key::RecordId;
use grey_core::record::TenantRecord;
use grey_core::schema::{Observation, SchemaVersion};
use grey_core::service::{Hold, Pin};
use grey_core::tenant::{Tenant, TenantStatus};
use grey_core::version::Version;
use redis::Value;
use std::collections::HashMap;

/// The field of a tenant's metadata that holds the position of its last write; no attribute begins so.
pub(super) const GUARD: &str = "#at";
/// What the fields of a tenant's metadata that are holds begin with; no attribute begins so.
const HOLD: &str = "hold.";
/// Pins remembered by their text.
const MAX_KNOWN_PINS: usize = 4_096;

/// The metadata fields of a tenant.
pub(super) fn metadata(tenant: &Tenant) -> Vec<(String, String)> {
    let mut metadata = vec![
        ("name".to_owned(), tenant.name.clone()),
        ("status".to_owned(), tenant.status.as_str().to_owned()),
    ];
    metadata.extend(tenant.tier.iter().map(|tier| ("tier".to_owned(), tier.to_string())));
    metadata.extend(tenant.region.iter().map(|region| ("region".to_owned(), region.to_string())));
    if !tenant.residency.is_empty() {
        let regions: Vec<&str> = tenant.residency.iter().map(Name::as_str).collect();
        metadata.push(("residency".to_owned(), regions.join(",")));
    }
    metadata.extend(tenant.labels.iter().map(|(label, value)| (format!("label.{label}"), value.clone())));
    metadata
}

/// A pin as text: `v2.1`, or `v2.1 locked`.
pub(super) fn pin(pin: &Pin) -> String {
    if pin.locked { format!("{} locked", pin.version) } else { pin.version.to_string() }
}

/// An observed schema as text: `1.2@<milliseconds since the epoch>`.
pub(super) fn schema(seen: &Observation) -> String {
    format!("{}@{}", seen.schema, seen.at_ms)
}

/// The field of a tenant's metadata that holds its hold of a service.
pub(super) fn hold_field(service: &ServiceId) -> String {
    format!("{HOLD}{service}")
}

/// A hold as text: `v2.1 until <milliseconds since the epoch>`.
pub(super) fn hold(hold: &Hold) -> String {
    format!("{} until {}", hold.to, hold.until_ms)
}

/// Reads tenants. Most pins are alike, so each different text is read once.
#[derive(Default)]
pub(super) struct Reader {
    pins: HashMap<Vec<u8>, Pin>,
}

impl Reader {
    /// Reads the three hashes of a tenant: metadata, services, schemas. None if it is not declared (any more).
    pub(super) fn record(
        &mut self,
        id: &TenantId,
        [metadata, services, schemas]: [&Value; 3],
        damages: &mut Damages,
    ) -> Result<Option<TenantRecord>, Error> {
        let part = || Some(RecordId::Tenant(id.clone()));
        let Some((tenant, holds)) = tenant(id, metadata, damages)? else { return Ok(None) };
        let key = || keys::tenant_services(id.as_str());
        let mut pins = Vec::new();
        for (service, value) in damages.sift(named(key, services), part)?.into_iter().flatten() {
            let pin = service_id(key, service).and_then(|service| Ok((service, self.pin(key, value)?)));
            pins.extend(damages.sift(pin, part)?);
        }
        let key = || keys::tenant_schemas(id.as_str());
        let mut observed = Vec::new();
        for (service, value) in damages.sift(named(key, schemas), part)?.into_iter().flatten() {
            let seen = service_id(key, service).and_then(|service| Ok((service, observation(key, value)?)));
            observed.extend(damages.sift(seen, part)?);
        }
        Ok(Some(TenantRecord { tenant, pins, schemas: observed, holds }))
    }

    fn pin(&mut self, key: impl Fn() -> String, value: &Value) -> Result<Pin, Error> {
        let bytes = super::super::values::bytes(value).ok_or_else(|| corrupt(&key(), "a pin is no text"))?;
        if let Some(pin) = self.pins.get(bytes) {
            return Ok(pin.clone());
        }
        let text = text(&key(), value)?;
        let (version, locked) = match text.strip_suffix(" locked") {
            Some(version) => (version, true),
            None => (text, false),
        };
        let version = Version::new(version).map_err(|why| corrupt(&key(), &why))?;
        let pin = Pin { version, locked };
        if self.pins.len() < MAX_KNOWN_PINS {
            self.pins.insert(bytes.to_vec(), pin.clone());
        }
        Ok(pin)
    }
}

fn observation(key: impl Fn() -> String, value: &Value) -> Result<Observation, Error> {
    let value = text(&key(), value)?;
    let (schema, at_ms) =
        value.split_once('@').ok_or_else(|| corrupt(&key(), &format!("`{value}` has no time")))?;
    let schema = SchemaVersion::new(schema).map_err(|why| corrupt(&key(), &why))?;
    Ok(Observation { schema, at_ms: parsed(&key(), "a time", at_ms)? })
}

/// Reads what [`hold`] wrote under a field.
fn held(key: impl Fn() -> String, service: &str, value: &str) -> Result<(ServiceId, Hold), Error> {
    let service = ServiceId::new(service).map_err(|why| corrupt(&key(), &why))?;
    let malformed = || corrupt(&key(), &format!("`{value}` is no hold"));
    let (to, until) = value.split_once(" until ").ok_or_else(malformed)?;
    let to = Version::new(to).map_err(|why| corrupt(&key(), &why))?;
    Ok((service, Hold { to, until_ms: parsed(&key(), "a time", until)? }))
}

type Held = Vec<(ServiceId, Hold)>;

/// Reads a tenant's attributes and holds; fields of a newer release are skipped.
fn tenant(id: &TenantId, metadata: &Value, damages: &mut Damages) -> Result<Option<(Tenant, Held)>, Error> {
    let key = || keys::tenant_metadata(id.as_str());
    let part = || Some(RecordId::Tenant(id.clone()));
    let mut tenant = Tenant::new(id.clone());
    let (mut declared, mut holds) = (false, Vec::new());
    for (field, value) in damages.sift(named(key, metadata), part)?.into_iter().flatten() {
        let read = text(&key(), field).and_then(|field| {
            let value = text(&key(), value)?;
            match field.strip_prefix(HOLD) {
                Some(service) => held(key, service, value).map(|held| holds.push(held)).map(|()| false),
                None => attribute(&mut tenant, key, field, value),
            }
        });
        declared |= damages.sift(read, part)? == Some(true);
    }
    Ok(declared.then_some((tenant, holds)))
}

/// Takes one field; true if it is the one that every declared tenant has.
fn attribute(tenant: &mut Tenant, key: impl Fn() -> String, field: &str, value: &str) -> Result<bool, Error> {
    let name = |value: &str| Name::new(value).map_err(|why| corrupt(&key(), &why));
    match field {
        "name" => value.clone_into(&mut tenant.name),
        "status" => {
            let status = TenantStatus::from_word(value);
            tenant.status = status.ok_or_else(|| corrupt(&key(), &format!("`{value}` is no status")))?;
            return Ok(true);
        }
        "tier" => tenant.tier = Some(name(value)?),
        "region" => tenant.region = Some(name(value)?),
        "residency" => tenant.residency = value.split(',').map(name).collect::<Result<_, _>>()?,
        _ => {
            if let Some(label) = field.strip_prefix("label.") {
                tenant.labels.insert(name(label)?, value.to_owned());
            }
        }
    }
    Ok(false)
}

/// The fields of a hash, whose key is only put together if something is wrong.
fn named<'a, K: Fn() -> String>(
    key: K,
    hash: &'a Value,
) -> Result<impl Iterator<Item = (&'a Value, &'a Value)> + use<'a, K>, Error> {
    match hash {
        Value::Array(_) | Value::Map(_) => fields("", hash),
        wrong => fields(&key(), wrong),
    }
}

fn service_id(key: impl Fn() -> String, value: &Value) -> Result<ServiceId, Error> {
    let id = super::super::values::bytes(value).and_then(|bytes| std::str::from_utf8(bytes).ok());
    let id = id.ok_or_else(|| corrupt(&key(), "a service id is no text"))?;
    ServiceId::new(id).map_err(|why| corrupt(&key(), &why))
}
