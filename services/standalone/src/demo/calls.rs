//! Calls as an application makes them: ask the router, then call the instance, and again if it does not answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use grey_proto::router::router_service_client::RouterServiceClient;
use grey_proto::router::{ExplainRequest, Explanation, RouteRequest, RouteResponse};
use grey_proto::status::from_status;
use rand::Rng as _;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::admin;
use super::backends::Answer;
use super::tally::Tally;
use super::world;

/// For one call, all its attempts together.
const DEADLINE: Duration = Duration::from_secs(3);
/// For one attempt.
const ATTEMPT: Duration = Duration::from_secs(1);
/// Before a call is routed again.
const BACKOFF: Duration = Duration::from_millis(5);
/// Between two calls of one worker.
const PACE: Duration = Duration::from_millis(10);

/// Makes calls and counts them. Cheap to clone.
#[derive(Clone)]
pub(super) struct Caller {
    router: RouterServiceClient<Channel>,
    http: reqwest::Client,
    tally: Arc<Tally>,
}

impl Caller {
    pub(super) async fn connect(router: SocketAddr) -> anyhow::Result<Self> {
        let router = RouterServiceClient::new(admin::connect(router).await?);
        let http =
            reqwest::Client::builder().timeout(ATTEMPT).no_proxy().build().context("make an HTTP client")?;
        Ok(Self { router, http, tally: Arc::default() })
    }

    pub(super) fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// Makes a call from `zone`, counts it, and returns what answered.
    pub(super) async fn call(&self, tenant: &str, service: &str, zone: &str) -> anyhow::Result<Answer> {
        let answer = self.attempts(tenant, service, zone).await;
        match &answer {
            Ok(answer) => self.tally.served(service, &answer.version),
            Err(error) => self.tally.failed(&format!("{tenant} calls {service}: {error:#}")),
        }
        answer
    }

    async fn attempts(&self, tenant: &str, service: &str, zone: &str) -> anyhow::Result<Answer> {
        let end = Instant::now() + DEADLINE;
        loop {
            let begun = Instant::now();
            let decision = self.route(tenant, service, zone).await?;
            self.tally.routed(begun.elapsed());
            let instance = decision.instance.unwrap_or_default();
            match self.get(&instance.address, tenant).await {
                Ok(answer) => {
                    let routed = (service, decision.version.as_str(), instance.id.as_str(), tenant);
                    let got = (&*answer.service, &*answer.version, &*answer.instance, &*answer.tenant);
                    ensure!(got == routed, "routed to {routed:?}, but {got:?} answered");
                    return Ok(answer);
                }
                Err(error) if Instant::now() < end => {
                    tracing::debug!(error = %error, instance.id = instance.id, "instance did not answer, routing again");
                    self.tally.rerouted(&instance.id);
                    tokio::time::sleep(BACKOFF).await;
                }
                Err(error) => return Err(error).with_context(|| format!("call {}", instance.id)),
            }
        }
    }

    /// Asks the router.
    pub(super) async fn route(
        &self,
        tenant: &str,
        service: &str,
        zone: &str,
    ) -> anyhow::Result<RouteResponse> {
        let call = request(tenant, service, zone);
        match self.router.clone().route(call).await {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => {
                let error = from_status(&status);
                bail!("{error} ({})", error.reason.as_str())
            }
        }
    }

    pub(super) async fn explain(
        &self,
        tenant: &str,
        service: &str,
    ) -> anyhow::Result<(RouteRequest, Explanation)> {
        let call = request(tenant, service, world::ZONES[0]);
        let request = ExplainRequest { call: Some(call.clone()), revision: 0 };
        let response = self.router.clone().explain(request).await.context("ask for an explanation")?;
        Ok((call, response.into_inner().explanation.unwrap_or_default()))
    }

    async fn get(&self, address: &str, tenant: &str) -> Result<Answer, reqwest::Error> {
        let request = self.http.get(format!("http://{address}/")).header("x-tenant", tenant);
        request.send().await?.error_for_status()?.json().await
    }

    /// Calls for random tenants until `draining`.
    pub(super) async fn traffic(&self, worker: usize, draining: CancellationToken) {
        let zone = world::ZONES[worker % world::ZONES.len()];
        let mut pace = tokio::time::interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = pace.tick() => {}
                () = draining.cancelled() => return,
            }
            let (tenant, service) = {
                let mut random = rand::rng();
                let tenant = world::TENANTS[random.random_range(0..world::TENANTS.len())].0;
                (tenant, world::SERVICES[random.random_range(0..world::SERVICES.len())])
            };
            // A call that the end of the demo cuts off is not one that failed.
            drop(draining.run_until_cancelled(self.call(tenant, service, zone)).await);
        }
    }
}

fn request(tenant: &str, service: &str, zone: &str) -> RouteRequest {
    RouteRequest {
        tenant: tenant.to_owned(),
        service: service.to_owned(),
        region: world::REGION.to_owned(),
        zone: zone.to_owned(),
        ..RouteRequest::default()
    }
}
