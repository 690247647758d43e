//! Planning and starting upgrades, of one tenant or of many.

use super::{Api, MAX_TENANTS, reason, service_id, tenant_id};
use crate::files::{Dialect, Scripts};
use crate::fleet::check;
use crate::jobs::{Refused, Seen, Wanted};
use crate::plan::{Facts, History, Plan};
use crate::prepare::{Registered, invalid, stopped_step, verdict, waiting_steps};
use crate::run::Goal;
use crate::tenant::facts_of_many;
use grey_core::error::Reason;
use grey_core::ids::{ServiceId, TenantId};
use grey_edge::{Caller, Role};
use grey_proto::schema::{
    Flip, FlipState, PlanRequest, PlanResponse, RollbackRequest, RollbackResponse, StartUpgradeRequest,
    StartUpgradeResponse, StartUpgradesRequest, StartUpgradesResponse, StartedUpgrade, Target, Upgrade,
    UpgradeDirection, UpgradeOptions,
};
use grey_proto::status::ApiError;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Most bytes of an idempotency key.
const MAX_KEY: usize = 64;

impl Api {
    pub(super) async fn plan(&self, _: &Caller, request: PlanRequest) -> Result<PlanResponse, ApiError> {
        let (tenant, service) = (tenant_id(&request.tenant)?, service_id(&request.service)?);
        let options = self.grounds.options(&request.options.unwrap_or_default())?;
        let registered = self.grounds.registered(&tenant, &service).await?;
        let scripts = self.grounds.scripts(&service, registered.target.dialect).await?;
        let target = request.target.unwrap_or_default();
        let direction = UpgradeDirection::try_from(request.direction);
        let direction = direction.map_err(|_| invalid("direction", "is not one of the directions"))?;
        let goal = self.grounds.goal(&service, direction, &target).await?;
        let plan = Box::pin(self.grounds.plan(&registered.target, &scripts, &goal, &options)).await?;
        Ok(PlanResponse { plan: Some(plan.to_message(&tenant)) })
    }

    pub(super) async fn start_upgrade(
        &self,
        asker: &Caller,
        request: StartUpgradeRequest,
    ) -> Result<StartUpgradeResponse, ApiError> {
        if request.idempotency_key.len() > MAX_KEY {
            return Err(invalid("idempotency_key", format!("must have at most {MAX_KEY} bytes")));
        }
        let mut wanted = self.wanted(
            asker,
            UpgradeDirection::Up,
            (&request.tenant, &request.service),
            request.target,
            request.options,
            &request.reason,
        )?;
        wanted.idempotency_key = request.idempotency_key;
        wanted.flip = request.flip.map(|flip| pending_flip(flip, &wanted)).transpose()?;
        Ok(StartUpgradeResponse { upgrade: Some(self.start(wanted).await?) })
    }

    pub(super) async fn rollback(
        &self,
        asker: &Caller,
        request: RollbackRequest,
    ) -> Result<RollbackResponse, ApiError> {
        let target = Target { schema: request.schema, service_version: String::new() };
        let wanted = self.wanted(
            asker,
            UpgradeDirection::Down,
            (&request.tenant, &request.service),
            Some(target),
            request.options,
            &request.reason,
        )?;
        Ok(RollbackResponse { upgrade: Some(self.start(wanted).await?) })
    }

    /// Checks a request without asking anyone.
    fn wanted(
        &self,
        asker: &Caller,
        direction: UpgradeDirection,
        (tenant, service): (&str, &str),
        target: Option<Target>,
        options: Option<UpgradeOptions>,
        why: &str,
    ) -> Result<Wanted, ApiError> {
        let options = options.unwrap_or_default();
        self.grounds.options(&options)?;
        if options.out_of_order || !options.accept.is_empty() || !options.contract.is_empty() {
            asker.require(Role::Admin, "accept what speaks against an upgrade")?;
        }
        if options.backup && !self.settings.backups {
            let text = "back the database up first: no folder for backups is configured";
            return Err(ApiError::new(Reason::MigrationRefused, text));
        }
        if let Some(timeout) = options.timeout {
            let longest = self.settings.max_timeout;
            let sane = (0..1_000_000_000).contains(&timeout.nanos);
            let timeout = std::time::Duration::try_from(timeout)
                .ok()
                .filter(|timeout| sane && !timeout.is_zero() && *timeout <= longest);
            let limit = grey_runtime::config::duration::format(longest);
            timeout
                .ok_or_else(|| invalid("options.timeout", format!("must be positive and at most {limit}")))?;
        }
        Ok(Wanted {
            tenant: tenant_id(tenant)?,
            service: service_id(service)?,
            direction,
            target: target.unwrap_or_default(),
            options,
            asker: asker.principal(),
            reason: reason(why)?,
            from: String::new(),
            steps: Vec::new(),
            server: String::new(),
            flip: None,
            provision: None,
            idempotency_key: String::new(),
        })
    }

