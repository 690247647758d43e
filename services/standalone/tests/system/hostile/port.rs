//! A port that is attacked: where it is, what is asked of it, and how bytes get there.

use grey_proto::control::history_service_client::HistoryServiceClient;
use grey_proto::control::tenant_service_client::TenantServiceClient;
use grey_proto::control::{GetTenantRequest, ListTenantsRequest, WatchEventsRequest};
use grey_proto::router::router_service_client::RouterServiceClient;
use grey_proto::router::{RouteBatchRequest, RouteRequest, RouteStreamRequest, WatchRequest};
use grey_proto::schema::ListUpgradesRequest;
use grey_proto::schema::schema_service_client::SchemaServiceClient;
use grey_proto::sync::GetStatusRequest;
use grey_proto::sync::sync_service_client::SyncServiceClient;
use grey_testkit::Authority;
use prost::Message;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

pub(super) const TOKEN: &str = "let-me-in";
pub(super) const SERVICE: &str = "orders";
/// Calls that an honest client asks for together.
const BATCH: usize = 100;
/// How long a well-behaved client waits for an answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn tenant(number: usize) -> String {
    format!("t{number:04}")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    Router,
    ControlPlane,
    RegistrySync,
    TenantSync,
    SchemaMigrator,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Grpc,
    Http,
}

/// A request as it is written by hand.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    /// With its five bytes before it, where it is gRPC's.
    pub(super) body: Vec<u8>,
}

pub(super) struct Port {
    /// The program, the service and the protocol.
    pub(super) name: String,
    pub(super) service: Service,
    pub(super) protocol: Protocol,
    pub(super) addr: SocketAddr,
    /// The HTTP port of the same service.
    pub(super) http: SocketAddr,
    pub(super) process: u32,
    pub(super) trust: Option<Trust>,
}

/// Whom the clients of encrypted ports trust.
#[derive(Clone)]
pub(super) struct Trust {
    pem: Vec<u8>,
    roots: Arc<RootCertStore>,
}

impl Trust {
    pub(super) fn new(authority: &Authority) -> Self {
        let pem = std::fs::read(authority.file()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
        Self { pem, roots: Arc::new(roots) }
    }

    fn config(&self, alpn: &[u8]) -> Arc<ClientConfig> {
        let mut config =
            ClientConfig::builder().with_root_certificates(Arc::clone(&self.roots)).with_no_client_auth();
        config.alpn_protocols.extend((!alpn.is_empty()).then(|| alpn.to_vec()));
        Arc::new(config)
    }
}

pub(super) trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// A connection on which HTTP can be spoken.
pub(super) type Wire = Box<dyn Bytes>;

/// How an HTTP/2 client says so in its TLS handshake.
pub(super) const H2: &[u8] = b"h2";
/// HTTP/1.1 is what is spoken if nothing is said.
pub(super) const H1: &[u8] = b"";

impl Port {
    pub(super) fn is_tls(&self) -> bool {
        self.trust.is_some()
    }

    pub(super) fn is_grpc(&self) -> bool {
        self.protocol == Protocol::Grpc
    }

    /// Whether it is the one port that speaks HTTP/2 alone.
    pub(super) fn speaks_http1(&self) -> bool {
        !(self.service == Service::Router && self.is_grpc())
    }

    /// A bare connection.
    pub(super) async fn dial(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.addr).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// A connection after the TLS handshake, where there is one.
    pub(super) async fn connect(&self, alpn: &[u8]) -> io::Result<Wire> {
        let stream = self.dial().await?;
        let Some(trust) = &self.trust else { return Ok(Box::new(stream)) };
        let connector = tokio_rustls::TlsConnector::from(trust.config(alpn));
        Ok(Box::new(connector.connect(self.server_name(), stream).await?))
    }

    /// What a TLS client says first.
    pub(super) fn hello(&self) -> Vec<u8> {
        let config = self.trust.as_ref().unwrap().config(H2);
        let mut hello = Vec::new();
        ClientConnection::new(config, self.server_name()).unwrap().write_tls(&mut hello).unwrap();
        hello
    }

    fn server_name(&self) -> ServerName<'static> {
        ServerName::IpAddress(self.addr.ip().into())
    }

    fn url(&self, addr: SocketAddr, path: &str) -> String {
        format!("{}://{addr}{path}", if self.is_tls() { "https" } else { "http" })
    }

