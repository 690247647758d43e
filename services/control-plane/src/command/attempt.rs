//! What every rule works with: the transaction, lookups, refusals, compare-and-set.

use std::collections::BTreeSet;
use std::fmt;

use grey_core::change::Change;
use grey_core::error::Reason;
use grey_core::ids::{OverlayId, ServiceId, TenantId};
use grey_core::key::Fact;
use grey_core::policy::{Overlay, Policy};
use grey_core::version::Version;
use grey_proto::status::ApiError;
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ColumnTrait, DatabaseTransaction, EntityTrait, IntoActiveModel, Iterable, PaginatorTrait,
    PrimaryKeyToColumn, PrimaryKeyTrait, QueryFilter, QueryOrder, Select,
};

use super::error::Error;
use super::proposal::{Command, Proposed};
use crate::database;
use crate::entity::{overlays, policies, services, tenants, unsigned, versions};

/// What is needed to check and apply a change.
pub(super) struct Attempt<'a> {
    pub(super) transaction: &'a DatabaseTransaction,
    /// The command that is carried out.
    pub(super) command: &'a Command,
    /// The revision of the command's event.
    pub(super) revision: i64,
    /// The time of the command's event, in milliseconds since the Unix epoch.
    pub(super) at_ms: u64,
    /// Versions that some change of the command declares.
    pub(super) declares: BTreeSet<(ServiceId, Version)>,
}

/// What became of one change.
pub(super) struct Outcome {
    /// When the key changed last; 0 if nothing is there any more.
    pub(super) revision: i64,
    /// What holds now, where it is more than what was asked for.
    pub(super) completed: Option<Fact>,
    /// What to write into the log; nothing if it was so already.
    pub(super) changes: Vec<Change>,
}

impl Outcome {
    /// It was so already, since `revision`.
    pub(super) fn unchanged(revision: i64) -> Self {
        Self { revision, completed: None, changes: Vec::new() }
    }

    /// The change took effect, and nothing is there any more.
    pub(super) fn removed(proposed: &Proposed) -> Self {
        Self { revision: 0, completed: None, changes: vec![proposed.change.clone()] }
    }
}

impl Proposed {
    /// Refuses the command unless the caller expects what is `present`. 0 is "does not exist".
    pub(super) fn expect(&self, present: Option<i64>) -> Result<(), Error> {
        let Some(expected) = self.expected else { return Ok(()) };
        let present = present.map_or(Ok(0), |revision| unsigned("revision", revision))?;
        if expected == present { Ok(()) } else { Err(mismatch(self.change.key(), expected, present).into()) }
    }
}

/// Another revision is present than the caller expects.
pub(super) fn mismatch(what: impl fmt::Display, expected: u64, present: u64) -> ApiError {
    let message = match (expected, present) {
        (0, _) => format!("{what} exists already, changed last at revision {present}"),
        (_, 0) => format!("{what} does not exist, but revision {expected} of it was expected"),
        _ => format!("{what} was changed last at revision {present}, not {expected}"),
    };
    ApiError::new(Reason::RevisionMismatch, message).with("present", present.to_string())
}

/// A statement that failed while `attempted`.
pub(super) fn during(attempted: &'static str) -> impl Fn(sea_orm::DbErr) -> Error {
    move |source| Error::Database(database::Error::Failed { attempted, source })
}

// === refusals ===

/// A tenant that nobody has declared.
pub(crate) fn unknown_tenant(tenant: &str) -> ApiError {
    ApiError::new(Reason::UnknownTenant, format!("tenant `{tenant}` is not declared")).with("tenant", tenant)
}

/// A service that nobody has declared.
pub(crate) fn unknown_service(service: &str) -> ApiError {
    let message = format!("service `{service}` is not declared; create it with its default version");
    ApiError::new(Reason::UnknownService, message).with("service", service)
}

/// A version that nobody has declared.
pub(crate) fn unknown_version(service: &ServiceId, version: &Version) -> ApiError {
    let message = format!("version {version} of service `{service}` is not declared");
    let unknown = ApiError::new(Reason::UnknownVersion, message);
    unknown.with("service", service.as_str()).with("version", version.as_str())
}

/// An overlay that nobody has set.
pub(crate) fn unknown_overlay(service: &ServiceId, overlay: &OverlayId) -> ApiError {
    let message = format!("service `{service}` has no overlay `{overlay}`");
    let unknown = ApiError::new(Reason::UnknownOverlay, message);
    unknown.with("service", service.as_str()).with("overlay", overlay.as_str())
}

/// A tenant whose version is in motion: nothing else may change it meanwhile.
pub(super) fn moving(tenant: &TenantId, service: &ServiceId, to: &str) -> ApiError {
    let message = format!(
        "tenant `{tenant}` is being moved to version {to} of service `{service}`; retry once that has ended"
    );
    let moving = ApiError::new(Reason::TenantMoving, message);
    moving.with("tenant", tenant.as_str()).with("service", service.as_str()).with("to", to)
}

/// Something that others refer to, `by` what.
pub(super) fn in_use(message: String, by: &[&str]) -> ApiError {
    ApiError::new(Reason::InUse, message).with("by", by.join(","))
}

/// Refuses one more of what there are `present`.
pub(super) fn check_room<N: Copy + PartialOrd + fmt::Display>(
    what: &str,
    present: N,
    limit: N,
) -> Result<(), ApiError> {
    if present < limit {
        return Ok(());
    }
    let message = format!("there are {present} {what}, at most {limit} are allowed; remove one first");
    Err(ApiError::new(Reason::TooLarge, message).with("limit", limit.to_string()))
}

// === rows ===

