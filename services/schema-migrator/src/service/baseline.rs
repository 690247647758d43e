//! Checking files, and declaring where a database is.

use super::{Api, reason, service_id, tenant_id};
use crate::files::{Dialect, Scripts};
use crate::fleet;
use crate::jobs::{Refused, Seen, timestamp};
use crate::prepare::{database_error, invalid};
use crate::tenant::{self, Connection, Stop};
use grey_core::ids::{ServiceId, TenantId};
use grey_core::schema::SchemaVersion;
use grey_edge::Caller;
use grey_proto::schema::{
    BaselineRequest, BaselineResponse, Finding, TenantSchema, ValidateRequest, ValidateResponse,
};
use grey_proto::status::ApiError;
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;

/// Pages of databases that are looked through for kinds of databases.
const ENGINE_PAGES: usize = 100;

/// How long waiting for the lock may take.
const TIME: Duration = Duration::from_secs(60);

impl Api {
    pub(super) async fn validate(
        &self,
        _: &Caller,
        request: ValidateRequest,
    ) -> Result<ValidateResponse, ApiError> {
        let service = service_id(&request.service)?;
        let dialects = match request.dialect.as_str() {
            "" => self.engines(&service).await?,
            text => vec![text.parse::<Dialect>().map_err(|error| invalid("dialect", error))?],
        };
        let (mut findings, mut migrations) = (Vec::<Finding>::new(), 0);
        for &dialect in &dialects {
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
        let dialects = dialects.iter().map(ToString::to_string).collect();
        Ok(ValidateResponse { findings, migrations, dialects })
    }

    /// The kinds of databases that are registered for a service; all, where none is or the control plane does not say.
    async fn engines(&self, service: &ServiceId) -> Result<Vec<Dialect>, ApiError> {
        let (mut found, mut after) = (BTreeSet::new(), String::new());
        for _ in 0..ENGINE_PAGES {
            let page = self.grounds.control().databases_page(Some(service), &[], 1_000, after).await;
            let (page, next) = match page {
                Ok(page) => page,
                // Files can be checked without it.
                Err(error) if crate::control::is_transient(&error) => break,
                Err(error) => return Err(error),
            };
            let dialects = page.iter().filter_map(|it| it.database.as_ref()?.dialect.parse::<Dialect>().ok());
            found.extend(dialects);
            if next.is_empty() || found.len() == Dialect::ALL.len() {
                break;
            }
            after = next;
        }
        Ok(if found.is_empty() { Dialect::ALL.to_vec() } else { found.into_iter().collect() })
    }

    pub(super) async fn baseline(
        &self,
        asker: &Caller,
        request: BaselineRequest,
    ) -> Result<BaselineResponse, ApiError> {
        let (tenant, service) = (tenant_id(&request.tenant)?, service_id(&request.service)?);
        let why = reason(&request.reason)?;
        let schema = match request.schema.as_str() {
            "" => None,
            text => Some(SchemaVersion::new(text).map_err(|error| invalid("schema", error))?),
        };
        let connection = Box::pin(self.locked(&tenant, &service)).await?;
        let scripts = self.grounds.scripts(&service, connection.dialect()).await?;
        let id = uuid::Uuid::now_v7().to_string();
        let wanted = tenant::Baseline {
            schema: schema.as_ref(),
            scripts: &scripts,
            skip: &request.skip,
            actor: &asker.to_string(),
            id: &id,
        };
        let declared = Box::pin(tenant::baseline(&connection, &wanted)).await;
        let tenant::DeclaredBaseline { schema, covered } =
            declared.map_err(|error| database_error(&error))?;
        tracing::info!(
            tenant.id = %tenant,
            service.id = %service,
            schema.version = %schema,
            actor = %asker,
            reason = why,
            "baseline is declared"
        );
        self.keep_catalog(&connection).await;
        let seen = Box::pin(self.look(&connection, &scripts)).await?;
        Ok(BaselineResponse { schema: Some(seen), covered })
    }

    /// Keeps what the catalog is like once a person has said what it is.
    pub(super) async fn keep_catalog(&self, connection: &Connection) {
        if let Err(error) = Box::pin(connection.keep_catalog()).await {
            let tenant = &connection.target().tenant;
            tracing::warn!(tenant.id = %tenant, error = %error, "what the catalog is like is not kept");
        }
    }

    /// Connects to a database that nobody upgrades, and locks its history.
    ///
    /// # Errors
    /// An upgrade is queued or runs, another session holds the lock, or the database does not let the migrator in.
    pub(super) async fn locked(
        &self,
        tenant: &TenantId,
        service: &ServiceId,
    ) -> Result<Connection, ApiError> {
        if let Some(upgrade) = self.queue.busy(tenant, service).await? {
            return Err(Refused::Busy { upgrade }.into());
        }
        let found = self.grounds.registered(tenant, service).await?;
        let locked = async {
            let mut connection = Box::pin(Connection::open(&found.target, self.grounds.timeouts())).await?;
            connection.lock(&Stop::within(TIME, CancellationToken::new())).await?;
            Ok(connection)
        };
        Box::pin(locked).await.map_err(|error| database_error(&error))
    }

    /// Reads where a database is now, and notes it for the control plane.
    pub(super) async fn look(
        &self,
        connection: &Connection,
        scripts: &Scripts,
    ) -> Result<TenantSchema, ApiError> {
        let history = Box::pin(connection.history()).await.map_err(|error| database_error(&error))?;
        let seen = Seen {
            schema: history.present().map(ToString::to_string).unwrap_or_default(),
            fingerprint: scripts.fingerprint().to_string(),
            pending: fleet::pending(scripts, &history),
        };
        let target = connection.target();
        let (tenant, service) = (target.tenant.to_string(), target.service.to_string());
        let message = TenantSchema {
            tenant: tenant.clone(),
            service: service.clone(),
            schema: seen.schema.clone(),
            pending: seen.pending,
            seen_at: Some(timestamp(now_ms())),
            ..TenantSchema::default()
        };
        self.queue.note_all(&[(tenant, service, seen)]).await?;
        Ok(message)
    }
}

pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
