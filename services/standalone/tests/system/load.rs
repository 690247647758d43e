//! Callers that never stop, and remember every answer.

use crate::model::Answer;
use grey_proto::router::router_service_client::RouterServiceClient;
use grey_proto::router::{RouteRequest, RouteResponse};
use rand::Rng as _;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

pub(crate) const TENANTS: usize = 50;
pub(crate) const SERVICES: [&str; 3] = ["users", "orders", "payment"];

pub(crate) fn tenant(i: usize) -> String {
    format!("tenant-{i}")
}

/// Calls one router from several connections.
pub(crate) struct Load {
    calls: Arc<AtomicU64>,
    failures: Arc<Mutex<Vec<String>>>,
    answers: Arc<Mutex<BTreeSet<Answer>>>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    started: Instant,
}

impl Load {
    /// Calls `address` from `connections` connections, each with a call every `pause`.
    pub(crate) fn start(address: &str, connections: usize, pause: Duration) -> Self {
        Self::judged(address, connections, pause, &SERVICES, |_, _, _| Ok(()))
    }

    /// The same for calls of `services`, whose answers `judge` looks at: the request, the answer, and when it was asked.
    /// What it objects to counts as a failure.
    pub(crate) fn judged(
        address: &str,
        connections: usize,
        pause: Duration,
        services: &'static [&'static str],
        judge: impl Fn(&RouteRequest, &RouteResponse, Instant) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        let judge = Arc::new(judge);
        let mut load = Self {
            calls: Arc::default(),
            failures: Arc::default(),
            answers: Arc::default(),
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
            started: Instant::now(),
        };
        for _ in 0..connections {
            let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
            let endpoint = endpoint.timeout(Duration::from_secs(5)).tcp_nodelay(true);
            let client = RouterServiceClient::new(endpoint.connect_lazy());
            let (calls, failures, answers) =
                (load.calls.clone(), load.failures.clone(), load.answers.clone());
            let (stop, judge) = (load.stop.clone(), judge.clone());
            load.tasks.spawn(async move {
                let mut client = client;
                let mut mine = BTreeSet::new();
                let mut pace = tokio::time::interval(pause);
                pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
                while !stop.is_cancelled() {
                    pace.tick().await;
                    let request = random_call(services);
                    let asked = Instant::now();
                    match client.route(request.clone()).await {
                        Ok(answer) => {
                            let answer = answer.into_inner();
                            if let Err(objection) = judge(&request, &answer, asked) {
                                failures.lock().unwrap().push(objection);
                            }
                            let RouteRequest { tenant, service, .. } = request;
                            let instance = answer.instance.unwrap_or_default().id;
                            let (revision, version, stale) = (answer.revision, answer.version, answer.stale);
                            mine.insert(Answer { revision, tenant, service, version, instance, stale });
                        }
                        Err(status) => failures.lock().unwrap().push(status.to_string()),
                    }
                    calls.fetch_add(1, Relaxed);
                }
                answers.lock().unwrap().extend(mine);
            });
        }
        load
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Relaxed)
    }

    pub(crate) fn failures(&self) -> Vec<String> {
        self.failures.lock().unwrap().clone()
    }

    /// Ends the calls; tells the answers and the calls per second.
    pub(crate) async fn finish(mut self) -> (BTreeSet<Answer>, f64) {
        let seconds = self.started.elapsed().as_secs_f64();
        self.stop.cancel();
        while let Some(task) = self.tasks.join_next().await {
            task.unwrap();
        }
        let answers = std::mem::take(&mut *self.answers.lock().unwrap());
        (answers, self.calls() as f64 / seconds)
    }
}

fn random_call(services: &[&str]) -> RouteRequest {
    let mut random = rand::rng();
    RouteRequest {
        tenant: tenant(random.random_range(0..TENANTS)),
        service: services[random.random_range(0..services.len())].to_owned(),
        ..RouteRequest::default()
    }
}