impl Attempt<'_> {
    /// The change took effect.
    pub(super) fn changed(&self, proposed: &Proposed) -> Outcome {
        Outcome { revision: self.revision, completed: None, changes: vec![proposed.change.clone()] }
    }

    /// The row under a key.
    pub(super) async fn find<E: EntityTrait>(
        &self,
        key: impl Into<<E::PrimaryKey as PrimaryKeyTrait>::ValueType>,
        attempted: &'static str,
    ) -> Result<Option<E::Model>, Error> {
        E::find_by_id(key).one(self.transaction).await.map_err(during(attempted))
    }

    /// How many rows there are.
    pub(super) async fn count<E: EntityTrait<Model: Send + Sync>>(
        &self,
        of: Select<E>,
        attempted: &'static str,
    ) -> Result<u64, Error> {
        of.count(self.transaction).await.map_err(during(attempted))
    }

    /// Writes rows, in place of those under the same keys.
    pub(super) async fn write<E>(
        &self,
        _: E,
        rows: impl IntoIterator<Item = E::Model, IntoIter: Send> + Send,
        attempted: &'static str,
    ) -> Result<(), Error>
    where
        E: EntityTrait<Model: IntoActiveModel<E::ActiveModel>, ActiveModel: Send>,
    {
        let rows: Vec<E::ActiveModel> = rows.into_iter().map(IntoActiveModel::into_active_model).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let key = E::PrimaryKey::iter().map(PrimaryKeyToColumn::into_column);
        let replace = OnConflict::columns(key).update_columns(E::Column::iter()).to_owned();
        let insert = E::insert_many(rows).on_conflict(replace);
        insert.exec_without_returning(self.transaction).await.map_err(during(attempted))?;
        Ok(())
    }

    /// Removes the row under a key.
    pub(super) async fn remove<E: EntityTrait>(
        &self,
        _: E,
        key: impl Into<<E::PrimaryKey as PrimaryKeyTrait>::ValueType>,
        attempted: &'static str,
    ) -> Result<(), Error> {
        E::delete_by_id(key).exec(self.transaction).await.map_err(during(attempted))?;
        Ok(())
    }

    /// Removes the rows whose column has a value.
    pub(super) async fn remove_where<E: EntityTrait>(
        &self,
        _: E,
        column: E::Column,
        value: &str,
        attempted: &'static str,
    ) -> Result<(), Error> {
        let delete = E::delete_many().filter(column.eq(value));
        delete.exec(self.transaction).await.map_err(during(attempted))?;
        Ok(())
    }

    // === lookups ===

    /// A tenant, and when it changed last with all that belongs to it.
    pub(super) async fn tenant(&self, id: &TenantId) -> Result<Option<tenants::Dated>, Error> {
        let found = tenants::dated(tenants::Entity::find_by_id(id.as_str())).one(self.transaction).await;
        found.map_err(during("read the tenant"))
    }

    /// A service, and when it changed last with all that belongs to it.
    pub(super) async fn service(&self, id: &ServiceId) -> Result<Option<services::Dated>, Error> {
        let found = services::dated(services::Entity::find_by_id(id.as_str())).one(self.transaction).await;
        found.map_err(during("read the service"))
    }

    /// Refuses a service that is not declared.
    pub(super) async fn require_service(&self, id: &ServiceId) -> Result<(), Error> {
        let found = self.find::<services::Entity>(id.as_str(), "read the service").await?;
        if found.is_some() { Ok(()) } else { Err(unknown_service(id.as_str()).into()) }
    }

    /// Refuses a tenant that is not declared.
    pub(super) async fn require_tenant(&self, id: &TenantId) -> Result<(), Error> {
        let found = self.find::<tenants::Entity>(id.as_str(), "read the tenant").await?;
        if found.is_some() { Ok(()) } else { Err(unknown_tenant(id.as_str()).into()) }
    }

    /// A version's row.
    pub(super) async fn version(
        &self,
        service: &ServiceId,
        version: &Version,
    ) -> Result<Option<versions::Model>, Error> {
        let key = (service.to_string(), version.to_string());
        self.find::<versions::Entity>(key, "read the version").await
    }

    /// Refuses versions that are not declared.
    pub(super) async fn require_versions(
        &self,
        service: &ServiceId,
        named: impl Iterator<Item = &Version> + Send,
    ) -> Result<(), Error> {
        let declared = versions::Entity::find().filter(versions::Column::Service.eq(service.as_str()));
        let declared = declared.all(self.transaction).await.map_err(during("read the versions"))?;
        let mut named = named;
        match named.find(|named| declared.iter().all(|row| row.version != named.as_str())) {
            Some(missing) => Err(unknown_version(service, missing).into()),
            None => Ok(()),
        }
    }

    /// A service's policy, and when it was set; the default one if none was.
    pub(super) async fn policy(&self, service: &ServiceId) -> Result<(Policy, Option<i64>), Error> {
        match self.find::<policies::Entity>(service.as_str(), "read the policy").await? {
            Some(row) => Ok((row.policy()?, Some(row.revision))),
            None => Ok((Policy::default(), None)),
        }
    }

    /// A service's overlays by id, and when each was set.
    pub(super) async fn overlays(&self, service: &ServiceId) -> Result<Vec<(Overlay, i64)>, Error> {
        let rows = overlays::Entity::find()
            .filter(overlays::Column::Service.eq(service.as_str()))
            .order_by_asc(overlays::Column::Id);
        let rows = rows.all(self.transaction).await.map_err(during("read the overlays"))?;
        rows.iter().map(|row| Ok((row.overlay()?, row.revision))).collect()
    }
}