    /// Plans an upgrade, so that what cannot succeed is refused at once, and queues it.
    async fn start(&self, mut wanted: Wanted) -> Result<Upgrade, ApiError> {
        if let Some(job) = self.queue.repeated(&wanted).await? {
            return Ok(job.upgrade);
        }
        if let Some(upgrade) = self.queue.busy(&wanted.tenant, &wanted.service).await? {
            return Err(Refused::Busy { upgrade }.into());
        }
        let registered = self.grounds.registered(&wanted.tenant, &wanted.service).await?;
        let scripts = self.grounds.scripts(&wanted.service, registered.target.dialect).await?;
        let goal = self.grounds.goal(&wanted.service, wanted.direction, &wanted.target).await?;
        self.plan_into(&mut wanted, &registered, &scripts, &goal).await?;
        let job = self.queue.enqueue(&wanted).await?;
        tell(&job.upgrade);
        Ok(job.upgrade)
    }

    async fn plan_into(
        &self,
        wanted: &mut Wanted,
        registered: &Registered,
        scripts: &Arc<Scripts>,
        goal: &Goal,
    ) -> Result<(), ApiError> {
        let options = self.grounds.options(&wanted.options)?;
        let plan = Box::pin(self.grounds.plan(&registered.target, scripts, goal, &options)).await?;
        verdict(&plan)?;
        fill_in(wanted, &plan, registered);
        Ok(())
    }

    pub(super) async fn start_upgrades(
        &self,
        asker: &Caller,
        request: StartUpgradesRequest,
    ) -> Result<StartUpgradesResponse, ApiError> {
        if request.tenants.is_empty() || request.tenants.len() > MAX_TENANTS {
            return Err(invalid("tenants", format!("must be between 1 and {MAX_TENANTS}")));
        }
        let mut every = Vec::with_capacity(request.tenants.len());
        let mut once = BTreeSet::new();
        for tenant in &request.tenants {
            let (direction, names) = (UpgradeDirection::Up, (tenant.as_str(), request.service.as_str()));
            let (target, options) = (request.target.clone(), request.options.clone());
            every.push(self.wanted(asker, direction, names, target, options, &request.reason)?);
            if !once.insert(tenant) {
                return Err(invalid("tenants", format!("names `{tenant}` twice")));
            }
        }
        let service = service_id(&request.service)?;
        let target = request.target.unwrap_or_default();
        let goal = self.grounds.goal(&service, UpgradeDirection::Up, &target).await?;
        let results = Box::pin(self.start_all(&service, &goal, every)).await?;
        let started = |tenant: &String| match results.get(tenant) {
            Some(Ok(upgrade)) => StartedUpgrade {
                tenant: tenant.clone(),
                upgrade: Some(upgrade.clone()),
                ..StartedUpgrade::default()
            },
            Some(Err(error)) => StartedUpgrade {
                tenant: tenant.clone(),
                upgrade: None,
                reason: error.reason.as_str().to_owned(),
                error: error.message.clone(),
            },
            None => StartedUpgrade { tenant: tenant.clone(), ..StartedUpgrade::default() },
        };
        Ok(StartUpgradesResponse { upgrades: request.tenants.iter().map(started).collect() })
    }

