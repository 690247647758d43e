//! What was known of a tenant or a service as of an event of its history.
//!
//! A row is only believed with the event that it was made at: its seal says which one that was. So a log that was set
//! back and went on otherwise is not explained by what was abandoned, and what is damaged is made again.

use grey_core::change::{Change, EntryHash, Event, FormatLevel, Revision};
use grey_core::ids::{ServiceId, TenantId};
use grey_core::key::{Key, RecordKey};
use grey_core::record::Record;
use grey_proto::codec;
use sea_orm::entity::prelude::*;
use sha2::{Digest, Sha256};

use super::{record_history, signed};

/// One row.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "checkpoints")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub kind: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub service: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub revision: i64,
    pub seal: Vec<u8>,
    pub body: Vec<u8>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// A record as far as calls of one service depend on it: a tenant's without what ties it to other services.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Part {
    pub(crate) kind: &'static str,
    pub(crate) id: String,
    /// The only one that matters.
    pub(crate) service: ServiceId,
}

impl Part {
    /// A service.
    pub(crate) fn of_service(service: &ServiceId) -> Self {
        let (id, service) = (service.to_string(), service.clone());
        Self { kind: record_history::SERVICE, id, service }
    }

    /// A tenant, for calls of one service.
    pub(crate) fn of_tenant(tenant: &TenantId, service: &ServiceId) -> Self {
        let (id, service) = (tenant.to_string(), service.clone());
        Self { kind: record_history::TENANT, id, service }
    }

    /// Whether what is under a key is of this part.
    fn holds(&self, key: &Key) -> bool {
        let is_ours = match key.record() {
            RecordKey::Tenant(tenant) => self.kind == record_history::TENANT && tenant.as_str() == self.id,
            RecordKey::Service(service) => {
                self.kind == record_history::SERVICE && service.as_str() == self.id
            }
        };
        is_ours && key.service().is_none_or(|service| *service == self.service)
    }

    /// What the part becomes by an event.
    pub(crate) fn fold(&self, record: Option<Record>, event: &Event) -> Option<Record> {
        let ours = event.changes.iter().filter(|change| self.holds(&change.key()));
        ours.fold(record, Record::fold)
    }
}

impl Model {
    /// The row of what was known after the event at `revision`, whose hash is `at`; none: nothing was.
    pub(crate) fn of(part: &Part, revision: Revision, at: &EntryHash, record: Option<Record>) -> Self {
        let changes: Vec<Change> = record.into_iter().flat_map(Record::facts).map(Change::Put).collect();
        let level = changes.iter().map(Change::level).fold(FormatLevel::FIRST, FormatLevel::max);
        let body = codec::encode_event(&Event { revision, level, changes, ..Event::default() });
        let mut row = Self {
            kind: part.kind.to_owned(),
            id: part.id.clone(),
            service: part.service.to_string(),
            revision: signed(revision.0),
            seal: Vec::new(),
            body,
        };
        row.seal = row.sealed(at);
        row
    }

    /// What was known; an error if the row is not as it was made, or was made at another event than the one with this hash.
    pub(crate) fn record(&self, part: &Part, at: &EntryHash) -> Result<Option<Record>, String> {
        if self.seal != self.sealed(at) {
            return Err("it was damaged, or made of another history".to_owned());
        }
        let event = codec::decode_event(&self.body).map_err(|error| error.to_string())?;
        Ok(part.fold(None, &event))
    }

    /// What the seal must be.
    fn sealed(&self, at: &EntryHash) -> Vec<u8> {
        let mut hash = Sha256::new();
        for text in [&self.kind, &self.id, &self.service] {
            // No id has a NUL in it.
            hash.update(text);
            hash.update([0]);
        }
        hash.update(self.revision.to_be_bytes());
        hash.update(at.0);
        hash.update(&self.body);
        hash.finalize().to_vec()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "test code panics")]
mod tests {
    use grey_core::key::Fact;
    use grey_core::service::Pin;
    use grey_core::tenant::Tenant;
    use grey_core::version::Version;

    use super::*;

    fn acme() -> TenantId {
        TenantId::new("acme").unwrap()
    }

    fn pinned(service: &str, version: &str) -> Change {
        let pin = Pin { version: Version::new(version).unwrap(), locked: false };
        Change::Put(Fact::Pin(acme(), ServiceId::new(service).unwrap(), pin))
    }

    fn part() -> Part {
        Part::of_tenant(&acme(), &ServiceId::new("payment").unwrap())
    }

    fn event(changes: Vec<Change>) -> Event {
        Event { changes, ..Event::default() }
    }

    #[test]
    fn what_is_kept_is_what_calls_of_one_service_depend_on() {
        let declared = Change::Put(Fact::Tenant(Box::new(Tenant::new(acme()))));
        let other = Change::Put(Fact::Tenant(Box::new(Tenant::new(TenantId::new("beta").unwrap()))));
        let all = event(vec![other, declared.clone(), pinned("payment", "1.0"), pinned("users", "1.0")]);
        let ours = event(vec![declared, pinned("payment", "1.0")]);
        let record = part().fold(None, &all);
        assert!(record.is_some() && record == part().fold(None, &ours));
        let at = EntryHash([1; 32]);
        assert_eq!(Model::of(&part(), Revision(7), &at, record.clone()).record(&part(), &at), Ok(record));
        assert_eq!(Model::of(&part(), Revision(7), &at, None).record(&part(), &at), Ok(None));
    }

    #[test]
    fn what_is_damaged_moved_or_of_another_history_is_not_believed() {
        let at = EntryHash([1; 32]);
        let row = Model::of(&part(), Revision(7), &at, None);
        let damaged = Model { body: Vec::new(), ..row.clone() };
        let moved = Model { revision: 8, ..row.clone() };
        let others = Model { service: "users".to_owned(), ..row.clone() };
        for row in [damaged, moved, others] {
            assert!(row.record(&part(), &at).is_err(), "{row:?}");
        }
        assert!(row.record(&part(), &EntryHash([2; 32])).is_err());
    }
}
