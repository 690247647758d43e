//! A table and its changes as the frames that watchers and the snapshot file hold.

use bytes::{BufMut, Bytes};
use grey_core::change::{Event, Position};
use grey_core::ids::ServiceId;
use grey_core::instance::Instance;
use grey_core::table::{ServiceTable, Table};
use grey_proto::control;
use grey_proto::router::{
    ServiceBatch, ServiceInstances, SnapshotBegin, SnapshotEnd, TenantBatch, WatchResponse,
    watch_response::Frame,
};
use prost::Message;

use crate::selection::{Around, Selection};

/// Bytes of records in one frame, which the last one of them may exceed.
const BATCH: usize = 64 << 10;
/// Longest event that is sent as such: well below the 4 MiB that clients take by default.
pub(crate) const MAX_EVENT: usize = 1 << 20;
/// Bytes before each message of gRPC: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// The whole table: begin, services, instances, tenants, end.
pub(crate) fn snapshot<'t>(
    table: &'t Table,
    selection: &'t Selection,
) -> impl Iterator<Item = WatchResponse> + Send + 't {
    let Position { epoch, revision } = table.position();
    let begin = Frame::Begin(SnapshotBegin { epoch: epoch.0, revision: revision.0 });
    let services = table.service_records().filter(|record| selection.has(&record.service.id));
    let services = services.map(|record| control::ServiceRecord::from(&record));
    let services = batches(services, |services| Frame::Services(ServiceBatch { services }));
    let tenants = selection.tenant_records(table).map(|record| control::TenantRecord::from(&record));
    let tenants = batches(tenants, |tenants| Frame::Tenants(TenantBatch { tenants }));
    let digest = if selection.is_all() { table.digest() } else { 0 };
    let end = Frame::End(SnapshotEnd { digest });
    std::iter::once(response(begin))
        .chain(services.map(response))
        .chain(instances(table, selection))
        .chain(tenants.map(response))
        .chain(std::iter::once(response(end)))
}

/// Records as frames of about the same size.
fn batches<R: Message>(
    records: impl Iterator<Item = R>,
    frame: fn(Vec<R>) -> Frame,
) -> impl Iterator<Item = Frame> {
    let mut records = records.fuse();
    std::iter::from_fn(move || {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH
            && let Some(record) = records.next()
        {
            bytes += record.encoded_len();
            batch.push(record);
        }
        (!batch.is_empty()).then(|| frame(batch))
    })
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

/// The instances of one service; none if nothing is known of it.
pub(crate) fn instances_of(table: &Table, service: &ServiceId) -> WatchResponse {
    let list = match table.service(service.as_str()) {
        Some(service) => list(service),
        None => ServiceInstances { service: service.to_string(), instances: Vec::new() },
    };
    response(Frame::Instances(list))
}

fn list(service: &ServiceTable) -> ServiceInstances {
    let members = service.versions().iter().flat_map(|slot| slot.pool.members());
    let mut instances: Vec<Instance> = members.map(|member| member.instance.clone()).collect();
    instances.sort_by(|a, b| a.id.cmp(&b.id));
    (service.id(), instances.as_slice()).into()
}

/// What is wanted of an event, as it is sent; none if it cannot be told, or would be too large.
pub(crate) fn event(selection: &Selection, event: &Event, tables: Option<Around<'_>>) -> Option<Bytes> {
    let frame = response(Frame::Event(selection.event(event, tables)?));
    (frame.encoded_len() <= MAX_EVENT).then(|| encoded(&frame))
}

/// A frame as a message.
pub(crate) fn response(frame: Frame) -> WatchResponse {
    WatchResponse { frame: Some(frame) }
}

/// A frame as one message of gRPC, not compressed.
pub(crate) fn encoded(frame: &WatchResponse) -> Bytes {
    let length = frame.encoded_len();
    let mut bytes = Vec::with_capacity(PREFIX + length);
    bytes.put_u8(0);
    // What is in a frame has limits far below 4 GiB.
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    frame.encode(&mut bytes).expect("a vector has room for every message");
    bytes.into()
}