    /// A client of our own kind, connected when it first asks.
    pub(super) fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(self.url(self.addr, "")).unwrap().timeout(PATIENCE);
        let endpoint = endpoint.connect_timeout(PATIENCE);
        let Some(trust) = &self.trust else { return endpoint.connect_lazy() };
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&trust.pem));
        endpoint.tls_config(tls).unwrap().connect_lazy()
    }

    /// A client that keeps its connections, or makes a new one for each request.
    pub(super) fn client(&self, keeps: bool, within: Duration) -> reqwest::Client {
        let builder = reqwest::Client::builder().no_proxy().timeout(within).tls_certs_only([]);
        let builder = if keeps { builder } else { builder.pool_max_idle_per_host(0) };
        let Some(trust) = &self.trust else { return builder.build().unwrap() };
        let certificate = reqwest::Certificate::from_pem(&trust.pem).unwrap();
        builder.tls_certs_only([certificate]).build().unwrap()
    }

    /// Asks over gRPC what an honest client of the service asks; of a router, by turns, one call and several.
    pub(super) async fn call(&self, channel: Channel, turn: usize) -> Result<(), Status> {
        match self.service {
            Service::Router => {
                let mut client = RouterServiceClient::with_interceptor(channel, identified);
                if turn.is_multiple_of(2) {
                    return client.route(route(0)).await.map(drop);
                }
                let calls = (0..BATCH).map(route).collect();
                client.route_batch(RouteBatchRequest { calls }).await.map(drop)
            }
            Service::ControlPlane => {
                let mut client = TenantServiceClient::with_interceptor(channel, identified);
                client.get_tenant(GetTenantRequest { id: tenant(0) }).await.map(drop)
            }
            Service::RegistrySync | Service::TenantSync => {
                let mut client = SyncServiceClient::with_interceptor(channel, identified);
                client.get_status(GetStatusRequest {}).await.map(drop)
            }
            Service::SchemaMigrator => {
                let mut client = SchemaServiceClient::with_interceptor(channel, identified);
                client.list_upgrades(ListUpgradesRequest::default()).await.map(drop)
            }
        }
    }

    /// Whether there is something to watch.
    pub(super) fn is_watched(&self) -> bool {
        self.is_grpc() && matches!(self.service, Service::Router | Service::ControlPlane)
    }

    /// Begins to watch, and ends it once something has come.
    pub(super) async fn watch(&self, channel: Channel) -> Result<(), Status> {
        let came = if self.service == Service::Router {
            let mut client = RouterServiceClient::with_interceptor(channel, identified);
            let wanted = WatchRequest { tenants: vec![tenant(0)], ..WatchRequest::default() };
            client.watch(wanted).await?.into_inner().message().await?.is_some()
        } else {
            let mut client = HistoryServiceClient::with_interceptor(channel, identified);
            let all = WatchEventsRequest::default();
            client.watch_events(all).await?.into_inner().message().await?.is_some()
        };
        if came { Ok(()) } else { Err(Status::unavailable("it ended before anything came")) }
    }

    /// Asks over HTTP what an honest client of the service asks; of a router, by turns, one call and several.
    pub(super) async fn get(&self, client: &reqwest::Client, turn: usize) -> Result<(), String> {
        let request = match self.service {
            Service::Router if turn.is_multiple_of(2) => {
                client.post(self.url(self.addr, "/api/grey-router/route")).json(&route_json(0))
            }
            Service::Router => {
                let calls: Vec<_> = (0..BATCH).map(route_json).collect();
                let batch = serde_json::json!({ "calls": calls });
                client.post(self.url(self.addr, "/api/grey-router/route-batch")).json(&batch)
            }
            Service::ControlPlane => client.get(self.url(self.addr, "/api/tenants/t0000")),
            Service::RegistrySync | Service::TenantSync => client.get(self.url(self.addr, "/api/sync")),
            Service::SchemaMigrator => client.get(self.url(self.addr, "/metrics")),
        };
        let answer = request.bearer_auth(TOKEN).send().await.map_err(|error| format!("{error:?}"))?;
        let (status, body) = (answer.status(), answer.text().await);
        match body {
            Ok(_) if status.is_success() => Ok(()),
            body => Err(format!("{status}: {body:?}")),
        }
    }

    /// Whether the service says over HTTP that it is well.
    pub(super) async fn is_healthy(&self, client: &reqwest::Client, path: &str) -> Result<(), String> {
        let answer =
            client.get(self.url(self.http, path)).send().await.map_err(|error| format!("{error:?}"))?;
        if answer.status().is_success() { Ok(()) } else { Err(answer.status().to_string()) }
    }

    /// Whether it says so over gRPC.
    pub(super) async fn is_serving(&self, channel: Channel) -> Result<(), String> {
        let asked = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
        asked.map(drop).map_err(|status| format!("{status:?}"))
    }

    /// Where a body of some size may be sent by who has a token.
    pub(super) fn upload(&self) -> Ask {
        match (self.protocol, self.service) {
            (Protocol::Grpc, Service::Router) => method("/grey.router.v1.RouterService/RouteBatch", &()),
            (Protocol::Grpc, Service::ControlPlane) => method("/grey.control.v1.PinService/PutPins", &()),
            (Protocol::Grpc, Service::RegistrySync | Service::TenantSync) => {
                method("/grey.sync.v1.SyncService/Accept", &())
            }
            (Protocol::Grpc, Service::SchemaMigrator) => method("/grey.schema.v1.SchemaService/Plan", &()),
            (Protocol::Http, Service::Router) => rest("POST", "/api/grey-router/route-batch", Vec::new()),
            (Protocol::Http, Service::ControlPlane) => rest("POST", "/api/pins", Vec::new()),
            (Protocol::Http, Service::RegistrySync | Service::TenantSync) => {
                rest("POST", "/api/sync/run", Vec::new())
            }
            (Protocol::Http, Service::SchemaMigrator) => rest("POST", "/api/none", Vec::new()),
        }
    }

    /// Where a body may be sent by anyone.
    pub(super) fn open_upload(&self) -> Ask {
        match (self.protocol, self.service) {
            (Protocol::Grpc, _) => method("/grpc.health.v1.Health/Check", &()),
            (Protocol::Http, Service::TenantSync) => rest("POST", "/api/sync/webhook", Vec::new()),
            (Protocol::Http, _) => rest("POST", "/health/live", Vec::new()),
        }
    }

    /// What anyone may ask.
    pub(super) fn open_ask(&self) -> Ask {
        match self.protocol {
            Protocol::Grpc => self.open_upload(),
            Protocol::Http => rest("GET", "/health/live", Vec::new()),
        }
    }

    /// What has the largest answers.
    pub(super) fn large(&self) -> Ask {
        match (self.protocol, self.service) {
            (Protocol::Grpc, Service::Router) => {
                let calls = (0..1_000).map(route).collect();
                method("/grey.router.v1.RouterService/RouteBatch", &RouteBatchRequest { calls })
            }
            (Protocol::Grpc, Service::ControlPlane) => {
                let page = ListTenantsRequest { page_size: 1_000, ..ListTenantsRequest::default() };
                method("/grey.control.v1.TenantService/ListTenants", &page)
            }
            (Protocol::Grpc, Service::RegistrySync | Service::TenantSync) => {
                method("/grey.sync.v1.SyncService/GetStatus", &())
            }
            (Protocol::Grpc, Service::SchemaMigrator) => {
                method("/grey.schema.v1.SchemaService/ListUpgrades", &())
            }
            (Protocol::Http, Service::Router) => {
                let calls: Vec<_> = (0..1_000).map(route_json).collect();
                let body = serde_json::json!({ "calls": calls }).to_string();
                rest("POST", "/api/grey-router/route-batch", body.into_bytes())
            }
            (Protocol::Http, Service::ControlPlane) => rest("GET", "/api/tenants?pageSize=1000", Vec::new()),
            (Protocol::Http, _) => rest("GET", "/metrics", Vec::new()),
        }
    }

    /// Calls whose answers never end.
    pub(super) fn endless(&self) -> Vec<Ask> {
        self.watches().into_iter().take(1).chain([method("/grpc.health.v1.Health/Watch", &())]).collect()
    }

    /// Of those, the ones that take a watcher's slot; the first one has the most to tell.
    pub(super) fn watches(&self) -> Vec<Ask> {
        match self.service {
            Service::Router => {
                let one = WatchRequest { tenants: vec![tenant(1)], ..WatchRequest::default() };
                let path = "/grey.router.v1.RouterService/Watch";
                vec![method(path, &WatchRequest::default()), method(path, &one)]
            }
            Service::ControlPlane => {
                vec![method("/grey.control.v1.HistoryService/WatchEvents", &WatchEventsRequest::default())]
            }
            _ => Vec::new(),
        }
    }

    /// A stream whose caller never ends it, and one message of it.
    pub(super) fn stream(&self) -> Ask {
        match self.service {
            Service::Router => {
                let message = RouteStreamRequest { id: 1, calls: (0..10).map(route).collect() };
                method("/grey.router.v1.RouterService/RouteStream", &message)
            }
            // A request for the names of the services.
            _ => {
                let mut ask = method("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", &());
                ask.body = vec![0, 0, 0, 0, 3, 0x3a, 1, b'*'];
                ask
            }
        }
    }
}

/// Says who calls.
fn identified(mut request: Request<()>) -> Result<Request<()>, Status> {
    let token = MetadataValue::try_from(format!("Bearer {TOKEN}")).unwrap();
    request.metadata_mut().insert("authorization", token);
    Ok(request)
}

fn route_json(number: usize) -> serde_json::Value {
    serde_json::json!({"tenant": tenant(number), "service": SERVICE})
}

fn route(number: usize) -> RouteRequest {
    RouteRequest { tenant: tenant(number), service: SERVICE.to_owned(), ..RouteRequest::default() }
}

fn method(path: &'static str, message: &impl Message) -> Ask {
    let length = u32::try_from(message.encoded_len()).unwrap();
    let mut body = vec![0];
    body.extend(length.to_be_bytes());
    message.encode(&mut body).unwrap();
    Ask { method: "POST", path, body }
}

fn rest(method: &'static str, path: &'static str, body: Vec<u8>) -> Ask {
    Ask { method, path, body }
}
