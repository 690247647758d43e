//! Policies of services.

use grey_core::error::Reason;
use grey_core::ids::ServiceId;
use grey_core::policy::Policy;
use grey_proto::status::ApiError;
use sea_orm::sea_query::OnConflict;
use sea_orm::{ColumnTrait, EntityTrait, IntoActiveModel, Iterable, QueryFilter};

use super::catalog::{find_service, unknown_service, unknown_version};
use super::transaction::{Attempt, Outcome, during, present};
use super::{Error, Proposed, Thing};
use crate::entity::{policies, versions};

pub(super) async fn find(
    attempt: &Attempt<'_>,
    service: &ServiceId,
) -> Result<Option<policies::Model>, Error> {
    let found = policies::Entity::find_by_id(service.as_str()).one(attempt.transaction).await;
    found.map_err(during("read the policy"))
}

pub(super) async fn put(
    attempt: &Attempt<'_>,
    proposed: &Proposed,
    service: &ServiceId,
    policy: &Policy,
) -> Result<Outcome, Error> {
    policy.validate().map_err(|broken| {
        ApiError::new(Reason::InvalidArgument, format!("policy: {broken}")).with("field", "policy")
    })?;
    if find_service(attempt, service).await?.is_none() {
        return Err(unknown_service(service.as_str()).into());
    }
    let before = find(attempt, service).await?;
    let revision = before.as_ref().map(|row| row.revision);
    Thing::of(&proposed.change).expect(proposed.expected, present(revision)?)?;
    if let Some(before) = before
        && before.policy()? == *policy
    {
        return Ok(Outcome::unchanged(before.revision));
    }
    let declared = versions::Entity::find().filter(versions::Column::Service.eq(service.as_str()));
    let declared = declared.all(attempt.transaction).await.map_err(during("read the versions"))?;
    let missing = policy.versions().find(|named| declared.iter().all(|row| row.version != named.as_str()));
    if let Some(missing) = missing {
        return Err(unknown_version(service.as_str(), missing.as_str()).into());
    }
    let row = policies::Model::of(service, policy, attempt.revision).into_active_model();
    let replace =
        OnConflict::column(policies::Column::Service).update_columns(policies::Column::iter()).to_owned();
    let insert = policies::Entity::insert(row).on_conflict(replace);
    insert.exec_without_returning(attempt.transaction).await.map_err(during("write the policy"))?;
    Ok(attempt.changed(&proposed.change))
}
