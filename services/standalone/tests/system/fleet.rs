//! A control plane and routers as processes of their own, on real servers.

use crate::load::{SERVICES, TENANTS, tenant};
use grey_core::ids::{InstanceId, Name, ServiceId};
use grey_core::instance::Instance;
use grey_core::version::Version;
use grey_proto::control::catalog_service_client::CatalogServiceClient;
use grey_proto::control::tenant_service_client::TenantServiceClient;
use grey_proto::control::{
    PutServiceRequest, PutTenantRequest, PutVersionRequest, Service, ServiceVersion, Tenant,
};
use grey_state::State;
use grey_state::instances::{ServiceInstances, WRITER_LEASE};
use grey_testkit::{Postgres, Redis, Spawned, eventually, free_port};
use std::path::PathBuf;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
pub(crate) const VERSIONS: [&str; 3] = ["v1.0", "v1.1", "v2.0"];

/// A process that serves gRPC and HTTP, restarted on the same ports.
pub(crate) struct Server {
    program: PathBuf,
    env: Vec<(String, String)>,
    pub(crate) grpc: String,
    pub(crate) http: String,
    process: Option<Spawned>,
}

impl Server {
    fn new(program: &str, env: Vec<(String, String)>) -> Self {
        let (grpc, http) = (free_port().unwrap(), free_port().unwrap());
        let (grpc, http) = (format!("127.0.0.1:{grpc}"), format!("127.0.0.1:{http}"));
        let mut env = env;
        env.push(("GREY__GRPC__LISTEN".to_owned(), grpc.clone()));
        env.push(("GREY__HTTP__LISTEN".to_owned(), http.clone()));
        let program = grey_testkit::process::cargo_binary(program).unwrap();
        let mut server = Self { program, env, grpc, http, process: None };
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

    pub(crate) fn kill9(&mut self) {
        self.process.take().unwrap().kill9().unwrap();
    }

    pub(crate) async fn until_ready(&self) {
        let url = format!("http://{}/health/ready", self.http);
        eventually(DEADLINE, "the process is ready", async || {
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

pub(crate) struct Fleet {
    pub(crate) redis: Redis,
    pub(crate) control: Server,
    pub(crate) routers: Vec<Server>,
    state: State,
    _postgres: Postgres,
}

impl Fleet {
    pub(crate) async fn start() -> Self {
        grey_runtime::tls::install_provider();
        let redis = Redis::start().await.unwrap();
        let postgres = Postgres::start().await.unwrap();
        let database = postgres.database("control").await.unwrap();
        let urls = format!("[\"{}\"]", redis.url());
        let control = vec![
            ("GREY__DATABASE__URL".to_owned(), database),
            ("GREY__REDIS__URLS".to_owned(), urls.clone()),
        ];
        let router = |id: &str| {
            vec![
                ("GREY__ROUTER__ID".to_owned(), id.to_owned()),
                ("GREY__REDIS__URLS".to_owned(), urls.clone()),
            ]
        };
        let routers = vec![Server::new("grey-router", router("a")), Server::new("grey-router", router("b"))];
        let control = Server::new("grey-control-plane", control);
        let options = grey_state::redis::Options { urls: vec![redis.url()], ..Default::default() };
        let state = State::redis(&options).await.unwrap();
        let fleet = Self { redis, control, routers, state, _postgres: postgres };
        fleet.control.until_ready().await;
        fleet.declare().await;
        fleet.register_instances().await;
        for router in &fleet.routers {
            router.until_ready().await;
        }
        fleet
    }

    async fn declare(&self) {
        let mut catalog = CatalogServiceClient::new(self.control.channel());
        let mut tenants = TenantServiceClient::new(self.control.channel());
        for service in SERVICES {
            let declared =
                Service { id: service.to_owned(), default_version: "v1.0".to_owned(), revision: 0 };
            catalog.put_service(PutServiceRequest { service: Some(declared), write: None }).await.unwrap();
            for version in VERSIONS {
                let version = ServiceVersion {
                    service: service.to_owned(),
                    version: version.to_owned(),
                    ..ServiceVersion::default()
                };
                catalog.put_version(PutVersionRequest { version: Some(version), write: None }).await.unwrap();
            }
        }
        for i in 0..TENANTS {
            let tenant = Tenant { id: tenant(i), ..Tenant::default() };
            tenants.put_tenant(PutTenantRequest { tenant: Some(tenant), write: None }).await.unwrap();
        }
    }

    /// What a registry mirror does, at the start and after the store was wiped.
    pub(crate) async fn register_instances(&self) {
        eventually(DEADLINE, "the instances are registered", async || self.try_register().await.is_ok())
            .await;
    }

    async fn try_register(&self) -> Result<(), grey_state::Error> {
        let lease = Name::new(WRITER_LEASE).unwrap();
        let acquired = self.state.leases.acquire(&lease, "system-test", Duration::from_secs(60)).await?;
        let token = acquired.expect("nobody else mirrors a registry here");
        for service in SERVICES {
            let instances =
                VERSIONS.iter().flat_map(|version| (0..2).map(move |i| instance(service, version, i)));
            let list = ServiceInstances {
                service: ServiceId::new(service).unwrap(),
                instances: instances.collect(),
            };
            self.state.instances.replace(token, &list).await?;
        }
        Ok(())
    }
}

fn instance(service: &str, version: &str, i: u16) -> Instance {
    Instance {
        id: InstanceId::new(&format!("{service}-{version}-{i}")).unwrap(),
        version: Version::new(version).unwrap(),
        address: format!("10.0.0.{i}:80").into(),
        region: None,
        zone: None,
        weight: 1,
        enabled: true,
        healthy: true,
        ephemeral: true,
        source: None,
        metadata: Default::default(),
    }
}
