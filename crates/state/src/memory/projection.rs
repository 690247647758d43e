//! The projection in memory.

use super::feed::fence;
use super::lock;
use crate::projection::{Beat, Damage, Indexes, ProjectionStatus, Rebuild, Repair};
use crate::{Error, FencingToken, Projection};
use async_trait::async_trait;
use grey_core::change::{Change, Event, Position};
use grey_core::ids::{ServiceId, TenantId};
use grey_core::key::{RecordId, RecordKey};
use grey_core::record::Record;
use grey_core::tenant::TenantStatus;
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
    beat: Option<Beat>,
    /// Counts rebuilds, so that an abandoned one cannot finish another's work.
    rebuilds: u64,
    services: BTreeMap<ServiceId, Record>,
    tenants: BTreeMap<TenantId, Record>,
}

impl Projected {
    fn fence(&self, attempted: &'static str, token: FencingToken) -> Result<(), Error> {
        self.token.map_or(Ok(()), |seen| fence(attempted, token, seen))
    }

    fn change(&mut self, change: &Change) {
        let key = change.key();
        let held = match key.record() {
            RecordKey::Service(id) => self.services.remove(id),
            RecordKey::Tenant(id) => self.tenants.remove(id),
        };
        if let Some(record) = Record::fold(held, change) {
            self.put(record);
        }
    }

    fn put(&mut self, record: Record) {
        match record.key() {
            RecordKey::Service(id) => self.services.insert(id.clone(), record),
            RecordKey::Tenant(id) => self.tenants.insert(id.clone(), record),
        };
    }
}

#[async_trait]
impl Projection for MemoryProjection {
    async fn status(&self) -> Result<Option<ProjectionStatus>, Error> {
        Ok(lock(&self.0).status.clone())
    }

    async fn beat(&self, token: FencingToken, beat: &Beat) -> Result<(), Error> {
        let mut projected = lock(&self.0);
        projected.fence("leave a sign of life", token)?;
        projected.token = Some(token);
        projected.beat = Some(*beat);
        Ok(())
    }

    async fn last_beat(&self) -> Result<Option<Beat>, Error> {
        Ok(lock(&self.0).beat)
    }

    async fn apply(
        &self,
        token: FencingToken,
        events: &[Event],
        reached: &ProjectionStatus,
    ) -> Result<(), Error> {
        let mut projected = lock(&self.0);
        projected.fence("project events", token)?;
        let missing = ProjectionStatus::missing(projected.status.as_ref(), reached.position.epoch, events)?;
        if !missing.is_empty() {
            missing.iter().flat_map(|event| &event.changes).for_each(|change| projected.change(change));
            projected.status = Some(reached.clone());
        }
        projected.token = Some(token);
        Ok(())
    }

    async fn rebuild(&self, token: FencingToken, _: &Position) -> Result<Box<dyn Rebuild + '_>, Error> {
        let mut projected = lock(&self.0);
        projected.fence("rebuild the projection", token)?;
        let (rebuilds, beat) = (projected.rebuilds + 1, projected.beat);
        *projected = Projected { token: Some(token), beat, rebuilds, ..Projected::default() };
        Ok(Box::new(MemoryRebuild { projection: self, token, number: rebuilds }))
    }

    async fn load(&self, take: &mut (dyn FnMut(Vec<Record>) + Send)) -> Result<Vec<Damage>, Error> {
        let records: Vec<Record> = {
            let projected = lock(&self.0);
            projected.services.values().chain(projected.tenants.values()).cloned().collect()
        };
        let mut records = records.into_iter().peekable();
        while records.peek().is_some() {
            take(records.by_ref().take(BATCH).collect());
        }
        Ok(Vec::new())
    }

    async fn repair(&self, token: FencingToken, _: &Position, repairs: &[Repair]) -> Result<(), Error> {
        let mut projected = lock(&self.0);
        projected.fence("repair the projection", token)?;
        for repair in repairs {
            match repair {
                Repair::Put(record) => projected.put(record.clone()),
                Repair::Remove(RecordId::Service(id)) => drop(projected.services.remove(id)),
                Repair::Remove(RecordId::Tenant(id)) => drop(projected.tenants.remove(id)),
            }
        }
        Ok(())
    }

    async fn indexes(&self) -> Result<Indexes, Error> {
        let projected = lock(&self.0);
        let is_active = |record: &Record| matches!(record, Record::Tenant(record) if record.tenant.status == TenantStatus::Active);
        let active = projected.tenants.iter().filter(|(_, record)| is_active(record));
        Ok(Indexes {
            services: projected.services.keys().map(ToString::to_string).collect(),
            tenants: projected.tenants.keys().map(ToString::to_string).collect(),
            active_tenants: active.map(|(id, _)| id.to_string()).collect(),
        })
    }

    /// Here the records are the index.
    async fn reindex(&self, token: FencingToken, _: &Indexes) -> Result<(), Error> {
        lock(&self.0).fence("repair the indexes", token)
    }
}

struct MemoryRebuild<'a> {
    projection: &'a MemoryProjection,
    token: FencingToken,
    number: u64,
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
        records.into_iter().for_each(|record| projected.put(record));
        Ok(())
    }

    async fn finish(self: Box<Self>, status: &ProjectionStatus) -> Result<(), Error> {
        let mut projected = lock(&self.projection.0);
        self.check(&projected)?;
        projected.status = Some(status.clone());
        Ok(())
    }
}
