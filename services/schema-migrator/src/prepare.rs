//! What an upgrade starts from: the tenant's database with its credentials opened, the files, and where they lead.

use crate::control::{Control, answered};
use crate::files::{Dialect, FilesError, Folder, Repeatable, Scripts};
use crate::lint::{Finding, Level, Rule};
use crate::plan::{self, Plan, Refused, Stopped, rules};
use crate::provision::Sites;
use crate::run::{Goal, Tooling, plan_on};
use crate::tenant::{self, Connection, Timeouts};
use grey_core::error::Reason;
use grey_core::ids::{ServiceId, TenantId};
use grey_core::schema::SchemaVersion;
use grey_core::version::Version;
use grey_database_url::{DatabaseUrl, Guard, direct_context};
use grey_proto::control::{DatabaseKind, SealedDatabase};
use grey_proto::convert::InvalidMessage;
use grey_proto::schema::{StepState, Target, UpgradeDirection, UpgradeOptions, UpgradeStep};
use grey_proto::status::ApiError;
use grey_vault::{SealedKey, Vault};
use std::sync::Arc;

/// A tenant's database that is ready to be connected to.
#[derive(Debug, Clone)]
pub struct Registered {
    /// The database.
    pub target: tenant::Target,
    /// The server that it is on.
    pub server: String,
}

/// Finds what upgrades start from. Cheap to clone.
#[derive(Clone)]
pub struct Grounds {
    control: Control,
    vault: Option<Arc<Vault>>,
    folder: Folder,
    timeouts: Timeouts,
    options: plan::Options,
    tooling: Arc<Tooling>,
    guard: Guard,
    sites: Arc<Sites>,
}

impl Grounds {
    /// Without a `vault` no credentials can be opened. `options` says how findings weigh, `guard` where databases may be.
    #[must_use]
    pub fn new(
        control: Control,
        vault: Option<Vault>,
        folder: Folder,
        timeouts: Timeouts,
        options: plan::Options,
        tooling: Tooling,
        guard: Guard,
    ) -> Self {
        let tooling = Arc::new(tooling);
        let (vault, sites) = (vault.map(Arc::new), Arc::default());
        Self { control, vault, folder, timeouts, options, tooling, guard, sites }
    }

    /// With sites that databases can be made at.
    #[must_use]
    pub fn with_sites(self, sites: Sites) -> Self {
        Self { sites: Arc::new(sites), ..self }
    }

    /// Where databases can be made.
    #[must_use]
    pub fn sites(&self) -> &Sites {
        &self.sites
    }

    /// The control plane.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// What migrations are run with besides the database.
    #[must_use]
    pub fn tooling(&self) -> &Tooling {
        &self.tooling
    }

    /// How long is waited for tenants' databases.
    #[must_use]
    pub fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// Finds a tenant's database.
    ///
    /// # Errors
    /// None is registered, its credentials do not open, or the control plane is away.
    pub async fn registered(&self, tenant: &TenantId, service: &ServiceId) -> Result<Registered, ApiError> {
        let sealed = self.control.database(tenant, service).await?;
        self.open(&sealed)
    }

    /// Opens the credentials of a registered database.
    ///
    /// # Errors
    /// They do not open.
    pub fn open(&self, sealed: &SealedDatabase) -> Result<Registered, ApiError> {
        let database = sealed.database.as_ref();
        let database = database.ok_or_else(|| answered(&InvalidMessage::missing("database")))?;
        let unreadable = |why: String| ApiError::new(Reason::Unavailable, why);
        let tenant = TenantId::new(&database.tenant).map_err(|error| unreadable(error.to_string()))?;
        let service = ServiceId::new(&database.service).map_err(|error| unreadable(error.to_string()))?;
        let dialect = database.dialect.parse::<Dialect>().map_err(|error| unreadable(error.to_string()))?;
        let vault = self.vault.as_ref().ok_or_else(|| {
            unreadable(
                "this migrator has no master key to open credentials with: configure [vault]".to_owned(),
            )
        })?;
        let key = SealedKey::new(sealed.sealed_key.as_str());
        let (context, sealed_url) = match sealed.sealed_direct_url.as_str() {
            "" => (service.to_string(), &sealed.sealed_url),
            _ => (direct_context(service.as_str()), &sealed.sealed_direct_url),
        };
        let url = vault.open(tenant.as_str(), &key, &context, sealed_url).map_err(|error| {
            unreadable(format!("open the credentials of tenant `{tenant}` for service `{service}`: {error}"))
        })?;
        // It may have been registered by other rules than these, or beside the control plane.
        let parsed = DatabaseUrl::parse(url.expose()).and_then(|url| self.guard.check(&url).map(|()| url));
        let parsed = parsed.map_err(|why| {
            let message = format!("the registered url of tenant `{tenant}` for service `{service}` {why}");
            ApiError::new(Reason::DatabaseRefused, message)
        })?;
        let schema = (database.kind() == DatabaseKind::Schema).then(|| database.schema.clone());
        let target = tenant::Target { tenant, service, dialect, url, schema };
        Ok(Registered { target, server: format!("{}:{}", database.dialect, parsed.server()) })
    }