    /// Starts upgrades: those with nothing to do are noted as done, all others are planned and queued.
    async fn start_all(
        &self,
        service: &ServiceId,
        goal: &Goal,
        every: Vec<Wanted>,
    ) -> Result<HashMap<String, Result<Upgrade, ApiError>>, ApiError> {
        let tenants: Vec<TenantId> = every.iter().map(|wanted| wanted.tenant.clone()).collect();
        let (registered, mut results) = self.registered_all(service, &tenants).await?;
        let busy: HashMap<String, String> =
            self.queue.under_way(service.as_str()).await?.into_iter().collect();
        let scripts = self.scripts_of(service, registered.values().map(|it| it.target.dialect)).await?;
        let mut ready = Vec::new();
        for wanted in every {
            let tenant = wanted.tenant.to_string();
            let Some(found) = registered.get(&tenant) else { continue };
            if let Some(upgrade) = busy.get(&tenant) {
                results.insert(tenant, Err(Refused::Busy { upgrade: upgrade.clone() }.into()));
                continue;
            }
            match scripts.get(&found.target.dialect) {
                Some(Ok(_)) => ready.push((wanted, found.clone())),
                Some(Err(error)) => drop(results.insert(tenant, Err(error.clone()))),
                None => {}
            }
        }
        let scripts: BTreeMap<Dialect, Arc<Scripts>> =
            scripts.into_iter().filter_map(|(dialect, loaded)| Some((dialect, loaded.ok()?))).collect();
        let rest = self.skip(ready, &scripts, goal, &mut results).await?;
        Box::pin(self.enqueue_all(rest, &scripts, goal, &mut results)).await?;
        Ok(results)
    }

    /// Plans those that have something to do, by what their databases tell of the tables in question, and queues whom
    /// nothing forbids it.
    async fn enqueue_all(
        &self,
        rest: Vec<(Wanted, Registered, History)>,
        scripts: &BTreeMap<Dialect, Arc<Scripts>>,
        goal: &Goal,
        results: &mut HashMap<String, Result<Upgrade, ApiError>>,
    ) -> Result<(), ApiError> {
        let (mut names, mut targets) = (BTreeSet::new(), Vec::with_capacity(rest.len()));
        for (wanted, found, history) in &rest {
            let scripts = scripts_for(scripts, found)?;
            let options = self.grounds.options(&wanted.options)?;
            names.extend(goal.plan(scripts, history, &options, &Facts::default()).names());
            targets.push(found.target.clone());
            // There may be a thousand of them, and others want to be served.
            tokio::task::yield_now().await;
        }
        let limit = self.settings.fleet_concurrency;
        let facts = Box::pin(facts_of_many(&targets, &names, self.grounds.timeouts(), limit)).await;
        let mut planned = Vec::with_capacity(rest.len());
        for ((mut wanted, found, history), facts) in rest.into_iter().zip(facts) {
            tokio::task::yield_now().await;
            let judged = facts.map_err(|error| crate::prepare::database_error(&error)).and_then(|facts| {
                let options = self.grounds.options(&wanted.options)?;
                let scripts = Arc::clone(scripts_for(scripts, &found)?).for_tenant(&wanted.tenant);
                let plan = goal.plan(&scripts, &history, &options, &facts);
                verdict(&plan)?;
                Ok(plan)
            });
            match judged {
                Ok(plan) => {
                    fill_in(&mut wanted, &plan, &found);
                    planned.push(wanted);
                }
                Err(error) => drop(results.insert(wanted.tenant.to_string(), Err(error))),
            }
        }
        let queued = self.queue.enqueue_all(&planned).await?;
        for (wanted, job) in planned.iter().zip(queued) {
            let upgrade = job.map(|job| job.upgrade).map_err(ApiError::from);
            upgrade.iter().for_each(tell);
            results.insert(wanted.tenant.to_string(), upgrade);
        }
        Ok(())
    }

