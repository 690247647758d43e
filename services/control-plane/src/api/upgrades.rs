//! Upgrades of tenants' databases, asked of the schema migrator on behalf of callers.

use std::sync::Arc;

use futures::{Stream, StreamExt};
use grey_core::error::Reason;
use grey_core::ids::{ServiceId, TenantId};
use grey_core::schema::SchemaVersion;
use grey_core::version::Version;
use grey_edge::Caller;
use grey_proto::control;
use grey_proto::schema::{
    Flip, GetDriftRequest, GetDriftResponse, GetHistoryRequest, GetHistoryResponse, ListUpgradesRequest,
    ListUpgradesResponse, ProvisionRequest, ProvisionResponse, StartUpgradeRequest, Target, Upgrade,
};
use grey_proto::status::ApiError;

use super::{Api, id, invalid, optional_id, page_size, unavailable};
use crate::command::MAX_REASON;
use crate::migrator::Migrator;

/// Longest key by which a repeated request is recognised, in bytes.
const MAX_IDEMPOTENCY_KEY: usize = 64;

impl Api {
    /// Queues an upgrade of one tenant's database for one service.
    ///
    /// # Errors
    /// A malformed request, no migrator is configured or it does not answer, or what it refuses: an upgrade runs
    /// already, no database is registered, the migrations do not allow it.
    pub async fn start_upgrade(
        &self,
        caller: &Caller,
        mut request: StartUpgradeRequest,
    ) -> Result<Upgrade, ApiError> {
        let tenant: TenantId = id("tenant", &request.tenant)?;
        let service: ServiceId = id("service", &request.service)?;
        check_order(request.target.as_mut(), &request.reason)?;
        if request.idempotency_key.len() > MAX_IDEMPOTENCY_KEY {
            return Err(invalid("idempotencyKey", format!("must have at most {MAX_IDEMPOTENCY_KEY} bytes")));
        }
        let upgrade = self.migrator()?.start(caller, request).await?;
        tracing::info!(
            tenant.id = %tenant,
            service.id = %service,
            upgrade.id = upgrade.id,
            actor = %caller,
            "queued an upgrade"
        );
        Ok(upgrade)
    }

    /// Queues the making of a database for a tenant; or, as a dry run, tells what would be made.
    ///
    /// # Errors
    /// A malformed request, no migrator is configured or it does not answer, or what it refuses: a database is registered
    /// already, something is there under its name, the migrations do not allow it.
    pub async fn provision(
        &self,
        caller: &Caller,
        mut request: ProvisionRequest,
    ) -> Result<ProvisionResponse, ApiError> {
        let tenant: TenantId = id("tenant", &request.tenant)?;
        let service: ServiceId = id("service", &request.service)?;
        check_order(request.target.as_mut(), &request.reason)?;
        let answer = self.migrator()?.provision(caller, request).await?;
        if let Some(upgrade) = &answer.upgrade {
            tracing::info!(
                tenant.id = %tenant,
                service.id = %service,
                upgrade.id = upgrade.id,
                actor = %caller,
                "queued the provisioning of a database"
            );
        }
        Ok(answer)
    }

    /// Upgrades a tenant's database to what the pin's version needs, and pins once that has succeeded.
    pub(super) async fn migrate_and_pin(
        &self,
        caller: &Caller,
        pin: control::Pin,
        write: control::WriteOptions,
    ) -> Result<Upgrade, ApiError> {
        let target = Target { schema: String::new(), service_version: pin.version.clone() };
        let (tenant, service) = (pin.tenant.clone(), pin.service.clone());
        let flip = Flip {
            pin: Some(pin),
            expected_revision: write.expected_revision,
            expected_epoch: write.expected_epoch,
            ..Flip::default()
        };
        let request = StartUpgradeRequest {
            tenant,
            service,
            target: Some(target),
            reason: write.reason,
            flip: Some(flip),
            ..StartUpgradeRequest::default()
        };
        self.start_upgrade(caller, request).await
    }

    /// Reads one upgrade.
    ///
    /// # Errors
    /// It is unknown, or the migrator is not configured or does not answer.
    pub async fn get_upgrade(&self, caller: &Caller, id: &str) -> Result<Upgrade, ApiError> {
        self.migrator()?.get(caller, upgrade_id(id)?).await
    }

