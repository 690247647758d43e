//! One of our programs as a process of its own.

use grey_testkit::{ReservedPort, Spawned, eventually};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};
use tonic::transport::{Channel, Endpoint};

/// Longer than anything here takes, on a busy machine too.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Held by the one journey that goes on: each puts the whole machine under load.
pub(crate) async fn stage() -> MutexGuard<'static, ()> {
    static STAGE: Mutex<()> = Mutex::const_new(());
    STAGE.lock().await
}

/// Settings as the environment has them.
pub(crate) fn settings<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
    pairs.map(|(key, value)| (format!("GREY__{key}"), value.to_owned())).into()
}

/// A process that serves gRPC and HTTP, restarted on the same ports.
pub(crate) struct Server {
    program: PathBuf,
    env: Vec<(String, String)>,
    pub(crate) grpc: String,
    pub(crate) http: String,
    process: Option<Spawned>,
    /// Kept from everyone else, also while the process is down.
    _ports: [ReservedPort; 2],
}

impl Server {
    /// Starts `program` on free ports.
    pub(crate) fn new(program: &str, env: Vec<(String, String)>) -> Self {
        Self::on(program, env, ReservedPort::any().unwrap())
    }

    /// The same, with gRPC on a port that others know already.
    pub(crate) fn on(program: &str, env: Vec<(String, String)>, port: ReservedPort) -> Self {
        let ports = [port, ReservedPort::any().unwrap()];
        let [grpc, http] = ports.each_ref().map(|port| port.addr().to_string());
        let mut env = env;
        env.extend(settings([("GRPC__LISTEN", &grpc), ("HTTP__LISTEN", &http)]));
        let program = grey_testkit::process::cargo_binary(program).unwrap();
        let mut server = Self { program, env, grpc, http, process: None, _ports: ports };
        server.start();
        server
    }

    pub(crate) fn start(&mut self) {
        let mut builder = Spawned::builder(&self.program);
        for (name, value) in &self.env {
            builder = builder.env(name, value);
        }
        self.process = Some(builder.start().unwrap());
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    pub(crate) fn kill9(&mut self) {
        self.process.take().unwrap().kill9().unwrap();
    }

    /// It keeps its sockets and answers nothing.
    pub(crate) fn freeze(&self) {
        self.process.as_ref().unwrap().pause().unwrap();
    }

    /// It goes on where it was frozen.
    pub(crate) fn thaw(&self) {
        self.process.as_ref().unwrap().resume().unwrap();
    }

    /// It ends in good order.
    pub(crate) async fn stop(&mut self) {
        assert!(self.process.take().unwrap().terminate(DEADLINE).await.unwrap().success());
    }

    /// Whether it was not killed.
    pub(crate) fn runs(&self) -> bool {
        self.process.is_some()
    }

    pub(crate) async fn until_ready(&self) {
        let url = format!("http://{}/health/ready", self.http);
        let process = self.process.as_ref().unwrap();
        eventually(DEADLINE, "the process is ready", async || {
            let exited = process.exit_status().unwrap();
            assert!(exited.is_none(), "it ended ({exited:?}): {}", process.output());
            let answer = reqwest::get(&url).await;
            answer.is_ok_and(|a| a.status().is_success())
        })
        .await;
    }

    pub(crate) fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.grpc)).unwrap();
        endpoint.timeout(Duration::from_secs(10)).connect_lazy()
    }
}
