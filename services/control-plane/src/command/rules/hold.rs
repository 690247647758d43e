//! Holds: a tenant's calls of a service are refused between the two halves of a strict move.

use grey_core::ids::{ServiceId, TenantId};
use grey_core::key::Key;
use grey_core::service::Hold;

use super::super::attempt::{Attempt, Outcome, mismatch};
use super::super::error::Error;
use super::super::proposal::Proposed;
use super::pin;
use crate::entity::{holds, unsigned};

/// Prepares a move. What a pin to that version would be refused for, its preparation is refused for; and the revision
/// that it expects is that of the pin, which its second half sets.
pub(in super::super) async fn put(
    attempt: &Attempt<'_>,
    proposed: &Proposed,
    (tenant, service): (&TenantId, &ServiceId),
    hold: &Hold,
) -> Result<Outcome, Error> {
    let pinned = pin::check(attempt, tenant, service, &hold.to).await?;
    let pinned = pinned.map_or(Ok(0), |revision| unsigned("pins", revision))?;
    if let Some(expected) = proposed.expected.filter(|expected| *expected != pinned) {
        return Err(mismatch(Key::Pin(tenant.clone(), service.clone()), expected, pinned).into());
    }
    let row = holds::Model::of(tenant, service, hold, attempt.revision);
    attempt.write(holds::Entity, [row], "write the hold").await?;
    Ok(attempt.changed(proposed))
}

/// Lifts a hold; one that is not there is lifted already.
pub(in super::super) async fn remove(
    attempt: &Attempt<'_>,
    proposed: &Proposed,
    (tenant, service): (&TenantId, &ServiceId),
) -> Result<Outcome, Error> {
    let key = (tenant.to_string(), service.to_string());
    let before = attempt.find::<holds::Entity>(key.clone(), "read the hold").await?;
    proposed.expect(before.as_ref().map(|row| row.revision))?;
    if before.is_none() {
        return Ok(Outcome::unchanged(0));
    }
    attempt.remove(holds::Entity, key, "remove the hold").await?;
    Ok(Outcome::removed(proposed))
}
