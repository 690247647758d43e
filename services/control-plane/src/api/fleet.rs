//! The routers that follow this control plane.

use std::time::Duration;

use grey_core::change::Revision;
use grey_core::error::Reason;
use grey_core::ids::InstanceId;
use grey_core::text::{NOT_PLAIN, is_plain};
use grey_edge::Caller;
use grey_proto::control::{
    DismissRouterRequest, DismissRouterResponse, ListRoutersRequest, ListRoutersResponse,
    WaitForRoutersRequest, WaitForRoutersResponse,
};
use grey_proto::status::ApiError;

use super::{Api, id, invalid, wait};
use crate::command::MAX_REASON;

/// The wait if the request does not say.
pub(super) const USUAL_WAIT: Duration = Duration::from_secs(5);

impl Api {
    /// Lists routers by id: those that count are known though shared state is away.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn list_routers(
        &self,
        _: &Caller,
        request: ListRoutersRequest,
    ) -> Result<ListRoutersResponse, ApiError> {
        let (routers, fault) = self.0.fleet.list(request.former).await?;
        Ok(ListRoutersResponse { routers, fault: fault.unwrap_or_default().to_owned() })
    }

    /// Waits until every router that may still answer has applied a revision; names those that have not. Whether that is
    /// so, the answer says.
    ///
    /// # Errors
    /// A timeout out of range, a revision beyond the log, or the database is away.
    pub async fn wait_for_routers(
        &self,
        _: &Caller,
        request: WaitForRoutersRequest,
    ) -> Result<WaitForRoutersResponse, ApiError> {
        let limit = match request.timeout {
            None => USUAL_WAIT,
            Some(given) => wait(Some(given), "timeout")?.unwrap_or_default(),
        };
        let mut target = self.0.database.head().await?;
        if request.revision > target.revision.0 {
            let message =
                format!("the log ends at revision {}, before {}", target.revision, request.revision);
            return Err(ApiError::new(Reason::RevisionUnavailable, message));
        }
        if request.revision > 0 {
            target.revision = Revision(request.revision);
        }
        let progress = self.0.fleet.wait(&target, limit).await;
        Ok(WaitForRoutersResponse { progress: Some(progress) })
    }

    /// Stops counting a router that fell silent.
    ///
    /// # Errors
    /// A malformed id, no reason, a router that is live or unknown, or the database is away.
    pub async fn dismiss_router(
        &self,
        caller: &Caller,
        request: DismissRouterRequest,
    ) -> Result<DismissRouterResponse, ApiError> {
        let router: InstanceId = id("id", &request.id)?;
        if !is_plain(&request.reason) {
            return Err(invalid("reason", NOT_PLAIN));
        }
        let reason = request.reason.trim();
        if reason.is_empty() || reason.len() > MAX_REASON {
            return Err(invalid("reason", format!("must say why, in at most {MAX_REASON} bytes")));
        }
        let remark = format!("dismissed by {caller}: {reason}");
        let dismissed = self.0.fleet.dismiss(router.as_str(), remark).await?;
        tracing::warn!(router.id = %router, actor = %caller, reason, "router dismissed");
        Ok(DismissRouterResponse { router: Some(dismissed) })
    }
}