    /// Takes out of `ready` whoever has nothing to do.
    async fn skip(
        &self,
        ready: Vec<(Wanted, Registered)>,
        scripts: &BTreeMap<Dialect, Arc<Scripts>>,
        goal: &Goal,
        results: &mut HashMap<String, Result<Upgrade, ApiError>>,
    ) -> Result<Vec<(Wanted, Registered, History)>, ApiError> {
        let targets: Vec<_> = ready.iter().map(|(_, found)| found.target.clone()).collect();
        let limit = self.settings.fleet_concurrency;
        // All of them are asked for by one request, so they have the same options.
        let asked = ready.first().map(|(wanted, _)| wanted.options.clone()).unwrap_or_default();
        let options = self.grounds.options(&asked)?;
        let goal = (goal, &options);
        let standings = Box::pin(check(&targets, scripts, goal, self.grounds.timeouts(), limit)).await;
        let (mut idle, mut seen, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        for ((mut wanted, found), standing) in ready.into_iter().zip(standings) {
            match standing {
                Ok((standing, _)) if !standing.needs_work => {
                    wanted.from = standing.schema.as_ref().map(ToString::to_string).unwrap_or_default();
                    wanted.server = found.server;
                    wanted.steps = standing.stopped.iter().map(stopped_step).collect();
                    let names = (wanted.tenant.to_string(), wanted.service.to_string());
                    seen.push((names.0, names.1, Seen::from(&standing)));
                    idle.push(wanted);
                }
                Ok((_, history)) => rest.push((wanted, found, history)),
                Err(error) => {
                    let error = crate::prepare::database_error(&error);
                    results.insert(wanted.tenant.to_string(), Err(error));
                }
            }
        }
        for job in self.queue.record_done(&idle).await? {
            results.insert(job.upgrade.tenant.clone(), Ok(job.upgrade));
        }
        self.queue.note_all(&seen).await?;
        Ok(rest)
    }

    /// The registered databases of these tenants, and why others have none.
    async fn registered_all(
        &self,
        service: &ServiceId,
        tenants: &[TenantId],
    ) -> Result<(HashMap<String, Registered>, HashMap<String, Result<Upgrade, ApiError>>), ApiError> {
        let sealed = self.grounds.control().databases(Some(service), tenants).await?;
        let (mut registered, mut results) = (HashMap::new(), HashMap::new());
        for sealed in &sealed {
            let tenant = sealed.database.as_ref().map(|it| it.tenant.clone()).unwrap_or_default();
            match self.grounds.open(sealed) {
                Ok(found) => drop(registered.insert(tenant, found)),
                Err(error) => drop(results.insert(tenant, Err(error))),
            }
        }
        for tenant in tenants {
            if !registered.contains_key(tenant.as_str()) && !results.contains_key(tenant.as_str()) {
                let error = crate::control::unregistered(tenant, service);
                results.insert(tenant.to_string(), Err(error));
            }
        }
        Ok((registered, results))
    }

    /// The files for each of these dialects.
    pub(super) async fn scripts_of(
        &self,
        service: &ServiceId,
        dialects: impl Iterator<Item = Dialect>,
    ) -> Result<BTreeMap<Dialect, Result<Arc<Scripts>, ApiError>>, ApiError> {
        let mut loaded = BTreeMap::new();
        for dialect in dialects.collect::<BTreeSet<_>>() {
            loaded.insert(dialect, self.grounds.scripts(service, dialect).await);
        }
        Ok(loaded)
    }
}

fn scripts_for<'s>(
    scripts: &'s BTreeMap<Dialect, Arc<Scripts>>,
    found: &Registered,
) -> Result<&'s Arc<Scripts>, ApiError> {
    scripts.get(&found.target.dialect).ok_or_else(|| invalid("service", "has no migrations"))
}

fn fill_in(wanted: &mut Wanted, plan: &Plan, registered: &Registered) {
    wanted.from = plan.from.as_ref().map(ToString::to_string).unwrap_or_default();
    wanted.steps = waiting_steps(plan);
    wanted.server.clone_from(&registered.server);
}

fn pending_flip(mut flip: Flip, wanted: &Wanted) -> Result<Flip, ApiError> {
    let pin = flip.pin.as_mut().ok_or_else(|| invalid("flip.pin", "is missing"))?;
    for (field, given, own) in [
        ("flip.pin.tenant", &mut pin.tenant, wanted.tenant.as_str()),
        ("flip.pin.service", &mut pin.service, wanted.service.as_str()),
    ] {
        if !given.is_empty() && given != own {
            return Err(invalid(field, "is not that of the upgrade"));
        }
        own.clone_into(given);
    }
    grey_core::version::Version::new(&pin.version).map_err(|error| invalid("flip.pin.version", error))?;
    flip.set_state(FlipState::Pending);
    flip.error.clear();
    Ok(flip)
}

pub(super) fn tell(upgrade: &Upgrade) {
    tracing::info!(
        upgrade.id = upgrade.id,
        tenant.id = upgrade.tenant,
        service.id = upgrade.service,
        actor = upgrade.actor,
        steps = upgrade.steps.len(),
        "upgrade is queued"
    );
}