    /// Reads a service's files.
    ///
    /// # Errors
    /// There are none, or something is wrong with them.
    pub async fn scripts(&self, service: &ServiceId, dialect: Dialect) -> Result<Arc<Scripts>, ApiError> {
        let (folder, id) = (self.folder.clone(), service.clone());
        let loaded = tokio::task::spawn_blocking(move || folder.load(&id, dialect)).await;
        match loaded {
            Ok(Ok(scripts)) => Ok(Arc::new(scripts)),
            Ok(Err(error)) => Err(files_error(&error)),
            Err(error) => Err(ApiError::new(Reason::Internal, format!("read migration files: {error}"))),
        }
    }

    /// Checks a service's files without a database: everything that is wrong with them, and how many there are.
    ///
    /// # Errors
    /// There is no folder of that service, or it cannot be read.
    pub async fn validate(
        &self,
        service: &ServiceId,
        dialect: Dialect,
    ) -> Result<(Vec<Finding>, u32), ApiError> {
        let (folder, id) = (self.folder.clone(), service.clone());
        let options = self.options.clone();
        let judged = tokio::task::spawn_blocking(move || match folder.load(&id, dialect) {
            Ok(scripts) => {
                let findings = crate::lint::validate(&scripts, &options);
                Ok((findings, u32::try_from(scripts.migrations.len()).unwrap_or(u32::MAX)))
            }
            Err(FilesError::Faulty { faults, .. }) => Ok((faults.iter().map(Finding::from).collect(), 0)),
            Err(error) => Err(files_error(&error)),
        });
        let internal = |error| ApiError::new(Reason::Internal, format!("judge migration files: {error}"));
        judged.await.map_err(internal)?
    }

    /// Where an upgrade leads.
    ///
    /// # Errors
    /// The target is malformed, or the service version is not declared.
    pub async fn goal(
        &self,
        service: &ServiceId,
        direction: UpgradeDirection,
        target: &Target,
    ) -> Result<Goal, ApiError> {
        let schema = match target.schema.as_str() {
            "" => None,
            text => {
                Some(SchemaVersion::new(text).map_err(|error| invalid("target.schema", error.to_string()))?)
            }
        };
        if direction == UpgradeDirection::Down {
            let start =
                schema.ok_or_else(|| invalid("schema", "is missing; `0` is before the first migration"))?;
            return Ok(Goal::Down(Some(start).filter(|schema| schema.to_string() != "0")));
        }
        let window = match target.service_version.as_str() {
            "" => None,
            text => {
                let version = Version::new(text)
                    .map_err(|error| invalid("target.service_version", error.to_string()))?;
                Some(self.control.window(service, &version).await?)
            }
        };
        match (schema, window) {
            (None, None) => Ok(Goal::Up(plan::Target::Newest)),
            (None, Some(window)) => Ok(Goal::Up(plan::Target::Window(window))),
            (Some(schema), Some(window)) if !window.admits(Some(&schema)) => {
                let message = format!(
                    "service version {} works on schemas {window}, not on {schema}",
                    target.service_version
                );
                Err(ApiError::new(Reason::MigrationRefused, message))
            }
            (Some(schema), _) => Ok(Goal::Up(plan::Target::Version(schema))),
        }
    }

