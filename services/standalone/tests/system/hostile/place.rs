//! One process of each service with plain ports, and all services in one process with encrypted ones.

use super::port::{Port, Protocol, SERVICE, Service, TOKEN, Trust, tenant};
use crate::server::{DEADLINE, Server, settings};
use axum::Json;
use axum::routing::get;
use grey_testkit::process::cargo_binary;
use grey_testkit::{Authority, Redis, ReservedPort, Spawned, eventually};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::task::JoinSet;

/// Enough for full pages.
const TENANTS: usize = 2_000;
/// So long is each name, for large answers.
const NAME: usize = 200;

const SERVICES: [Service; 5] = [
    Service::Router,
    Service::ControlPlane,
    Service::RegistrySync,
    Service::TenantSync,
    Service::SchemaMigrator,
];

pub(super) struct Place {
    pub(super) ports: Vec<Arc<Port>>,
    _apart: Vec<Server>,
    _together: Spawned,
    _reserved: Vec<ReservedPort>,
    _redis: Redis,
    _authority: Authority,
    _files: TempDir,
    _tenants: JoinSet<()>,
}

impl Place {
    pub(super) async fn start() -> Self {
        grey_runtime::tls::install_provider();
        let files = tempfile::tempdir().unwrap();
        let instances = files.path().join("instances.yaml");
        let text = format!("services:\n  {SERVICE}:\n    - {{id: a, address: 10.0.0.1:80, version: v1.0}}\n");
        std::fs::write(&instances, text).unwrap();
        let (mut tenants, redis) = (JoinSet::new(), Redis::start().await.unwrap());
        let source = list_tenants(&mut tenants).await;
        let apart = start_apart(&redis, &source, files.path(), &instances);
        let authority = Authority::new().unwrap();
        let (together, reserved) = start_together(&authority, &source, files.path(), &instances);
        let mut ports: Vec<_> =
            SERVICES.into_iter().zip(&apart).flat_map(|(s, it)| ports_of(s, it)).collect();
        let trust = Trust::new(&authority);
        for (service, pair) in SERVICES.into_iter().zip(reserved.chunks_exact(2)) {
            let addresses = [pair[0].addr(), pair[1].addr()];
            ports.extend(both("standalone, TLS: ", service, addresses, together.id(), Some(&trust)));
        }
        let place = Self {
            ports: ports.into_iter().map(Arc::new).collect(),
            _apart: apart,
            _together: together,
            _reserved: reserved,
            _redis: redis,
            _authority: authority,
            _files: files,
            _tenants: tenants,
        };
        place.declare().await;
        place.until_served().await;
        place
    }

    fn all(&self, service: Service, protocol: Protocol) -> impl Iterator<Item = &Arc<Port>> {
        self.ports.iter().filter(move |it| it.service == service && it.protocol == protocol)
    }

    /// The service that the tenants call.
    async fn declare(&self) {
        for port in self.all(Service::ControlPlane, Protocol::Http) {
            let client = port.client(true, DEADLINE);
            let scheme = if port.is_tls() { "https" } else { "http" };
            let url = format!("{scheme}://{}/api/services/{SERVICE}", port.addr);
            eventually(DEADLINE, "the control plane takes a service", async || {
                let service = json!({ "defaultVersion": "v1.0" });
                let answer = client.put(&url).bearer_auth(TOKEN).json(&service).send().await;
                answer.is_ok_and(|answer| answer.status().is_success())
            })
            .await;
        }
    }

    /// Every service is ready, and every tenant is known to the routers.
    async fn until_served(&self) {
        for port in &self.ports {
            let client = port.client(true, DEADLINE);
            eventually(DEADLINE, &format!("{} is ready", port.name), async || {
                port.is_healthy(&client, "/health/ready").await.is_ok()
            })
            .await;
        }
        for port in self.all(Service::Router, Protocol::Http) {
            let client = port.client(true, DEADLINE);
            let scheme = if port.is_tls() { "https" } else { "http" };
            let url = format!("{scheme}://{}/api/grey-router/route", port.addr);
            eventually(DEADLINE * 2, &format!("{} serves the last tenant", port.name), async || {
                let call = json!({ "tenant": tenant(TENANTS - 1), "service": SERVICE });
                let answer = client.post(&url).bearer_auth(TOKEN).json(&call).send().await;
                answer.is_ok_and(|answer| answer.status().is_success())
            })
            .await;
        }
    }
}

fn ports_of(service: Service, server: &Server) -> [Port; 2] {
    let addresses = [&server.grpc, &server.http].map(|addr| addr.parse().unwrap());
    both("", service, addresses, server.id(), None)
}

