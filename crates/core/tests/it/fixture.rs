//! Short names for the nouns, and a table with one service.

use grey_core::balance::Moment;
use grey_core::change::{Change, Event, Revision};
use grey_core::ids::{InstanceId, Name, OverlayId, ServiceId, TenantId};
use grey_core::instance::Instance;
use grey_core::key::Fact;
use grey_core::policy::{Balancing, Policy, Strategy, UnknownTenant};
use grey_core::schema::{Observation, SchemaVersion, SchemaWindow};
use grey_core::service::{Pin, Service, ServiceVersion};
use grey_core::table::{Member, Table};
use grey_core::tenant::Tenant;
use grey_core::version::Version;
use std::collections::BTreeMap;

pub(crate) fn tenant(id: &str) -> TenantId {
    TenantId::new(id).unwrap()
}

pub(crate) fn service(id: &str) -> ServiceId {
    ServiceId::new(id).unwrap()
}

pub(crate) fn overlay(id: &str) -> OverlayId {
    OverlayId::new(id).unwrap()
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn version(text: &str) -> Version {
    Version::new(text).unwrap()
}

pub(crate) fn schema(text: &str) -> SchemaVersion {
    SchemaVersion::new(text).unwrap()
}

pub(crate) fn pin(text: &str) -> Pin {
    Pin { version: version(text), locked: false }
}

pub(crate) fn event(revision: u64, changes: Vec<Change>) -> Event {
    Event { revision: Revision(revision), changes, ..Event::default() }
}

/// Applies changes as the table's next event.
pub(crate) fn apply(table: &mut Table, changes: Vec<Change>) {
    let next = table.position().revision.next();
    table.apply(&event(next.0, changes)).unwrap();
}

/// Declares an active tenant without attributes.
pub(crate) fn known(tenant_id: &str) -> Change {
    Change::Put(Fact::Tenant(Box::new(Tenant::new(tenant(tenant_id)))))
}

pub(crate) fn declare(service_id: &str, default: &str) -> Change {
    Change::Put(Fact::Service(Service { id: service(service_id), default: version(default) }))
}

/// Declares a version that works on any schema.
pub(crate) fn open(service_id: &str, text: &str) -> Change {
    window(service_id, text, SchemaWindow::default())
}

pub(crate) fn window(service_id: &str, text: &str, window: SchemaWindow) -> Change {
    let (service, version) = (service(service_id), version(text));
    Change::Put(Fact::Version(Box::new(ServiceVersion { service, version, window })))
}

pub(crate) fn pin_to(tenant_id: &str, service_id: &str, text: &str) -> Change {
    Change::Put(Fact::Pin(tenant(tenant_id), service(service_id), pin(text)))
}

pub(crate) fn observed_schema(tenant_id: &str, service_id: &str, text: &str) -> Change {
    let seen = Observation { schema: schema(text), at_ms: 0 };
    Change::Put(Fact::Schema(tenant(tenant_id), service(service_id), seen))
}

pub(crate) fn instance(id: &str, of: &str) -> Instance {
    Instance {
        id: InstanceId::new(id).unwrap(),
        version: version(of),
        address: format!("{id}:80").into(),
        region: None,
        zone: None,
        weight: 1,
        enabled: true,
        healthy: true,
        ephemeral: true,
        source: None,
        metadata: BTreeMap::new(),
    }
}

/// `count` instances of version 1, named a, b, c…
pub(crate) fn instances(count: u8) -> Vec<Instance> {
    (b'a'..b'a' + count).map(|id| instance(&char::from(id).to_string(), "1")).collect()
}

pub(crate) fn balanced_by(strategy: Strategy) -> Policy {
    Policy {
        unknown_tenant: UnknownTenant::UseDefault,
        balancing: Balancing { strategy, ..Balancing::default() },
        ..Policy::default()
    }
}

pub(crate) fn policy(policy: Policy) -> Change {
    Change::Put(Fact::Policy(service("s"), policy))
}

/// A table whose service `s` serves everyone with version 1 from these instances.
pub(crate) fn table(strategy: Strategy, instances: Vec<Instance>) -> Table {
    let mut table = Table::default();
    apply(&mut table, vec![declare("s", "1"), open("s", "1"), policy(balanced_by(strategy))]);
    table.set_instances(&service("s"), instances);
    table
}

/// The member of version 1 of service `s` with this id.
pub(crate) fn member<'t>(table: &'t Table, id: &str) -> &'t Member {
    let service = table.service("s").unwrap();
    let slot = &service.versions()[service.slot(&version("1")).unwrap()];
    slot.pool.member(&InstanceId::new(id).unwrap()).unwrap()
}

/// Repeatable random bits.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn moment(&mut self, now: u32) -> Moment {
        Moment { now, random: self.next(), ..Moment::default() }
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, (self.next() % (at as u64 + 1)) as usize);
        }
    }
}
