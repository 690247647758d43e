//! What was done to a database, and whether it is still as that has left it.

use super::baseline::now_ms;
use super::{Api, reason, service_id, tenant_id};
use crate::jobs::{Filter, timestamp};
use crate::plan::Outcome;
use crate::prepare::{database_error, invalid};
use crate::tenant::{self, Accepted, Change, Connection, Difference};
use grey_edge::Caller;
use grey_proto::schema::{
    AcceptDriftRequest, AcceptDriftResponse, AcceptFileRequest, AcceptFileResponse, DriftChange,
    DriftDifference, GetDriftRequest, GetDriftResponse, GetHistoryRequest, GetHistoryResponse, HistoryEntry,
    HistoryOutcome,
};
use grey_proto::status::ApiError;

/// Most past upgrades that a history tells.
const UPGRADES: u32 = 100;

impl Api {
    pub(super) async fn get_history(
        &self,
        _: &Caller,
        request: GetHistoryRequest,
    ) -> Result<GetHistoryResponse, ApiError> {
        let (tenant, service) = (tenant_id(&request.tenant)?, service_id(&request.service)?);
        let found = self.grounds.registered(&tenant, &service).await?;
        let read = async {
            let connection = Box::pin(Connection::open(&found.target, self.grounds.timeouts())).await?;
            Box::pin(tenant::entered(&connection)).await
        };
        let entries = Box::pin(read).await.map_err(|error| database_error(&error))?;
        let filter = Filter {
            tenant: tenant.to_string(),
            service: service.to_string(),
            limit: UPGRADES,
            ..Filter::default()
        };
        let upgrades = self.queue.list(&filter).await?;
        let entries = entries.into_iter().map(|it| HistoryEntry {
            schema: it.version.to_string(),
            description: it.description,
            checksum: it.checksum.unwrap_or_default(),
            outcome: outcome(it.outcome).into(),
            actor: it.actor,
            upgrade: it.upgrade,
            started_at: Some(timestamp(it.started_at_ms)),
            ended_at: Some(timestamp(it.ended_at_ms)),
        });
        Ok(GetHistoryResponse {
            tenant: tenant.to_string(),
            service: service.to_string(),
            entries: entries.collect(),
            upgrades,
        })
    }

    pub(super) async fn get_drift(
        &self,
        _: &Caller,
        request: GetDriftRequest,
    ) -> Result<GetDriftResponse, ApiError> {
        let (tenant, service) = (tenant_id(&request.tenant)?, service_id(&request.service)?);
        let found = self.grounds.registered(&tenant, &service).await?;
        // Files that are faulty do not hide what was changed by hand.
        let scripts = self.grounds.scripts(&service, found.target.dialect).await.ok();
        let compare = async {
            let connection = Box::pin(Connection::open(&found.target, self.grounds.timeouts())).await?;
            let history = Box::pin(connection.history()).await?;
            let drift = Box::pin(connection.drift(scripts.as_deref())).await?;
            Ok::<_, tenant::Error>((history, drift))
        };
        let (history, drift) = Box::pin(compare).await.map_err(|error| database_error(&error))?;
        let difference = |it: Difference| DriftDifference {
            object: it.object,
            change: match it.change {
                Change::Added => DriftChange::Added,
                Change::Removed => DriftChange::Removed,
                Change::Changed => DriftChange::Changed,
            }
            .into(),
        };
        Ok(GetDriftResponse {
            tenant: tenant.to_string(),
            service: service.to_string(),
            schema: history.present().map(ToString::to_string).unwrap_or_default(),
            left_at: drift.left_at_ms.map(timestamp),
            differences: drift.differences.into_iter().map(difference).collect(),
            invalid_indexes: drift.invalid_indexes,
            seen_at: Some(timestamp(now_ms())),
        })
    }

    pub(super) async fn accept_drift(
        &self,
        asker: &Caller,
        request: AcceptDriftRequest,
    ) -> Result<AcceptDriftResponse, ApiError> {
        let (tenant, service) = (tenant_id(&request.tenant)?, service_id(&request.service)?);
        let why = reason(&request.reason)?;
        let connection = Box::pin(self.locked(&tenant, &service)).await?;
        let kept = async {
            if connection.history().await?.is_blank() {
                let text = "accept what the database is like: it has no history to keep that with";
                return Err(tenant::Error::Conflict(text.to_owned()));
            }
            connection.keep_catalog().await
        };
        Box::pin(kept).await.map_err(|error| database_error(&error))?;
        tracing::info!(
            tenant.id = %tenant,
            service.id = %service,
            actor = %asker,
            reason = why,
            "what the database is like is accepted"
        );
        Ok(AcceptDriftResponse {})
    }

    pub(super) async fn accept_file(
        &self,
        asker: &Caller,
        request: AcceptFileRequest,
    ) -> Result<AcceptFileResponse, ApiError> {
        let (tenant, service) = (tenant_id(&request.tenant)?, service_id(&request.service)?);
        let why = reason(&request.reason)?;
        if why.trim().is_empty() {
            return Err(invalid("reason", "is missing: the history keeps why a changed file was accepted"));
        }
        let connection = Box::pin(self.locked(&tenant, &service)).await?;
        let scripts = self.grounds.scripts(&service, connection.dialect()).await?;
        let (id, actor) = (uuid::Uuid::now_v7().to_string(), asker.to_string());
        let accepted =
            Accepted { file: &request.file, scripts: &scripts, actor: &actor, reason: &why, id: &id };
        let version = Box::pin(tenant::accept(&connection, &accepted)).await;
        let version = version.map_err(|error| database_error(&error))?;
        tracing::info!(
            tenant.id = %tenant,
            service.id = %service,
            schema.version = %version,
            file = request.file,
            actor = %asker,
            reason = why,
            "a file that was changed or is gone is accepted"
        );
        let seen = Box::pin(self.look(&connection, &scripts)).await?;
        Ok(AcceptFileResponse { schema: Some(seen) })
    }
}

fn outcome(outcome: Outcome) -> HistoryOutcome {
    match outcome {
        Outcome::Applied => HistoryOutcome::Applied,
        Outcome::Baseline => HistoryOutcome::Baseline,
        Outcome::Undone => HistoryOutcome::Undone,
        Outcome::Accepted => HistoryOutcome::Accepted,
        Outcome::Repeated => HistoryOutcome::Repeated,
        Outcome::Failed => HistoryOutcome::Failed,
    }
}
