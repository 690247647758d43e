//! Policies of services.

use grey_core::error::Reason;
use grey_core::ids::ServiceId;
use grey_core::policy::{Policy, Unit};
use grey_proto::status::ApiError;

use super::super::attempt::{Attempt, Outcome, in_use};
use super::super::error::Error;
use super::super::proposal::Proposed;
use crate::entity::policies;

pub(in super::super) async fn put(
    attempt: &Attempt<'_>,
    proposed: &Proposed,
    service: &ServiceId,
    policy: &Policy,
) -> Result<Outcome, Error> {
    policy.validate().map_err(|broken| {
        ApiError::new(Reason::InvalidArgument, format!("policy: {broken}")).with("field", "policy")
    })?;
    attempt.require_service(service).await?;
    let (before, revision) = attempt.policy(service).await?;
    proposed.expect(revision)?;
    if let Some(revision) = revision.filter(|_| before == *policy) {
        return Ok(Outcome::unchanged(revision));
    }
    attempt.require_versions(service, policy.versions()).await?;
    check_overlays(attempt, service, policy).await?;
    let row = policies::Model::of(service, policy, attempt.revision);
    attempt.write(policies::Entity, [row], "write the policy").await?;
    Ok(attempt.changed(proposed))
}

/// Goes back to the default policy.
pub(in super::super) async fn remove(
    attempt: &Attempt<'_>,
    proposed: &Proposed,
    service: &ServiceId,
) -> Result<Outcome, Error> {
    attempt.require_service(service).await?;
    let (_, revision) = attempt.policy(service).await?;
    proposed.expect(revision)?;
    if revision.is_none() {
        return Ok(Outcome::unchanged(0));
    }
    check_overlays(attempt, service, &Policy::default()).await?;
    attempt.remove(policies::Entity, service.as_str(), "remove the policy").await?;
    Ok(Outcome::removed(proposed))
}

/// A service that keeps state between calls is not split by user or by request.
async fn check_overlays(attempt: &Attempt<'_>, service: &ServiceId, policy: &Policy) -> Result<(), Error> {
    if policy.stateless {
        return Ok(());
    }
    let overlays = attempt.overlays(service).await?;
    let finer = overlays.iter().filter(|(overlay, _)| overlay.unit != Unit::Tenant);
    let finer: Vec<&str> = finer.map(|(overlay, _)| overlay.id.as_str()).collect();
    if finer.is_empty() {
        return Ok(());
    }
    let message = format!(
        "the policy of service `{service}` must stay stateless while overlays split by user or request: {}; remove \
         them, or let them split by tenant, first",
        finer.join(", ")
    );
    Err(in_use(message, &["overlays"]).with("overlays", finer.join(",")).into())
}
