//! A control plane and routers as processes of their own, on real servers.

use crate::load::{SERVICES, TENANTS, tenant};
use crate::server::{DEADLINE, Server, settings};
use grey_proto::control::catalog_service_client::CatalogServiceClient;
use grey_proto::control::tenant_service_client::TenantServiceClient;
use grey_proto::control::{
    PutServiceRequest, PutTenantRequest, PutVersionRequest, Service, ServiceVersion, Tenant,
};
use grey_state::State;
use grey_state::instances::Loaded;
use grey_testkit::{Postgres, Redis, eventually};

pub(crate) const VERSIONS: [&str; 3] = ["v1.0", "v1.1", "v2.0"];
/// Instances of one version of a service.
pub(crate) const REPLICAS: usize = 2;

pub(crate) struct Fleet {
    pub(crate) redis: Redis,
    pub(crate) control: Server,
    pub(crate) mirror: Server,
    pub(crate) routers: Vec<Server>,
    pub(crate) state: State,
    pub(crate) postgres: Postgres,
    registry: tempfile::TempDir,
}

impl Fleet {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// The same, with more settings for the routers.
    pub(crate) async fn with(more: &[(String, String)]) -> Self {
        grey_runtime::tls::install_provider();
        let redis = Redis::start().await.unwrap();
        let postgres = Postgres::start().await.unwrap();
        let database = postgres.database("control").await.unwrap();
        let urls = format!("[\"{}\"]", redis.url());
        // Names that outlive the processes: who is started again has its lead back at once.
        let control =
            settings([("REPLICA", "control"), ("DATABASE__URL", &database), ("REDIS__URLS", &urls)]);
        let router =
            |id: &str| [settings([("ROUTER__ID", id), ("REDIS__URLS", &urls)]), more.to_vec()].concat();
        let registry = tempfile::tempdir().unwrap();
        let instances = registry.path().join(INSTANCES);
        std::fs::write(&instances, instances_file(0)).unwrap();
        let sources = format!(
            "[{{ name = \"file\", kind = \"file\", trusted = true, path = \"{}\" }}]",
            instances.display()
        );
        let mirror = settings([("REPLICA", "mirror"), ("SOURCES", &sources), ("REDIS__URLS", &urls)]);
        let mirror = Server::new("grey-registry-sync", mirror);
        let routers = vec![Server::new("grey-router", router("a")), Server::new("grey-router", router("b"))];
        let control = Server::new("grey-control-plane", control);
        let options = grey_state::redis::Options { urls: vec![redis.url()], ..Default::default() };
        let state = State::redis(&options).await.unwrap();
        let fleet = Self { redis, control, mirror, routers, state, postgres, registry };
        fleet.control.until_ready().await;
        fleet.declare().await;
        fleet.until_mirrored().await;
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
                catalog
                    .put_version(PutVersionRequest { version: Some(version), ..Default::default() })
                    .await
                    .unwrap();
            }
        }
        for i in 0..TENANTS {
            let tenant = Tenant { id: tenant(i), ..Tenant::default() };
            tenants
                .put_tenant(PutTenantRequest { tenant: Some(tenant), ..Default::default() })
                .await
                .unwrap();
        }
    }

    /// The registry lists other instances from now on: those numbered `first` and on.
    pub(crate) fn relist(&self, first: usize) {
        let (file, new) = (self.registry.path().join(INSTANCES), self.registry.path().join("new"));
        std::fs::write(&new, instances_file(first)).unwrap();
        std::fs::rename(&new, &file).unwrap();
    }

    /// Waits until shared state has every instance, which nobody but the mirror writes.
    pub(crate) async fn until_mirrored(&self) {
        eventually(DEADLINE, "shared state has every instance", async || {
            let Ok(Loaded { lists, .. }) = self.state.instances.load().await else { return false };
            let services: Vec<_> = lists.iter().map(|list| list.service.as_str()).collect();
            let complete = lists.iter().all(|list| list.instances.len() == VERSIONS.len() * REPLICAS);
            complete && SERVICES.iter().all(|service| services.contains(service))
        })
        .await;
    }
}

const INSTANCES: &str = "instances.yaml";

/// The registry: every version of every service runs on a few instances, numbered from `first`.
fn instances_file(first: usize) -> String {
    let mut text = "services:\n".to_owned();
    for service in SERVICES {
        text += &format!("  {service}:\n");
        for version in VERSIONS {
            for i in first..first + REPLICAS {
                let id = format!("{service}-{version}-{i}");
                text +=
                    &format!("    - {{id: {id}, address: 10.0.0.{i}:80, version: {version}, weight: 1}}\n");
            }
        }
    }
    text
}
