//! Tenants, and the schemas observed in their databases.

use super::change::{read_time, timestamp};
use super::{
    Checked, InvalidMessage, at_most, check_plain, convert_list, convert_required, known, read,
    read_distinct, read_optional, text_of, texts_of,
};
use crate::control;
use grey_core::ids::{Name, ServiceId, TenantId};
use grey_core::record::TenantRecord;
use grey_core::schema::{Observation, SchemaVersion};
use grey_core::service::{Hold, Pin};
use grey_core::tenant::{MAX_LABEL_VALUE, MAX_LABELS, MAX_TENANT_NAME, Tenant, TenantStatus};
use std::collections::BTreeMap;

/// Most regions that a tenant may be held to.
pub const MAX_RESIDENCY: usize = 64;

impl From<TenantStatus> for control::TenantStatus {
    fn from(status: TenantStatus) -> Self {
        match status {
            TenantStatus::Active => Self::Active,
            TenantStatus::Suspended => Self::Suspended,
            TenantStatus::Maintenance => Self::Maintenance,
        }
    }
}

impl From<control::TenantStatus> for TenantStatus {
    fn from(status: control::TenantStatus) -> Self {
        match status {
            control::TenantStatus::Unspecified | control::TenantStatus::Active => Self::Active,
            control::TenantStatus::Suspended => Self::Suspended,
            control::TenantStatus::Maintenance => Self::Maintenance,
        }
    }
}

/// Reads the `status` field of a message; unspecified is active.
///
/// # Errors
/// When the number is none of the contract's.
pub fn tenant_status(number: i32) -> Result<TenantStatus, InvalidMessage> {
    known::<control::TenantStatus>("status", number).map(Into::into)
}

impl From<&Tenant> for control::Tenant {
    fn from(tenant: &Tenant) -> Self {
        Self {
            id: tenant.id.to_string(),
            name: tenant.name.clone(),
            status: control::TenantStatus::from(tenant.status).into(),
            tier: text_of(tenant.tier.as_ref()),
            region: text_of(tenant.region.as_ref()),
            residency: texts_of(&tenant.residency),
            labels: tenant.labels.iter().map(|(key, value)| (key.to_string(), value.clone())).collect(),
            revision: 0,
        }
    }
}

impl TryFrom<control::Tenant> for Tenant {
    type Error = InvalidMessage;

    fn try_from(message: control::Tenant) -> Checked<Self> {
        let id: TenantId = read("id", &message.id)?;
        at_most("name", "bytes", message.name.len(), MAX_TENANT_NAME)?;
        check_plain("name", &message.name)?;
        let name = if message.name.is_empty() { message.id } else { message.name };
        at_most("labels", "entries", message.labels.len(), MAX_LABELS)?;
        let mut labels = BTreeMap::new();
        for (key, value) in message.labels {
            let key: Name = read("labels", &key)?;
            at_most(&format!("labels[{key}]"), "bytes", value.len(), MAX_LABEL_VALUE)?;
            check_plain(&format!("labels[{key}]"), &value)?;
            labels.insert(key, value);
        }
        Ok(Self {
            id,
            name,
            status: tenant_status(message.status)?,
            tier: read_optional("tier", &message.tier)?,
            region: read_optional("region", &message.region)?,
            residency: read_distinct("residency", &message.residency, MAX_RESIDENCY)?,
            labels,
        })
    }
}

/// What someone says to have seen in a tenant's database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SchemaSighting {
    /// The tenant.
    pub tenant: TenantId,
    /// The service.
    pub service: ServiceId,
    /// What was seen; none if it is no longer known.
    pub schema: Option<SchemaVersion>,
    /// When it was seen, in milliseconds since the Unix epoch; none: when the message is read.
    pub at_ms: Option<u64>,
}

impl From<&SchemaSighting> for control::ObservedSchema {
    fn from(seen: &SchemaSighting) -> Self {
        Self {
            tenant: seen.tenant.to_string(),
            service: seen.service.to_string(),
            schema: text_of(seen.schema.as_ref()),
            observed_at: seen.at_ms.map(timestamp),
            revision: 0,
        }
    }
}

impl TryFrom<control::ObservedSchema> for SchemaSighting {
    type Error = InvalidMessage;

    fn try_from(message: control::ObservedSchema) -> Checked<Self> {
        Ok(Self {
            tenant: read("tenant", &message.tenant)?,
            service: read("service", &message.service)?,
            schema: read_optional("schema", &message.schema)?,
            at_ms: message.observed_at.map(|at| read_time("observed_at", at)).transpose()?,
        })
    }
}

