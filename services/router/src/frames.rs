//! A table as the frames that watchers and the snapshot file hold.

use grey_core::change::Position;
use grey_core::instance::Instance;
use grey_core::table::{ServiceTable, Table};
use grey_proto::router::{
    ServiceBatch, ServiceInstances, SnapshotBegin, SnapshotEnd, TenantBatch, WatchResponse,
    watch_response::Frame,
};

use crate::selection::Selection;

/// Records in one frame: about 50 KiB of tenants with twenty pins each. A frame is encoded on a thread that
/// decides, so it is small.
const BATCH: usize = 50;

/// The whole table: begin, services, instances, tenants, end.
pub(crate) fn snapshot<'t>(
    table: &'t Table,
    selection: &'t Selection,
) -> impl Iterator<Item = WatchResponse> + Send + 't {
    let Position { epoch, revision } = table.position();
    let begin = Frame::Begin(SnapshotBegin { epoch: epoch.0, revision: revision.0 });
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
                record.holds.retain(|(service, _)| selection.has(service));
                (&record).into()
            })
            .collect();
        (!tenants.is_empty()).then_some(Frame::Tenants(TenantBatch { tenants }))
    });
    let digest = if selection.is_all() { table.digest() } else { 0 };
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
