//! Reading, following and cancelling upgrades.

use super::{Api, page_size, service_id, tenant_id};
use crate::jobs::{Filter, watch};
use crate::prepare::invalid;
use futures::{Stream, StreamExt};
use grey_core::error::Reason;
use grey_edge::Caller;
use grey_proto::schema::{
    CancelUpgradeRequest, CancelUpgradeResponse, GetUpgradeRequest, GetUpgradeResponse, ListUpgradesRequest,
    ListUpgradesResponse, Upgrade, UpgradeState, WatchUpgradeRequest,
};
use grey_proto::status::ApiError;
use std::sync::Arc;

impl Api {
    pub(super) async fn get_upgrade(
        &self,
        _: &Caller,
        request: GetUpgradeRequest,
    ) -> Result<GetUpgradeResponse, ApiError> {
        let job = self.queue.get(&request.id).await?;
        Ok(GetUpgradeResponse { upgrade: Some(job.upgrade) })
    }

    pub(super) async fn list_upgrades(
        &self,
        _: &Caller,
        request: ListUpgradesRequest,
    ) -> Result<ListUpgradesResponse, ApiError> {
        let size = page_size(request.page_size)?;
        let state = UpgradeState::try_from(request.state);
        let state = state.map_err(|_| invalid("state", "is not one of the states"))?;
        if !request.tenant.is_empty() {
            tenant_id(&request.tenant)?;
        }
        if !request.service.is_empty() {
            service_id(&request.service)?;
        }
        if !request.page_token.is_empty() && uuid::Uuid::try_parse(&request.page_token).is_err() {
            return Err(invalid("page_token", "is not one that was given"));
        }
        let filter = Filter {
            tenant: request.tenant,
            service: request.service,
            state: (state != UpgradeState::Unspecified).then_some(state),
            before: request.page_token,
            limit: size + 1,
        };
        let mut upgrades = self.queue.list(&filter).await?;
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let more = upgrades.len() > size;
        upgrades.truncate(size);
        let last = upgrades.last().filter(|_| more);
        let next_page_token = last.map(|upgrade| upgrade.id.clone()).unwrap_or_default();
        Ok(ListUpgradesResponse { upgrades, next_page_token })
    }

    pub(super) async fn cancel_upgrade(
        &self,
        asker: &Caller,
        request: CancelUpgradeRequest,
    ) -> Result<CancelUpgradeResponse, ApiError> {
        let job = self.queue.cancel(&request.id).await?;
        let upgrade = job.upgrade;
        tracing::info!(
            upgrade.id = upgrade.id,
            tenant.id = upgrade.tenant,
            service.id = upgrade.service,
            actor = %asker,
            "upgrade is to stop"
        );
        Ok(CancelUpgradeResponse { upgrade: Some(upgrade) })
    }

    /// The upgrade now and whenever it changes, until it has ended.
    pub(super) async fn follow(
        &self,
        request: WatchUpgradeRequest,
    ) -> Result<impl Stream<Item = Result<Upgrade, ApiError>> + Send + use<>, ApiError> {
        let busy =
            |_| ApiError::new(Reason::RateLimited, "too many streams of upgrades are open; close some");
        let permit = Arc::clone(&self.watchers).try_acquire_owned().map_err(busy)?;
        let stop = self.draining.clone();
        let changes = watch(&self.queue, &request.id, self.settings.poll, stop, permit).await?;
        Ok(changes.map(|change| change.map_err(ApiError::from)))
    }
}
