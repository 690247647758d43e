//! The whole present state as of one position, in batches: a million pins never sit in memory at once.

use grey_core::change::Position;
use grey_core::record::{Record, ServiceRecord, TenantRecord};
use grey_state::publisher::Snapshot;
use sea_orm::{ColumnTrait, DatabaseTransaction, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use tokio::sync::mpsc;

use crate::database::{Database, Error, head_with_hash, level};
use crate::entity::{holds, observed_schemas, overlays, pins, policies, services, tenants, versions};

/// Services and tenants of one batch. With a hundred pins each, a batch of tenants is some megabytes.
const BATCH: u64 = 200;

impl Database {
    pub(crate) async fn send_snapshot(&self, to: &mpsc::Sender<Vec<Record>>) -> Result<Snapshot, Error> {
        let transaction = self.begin_snapshot().await?;
        let (head, hash) = self.read("read the log's head", head_with_hash(&transaction)).await?;
        let position: Position = head.try_into()?;
        let level = self.read("read the log's format level", level(&transaction)).await?;
        let snapshot = Snapshot { position, hash, level };
        let mut after = String::new();
        while let Some((last, records)) = self.services_after(&transaction, &after).await? {
            if to.send(records).await.is_err() {
                return Ok(snapshot);
            }
            after = last;
        }
        after.clear();
        while let Some((last, records)) = self.tenants_after(&transaction, &after).await? {
            if to.send(records).await.is_err() {
                return Ok(snapshot);
            }
            after = last;
        }
        self.read("end a snapshot", transaction.commit()).await?;
        Ok(snapshot)
    }

    /// The next services by id, and the last of them.
    async fn services_after(
        &self,
        transaction: &DatabaseTransaction,
        after: &str,
    ) -> Result<Option<(String, Vec<Record>)>, Error> {
        let page = services::Entity::find()
            .filter(services::Column::Id.gt(after))
            .order_by_asc(services::Column::Id)
            .limit(BATCH);
        let page = self.read("read services", page.all(transaction)).await?;
        let (Some(first), Some(last)) = (page.first(), page.last()) else { return Ok(None) };
        let (first, last) = (first.id.clone(), last.id.clone());
        let declared = versions::Entity::find()
            .filter(versions::Column::Service.between(first.as_str(), last.as_str()))
            .order_by_asc(versions::Column::Service);
        let mut declared =
            self.read("read versions", declared.all(transaction)).await?.into_iter().peekable();
        let set = policies::Entity::find()
            .filter(policies::Column::Service.between(first.as_str(), last.as_str()))
            .order_by_asc(policies::Column::Service);
        let mut set = self.read("read policies", set.all(transaction)).await?.into_iter().peekable();
        let laid = overlays::Entity::find()
            .filter(overlays::Column::Service.between(first.as_str(), last.as_str()))
            .order_by_asc(overlays::Column::Service)
            .order_by_asc(overlays::Column::Id);
        let mut laid = self.read("read overlays", laid.all(transaction)).await?.into_iter().peekable();
        let mut records = Vec::with_capacity(page.len());
        for row in page {
            let mut record = ServiceRecord::from(row.service()?);
            while let Some(version) = declared.next_if(|version| version.service == row.id) {
                record.versions.push(version.version()?);
            }
            while let Some(policy) = set.next_if(|policy| policy.service == row.id) {
                record.policy = policy.policy()?;
            }
            while let Some(overlay) = laid.next_if(|overlay| overlay.service == row.id) {
                record.overlays.push(overlay.overlay()?);
            }
            records.push(Record::Service(record));
        }
        Ok(Some((last, records)))
    }

    /// The next tenants by id, and the last of them.
    async fn tenants_after(
        &self,
        transaction: &DatabaseTransaction,
        after: &str,
    ) -> Result<Option<(String, Vec<Record>)>, Error> {
        let page = tenants::Entity::find()
            .filter(tenants::Column::Id.gt(after))
            .order_by_asc(tenants::Column::Id)
            .limit(BATCH);
        let page = self.read("read tenants", page.all(transaction)).await?;
        let (Some(first), Some(last)) = (page.first(), page.last()) else { return Ok(None) };
        let (first, last) = (first.id.clone(), last.id.clone());
        let held = pins::Entity::find()
            .filter(pins::Column::Tenant.between(first.as_str(), last.as_str()))
            .order_by_asc(pins::Column::Tenant)
            .order_by_asc(pins::Column::Service);
        let mut held = self.read("read pins", held.all(transaction)).await?.into_iter().peekable();
        let seen = observed_schemas::Entity::find()
            .filter(observed_schemas::Column::Tenant.between(first.as_str(), last.as_str()))
            .order_by_asc(observed_schemas::Column::Tenant)
            .order_by_asc(observed_schemas::Column::Service);
        let mut seen = self.read("read schemas", seen.all(transaction)).await?.into_iter().peekable();
        let moving = holds::Entity::find()
            .filter(holds::Column::Tenant.between(first.as_str(), last.as_str()))
            .order_by_asc(holds::Column::Tenant)
            .order_by_asc(holds::Column::Service);
        let mut moving = self.read("read holds", moving.all(transaction)).await?.into_iter().peekable();
        let mut records = Vec::with_capacity(page.len());
        for row in page {
            let mut record = TenantRecord::from(row.tenant()?);
            while let Some(pin) = held.next_if(|pin| pin.tenant == row.id) {
                record.pins.push(pin.pin()?);
            }
            while let Some(schema) = seen.next_if(|schema| schema.tenant == row.id) {
                record.schemas.push(schema.observation()?);
            }
            while let Some(hold) = moving.next_if(|hold| hold.tenant == row.id) {
                record.holds.push(hold.hold()?);
            }
            records.push(Record::Tenant(record));
        }
        Ok(Some((last, records)))
    }
}