    /// Lists upgrades, newest first.
    ///
    /// # Errors
    /// A malformed filter or page, or the migrator is not configured or does not answer.
    pub async fn list_upgrades(
        &self,
        caller: &Caller,
        request: ListUpgradesRequest,
    ) -> Result<ListUpgradesResponse, ApiError> {
        page_size("page_size", request.page_size)?;
        optional_id::<TenantId>("tenant", &request.tenant)?;
        optional_id::<ServiceId>("service", &request.service)?;
        self.migrator()?.list(caller, request).await
    }

    /// Asks an upgrade to stop.
    ///
    /// # Errors
    /// It is unknown or has ended, or the migrator is not configured or does not answer.
    pub async fn cancel_upgrade(&self, caller: &Caller, id: &str) -> Result<Upgrade, ApiError> {
        let upgrade = self.migrator()?.cancel(caller, upgrade_id(id)?).await?;
        tracing::info!(upgrade.id = upgrade.id, actor = %caller, "asked an upgrade to stop");
        Ok(upgrade)
    }

    /// Reads what was done to a tenant's database: the files that ran there, and the upgrades that were asked for.
    ///
    /// # Errors
    /// No database is registered, it does not answer, or the migrator is not configured or does not answer.
    pub async fn schema_history(
        &self,
        caller: &Caller,
        request: GetHistoryRequest,
    ) -> Result<GetHistoryResponse, ApiError> {
        id::<TenantId>("tenant", &request.tenant)?;
        id::<ServiceId>("service", &request.service)?;
        self.migrator()?.history(caller, request).await
    }

    /// Compares a tenant's database with what its last upgrade has left.
    ///
    /// # Errors
    /// As [`Self::schema_history`].
    pub async fn schema_drift(
        &self,
        caller: &Caller,
        request: GetDriftRequest,
    ) -> Result<GetDriftResponse, ApiError> {
        id::<TenantId>("tenant", &request.tenant)?;
        id::<ServiceId>("service", &request.service)?;
        self.migrator()?.drift(caller, request).await
    }

    /// Streams an upgrade whenever it changes, until it has ended or the control plane drains.
    ///
    /// # Errors
    /// Too many streams are open, the upgrade is unknown, or the migrator is not configured or does not answer. The
    /// stream ends with an error when the migrator goes away.
    pub async fn watch_upgrade(
        &self,
        caller: &Caller,
        id: &str,
    ) -> Result<impl Stream<Item = Result<Upgrade, ApiError>> + Send + use<>, ApiError> {
        let id = upgrade_id(id)?;
        let migrator = self.migrator()?;
        let busy = |_| ApiError::new(Reason::RateLimited, "too many streams are open; close some");
        let permit = Arc::clone(&self.0.watchers).try_acquire_owned().map_err(busy)?;
        let upgrades = migrator.watch(caller, id).await?;
        let draining = self.0.draining.clone();
        let upgrades = upgrades.map(move |upgrade| {
            let _open = &permit;
            upgrade
        });
        Ok(upgrades.take_until(async move { draining.cancelled().await }))
    }

    fn migrator(&self) -> Result<&Migrator, ApiError> {
        self.0.migrator.as_ref().ok_or_else(|| {
            unavailable(
                "this control plane knows no schema migrator: configure its address as `url` in [migrator], or \
                 GREY__MIGRATOR__URL",
            )
        })
    }
}

/// Checks where an upgrade should lead and why, and writes the version in the one spelling that it has everywhere else.
fn check_order(target: Option<&mut Target>, reason: &str) -> Result<(), ApiError> {
    if let Some(target) = target {
        optional_id::<SchemaVersion>("schema", &target.schema)?;
        let version: Option<Version> = optional_id("version", &target.service_version)?;
        target.service_version = version.as_ref().map_or_else(String::new, ToString::to_string);
    }
    if reason.len() > MAX_REASON {
        return Err(invalid("reason", format!("must have at most {MAX_REASON} bytes")));
    }
    Ok(())
}

fn upgrade_id(id: &str) -> Result<String, ApiError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !(1..=64).contains(&id.len()) || !id.bytes().all(allowed) {
        return Err(invalid("id", "is not the id of an upgrade"));
    }
    Ok(id.to_owned())
}
