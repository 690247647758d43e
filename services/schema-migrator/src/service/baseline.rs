//! Checking files, and declaring where a database is.

use super::{Api, Asker, reason, service_id, tenant_id};
use crate::files::Dialect;
use crate::jobs::{Refused, Seen, timestamp};
use crate::prepare::{database_error, invalid};
use crate::tenant::{self, Connection, Stop};
use grey_core::schema::SchemaVersion;
use grey_proto::schema::{
    BaselineRequest, BaselineResponse, Finding, TenantSchema, ValidateRequest, ValidateResponse,
};
use grey_proto::status::ApiError;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;

/// How long declaring may take.
const TIME: Duration = Duration::from_secs(60);

impl Api {
    pub(super) async fn validate(
        &self,
        _: &Asker,
        request: ValidateRequest,
    ) -> Result<ValidateResponse, ApiError> {
        let service = service_id(&request.service)?;
        let dialects = match request.dialect.as_str() {
            "" => Dialect::ALL.to_vec(),
            text => vec![text.parse::<Dialect>().map_err(|error| invalid("dialect", error))?],
        };
        let (mut findings, mut migrations) = (Vec::<Finding>::new(), 0);
        for dialect in dialects {
            let (found, read) = self.grounds.validate(&service, dialect).await?;
            migrations = migrations.max(read);
            for finding in &found {
                let finding = Finding::from(finding);
                // What is wrong for every dialect is told once.
                if !findings.contains(&finding) {
                    findings.push(finding);
                }
            }
        }
        findings.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        Ok(ValidateResponse { findings, migrations })
    }

    pub(super) async fn baseline(
        &self,
        asker: &Asker,
        request: BaselineRequest,
    ) -> Result<BaselineResponse, ApiError> {
        let (tenant, service) = (tenant_id(&request.tenant)?, service_id(&request.service)?);
        let why = reason(&request.reason)?;
        let schema = match request.schema.as_str() {
            "" => None,
            text => Some(SchemaVersion::new(text).map_err(|error| invalid("schema", error))?),
        };
        if let Some(upgrade) = self.queue.busy(&tenant, &service).await? {
            return Err(Refused::Busy { upgrade }.into());
        }
        let found = self.grounds.registered(&tenant, &service).await?;
        let scripts = self.grounds.scripts(&service, found.target.dialect).await?;
        let id = uuid::Uuid::now_v7().to_string();
        let declared = async {
            let mut connection = Box::pin(Connection::open(&found.target, self.grounds.timeouts())).await?;
            connection.lock(&Stop::within(TIME, CancellationToken::new())).await?;
            Box::pin(tenant::baseline(&connection, schema.as_ref(), &asker.actor, &id)).await
        };
        let schema = Box::pin(declared).await.map_err(|error| database_error(&error))?;
        let newer = scripts.migrations.iter().filter(|migration| migration.schema > schema).count();
        let seen = Seen {
            schema: schema.to_string(),
            fingerprint: scripts.fingerprint().to_string(),
            pending: u32::try_from(newer).unwrap_or(u32::MAX),
        };
        tracing::info!(
            tenant.id = %tenant,
            service.id = %service,
            schema.version = %schema,
            actor = asker.actor,
            reason = why,
            "baseline is declared"
        );
        let message = TenantSchema {
            tenant: tenant.to_string(),
            service: service.to_string(),
            schema: seen.schema.clone(),
            pending: seen.pending,
            seen_at: Some(timestamp(now_ms())),
            ..TenantSchema::default()
        };
        self.queue.note_all(&[(tenant.to_string(), service.to_string(), seen)]).await?;
        Ok(BaselineResponse { schema: Some(message) })
    }
}

pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
