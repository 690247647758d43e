//! The projection in memory.

use super::feed::fence;
use super::lock;
use crate::projection::{ProjectionStatus, Rebuild};
use crate::units::{TenantUnit, fold_service};
use crate::{Error, FencingToken, Projection};
use async_trait::async_trait;
use grey_core::change::{Change, Event, Position, Record, ServiceRecord};
use grey_core::ids::{ServiceId, TenantId};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// Records handed out at once.
const BATCH: usize = 500;

#[derive(Default)]
pub(super) struct MemoryProjection(Mutex<Projected>);

#[derive(Default)]
struct Projected {
    token: Option<FencingToken>,
    status: Option<ProjectionStatus>,
    /// Counts rebuilds, so that an abandoned one cannot finish another's work.
    rebuilds: u64,
    services: BTreeMap<ServiceId, ServiceRecord>,
    tenants: BTreeMap<TenantId, TenantUnit>,
}

impl Projected {
    fn fence(&self, attempted: &'static str, token: FencingToken) -> Result<(), Error> {
        self.token.map_or(Ok(()), |seen| fence(attempted, token, seen))
    }

    fn change(&mut self, change: &Change) {
        if let Some(service) = crate::units::service_of(change) {
            let record = fold_service(self.services.remove(service), change);
            if let Some(record) = record {
                self.services.insert(service.clone(), record);
            }
        } else if let Change::TenantRemoved(tenant) = change {
            self.tenants.remove(tenant);
        } else if let Some(tenant) = crate::units::tenant_of(change) {
            self.tenants.entry(tenant.clone()).or_default().fold(change);
        }
    }
}

#[async_trait]
impl Projection for MemoryProjection {
    async fn status(&self) -> Result<Option<ProjectionStatus>, Error> {
        Ok(lock(&self.0).status.clone())
    }

    async fn apply(
        &self,
        token: FencingToken,
        event: &Event,
        reached: &ProjectionStatus,
    ) -> Result<(), Error> {
        let mut projected = lock(&self.0);
        projected.fence("project an event", token)?;
        let status = projected.status.as_ref();
        if ProjectionStatus::continues(status, &reached.position.generation, event.revision)? {
            event.changes.iter().for_each(|change| projected.change(change));
            projected.status = Some(reached.clone());
        }
        projected.token = Some(token);
        Ok(())
    }

    async fn rebuild(
        &self,
        token: FencingToken,
        position: &Position,
    ) -> Result<Box<dyn Rebuild + '_>, Error> {
        let mut projected = lock(&self.0);
        projected.fence("rebuild the projection", token)?;
        let rebuilds = projected.rebuilds + 1;
        *projected = Projected { token: Some(token), rebuilds, ..Projected::default() };
        Ok(Box::new(MemoryRebuild { projection: self, token, number: rebuilds, position: position.clone() }))
    }

    async fn load(&self, take: &mut (dyn FnMut(Vec<Record>) + Send)) -> Result<(), Error> {
        let records: Vec<Record> = {
            let projected = lock(&self.0);
            let services = projected.services.values().cloned().map(Record::Service);
            let tenants = projected.tenants.values().filter_map(TenantUnit::record).map(Record::Tenant);
            services.chain(tenants).collect()
        };
        let mut records = records.into_iter().peekable();
        while records.peek().is_some() {
            take(records.by_ref().take(BATCH).collect());
        }
        Ok(())
    }
}

struct MemoryRebuild<'a> {
    projection: &'a MemoryProjection,
    token: FencingToken,
    number: u64,
    position: Position,
}

impl MemoryRebuild<'_> {
    fn check(&self, projected: &Projected) -> Result<(), Error> {
        let attempted = "rebuild the projection";
        projected.fence(attempted, self.token)?;
        if projected.rebuilds != self.number {
            return Err(Error::Fenced { attempted, newest: self.token.0 });
        }
        Ok(())
    }
}

#[async_trait]
impl Rebuild for MemoryRebuild<'_> {
    async fn write(&mut self, records: Vec<Record>) -> Result<(), Error> {
        let mut projected = lock(&self.projection.0);
        self.check(&projected)?;
        for record in records {
            match record {
                Record::Service(record) => {
                    projected.services.insert(record.service.id.clone(), record);
                }
                Record::Tenant(record) => {
                    projected.tenants.insert(record.tenant.id.clone(), TenantUnit::from(record));
                }
            }
        }
        Ok(())
    }

    async fn finish(self: Box<Self>, digest: u64) -> Result<(), Error> {
        let mut projected = lock(&self.projection.0);
        self.check(&projected)?;
        projected.status = Some(ProjectionStatus { position: self.position.clone(), digest });
        Ok(())
    }
}
