//! Which part of the table a watcher asked for.

use std::collections::BTreeSet;

use grey_core::change::{Change, Event};
use grey_core::ids::{InvalidId, Name, ServiceId, TenantId};
use grey_core::key::Key;
use grey_core::record::{Record, TenantRecord};
use grey_core::table::{Row, Table};
use grey_proto::control;
use grey_proto::convert::InvalidMessage;
use grey_proto::router::WatchRequest;

/// Most services, and most tenants, in one selection.
const MAX_NAMED: usize = 1_000;

/// Services and tenants whose part of the table is wanted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Selection {
    services: Option<BTreeSet<ServiceId>>,
    tenants: Option<BTreeSet<TenantId>>,
    /// Where the tenants may be served.
    region: Option<Name>,
}

/// The tables before an event and with it.
pub(crate) type Around<'t> = (&'t Table, &'t Table);

impl Selection {
    /// Reads what was asked for; of what is not named, everything is wanted.
    pub(crate) fn read(request: &WatchRequest) -> Result<Self, InvalidMessage> {
        let region = match request.region.as_str() {
            "" => None,
            region => Some(Name::new(region).map_err(|why| InvalidMessage::new("region", why.to_string()))?),
        };
        Ok(Self {
            services: named("services", &request.services, ServiceId::new)?,
            tenants: named("tenants", &request.tenants, TenantId::new)?,
            region,
        })
    }

    /// Whether everything is wanted.
    pub(crate) fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the service is wanted.
    pub(crate) fn has(&self, service: &ServiceId) -> bool {
        self.services.as_ref().is_none_or(|services| services.contains(service))
    }

    /// The tenants that are wanted, each with what is wanted of it.
    pub(crate) fn tenant_records<'t>(
        &'t self,
        table: &'t Table,
    ) -> Box<dyn Iterator<Item = TenantRecord> + Send + 't> {
        match &self.tenants {
            Some(tenants) => Box::new(tenants.iter().filter_map(move |id| self.tenant_record(table, id))),
            None => Box::new(table.profiles().filter_map(move |(id, _)| self.tenant_record(table, id))),
        }
    }

    fn tenant_record(&self, table: &Table, id: &TenantId) -> Option<TenantRecord> {
        if !self.holds_tenant(table, id) {
            return None;
        }
        let mut record = table.tenant_record(id)?;
        record.pins.retain(|(service, _)| self.has(service));
        record.schemas.retain(|(service, _)| self.has(service));
        record.holds.retain(|(service, _)| self.has(service));
        Some(record)
    }

    /// Whether the table has the tenant, and it is wanted as it is there.
    fn holds_tenant(&self, table: &Table, id: &TenantId) -> bool {
        let Some(profile) = table.tenant(id.as_str()).and_then(Row::profile) else { return false };
        self.names(id) && self.region.as_ref().is_none_or(|region| profile.may_be_served_in(region.as_str()))
    }

    fn names(&self, tenant: &TenantId) -> bool {
        self.tenants.as_ref().is_none_or(|tenants| tenants.contains(tenant))
    }

    /// Whether the tables around an event are needed to tell what is wanted of it: in which region a tenant may be served
    /// is in its record, not in every change.
    pub(crate) fn needs_tables(&self) -> bool {
        self.region.is_some()
    }

    /// The event with what is wanted of it. It stays even if nothing is left: revisions are gapless. None if that cannot
    /// be told without `tables`, those before and after it.
    pub(crate) fn event(&self, event: &Event, tables: Option<Around<'_>>) -> Option<control::Event> {
        let wanted = event.changes.iter().filter(|change| self.wants(&change.key()));
        let changes = match (self.needs_tables(), tables) {
            (false, _) => wanted.map(control::Change::from).collect(),
            (true, Some(tables)) => self.resident(wanted, tables),
            (true, None) => return None,
        };
        let Event { revision, at_ms, principal, reason, cause, level, previous, sealed, changes: _ } = event;
        let head = Event {
            revision: *revision,
            at_ms: *at_ms,
            principal: principal.clone(),
            reason: reason.clone(),
            cause: cause.clone(),
            level: *level,
            previous: *previous,
            sealed: sealed.clone(),
            changes: Vec::new(),
        };
        Some(control::Event { changes, ..(&head).into() })
    }

    /// Whether a change under this key is wanted, as far as the key tells; never one that no router needs.
    fn wants(&self, key: &Key) -> bool {
        key.is_routed()
            && key.service().is_none_or(|service| self.has(service))
            && key.tenant().is_none_or(|tenant| self.names(tenant))
    }

    /// Of a tenant that is wanted before and after, its changes; of one that comes in, all that is known; of one that goes
    /// out, that it is gone.
    fn resident<'c>(
        &self,
        changes: impl Iterator<Item = &'c Change>,
        (before, after): Around<'_>,
    ) -> Vec<control::Change> {
        let (mut told, mut met) = (Vec::new(), BTreeSet::new());
        for change in changes {
            let key = change.key();
            let Some(tenant) = key.tenant() else {
                told.push(change.into());
                continue;
            };
            match (self.holds_tenant(before, tenant), self.holds_tenant(after, tenant)) {
                (true, true) => told.push(change.into()),
                (false, false) => {}
                _ if !met.insert(tenant.clone()) => {}
                (true, false) => told.push((&Change::Removed(Key::Tenant(tenant.clone()))).into()),
                (false, true) => {
                    let record = self.tenant_record(after, tenant).map(Record::Tenant);
                    let facts = record.into_iter().flat_map(Record::facts);
                    told.extend(facts.map(|fact| control::Change::from(&Change::Put(fact))));
                }
            }
        }
        told
    }
}

/// Reads names; none if there are none.
fn named<T: Ord>(
    field: &str,
    names: &[String],
    read: fn(&str) -> Result<T, InvalidId>,
) -> Result<Option<BTreeSet<T>>, InvalidMessage> {
    if names.len() > MAX_NAMED {
        let why = format!("has {} entries, at most {MAX_NAMED} are allowed", names.len());
        return Err(InvalidMessage::new(field, why));
    }
    let read = |(i, name): (usize, &String)| {
        read(name).map_err(|why| InvalidMessage::new(format!("{field}[{i}]"), why.to_string()))
    };
    let read: BTreeSet<T> = names.iter().enumerate().map(read).collect::<Result<_, _>>()?;
    Ok((!read.is_empty()).then_some(read))
}

#[cfg(test)]
mod tests;