fn both(
    program: &str,
    service: Service,
    addresses: [SocketAddr; 2],
    process: u32,
    trust: Option<&Trust>,
) -> [Port; 2] {
    let [_, http] = addresses;
    [(Protocol::Grpc, addresses[0]), (Protocol::Http, http)].map(|(protocol, addr)| {
        let name = format!("{program}{service:?} {protocol:?}");
        Port { name, service, protocol, addr, http, process, trust: trust.cloned() }
    })
}

async fn list() -> Json<Value> {
    let name = "n".repeat(NAME);
    let entry = |number| json!({"id": tenant(number), "name": name, "status": "active"});
    Json(json!({"tenants": (0..TENANTS).map(entry).collect::<Vec<_>>()}))
}

/// A tenant API; says where it is.
async fn list_tenants(tasks: &mut JoinSet<()>) -> String {
    let app = axum::Router::new().route("/api/tenants", get(list));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
    url
}

fn tokens() -> String {
    let digest = Sha256::digest(TOKEN);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("[{{ name = \"ops\", role = \"admin\", sha256 = \"{hex}\" }}]")
}

/// In the order of [`SERVICES`].
fn start_apart(redis: &Redis, source: &str, files: &Path, instances: &Path) -> Vec<Server> {
    let (urls, tokens) = (format!("[\"{}\"]", redis.url()), tokens());
    let access = settings([("ACCESS__TOKENS", &tokens)]);
    let shared = [access.clone(), settings([("REDIS__URLS", &urls)])].concat();
    let database = |name: &str| format!("sqlite://{}", files.join(name).display());
    let control = settings([("DATABASE__URL", &database("control.db")), ("ROUTERS__TOKEN", TOKEN)]);
    let control = Server::new("grey-control-plane", [control, shared.clone()].concat());
    let plane = settings([("CONTROL__URL", &format!("http://{}", control.grpc)), ("CONTROL__TOKEN", TOKEN)]);
    let sources = format!("[{{ name = \"file\", kind = \"file\", path = \"{}\" }}]", instances.display());
    let registry = [settings([("SOURCES", &sources)]), shared.clone()].concat();
    let tenants = [settings([("SOURCE__URL", source)]), plane.clone(), shared.clone()].concat();
    let migrator = settings([
        ("DATABASE__URL", &database("migrator.db")),
        ("MIGRATIONS__FOLDER", files.to_str().unwrap()),
    ]);
    vec![
        Server::new("grey-router", [settings([("ROUTER__ID", "a")]), shared].concat()),
        control,
        Server::new("grey-registry-sync", registry),
        Server::new("grey-tenant-sync", tenants),
        Server::new("grey-schema-migrator", [migrator, plane, access].concat()),
    ]
}

/// The ports are pairs of gRPC and HTTP, in the order of [`SERVICES`].
fn start_together(
    authority: &Authority,
    source: &str,
    files: &Path,
    instances: &Path,
) -> (Spawned, Vec<ReservedPort>) {
    let ports: Vec<_> = (0..10).map(|_| ReservedPort::any().unwrap()).collect();
    let (certificate, key) = authority.issue(&["127.0.0.1"]).unwrap().save(files).unwrap();
    let ca = authority.file();
    let tenant_sync = files.join("tenant-sync.toml");
    let text = format!(
        "[source]\nurl = \"{source}\"\n[control]\nurl = \"https://{}\"\ntoken = \"{TOKEN}\"\n\
         [control.tls]\nca_file = \"{}\"\n",
        ports[2].addr(),
        ca.display()
    );
    std::fs::write(&tenant_sync, text).unwrap();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let mut env = settings([
        ("STANDALONE__INSTANCES", &path(instances)),
        ("STANDALONE__TENANT_SYNC", &path(&tenant_sync)),
        ("SCHEMA_MIGRATOR__MIGRATIONS", &path(files)),
        ("TLS__CERT_FILE", &path(&certificate)),
        ("TLS__KEY_FILE", &path(&key)),
        ("CLIENT_TLS__CA_FILE", &path(&ca)),
        ("ACCESS__TOKENS", &tokens()),
    ]);
    let names = ["ROUTER", "CONTROL_PLANE", "REGISTRY_SYNC", "TENANT_SYNC", "SCHEMA_MIGRATOR"];
    for (name, pair) in names.into_iter().zip(ports.chunks_exact(2)) {
        env.push((format!("GREY__{name}__GRPC"), pair[0].addr().to_string()));
        env.push((format!("GREY__{name}__HTTP"), pair[1].addr().to_string()));
    }
    let mut builder = Spawned::builder(cargo_binary("grey").unwrap()).arg("standalone");
    for (name, value) in &env {
        builder = builder.env(name, value);
    }
    (builder.start().unwrap(), ports)
}
