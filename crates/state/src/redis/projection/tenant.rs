//! A tenant as three hashes that people can read.

use super::super::keys;
use super::super::values::{corrupt, fields, parsed, text};
use crate::Error;
use grey_core::change::TenantRecord;
use grey_core::ids::{Name, ServiceId, TenantId};
use grey_core::schema::SchemaVersion;
use grey_core::service::Pin;
use grey_core::tenant::{Tenant, TenantStatus};
use grey_core::version::Version;
use redis::Value;
use std::collections::{BTreeMap, HashMap};

/// The field of a tenant's metadata that holds the position of its last write; no attribute begins so.
pub(super) const GUARD: &str = "#at";
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
pub(super) fn schema(schema: &SchemaVersion, at_ms: u64) -> String {
    format!("{schema}@{at_ms}")
}

/// Reads tenants. Most pins are alike, so each different text is read once.
#[derive(Default)]
pub(super) struct Reader {
    pins: HashMap<Vec<u8>, Pin>,
}

impl Reader {
    /// Reads the three hashes of a tenant; none if it is not declared (any more).
    pub(super) fn record(
        &mut self,
        id: &TenantId,
        metadata: &Value,
        services: &Value,
        schemas: &Value,
    ) -> Result<Option<TenantRecord>, Error> {
        let Some(tenant) = tenant(id, metadata)? else { return Ok(None) };
        let key = || keys::tenant_services(id.as_str());
        let mut pins = Vec::new();
        for (service, value) in named(key, services)? {
            pins.push((service_id(key, service)?, self.pin(key, value)?));
        }
        let key = || keys::tenant_schemas(id.as_str());
        let mut observed = Vec::new();
        for (service, value) in named(key, schemas)? {
            let value = text(&key(), value)?;
            let (schema, at_ms) =
                value.split_once('@').ok_or_else(|| corrupt(&key(), &format!("`{value}` has no time")))?;
            let schema = SchemaVersion::new(schema).map_err(|why| corrupt(&key(), &why))?;
            observed.push((service_id(key, service)?, schema, parsed(&key(), "a time", at_ms)?));
        }
        Ok(Some(TenantRecord { tenant, pins, schemas: observed }))
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

fn tenant(id: &TenantId, metadata: &Value) -> Result<Option<Tenant>, Error> {
    let key = || keys::tenant_metadata(id.as_str());
    let name = |value: &str| Name::new(value).map_err(|why| corrupt(&key(), &why));
    let mut tenant = Tenant::new(id.clone());
    let mut labels = BTreeMap::new();
    let mut declared = false;
    for (field, value) in named(key, metadata)? {
        let (field, value) = (text(&key(), field)?, text(&key(), value)?);
        match field {
            "name" => value.clone_into(&mut tenant.name),
            "status" => {
                let status = TenantStatus::from_word(value);
                tenant.status = status.ok_or_else(|| corrupt(&key(), &format!("`{value}` is no status")))?;
                declared = true;
            }
            "tier" => tenant.tier = Some(name(value)?),
            "region" => tenant.region = Some(name(value)?),
            "residency" => tenant.residency = value.split(',').map(name).collect::<Result<_, _>>()?,
            GUARD => {}
            _ => match field.strip_prefix("label.") {
                Some(label) => {
                    labels.insert(name(label)?, value.to_owned());
                }
                None => return Err(corrupt(&key(), &format!("`{field}` is no field of a tenant"))),
            },
        }
    }
    tenant.labels = labels;
    Ok(declared.then_some(tenant))
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
