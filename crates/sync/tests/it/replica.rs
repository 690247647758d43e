//! A replica in this process, and a leader that carries out what it is asked.

use grey_edge::{Port, Ports, Serving};
use grey_proto::sync::sync_service_client::SyncServiceClient;
use grey_proto::sync::{HeldChange, HoldReason, SyncSource, SyncStatus};
use grey_runtime::access::{Options, Token, TokenHash};
use grey_runtime::{Health, Shutdown, Telemetry, telemetry};
use grey_state::redis;
use grey_state::{FencingToken, State};
use grey_sync::{Action, Desk, REQUEST_TIMEOUT};
use grey_testkit::Redis;
use tokio::task::JoinHandle;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

use crate::DEADLINE;

pub(crate) const TOKEN: FencingToken = FencingToken(7);
pub(crate) const SERVICE: &str = "registry-sync";
/// Longest request taken over gRPC.
pub(crate) const MAX_BYTES: usize = 4_096;

pub(crate) fn desk(state: &State, replica: &str) -> Desk {
    Desk::new(state, SERVICE, replica.to_owned())
}

pub(crate) async fn connect(url: String) -> State {
    let options = redis::Options {
        urls: vec![url],
        response_timeout_ms: 1_000,
        connect_timeout_ms: 1_000,
        ..redis::Options::default()
    };
    State::redis(&options).await.unwrap()
}

pub(crate) async fn redis() -> (Redis, State) {
    let redis = Redis::start().await.unwrap();
    let state = connect(redis.url()).await;
    (redis, state)
}

/// A status with one change held back.
pub(crate) fn holding(change: &str) -> SyncStatus {
    let held = HeldChange {
        id: change.to_owned(),
        reason: HoldReason::InstanceDrop.into(),
        subject: "payment@dc-1".to_owned(),
        summary: "12 of 20 instances vanished".to_owned(),
        affected: 12,
        total: 20,
        items: vec!["10.0.0.1:8080".to_owned()],
        ..HeldChange::default()
    };
    let source = SyncSource {
        name: "dc-1".to_owned(),
        kind: "nacos".to_owned(),
        failures: 3,
        ..SyncSource::default()
    };
    SyncStatus {
        held: vec![held],
        sources: vec![source],
        counts: [("routed".to_owned(), 8)].into(),
        ..SyncStatus::default()
    }
}

/// Leads: carries out whatever it is asked, but for changes called `stubborn`.
pub(crate) async fn lead(desk: Desk, status: SyncStatus) {
    desk.publish(TOKEN, status.clone()).await.unwrap();
    loop {
        for request in desk.take(DEADLINE).await.unwrap() {
            let outcome = match &request.action {
                Action::Accept(change) if change == "stubborn" => Err("it persists".to_owned()),
                _ => Ok(()),
            };
            desk.handled(&request, outcome);
            desk.publish(TOKEN, status.clone()).await.unwrap();
        }
    }
}

/// Serves both ports until it is dropped.
pub(crate) struct Replica {
    pub(crate) desk: Desk,
    pub(crate) base: String,
    pub(crate) http: reqwest::Client,
    channel: Channel,
    serving: JoinHandle<()>,
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// One token for each role, called after it.
pub(crate) fn tokens() -> Options {
    let token = |role: &str| Token { name: role.into(), role: role.into(), sha256: TokenHash::of(role) };
    Options { tokens: ["viewer", "operator", "admin"].map(token).into(), ..Options::default() }
}

impl Replica {
    pub(crate) async fn start(state: &State, name: &str, access: Options) -> Self {
        grey_runtime::tls::install_provider();
        let port = Port { listen: "127.0.0.1:0".parse().unwrap(), limits: Default::default() };
        let ports = Ports::bind(&port, &port, &access, None).await.unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{}", ports.grpc_addr())).unwrap();
        let base = format!("http://{}", ports.http_addr());
        let desk = desk(state, name);
        let options = telemetry::Options { log_filter: "error".to_owned(), ..telemetry::Options::default() };
        let serving = Serving {
            grpc: grey_sync::grpc(&desk, MAX_BYTES),
            rest: grey_sync::rest(&desk),
            health: Health::new(),
            telemetry: Telemetry::start("grey-sync", &options).unwrap(),
            deadline: REQUEST_TIMEOUT,
            grace: DEADLINE,
        };
        let serving = tokio::spawn(async move { ports.serve(serving, &Shutdown::new()).await.unwrap() });
        let channel = endpoint.connect_timeout(DEADLINE).connect_lazy();
        Self { desk, base, http: reqwest::Client::new(), channel, serving }
    }

    pub(crate) fn grpc(&self) -> SyncServiceClient<Channel> {
        SyncServiceClient::new(self.channel.clone())
    }
}

/// A request by the holder of a token.
pub(crate) fn by<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if !token.is_empty() {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    request
}
