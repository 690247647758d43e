//! A table as the frames that watchers and the snapshot file hold, and back.

use std::collections::BTreeSet;

use grey_core::change::{Change, Event, Generation, Position, Record, Revision};
use grey_core::ids::ServiceId;
use grey_core::instance::Instance;
use grey_core::table::{ServiceTable, Table};
use grey_proto::convert::InvalidMessage;
use grey_proto::router::{
    ServiceBatch, ServiceInstances, SnapshotBegin, SnapshotEnd, TenantBatch, WatchResponse,
    watch_response::Frame,
};

/// Records in one frame: about 50 KiB of tenants with twenty pins each. A frame is encoded on a thread that
/// decides, so it is small.
const BATCH: usize = 50;

/// Services whose part of the table is wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection(Option<BTreeSet<ServiceId>>);

impl Selection {
    /// These services; all if there are none.
    pub(crate) fn new(services: BTreeSet<ServiceId>) -> Self {
        Self(Some(services).filter(|services| !services.is_empty()))
    }

    /// Whether the service is wanted.
    pub(crate) fn has(&self, service: &ServiceId) -> bool {
        self.0.as_ref().is_none_or(|services| services.contains(service))
    }

    /// The event without changes of other services. It stays even if nothing is left: revisions are gapless.
    pub(crate) fn event(&self, event: &Event) -> grey_proto::control::Event {
        if self.0.is_none() {
            return event.into();
        }
        let wanted = |change: &&Change| match change {
            Change::TenantPut(_) | Change::TenantRemoved(_) => true,
            Change::ServicePut(service) => self.has(&service.id),
            Change::VersionPut(version) => self.has(&version.service),
            Change::ServiceRemoved(service)
            | Change::VersionRemoved { service, .. }
            | Change::PolicyPut { service, .. }
            | Change::PinPut { service, .. }
            | Change::PinRemoved { service, .. }
            | Change::SchemaObserved { service, .. } => self.has(service),
        };
        let changes = event.changes.iter().filter(wanted).cloned().collect();
        (&Event { changes, ..event.clone() }).into()
    }
}

/// The whole table: begin, services, instances, tenants, end.
pub(crate) fn snapshot<'t>(
    table: &'t Table,
    selection: &'t Selection,
) -> impl Iterator<Item = WatchResponse> + Send + 't {
    let Position { generation, revision } = table.position();
    let begin = Frame::Begin(SnapshotBegin { generation: generation.to_string(), revision: revision.0 });
    let mut services = table.service_records().filter(|record| selection.has(&record.service.id));
    let services = std::iter::from_fn(move || {
        let services: Vec<_> = services.by_ref().take(BATCH).map(|record| (&record).into()).collect();
        (!services.is_empty()).then_some(Frame::Services(ServiceBatch { services }))
    });
    let mut tenants = table.tenant_records();
    let tenants = std::iter::from_fn(move || {
        let tenants: Vec<_> = tenants
            .by_ref()
            .take(BATCH)
            .map(|mut record| {
                record.pins.retain(|(service, _)| selection.has(service));
                record.schemas.retain(|(service, ..)| selection.has(service));
                (&record).into()
            })
            .collect();
        (!tenants.is_empty()).then_some(Frame::Tenants(TenantBatch { tenants }))
    });
    let digest = if selection.0.is_none() { table.digest() } else { 0 };
    let end = Frame::End(SnapshotEnd { digest });
    std::iter::once(response(begin))
        .chain(services.map(response))
        .chain(instances(table, selection))
        .chain(tenants.map(response))
        .chain(std::iter::once(response(end)))
}

/// The instances of every service, also where there are none.
pub(crate) fn instances<'t>(
    table: &'t Table,
    selection: &'t Selection,
) -> impl Iterator<Item = WatchResponse> + Send + 't {
    table
        .services()
        .filter(|service| selection.has(service.id()))
        .map(|service| response(Frame::Instances(list(service))))
}

fn list(service: &ServiceTable) -> ServiceInstances {
    let members = service.versions().iter().flat_map(|slot| slot.pool.members());
    let mut instances: Vec<Instance> = members.map(|member| member.instance.clone()).collect();
    instances.sort_by(|a, b| a.id.cmp(&b.id));
    (service.id(), instances.as_slice()).into()
}

/// A frame as a message.
pub(crate) fn response(frame: Frame) -> WatchResponse {
    WatchResponse { frame: Some(frame) }
}

/// A snapshot that is being read.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    table: Table,
    begin: Option<Position>,
}

/// Why frames make no table.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Damaged {
    /// A frame holds something that cannot be.
    #[error(transparent)]
    Frame(#[from] InvalidMessage),
    /// The frames do not come in the order of a snapshot.
    #[error("read a snapshot: {0}")]
    Order(&'static str),
    /// The table is not the one that was written.
    #[error("read a snapshot: the table's digest is {found:x}, {expected:x} was written")]
    Digest {
        /// Of the table that was read.
        found: u64,
        /// As written.
        expected: u64,
    },
}

impl Reader {
    /// Takes the next frame; the table, once it is complete.
    pub(crate) fn take(&mut self, message: WatchResponse) -> Result<Option<Table>, Damaged> {
        let frame = message.frame.as_ref().ok_or(Damaged::Order("a frame is empty"))?;
        match (frame, &self.begin) {
            (Frame::Begin(begin), None) => {
                if begin.generation.is_empty() {
                    return Err(Damaged::Order("it belongs to no history"));
                }
                let generation = Generation(begin.generation.as_str().into());
                self.begin = Some(Position { generation, revision: Revision(begin.revision) });
            }
            (_, None) => return Err(Damaged::Order("it does not begin with its position")),
            (Frame::Begin(_), Some(_)) => return Err(Damaged::Order("it begins twice")),
            (Frame::Services(_) | Frame::Tenants(_), Some(_)) => {
                let records: Vec<Record> = message.try_into()?;
                records.into_iter().for_each(|record| self.table.insert(record));
            }
            (Frame::Instances(list), Some(_)) => {
                let (service, instances): (ServiceId, Vec<Instance>) = list.clone().try_into()?;
                self.table.set_instances(&service, instances);
            }
            (Frame::Event(_), Some(_)) => return Err(Damaged::Order("it holds an event")),
            (Frame::End(end), Some(position)) => {
                let (found, expected) = (self.table.digest(), end.digest);
                if found != expected {
                    return Err(Damaged::Digest { found, expected });
                }
                let mut table = std::mem::take(&mut self.table);
                table.set_position(position.clone());
                return Ok(Some(table));
            }
        }
        Ok(None)
    }
}
