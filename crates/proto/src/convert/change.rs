//! Changes and the events that commit them.

use super::{Checked, InvalidMessage, SchemaSighting, convert_required, read};
use crate::control::{self, change};
use crate::router::{WatchResponse, watch_response::Frame};
use grey_core::change::{Change, EntryHash, Event, FormatLevel, Principal, Revision};
use grey_core::key::{Fact, Key};
use grey_core::record::Record;
use grey_core::schema::Observation;
use grey_core::service::Hold;
use pbjson_types::Timestamp;

/// The latest time that a message can carry, in milliseconds since the Unix epoch: the end of the year 9999.
pub const MAX_TIME_MS: u64 = 253_402_300_799_999;

/// A time in milliseconds since the Unix epoch as a message, at most [`MAX_TIME_MS`].
#[must_use]
pub fn timestamp(at_ms: u64) -> Timestamp {
    let at_ms = at_ms.min(MAX_TIME_MS);
    Timestamp {
        seconds: i64::try_from(at_ms / 1_000).expect("the year 9999 fits"),
        nanos: i32::try_from(at_ms % 1_000 * 1_000_000).expect("less than a second"),
    }
}

/// Reads a time as people write it: milliseconds since the Unix epoch, or by RFC 3339.
///
/// # Errors
/// It is neither.
///
/// ```
/// use grey_proto::convert::parse_time;
/// assert_eq!(parse_time("1800000000500"), parse_time("2027-01-15T08:00:00.5Z"));
/// assert!(parse_time("yesterday").is_err() && parse_time("-1").is_err());
/// ```
pub fn parse_time(text: &str) -> Result<Timestamp, &'static str> {
    if let Ok(at_ms) = text.parse() {
        return Ok(timestamp(at_ms));
    }
    let read: Result<Timestamp, _> = serde_json::from_value(text.into());
    read.map_err(|_| "must be a time such as 2027-01-15T08:00:00Z, or milliseconds since 1970")
}

/// Reads a time, in milliseconds since the Unix epoch; what is finer than a millisecond is cut off.
///
/// # Errors
/// It is not from 1970 to 9999; `field` is named.
pub fn read_time(field: &str, at: Timestamp) -> Result<u64, InvalidMessage> {
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
            Change::Put(fact) => put(fact),
            Change::Removed(key) => removed(key),
        };
        Self { change: Some(change) }
    }
}

fn put(fact: &Fact) -> change::Change {
    match fact {
        Fact::Tenant(tenant) => change::Change::TenantPut((&**tenant).into()),
        Fact::Service(service) => change::Change::ServicePut(service.into()),
        Fact::Version(version) => change::Change::VersionPut((&**version).into()),
        Fact::Policy(service, policy) => change::Change::PolicyPut((service, policy).into()),
        Fact::Overlay(service, overlay) => change::Change::OverlayPut((service, &**overlay).into()),
        Fact::Pin(tenant, service, pin) => change::Change::PinPut((tenant, service, pin).into()),
        Fact::Schema(tenant, service, Observation { schema, at_ms }) => {
            let (schema, at_ms) = (Some(schema.clone()), Some(*at_ms));
            let sighting = SchemaSighting { tenant: tenant.clone(), service: service.clone(), schema, at_ms };
            change::Change::SchemaObserved((&sighting).into())
        }
        Fact::Hold(tenant, service, hold) => change::Change::HoldPut((tenant, service, hold).into()),
        Fact::Database(tenant, service, database) => {
            change::Change::DatabasePut((tenant, service, &**database).into())
        }
    }
}

fn removed(key: &Key) -> change::Change {
    match key {
        Key::Tenant(tenant) => {
            change::Change::TenantRemoved(control::TenantRemoved { tenant: tenant.to_string() })
        }
        Key::Service(service) => {
            change::Change::ServiceRemoved(control::ServiceRemoved { service: service.to_string() })
        }
        Key::Version(service, version) => change::Change::VersionRemoved(control::VersionRemoved {
            service: service.to_string(),
            version: version.to_string(),
        }),
        Key::Policy(service) => {
            change::Change::PolicyRemoved(control::PolicyRemoved { service: service.to_string() })
        }
        Key::Overlay(service, overlay) => change::Change::OverlayRemoved(control::OverlayRemoved {
            service: service.to_string(),
            overlay: overlay.to_string(),
        }),
        Key::Pin(tenant, service) => change::Change::PinRemoved(control::PinRemoved {
            tenant: tenant.to_string(),
            service: service.to_string(),
        }),
        Key::Schema(tenant, service) => change::Change::SchemaObserved(control::ObservedSchema {
            tenant: tenant.to_string(),
            service: service.to_string(),
            ..control::ObservedSchema::default()
        }),
        Key::Hold(tenant, service) => change::Change::HoldRemoved(control::HoldRemoved {
            tenant: tenant.to_string(),
            service: service.to_string(),
        }),
        Key::Database(tenant, service) => change::Change::DatabaseRemoved(control::DatabaseRemoved {
            tenant: tenant.to_string(),
            service: service.to_string(),
        }),
    }
}

