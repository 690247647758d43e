//! Where databases are: as seen last, or asked now.

use super::baseline::now_ms;
use super::{Api, MAX_TENANTS, page_size, service_id, tenant_id};
use crate::files::{Dialect, Scripts};
use crate::fleet::{Standing, check};
use crate::jobs::{Observed, Seen, Unfinished, timestamp};
use crate::plan;
use crate::prepare::invalid;
use crate::run::Goal;
use grey_core::ids::ServiceId;
use grey_edge::Caller;
use grey_proto::control::SealedDatabase;
use grey_proto::schema::{ListSchemasRequest, ListSchemasResponse, TenantSchema};
use grey_proto::status::ApiError;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

impl From<&Standing> for Seen {
    fn from(standing: &Standing) -> Self {
        Self {
            schema: standing.schema.as_ref().map(ToString::to_string).unwrap_or_default(),
            fingerprint: standing.fingerprint.as_ref().map(ToString::to_string).unwrap_or_default(),
            pending: standing.pending,
        }
    }
}

impl Api {
    pub(super) async fn list_schemas(
        &self,
        _: &Caller,
        request: ListSchemasRequest,
    ) -> Result<ListSchemasResponse, ApiError> {
        let service = match request.service.as_str() {
            "" => None,
            text => Some(service_id(text)?),
        };
        if request.tenants.len() > MAX_TENANTS {
            return Err(invalid("tenants", format!("must be at most {MAX_TENANTS}")));
        }
        let tenants =
            request.tenants.iter().map(|tenant| tenant_id(tenant)).collect::<Result<Vec<_>, _>>()?;
        let size = page_size(request.page_size)?;
        let control = self.grounds.control();
        let (page, next_page_token) =
            control.databases_page(service.as_ref(), &tenants, size, request.page_token).await?;
        let mut by_service: BTreeMap<String, Vec<SealedDatabase>> = BTreeMap::new();
        for sealed in page {
            let service = sealed.database.as_ref().map(|it| it.service.clone()).unwrap_or_default();
            by_service.entry(service).or_default().push(sealed);
        }
        let mut schemas = Vec::new();
        for (service, sealed) in by_service {
            let service = service_id(&service)?;
            schemas.extend(Box::pin(self.of_service(&service, &sealed, request.live)).await?);
        }
        schemas.sort_by(|a, b| (&a.tenant, &a.service).cmp(&(&b.tenant, &b.service)));
        Ok(ListSchemasResponse { schemas, next_page_token })
    }

    async fn of_service(
        &self,
        service: &ServiceId,
        sealed: &[SealedDatabase],
        live: bool,
    ) -> Result<Vec<TenantSchema>, ApiError> {
        let tenants: Vec<String> = sealed
            .iter()
            .filter_map(|it| it.database.as_ref())
            .map(|database| database.tenant.clone())
            .collect();
        let under_way: HashMap<String, String> =
            self.queue.under_way(service.as_str()).await?.into_iter().collect();
        let mut schemas = if live {
            Box::pin(self.ask(service, sealed, &under_way)).await?
        } else {
            let observed = self.queue.observed(service.as_str(), &tenants).await?;
            let observed: HashMap<String, Observed> =
                observed.into_iter().map(|it| (it.tenant.clone(), it)).collect();
            let told = |tenant: &String| match observed.get(tenant) {
                None => blank(tenant, service),
                Some(Observed { seen, at_ms, .. }) => TenantSchema {
                    schema: seen.schema.clone(),
                    pending: seen.pending,
                    seen_at: Some(timestamp(*at_ms)),
                    ..blank(tenant, service)
                },
            };
            tenants.iter().map(told).collect()
        };
        let unfinished = self.queue.unfinished(service.as_str(), &tenants).await?;
        let mut unfinished: HashMap<String, Unfinished> =
            unfinished.into_iter().map(|it| (it.tenant.clone(), it)).collect();
        for schema in &mut schemas {
            if let Some(it) = unfinished.remove(&schema.tenant) {
                schema.set_last_state(it.state);
                (schema.last_upgrade, schema.last_error) = (it.upgrade, it.error);
            }
            if let Some(upgrade) = under_way.get(&schema.tenant) {
                schema.upgrade.clone_from(upgrade);
            }
        }
        Ok(schemas)
    }

    /// Asks each database, and notes what it says.
    async fn ask(
        &self,
        service: &ServiceId,
        sealed: &[SealedDatabase],
        under_way: &HashMap<String, String>,
    ) -> Result<Vec<TenantSchema>, ApiError> {
        let (mut schemas, mut targets) = (Vec::new(), Vec::new());
        for sealed in sealed {
            match self.grounds.open(sealed) {
                Ok(found) => targets.push(found.target),
                Err(error) => {
                    let tenant = sealed.database.as_ref().map(|it| it.tenant.clone()).unwrap_or_default();
                    schemas.push(TenantSchema { error: error.message, ..blank(&tenant, service) });
                }
            }
        }
        let loaded = self.scripts_of(service, targets.iter().map(|target| target.dialect)).await?;
        let mut faults: BTreeMap<Dialect, String> = BTreeMap::new();
        let mut scripts: BTreeMap<Dialect, Arc<Scripts>> = BTreeMap::new();
        for (dialect, loaded) in loaded {
            match loaded {
                Ok(loaded) => drop(scripts.insert(dialect, loaded)),
                Err(error) => drop(faults.insert(dialect, error.message)),
            }
        }
        let (goal, limit) = (Goal::Up(plan::Target::Newest), self.settings.fleet_concurrency);
        let options = plan::Options::default();
        let goal = (&goal, &options);
        let standings = Box::pin(check(&targets, &scripts, goal, self.grounds.timeouts(), limit)).await;
        let now = timestamp(now_ms());
        let known: Vec<String> = targets.iter().map(|target| target.tenant.to_string()).collect();
        let before = self.queue.observed(service.as_str(), &known).await?;
        let before: HashMap<String, Seen> = before.into_iter().map(|it| (it.tenant, it.seen)).collect();
        let mut news = Vec::new();
        for (target, standing) in targets.iter().zip(standings) {
            let tenant = target.tenant.to_string();
            match standing {
                Err(error) => {
                    schemas.push(TenantSchema { error: error.to_string(), ..blank(&tenant, service) });
                }
                Ok((standing, _)) => {
                    let seen = Seen::from(&standing);
                    schemas.push(TenantSchema {
                        schema: seen.schema.clone(),
                        pending: seen.pending,
                        seen_at: Some(now),
                        error: faults.get(&target.dialect).cloned().unwrap_or_default(),
                        ..blank(&tenant, service)
                    });
                    // What is under way may be taken back; its end tells.
                    if before.get(&tenant) != Some(&seen) && !under_way.contains_key(&tenant) {
                        news.push((tenant, service.to_string(), seen));
                    }
                }
            }
        }
        self.queue.note_all(&news).await?;
        Ok(schemas)
    }
}

fn blank(tenant: &str, service: &ServiceId) -> TenantSchema {
    TenantSchema { tenant: tenant.to_owned(), service: service.to_string(), ..TenantSchema::default() }
}