impl From<&TenantRecord> for control::TenantRecord {
    fn from(record: &TenantRecord) -> Self {
        let pins = record.pins.iter().map(|(service, pin)| control::Pin {
            tenant: String::new(),
            service: service.to_string(),
            version: pin.version.to_string(),
            locked: pin.locked,
            revision: 0,
        });
        let schemas = record.schemas.iter().map(|(service, seen)| control::ObservedSchema {
            tenant: String::new(),
            service: service.to_string(),
            schema: seen.schema.to_string(),
            observed_at: Some(timestamp(seen.at_ms)),
            revision: 0,
        });
        let holds = record.holds.iter().map(|(service, hold)| control::Hold {
            tenant: String::new(),
            service: service.to_string(),
            to: hold.to.to_string(),
            until: Some(timestamp(hold.until_ms)),
            revision: 0,
        });
        Self {
            tenant: Some((&record.tenant).into()),
            pins: pins.collect(),
            schemas: schemas.collect(),
            holds: holds.collect(),
        }
    }
}

/// A pin inside its tenant's record.
struct OwnPin(ServiceId, Pin);

impl TryFrom<control::Pin> for OwnPin {
    type Error = InvalidMessage;

    fn try_from(message: control::Pin) -> Checked<Self> {
        let pin = Pin { version: read("version", &message.version)?, locked: message.locked };
        Ok(Self(read("service", &message.service)?, pin))
    }
}

/// An observed schema inside its tenant's record.
struct OwnSchema(ServiceId, Observation);

impl TryFrom<control::ObservedSchema> for OwnSchema {
    type Error = InvalidMessage;

    fn try_from(message: control::ObservedSchema) -> Checked<Self> {
        let at = message.observed_at.ok_or_else(|| InvalidMessage::missing("observed_at"))?;
        let seen =
            Observation { schema: read("schema", &message.schema)?, at_ms: read_time("observed_at", at)? };
        Ok(Self(read("service", &message.service)?, seen))
    }
}

/// A hold inside its tenant's record.
struct OwnHold(ServiceId, Hold);

impl TryFrom<control::Hold> for OwnHold {
    type Error = InvalidMessage;

    fn try_from(message: control::Hold) -> Checked<Self> {
        Ok(Self(read("service", &message.service)?, hold(&message)?))
    }
}

fn hold(message: &control::Hold) -> Checked<Hold> {
    let until = message.until.ok_or_else(|| InvalidMessage::missing("until"))?;
    Ok(Hold { to: read("to", &message.to)?, until_ms: read_time("until", until)? })
}

impl From<(&TenantId, &ServiceId, &Hold)> for control::Hold {
    fn from((tenant, service, hold): (&TenantId, &ServiceId, &Hold)) -> Self {
        Self {
            tenant: tenant.to_string(),
            service: service.to_string(),
            to: hold.to.to_string(),
            until: Some(timestamp(hold.until_ms)),
            revision: 0,
        }
    }
}

impl TryFrom<control::Hold> for (TenantId, ServiceId, Hold) {
    type Error = InvalidMessage;

    fn try_from(message: control::Hold) -> Checked<Self> {
        Ok((read("tenant", &message.tenant)?, read("service", &message.service)?, hold(&message)?))
    }
}

impl TryFrom<control::TenantRecord> for TenantRecord {
    type Error = InvalidMessage;

    fn try_from(message: control::TenantRecord) -> Checked<Self> {
        let tenant: Tenant = convert_required("tenant", message.tenant)?;
        for (i, pin) in message.pins.iter().enumerate() {
            owned_by(&tenant, &pin.tenant, &format!("pins[{i}].tenant"))?;
        }
        for (i, schema) in message.schemas.iter().enumerate() {
            owned_by(&tenant, &schema.tenant, &format!("schemas[{i}].tenant"))?;
        }
        for (i, hold) in message.holds.iter().enumerate() {
            owned_by(&tenant, &hold.tenant, &format!("holds[{i}].tenant"))?;
        }
        let pins = convert_list("pins", message.pins, usize::MAX)?;
        let schemas = convert_list("schemas", message.schemas, usize::MAX)?;
        let holds = convert_list("holds", message.holds, usize::MAX)?;
        Ok(Self {
            tenant,
            pins: pins.into_iter().map(|OwnPin(service, pin)| (service, pin)).collect(),
            schemas: schemas.into_iter().map(|OwnSchema(service, seen)| (service, seen)).collect(),
            holds: holds.into_iter().map(|OwnHold(service, hold)| (service, hold)).collect(),
        })
    }
}

fn owned_by(tenant: &Tenant, named: &str, field: &str) -> Checked<()> {
    if named.is_empty() || named == tenant.id.as_str() {
        return Ok(());
    }
    Err(InvalidMessage::new(field, "names another tenant than the record"))
}
