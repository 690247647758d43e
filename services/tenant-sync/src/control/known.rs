//! A replica of the control plane's tenants, so that a sync that finds nothing new costs one call.

use std::collections::BTreeMap;

use grey_core::change::{Change, Position, Revision};
use grey_core::ids::TenantId;
use grey_core::key::{Fact, Key};
use grey_core::tenant::Tenant;
use grey_proto::control::change;
use grey_proto::control::{self, ListEventsResponse};
use grey_proto::convert::InvalidMessage;

use super::{Control, Error, position};

/// A tenant of the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The tenant.
    pub tenant: Tenant,
    /// When it changed last.
    pub revision: u64,
}

/// Every tenant of the control plane as of one position of its log.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// None: nothing is known yet.
    position: Option<Position>,
    tenants: BTreeMap<TenantId, Entry>,
    /// Counts what was done to them.
    version: u64,
}

impl Known {
    /// By id.
    #[must_use]
    pub fn tenants(&self) -> &BTreeMap<TenantId, Entry> {
        &self.tenants
    }

    /// The same as long as no tenant has changed.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Lists everything anew next time.
    pub(crate) fn forget(&mut self) {
        self.position = None;
    }

    /// Brings the replica to the end of the log: by the events since, or from scratch if there are too many, or if
    /// the log is not the one that was followed.
    ///
    /// # Errors
    /// The control plane cannot be read.
    pub(crate) async fn catch_up(&mut self, control: &Control) -> Result<(), Error> {
        if self.position.is_none() {
            self.list(control).await?;
        }
        while !self.follow(control).await? {
            self.list(control).await?;
        }
        Ok(())
    }

    /// Reads all tenants. Pages are read one after the other, so they are not of one moment: the events since the
    /// first of them make good for it.
    async fn list(&mut self, control: &Control) -> Result<(), Error> {
        self.forget();
        self.tenants.clear();
        self.version += 1;
        let head = control.head().await?;
        let mut after = String::new();
        loop {
            let page = control.page(after).await?;
            for message in page.tenants {
                self.put(message)?;
            }
            after = page.next_page_token;
            if after.is_empty() {
                break;
            }
        }
        tracing::info!(log.revision = head.revision.0, tenants = self.tenants.len(), "tenants were listed");
        self.position = Some(head);
        Ok(())
    }

    /// Applies the events since; false: they cannot be followed.
    async fn follow(&mut self, control: &Control) -> Result<bool, Error> {
        while let Some(at) = self.position {
            let answer = control.events_after(at.revision).await?;
            let head = position(&answer);
            let behind = head.revision.0.checked_sub(at.revision.0);
            if head.epoch != at.epoch || behind.is_none_or(|n| n > control.options.max_events) {
                return Ok(false);
            }
            if behind == Some(0) {
                return Ok(true);
            }
            if !self.apply_events(answer)? {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// Applies a page of events; false: some are missing.
    fn apply_events(&mut self, answer: ListEventsResponse) -> Result<bool, Error> {
        let Some(mut at) = self.position.take() else { return Ok(false) };
        if answer.events.is_empty() {
            return Ok(false);
        }
        for event in answer.events {
            if event.revision != at.revision.next().0 {
                return Ok(false);
            }
            for change in event.changes {
                self.apply_message(event.revision, change)?;
            }
            at.revision = Revision(event.revision);
        }
        self.position = Some(at);
        Ok(true)
    }

    /// Applies a change as the log tells it. What is not about tenants does not matter here.
    fn apply_message(&mut self, revision: u64, change: control::Change) -> Result<(), Error> {
        match change.change {
            Some(change::Change::TenantPut(mut tenant)) => {
                tenant.revision = revision;
                self.put(tenant)
            }
            Some(change::Change::TenantRemoved(gone)) => {
                self.remove(&gone.tenant, revision);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn put(&mut self, message: control::Tenant) -> Result<(), Error> {
        let revision = message.revision;
        let tenant = Tenant::try_from(message).map_err(|fault: InvalidMessage| fault.under("tenant"))?;
        self.put_tenant(tenant, revision);
        Ok(())
    }

    fn put_tenant(&mut self, tenant: Tenant, revision: u64) {
        // A page may already be newer than the event.
        if self.tenants.get(&tenant.id).is_none_or(|entry| entry.revision <= revision) {
            self.tenants.insert(tenant.id.clone(), Entry { tenant, revision });
            self.version += 1;
        }
    }

    fn remove(&mut self, tenant: &str, revision: u64) {
        if self.tenants.get(tenant).is_some_and(|entry| entry.revision <= revision) {
            self.tenants.remove(tenant);
            self.version += 1;
        }
    }

    /// Applies changes that were committed at `committed`, if nothing else was committed since; otherwise the next
    /// catching up brings them with the rest.
    pub(crate) fn commit<'a>(&mut self, committed: Position, changes: impl Iterator<Item = &'a Change>) {
        let Some(at) = &mut self.position else { return };
        if committed.epoch != at.epoch || committed.revision != at.revision.next() {
            return;
        }
        at.revision = committed.revision;
        for change in changes {
            match change {
                Change::Put(Fact::Tenant(tenant)) => {
                    self.put_tenant(Tenant::clone(tenant), committed.revision.0);
                }
                Change::Removed(Key::Tenant(tenant)) => self.remove(tenant.as_str(), committed.revision.0),
                _ => {}
            }
        }
    }

    /// Whether things are as `change` wants them.
    pub(crate) fn reflects(&self, change: &Change) -> bool {
        match change {
            Change::Put(Fact::Tenant(tenant)) => {
                self.tenants.get(&tenant.id).is_some_and(|entry| entry.tenant == **tenant)
            }
            Change::Removed(Key::Tenant(tenant)) => !self.tenants.contains_key(tenant),
            _ => false,
        }
    }

    /// A replica of these tenants.
    #[cfg(test)]
    pub(crate) fn of(tenants: impl IntoIterator<Item = Tenant>) -> Self {
        let entry = |tenant: Tenant| (tenant.id.clone(), Entry { tenant, revision: 1 });
        let position = Position { epoch: grey_core::change::Epoch(1), revision: Revision(1) };
        Self { position: Some(position), tenants: tenants.into_iter().map(entry).collect(), version: 0 }
    }
}
