//! Changes and the events that commit them.

use super::{Checked, InvalidMessage, Observation, convert_required, read};
use crate::control::{self, change};
use crate::router::{ServiceBatch, TenantBatch, WatchResponse, watch_response::Frame};
use grey_core::change::{Change, Event, Record, Revision};
use pbjson_types::Timestamp;

/// The latest time that a message can carry, in milliseconds since the Unix epoch: the end of the year 9999.
pub const MAX_TIME_MS: u64 = 253_402_300_799_999;

/// A time in milliseconds since the Unix epoch as a message, at most [`MAX_TIME_MS`].
pub(super) fn timestamp(at_ms: u64) -> Timestamp {
    let at_ms = at_ms.min(MAX_TIME_MS);
    Timestamp {
        seconds: i64::try_from(at_ms / 1_000).expect("the year 9999 fits"),
        nanos: i32::try_from(at_ms % 1_000 * 1_000_000).expect("less than a second"),
    }
}

/// Reads a time; what is finer than a millisecond is cut off.
pub(super) fn read_time(field: &str, at: Timestamp) -> Checked<u64> {
    let invalid = || InvalidMessage::new(field, "must be a time from 1970 to 9999");
    let seconds = u64::try_from(at.seconds).map_err(|_| invalid())?;
    let nanos = u64::try_from(at.nanos).map_err(|_| invalid())?;
    if seconds > MAX_TIME_MS / 1_000 || nanos >= 1_000_000_000 {
        return Err(invalid());
    }
    Ok(seconds * 1_000 + nanos / 1_000_000)
}

impl From<&Change> for control::Change {
    fn from(change: &Change) -> Self {
        let change = match change {
            Change::TenantPut(tenant) => change::Change::TenantPut(tenant.into()),
            Change::TenantRemoved(tenant) => {
                change::Change::TenantRemoved(control::TenantRemoved { tenant: tenant.to_string() })
            }
            Change::ServicePut(service) => change::Change::ServicePut(service.into()),
            Change::ServiceRemoved(service) => {
                change::Change::ServiceRemoved(control::ServiceRemoved { service: service.to_string() })
            }
            Change::VersionPut(version) => change::Change::VersionPut(version.into()),
            Change::VersionRemoved { service, version } => {
                change::Change::VersionRemoved(control::VersionRemoved {
                    service: service.to_string(),
                    version: version.to_string(),
                })
            }
            Change::PolicyPut { service, policy } => change::Change::PolicyPut((service, policy).into()),
            Change::PinPut { tenant, service, pin } => change::Change::PinPut((tenant, service, pin).into()),
            Change::PinRemoved { tenant, service } => change::Change::PinRemoved(control::PinRemoved {
                tenant: tenant.to_string(),
                service: service.to_string(),
            }),
            Change::SchemaObserved { tenant, service, schema, at_ms } => {
                let (tenant, service, schema) = (tenant.clone(), service.clone(), schema.clone());
                let seen = Observation { tenant, service, schema, at_ms: Some(*at_ms) };
                change::Change::SchemaObserved((&seen).into())
            }
        };
        Self { change: Some(change) }
    }
}

/// Reads a change; an observation without a time was made at `now_ms`, in milliseconds since the Unix epoch.
///
/// # Errors
/// When any part of the change is missing, malformed or out of range.
pub fn change_at(message: control::Change, now_ms: u64) -> Result<Change, InvalidMessage> {
    let change = message.change.ok_or_else(|| InvalidMessage::missing("change"))?;
    Ok(match change {
        change::Change::TenantPut(tenant) => Change::TenantPut(convert_required("tenant_put", Some(tenant))?),
        change::Change::TenantRemoved(gone) => {
            Change::TenantRemoved(read("tenant_removed.tenant", &gone.tenant)?)
        }
        change::Change::ServicePut(service) => {
            Change::ServicePut(convert_required("service_put", Some(service))?)
        }
        change::Change::ServiceRemoved(gone) => {
            Change::ServiceRemoved(read("service_removed.service", &gone.service)?)
        }
        change::Change::VersionPut(version) => {
            Change::VersionPut(convert_required("version_put", Some(version))?)
        }
        change::Change::VersionRemoved(gone) => Change::VersionRemoved {
            service: read("version_removed.service", &gone.service)?,
            version: read("version_removed.version", &gone.version)?,
        },
        change::Change::PolicyPut(policy) => {
            let (service, policy) = convert_required("policy_put", Some(policy))?;
            Change::PolicyPut { service, policy }
        }
        change::Change::PinPut(pin) => {
            let (tenant, service, pin) = convert_required("pin_put", Some(pin))?;
            Change::PinPut { tenant, service, pin }
        }
        change::Change::PinRemoved(gone) => Change::PinRemoved {
            tenant: read("pin_removed.tenant", &gone.tenant)?,
            service: read("pin_removed.service", &gone.service)?,
        },
        change::Change::SchemaObserved(seen) => {
            let seen: Observation = convert_required("schema_observed", Some(seen))?;
            let Observation { tenant, service, schema, at_ms } = seen;
            Change::SchemaObserved { tenant, service, schema, at_ms: at_ms.unwrap_or(now_ms) }
        }
    })
}

impl From<&Event> for control::Event {
    fn from(event: &Event) -> Self {
        Self {
            revision: event.revision.0,
            at: Some(timestamp(event.at_ms)),
            actor: event.actor.clone(),
            reason: event.reason.clone(),
            changes: event.changes.iter().map(Into::into).collect(),
        }
    }
}

/// An observation without a time was made when the event was committed. The lengths of an event are limited
/// where it is made: what has been committed must stay readable.
impl TryFrom<control::Event> for Event {
    type Error = InvalidMessage;

    fn try_from(message: control::Event) -> Checked<Self> {
        if message.revision == 0 {
            return Err(InvalidMessage::new("revision", "must be at least 1"));
        }
        let at_ms = read_time("at", message.at.ok_or_else(|| InvalidMessage::missing("at"))?)?;
        let convert = |(i, change)| change_at(change, at_ms).map_err(|e| e.under(&format!("changes[{i}]")));
        Ok(Self {
            revision: Revision(message.revision),
            at_ms,
            actor: message.actor,
            reason: message.reason,
            changes: message.changes.into_iter().enumerate().map(convert).collect::<Checked<_>>()?,
        })
    }
}

/// A record travels as a batch of one.
impl From<&Record> for WatchResponse {
    fn from(record: &Record) -> Self {
        let frame = match record {
            Record::Tenant(tenant) => Frame::Tenants(TenantBatch { tenants: vec![tenant.into()] }),
            Record::Service(service) => Frame::Services(ServiceBatch { services: vec![service.into()] }),
        };
        Self { frame: Some(frame) }
    }
}

/// Reads the records of a batch; of any other frame there are none, which is refused.
impl TryFrom<WatchResponse> for Vec<Record> {
    type Error = InvalidMessage;

    fn try_from(message: WatchResponse) -> Checked<Self> {
        match message.frame {
            Some(Frame::Tenants(batch)) => {
                let tenants = super::convert_list("tenants.tenants", batch.tenants, usize::MAX)?;
                Ok(tenants.into_iter().map(Record::Tenant).collect())
            }
            Some(Frame::Services(batch)) => {
                let services = super::convert_list("services.services", batch.services, usize::MAX)?;
                Ok(services.into_iter().map(Record::Service).collect())
            }
            _ => Err(InvalidMessage::new("frame", "must be tenants or services")),
        }
    }
}