    /// What an upgrade may do.
    ///
    /// # Errors
    /// A rule is not one.
    pub fn options(&self, options: &UpgradeOptions) -> Result<plan::Options, ApiError> {
        let accept = options.accept.iter().map(|rule| rule.parse::<Rule>()).collect::<Result<_, _>>();
        let accept = accept.map_err(|error| invalid("options.accept", error.to_string()))?;
        let contract = options.contract.iter().cloned().collect();
        Ok(plan::Options { out_of_order: options.out_of_order, accept, contract, ..self.options.clone() })
    }

    /// Works out what would be run.
    ///
    /// # Errors
    /// The database does not answer or does not let the migrator in.
    pub async fn plan(
        &self,
        target: &tenant::Target,
        scripts: &Arc<Scripts>,
        goal: &Goal,
        options: &plan::Options,
    ) -> Result<Plan, ApiError> {
        let scripts = Arc::clone(scripts).for_tenant(&target.tenant);
        let connection = Box::pin(Connection::open(target, &self.timeouts)).await;
        let connection = connection.map_err(|error| database_error(&error))?;
        let history = Box::pin(connection.history()).await.map_err(|error| database_error(&error))?;
        let plan = Box::pin(plan_on(&connection, &scripts, &history, goal, options)).await;
        plan.map_err(|error| database_error(&error))
    }
}

/// Whether an upgrade with this plan may be queued. What is half done forbids it not: that is recovered first.
///
/// # Errors
/// With everything that forbids it.
pub fn verdict(plan: &Plan) -> Result<(), ApiError> {
    let forbids = |finding: &&Finding| finding.level > Level::Warning && finding.rule != rules::LEFTOVER;
    let findings: Vec<Finding> = plan.all_findings().filter(forbids).cloned().collect();
    if findings.is_empty() {
        return Ok(());
    }
    let rules: Vec<&str> = findings.iter().map(|finding| finding.rule).collect();
    let rules = rules.join(",");
    let refused = Refused { findings };
    Err(ApiError::new(refused.reason(), refused.to_string()).with("rules", rules))
}

/// The steps of an upgrade that follows a plan.
#[must_use]
pub fn waiting_steps(plan: &Plan) -> Vec<UpgradeStep> {
    let step = |step: &plan::PlannedStep| UpgradeStep {
        schema: step.migration.schema.to_string(),
        description: step.migration.description.clone(),
        state: StepState::Waiting.into(),
        statements: u32::try_from(step.steps(plan.direction).len()).unwrap_or(u32::MAX),
        ..UpgradeStep::default()
    };
    let repeatable = |it: &Arc<Repeatable>| UpgradeStep {
        description: it.description.clone(),
        state: StepState::Waiting.into(),
        statements: u32::try_from(it.steps.len()).unwrap_or(u32::MAX),
        ..UpgradeStep::default()
    };
    let all = plan.steps.iter().map(step).chain(plan.repeatables.iter().map(repeatable));
    all.chain(plan.stopped.as_ref().map(stopped_step)).collect()
}

/// The step that an upgrade stops before, as one that waits and says why.
#[must_use]
pub fn stopped_step(stopped: &Stopped) -> UpgradeStep {
    UpgradeStep {
        schema: stopped.migration.schema.to_string(),
        description: stopped.migration.description.clone(),
        state: StepState::Waiting.into(),
        statements: u32::try_from(stopped.migration.steps.len()).unwrap_or(u32::MAX),
        error: stopped.why.clone(),
        ..UpgradeStep::default()
    }
}

/// Why a tenant's database did not do what was asked, as callers read it.
#[must_use]
pub fn database_error(error: &tenant::Error) -> ApiError {
    ApiError::new(error.reason(), error.to_string())
}

fn files_error(error: &FilesError) -> ApiError {
    match error {
        FilesError::Read { .. } => {
            tracing::error!(error = ?error, "migration files cannot be read");
            ApiError::new(Reason::Unavailable, error.to_string())
        }
        _ => ApiError::new(Reason::MigrationRefused, error.to_string()),
    }
}

/// A field of a request is malformed.
pub(crate) fn invalid(field: &str, why: impl std::fmt::Display) -> ApiError {
    ApiError::new(Reason::InvalidArgument, format!("{field} {why}")).with("field", field)
}
