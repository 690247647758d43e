//! Overlays of services: each gets its place in its layer here, once for all routers.

use grey_core::change::Change;
use grey_core::error::Reason;
use grey_core::ids::{OverlayId, ServiceId};
use grey_core::key::Fact;
use grey_core::policy::{MAX_OVERLAYS, NoRoom, Overlay};
use grey_proto::status::ApiError;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder};
use sha2::{Digest, Sha256};

use super::super::attempt::{Attempt, Outcome, check_room, during, in_use, unknown_overlay};
use super::super::error::Error;
use super::super::proposal::Proposed;
use crate::entity::{overlays, record_history};

pub(in super::super) async fn put(
    attempt: &Attempt<'_>,
    proposed: &Proposed,
    service: &ServiceId,
    overlay: &Overlay,
) -> Result<Outcome, Error> {
    attempt.require_service(service).await?;
    let (policy, _) = attempt.policy(service).await?;
    overlay.validate(policy.stateless).map_err(|broken| {
        ApiError::new(Reason::InvalidArgument, format!("overlay: {broken}")).with("field", "overlay")
    })?;
    let present = attempt.overlays(service).await?;
    let before = present.iter().find(|(held, _)| held.id == overlay.id);
    proposed.expect(before.map(|(_, revision)| *revision))?;
    if before.is_none() {
        check_room("overlays of the service", present.len(), MAX_OVERLAYS)?;
    }
    attempt.require_versions(service, overlay.versions()).await?;
    let others: Vec<Overlay> = present.iter().map(|(held, _)| held.clone()).collect();
    // A new layer splits its units like no other does; one that exists keeps its salt.
    let mut settled = Overlay { salt: new_salt(attempt, service, overlay).await?, ..overlay.clone() };
    settled.settle(before.map(|(held, _)| held), &others).map_err(|why| no_room(service, why))?;
    if let Some((_, revision)) = before.filter(|(held, _)| *held == settled) {
        let completed = Some(Fact::Overlay(service.clone(), Box::new(settled)));
        return Ok(Outcome { completed, ..Outcome::unchanged(*revision) });
    }
    let row = overlays::Model::of(service, &settled, attempt.revision);
    attempt.write(overlays::Entity, [row], "write the overlay").await?;
    let fact = Fact::Overlay(service.clone(), Box::new(settled));
    let changes = vec![Change::Put(fact.clone())];
    Ok(Outcome { revision: attempt.revision, completed: Some(fact), changes })
}

/// A salt that no layer had before, of this service or of another, and that a dry run tells as the write has it: the
/// service has been at each of its revisions once.
async fn new_salt(attempt: &Attempt<'_>, service: &ServiceId, overlay: &Overlay) -> Result<String, Error> {
    let newest = record_history::Entity::find()
        .filter(record_history::Column::Kind.eq(record_history::SERVICE))
        .filter(record_history::Column::Id.eq(service.as_str()))
        .order_by_desc(record_history::Column::Revision)
        .one(attempt.transaction);
    let newest = newest.await.map_err(during("read the service's history"))?;
    let parts = (service.as_str(), overlay.layer.as_str(), newest.map_or(0, |row| row.revision));
    Ok(Sha256::digest(format!("{parts:?}")).iter().take(16).map(|byte| format!("{byte:02x}")).collect())
}

/// What to do where a layer cannot take an overlay.
fn no_room(service: &ServiceId, why: NoRoom) -> ApiError {
    match why {
        NoRoom::Full { layer, free, wanted } => {
            let message = format!(
                "layer `{layer}` of service `{service}` has {free} parts of its units left, {wanted} more are needed; \
                 lower the weight of its other overlays first, or put the overlay into another layer"
            );
            let refusal = in_use(message, &["layer"]).with("layer", layer.as_str());
            refusal.with("free", free.to_string()).with("wanted", wanted.to_string())
        }
        NoRoom::OtherUnit(layer) => {
            let message = format!(
                "layer `{layer}` of service `{service}` splits by another unit; let the overlay split by the same, or \
                 put it into another layer"
            );
            in_use(message, &["layer"]).with("layer", layer.as_str())
        }
    }
}

pub(in super::super) async fn remove(
    attempt: &Attempt<'_>,
    proposed: &Proposed,
    service: &ServiceId,
    id: &OverlayId,
) -> Result<Outcome, Error> {
    attempt.require_service(service).await?;
    let key = (service.to_string(), id.to_string());
    let before = attempt.find::<overlays::Entity>(key.clone(), "read the overlay").await?;
    proposed.expect(before.as_ref().map(|row| row.revision))?;
    if before.is_none() {
        return Err(unknown_overlay(service, id).into());
    }
    attempt.remove(overlays::Entity, key, "remove the overlay").await?;
    Ok(Outcome::removed(proposed))
}
