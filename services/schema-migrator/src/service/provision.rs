//! Asking for a database that is not there yet.

use super::start::tell;
use super::{Api, reason, service_id, tenant_id};
use crate::files::Scripts;
use crate::jobs::{Refused, Wanted};
use crate::lint::Rule;
use crate::plan::{Facts, History};
use crate::prepare::{database_error, invalid, verdict, waiting_steps};
use crate::provision::{Maker, Site};
use grey_core::error::Reason;
use grey_core::ids::{ServiceId, TenantId};
use grey_core::schema::{SchemaVersion, SchemaWindow};
use grey_core::service::ServiceVersion;
use grey_core::version::Version;
use grey_edge::Caller;
use grey_proto::control::overlay::Kind;
use grey_proto::control::{GetServiceResponse, PutDatabaseRequest, TenantDatabase, WriteOptions};
use grey_proto::convert::InvalidMessage;
use grey_proto::schema::{
    Provision, ProvisionRequest, ProvisionResponse, Target, UpgradeDirection, UpgradeOptions,
};
use grey_proto::status::ApiError;

impl Api {
    pub(super) async fn provision(
        &self,
        asker: &Caller,
        request: ProvisionRequest,
    ) -> Result<ProvisionResponse, ApiError> {
        let (tenant, service) = (tenant_id(&request.tenant)?, service_id(&request.service)?);
        let reason = reason(&request.reason)?;
        if let Some(upgrade) = self.queue.busy(&tenant, &service).await? {
            return Err(Refused::Busy { upgrade }.into());
        }
        let (name, site) = self.grounds.sites().choose(&request.site)?;
        let scripts = self.grounds.scripts(&service, site.dialect()?).await?.for_tenant(&tenant);
        let asked = request.target.unwrap_or_default();
        let target = self.destination((&tenant, &service), asked, &scripts).await?;
        let goal = self.grounds.goal(&service, UpgradeDirection::Up, &target).await?;
        let options = all_accepted();
        let judged = self.grounds.options(&options)?;
        let plan = goal.plan(&scripts, &History::default(), &judged, &Facts::default());
        verdict(&plan)?;
        let provision = site.provision(name, &tenant, &service, !request.inactive)?;
        self.check(asker, site, &provision, (&tenant, &service)).await?;
        let mut response = ProvisionResponse {
            plan: Some(plan.to_message(&tenant)),
            provision: Some(provision.clone()),
            upgrade: None,
        };
        if request.dry_run {
            return Ok(response);
        }
        let wanted = Wanted {
            tenant,
            service,
            direction: UpgradeDirection::Up,
            target,
            options,
            asker: asker.principal(),
            reason,
            from: String::new(),
            steps: waiting_steps(&plan),
            server: format!("{}:{}", provision.dialect, provision.server),
            flip: None,
            provision: Some(provision),
            idempotency_key: String::new(),
        };
        let job = self.queue.enqueue(&wanted).await?;
        tell(&job.upgrade);
        response.upgrade = Some(job.upgrade);
        Ok(response)
    }

    /// Refuses what cannot come to its end: what is registered already, what the control plane would not register, and what
    /// is there under the name.
    async fn check(
        &self,
        asker: &Caller,
        site: &Site,
        provision: &Provision,
        (tenant, service): (&TenantId, &ServiceId),
    ) -> Result<(), ApiError> {
        let control = self.grounds.control();
        match control.database(tenant, service).await {
            Ok(_) => {
                let text = format!(
                    "a database of tenant `{tenant}` is registered for service `{service}` already: see `grey database \
                     list`, and migrate that one"
                );
                return Err(ApiError::new(Reason::DatabaseRefused, text));
            }
            Err(error) if error.reason == Reason::UnknownDatabase => {}
            Err(error) => return Err(error),
        }
        let database = TenantDatabase {
            tenant: tenant.to_string(),
            service: service.to_string(),
            kind: provision.kind,
            schema: provision.schema.clone(),
            ..TenantDatabase::default()
        };
        let url = site.url_of(provision, "to-be-made").map_err(|error| database_error(&error))?;
        let write = WriteOptions { expected_revision: Some(0), dry_run: true, ..WriteOptions::default() };
        let request = PutDatabaseRequest {
            database: Some(database),
            url: url.expose().to_owned(),
            write: Some(write),
            activate: provision.activate,
            ..PutDatabaseRequest::default()
        };
        control.register(&asker.principal(), request).await?;
        let maker = Box::pin(Maker::open(site, provision, (tenant, service), self.grounds.timeouts())).await;
        let looked = maker.map_err(|error| database_error(&error))?.refuse_present().await;
        looked.map_err(|error| database_error(&error))
    }