/// Reads a change; an observation without a time was made at `now_ms`, in milliseconds since the Unix epoch.
///
/// # Errors
/// When any part of the change is missing, malformed or out of range.
pub fn change_at(message: control::Change, now_ms: u64) -> Result<Change, InvalidMessage> {
    let change = message.change.ok_or_else(|| InvalidMessage::missing("change"))?;
    Ok(match change {
        change::Change::TenantPut(tenant) => {
            Change::Put(Fact::Tenant(Box::new(convert_required("tenant_put", Some(tenant))?)))
        }
        change::Change::ServicePut(service) => {
            Change::Put(Fact::Service(convert_required("service_put", Some(service))?))
        }
        change::Change::VersionPut(version) => {
            Change::Put(Fact::Version(Box::new(convert_required("version_put", Some(version))?)))
        }
        change::Change::PolicyPut(policy) => {
            let (service, policy) = convert_required("policy_put", Some(policy))?;
            Change::Put(Fact::Policy(service, policy))
        }
        change::Change::OverlayPut(overlay) => {
            let (service, overlay) = convert_required("overlay_put", Some(overlay))?;
            Change::Put(Fact::Overlay(service, Box::new(overlay)))
        }
        change::Change::PinPut(pin) => {
            let (tenant, service, pin) = convert_required("pin_put", Some(pin))?;
            Change::Put(Fact::Pin(tenant, service, pin))
        }
        change::Change::SchemaObserved(seen) => {
            let seen: SchemaSighting = convert_required("schema_observed", Some(seen))?;
            seen.change_at(now_ms)
        }
        change::Change::HoldPut(hold) => {
            let (tenant, service, hold): (_, _, Hold) = convert_required("hold_put", Some(hold))?;
            Change::Put(Fact::Hold(tenant, service, hold))
        }
        change::Change::DatabasePut(database) => {
            let (tenant, service, database) = convert_required("database_put", Some(database))?;
            Change::Put(Fact::Database(tenant, service, Box::new(database)))
        }
        change::Change::TenantRemoved(gone) => {
            Change::Removed(Key::Tenant(read("tenant_removed.tenant", &gone.tenant)?))
        }
        change::Change::ServiceRemoved(gone) => {
            Change::Removed(Key::Service(read("service_removed.service", &gone.service)?))
        }
        change::Change::VersionRemoved(gone) => Change::Removed(Key::Version(
            read("version_removed.service", &gone.service)?,
            read("version_removed.version", &gone.version)?,
        )),
        change::Change::PolicyRemoved(gone) => {
            Change::Removed(Key::Policy(read("policy_removed.service", &gone.service)?))
        }
        change::Change::OverlayRemoved(gone) => Change::Removed(Key::Overlay(
            read("overlay_removed.service", &gone.service)?,
            read("overlay_removed.overlay", &gone.overlay)?,
        )),
        change::Change::PinRemoved(gone) => Change::Removed(Key::Pin(
            read("pin_removed.tenant", &gone.tenant)?,
            read("pin_removed.service", &gone.service)?,
        )),
        change::Change::HoldRemoved(gone) => Change::Removed(Key::Hold(
            read("hold_removed.tenant", &gone.tenant)?,
            read("hold_removed.service", &gone.service)?,
        )),
        change::Change::DatabaseRemoved(gone) => Change::Removed(Key::Database(
            read("database_removed.tenant", &gone.tenant)?,
            read("database_removed.service", &gone.service)?,
        )),
    })
}

impl SchemaSighting {
    /// The change that the sighting makes; without a time it was seen at `now_ms`.
    #[must_use]
    pub fn change_at(self, now_ms: u64) -> Change {
        let Self { tenant, service, schema, at_ms } = self;
        match schema {
            Some(schema) => {
                let seen = Observation { schema, at_ms: at_ms.unwrap_or(now_ms) };
                Change::Put(Fact::Schema(tenant, service, seen))
            }
            None => Change::Removed(Key::Schema(tenant, service)),
        }
    }
}

impl From<&Principal> for control::Principal {
    fn from(principal: &Principal) -> Self {
        let Principal { id, role, via } = principal.clone();
        Self { id, role, via }
    }
}

impl From<control::Principal> for Principal {
    fn from(message: control::Principal) -> Self {
        let control::Principal { id, role, via } = message;
        Self { id, role, via }
    }
}

impl control::Event {
    /// What an event says besides its changes.
    pub(crate) fn without_changes(event: &Event) -> Self {
        Self {
            revision: event.revision.0,
            at: Some(timestamp(event.at_ms)),
            principal: Some((&event.principal).into()),
            reason: event.reason.clone(),
            changes: Vec::new(),
            cause: event.cause.clone(),
            level: event.level.0,
            previous: event.previous.0.to_vec(),
            sealed: event.sealed.clone(),
            omitted: 0,
        }
    }
}

impl From<&Event> for control::Event {
    fn from(event: &Event) -> Self {
        let changes = event.changes.iter().map(Into::into).collect();
        Self { changes, ..Self::without_changes(event) }
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
        let previous = <[u8; 32]>::try_from(message.previous.as_slice())
            .map_err(|_| InvalidMessage::new("previous", "must be 32 bytes"))?;
        Ok(Self {
            revision: Revision(message.revision),
            at_ms,
            principal: message.principal.unwrap_or_default().into(),
            reason: message.reason,
            cause: message.cause,
            level: FormatLevel(message.level.max(1)),
            previous: EntryHash(previous),
            sealed: message.sealed,
            changes: changes(message.changes, at_ms)?,
        })
    }
}

fn changes(messages: Vec<control::Change>, at_ms: u64) -> Checked<Vec<Change>> {
    let read =
        |(i, message)| change_at(message, at_ms).map_err(|error| error.under(&format!("changes[{i}]")));
    messages.into_iter().enumerate().map(read).collect()
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
