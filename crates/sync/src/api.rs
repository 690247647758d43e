//! The operations, alike for both transports: who may, what is asked, what is answered.

use std::time::Duration;

use axum::http::Extensions;
use grey_edge::{Role, admit};
use grey_proto::convert::InvalidMessage;
use grey_proto::status::ApiError;
use grey_proto::sync::{
    AcceptRequest, AcceptResponse, GetStatusResponse, HandledRequest, TriggerRequest, TriggerResponse,
};
use pbjson_types::Duration as WireDuration;

use crate::Desk;

/// Longest wait for the end of a request.
pub const MAX_WAIT: Duration = Duration::from_secs(600);
/// What callers of [`grey_edge::Ports::serve`] set as deadline, so that a wait ends with an answer.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(630);

pub(crate) async fn get_status(desk: &Desk, caller: &Extensions) -> Result<GetStatusResponse, ApiError> {
    admit(caller, Role::Viewer, "read the sync status")?;
    Ok(GetStatusResponse { status: Some(desk.status().await?) })
}

pub(crate) async fn trigger(
    desk: &Desk,
    caller: &Extensions,
    asked: TriggerRequest,
) -> Result<TriggerResponse, ApiError> {
    let caller = admit(caller, Role::Operator, "run a sync")?;
    let wait = wait(asked.wait)?;
    let request = desk.trigger(&caller.to_string()).await?;
    let handled = ended(desk, &request, wait).await;
    Ok(TriggerResponse { request, handled })
}

pub(crate) async fn accept(
    desk: &Desk,
    caller: &Extensions,
    asked: AcceptRequest,
) -> Result<AcceptResponse, ApiError> {
    let caller = admit(caller, Role::Operator, "accept a held change")?;
    let wait = wait(asked.wait)?;
    if asked.change.is_empty() {
        return Err(InvalidMessage::missing("change").into());
    }
    let request = desk.accept(&asked.change, &caller.to_string()).await?;
    let handled = ended(desk, &request, wait).await;
    Ok(AcceptResponse { request, handled })
}

/// Reads how long to wait; none and zero: not at all.
fn wait(wait: Option<WireDuration>) -> Result<Option<Duration>, ApiError> {
    let Some(wait) = wait else { return Ok(None) };
    let seconds = u64::try_from(wait.seconds).ok();
    let nanos = u32::try_from(wait.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    let read = seconds.zip(nanos).map(|(seconds, nanos)| Duration::new(seconds, nanos));
    let read = read.filter(|wait| *wait <= MAX_WAIT);
    let invalid = || InvalidMessage::new("wait", "must be a duration from 0s to 600s");
    Ok(Some(read.ok_or_else(invalid)?).filter(|wait| !wait.is_zero()))
}

/// How the request ended, if that was seen in time. Not to have seen it is no failure: the request is on its way.
async fn ended(desk: &Desk, request: &str, wait: Option<Duration>) -> Option<HandledRequest> {
    match desk.outcome(request, wait?).await {
        Ok(handled) => handled,
        Err(error) => {
            tracing::debug!(request.id = request, %error, "end of a request could not be seen");
            None
        }
    }
}