    /// The schema that was asked for; or the newest on which the version that was asked for works, or else whatever would
    /// serve the tenant: the version of its pin or the default, and those that overlays try out, as far as one schema
    /// fits them.
    async fn destination(
        &self,
        (tenant, service): (&TenantId, &ServiceId),
        asked: Target,
        scripts: &Scripts,
    ) -> Result<Target, ApiError> {
        if !asked.schema.is_empty() {
            return Ok(asked);
        }
        let control = self.grounds.control();
        let catalog = control.service(service).await?;
        let (base, others) = if asked.service_version.is_empty() {
            let pin = control.pinned(tenant.as_str(), service.as_str()).await?;
            let default = catalog.service.clone().unwrap_or_default().default_version;
            (pin.map_or(default, |pin| pin.version), tried_out(&catalog))
        } else {
            (asked.service_version, Vec::new())
        };
        let window = window_of(&catalog, service, &base)?;
        let mut windows = vec![window];
        let mut newest = newest_in(scripts, &windows);
        for other in others {
            windows.push(window_of(&catalog, service, &other)?);
            match newest_in(scripts, &windows) {
                Some(schema) => newest = Some(schema),
                None => drop(windows.pop()),
            }
        }
        match newest {
            Some(schema) => Ok(Target { schema: schema.to_string(), service_version: base }),
            None if windows.iter().all(|window| window.admits(None)) => {
                Ok(Target { schema: String::new(), service_version: base })
            }
            None => {
                let needed = windows.first().map(ToString::to_string).unwrap_or_default();
                let text = format!(
                    "no file of service `{service}` leads to a schema that version {base} works on ({needed})"
                );
                Err(ApiError::new(Reason::MigrationRefused, text))
            }
        }
    }
}

/// In a database that nothing is in there is nothing to lose, and nobody who waits.
fn all_accepted() -> UpgradeOptions {
    let accept = Rule::ALL.iter().map(ToString::to_string).collect();
    UpgradeOptions { accept, ..UpgradeOptions::default() }
}

/// Versions that experiments and canaries of a service lead to.
fn tried_out(catalog: &GetServiceResponse) -> Vec<String> {
    let versions = |kind: &Kind| match kind {
        Kind::Experiment(it) => it.variants.iter().map(|variant| variant.version.clone()).collect(),
        Kind::Canary(canary) => vec![canary.canary.clone()],
    };
    catalog.overlays.iter().filter_map(|overlay| overlay.kind.as_ref()).flat_map(versions).collect()
}

fn window_of(
    catalog: &GetServiceResponse,
    service: &ServiceId,
    version: &str,
) -> Result<SchemaWindow, ApiError> {
    let wanted =
        Version::new(version).map_err(|error| invalid("target.service_version", error.to_string()))?;
    for known in &catalog.versions {
        let known = ServiceVersion::try_from(known.clone());
        let known = known.map_err(|fault: InvalidMessage| crate::control::answered(&fault))?;
        if known.version == wanted {
            return Ok(known.window);
        }
    }
    let text = format!("version {version} of service `{service}` is not declared");
    Err(ApiError::new(Reason::UnknownVersion, text))
}

/// The newest schema that files lead to and all windows admit.
fn newest_in<'s>(scripts: &'s Scripts, windows: &[SchemaWindow]) -> Option<&'s SchemaVersion> {
    let mut schemas = scripts.migrations.iter().rev().map(|migration| &migration.schema);
    schemas.find(|schema| windows.iter().all(|window| window.admits(Some(*schema))))
}
