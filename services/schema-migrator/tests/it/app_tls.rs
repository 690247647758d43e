//! A control plane and a migrator that call each other encrypted, each with a token and a certificate of its own.

use crate::files::folder;
use crate::service_world::{PLAIN, Plane, Replica, SOON, config, up};
use grey_core::error::Reason;
use grey_edge::client::{Client, Options, Peer};
use grey_proto::control::catalog_service_client::CatalogServiceClient;
use grey_proto::control::database_service_client::DatabaseServiceClient;
use grey_proto::control::pin_service_client::PinServiceClient;
use grey_proto::control::tenant_service_client::TenantServiceClient;
use grey_proto::control::{
    DatabaseKind, GetTenantRequest, ListPinsRequest, Pin, PutDatabaseRequest, PutPinRequest,
    PutServiceRequest, PutTenantRequest, PutVersionRequest, SchemaWindow, Service, ServiceVersion, Tenant,
    TenantDatabase,
};
use grey_proto::schema::schema_service_client::SchemaServiceClient;
use grey_proto::schema::{ListUpgradesRequest, UpgradeState};
use grey_proto::status::{ApiError, from_status};
use grey_runtime::Secret;
use grey_runtime::access::{Token, TokenHash};
use grey_runtime::tls::{ClientOptions, ServerOptions};
use grey_testkit::{ReservedPort, eventually};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use tempfile::TempDir;

#[tokio::test]
async fn tenant_is_upgraded_and_pinned_over_encrypted_calls_both_ways() {
    let authority = Authority::new();
    // Each of the two must know the other's port before either is there.
    let ports = [(); 2].map(|()| ReservedPort::any().unwrap());
    let [plane_addr, migrator_addr] = [ports[0].addr(), ports[1].addr()];
    let plane = Plane::start_with(plane_addr, tempfile::tempdir().unwrap(), |config| {
        config.tls = Some(authority.server());
        config.access.tokens = vec![token("ann", "admin"), token("schema-migrator", "operator")];
        config.migrator.url = format!("https://{migrator_addr}");
        config.migrator.token = secret("control-plane");
        config.migrator.tls = Some(authority.client("control-plane"));
    })
    .await;
    let (files, store) = (folder(&PLAIN), tempfile::tempdir().unwrap());
    let url = format!("sqlite://{}/migrator.db", store.path().display());
    let mut config = config(&url, files.path(), &format!("https://{plane_addr}"));
    config.grpc.listen = migrator_addr;
    config.tls = Some(authority.server());
    config.access.tokens = vec![token("control-plane", "admin"), token("ann", "operator")];
    config.control.token = secret("schema-migrator");
    config.control.tls = Some(authority.client("schema-migrator"));
    let replica = Replica::start(config.clone()).await;

    let ann = authority.caller("ann", plane_addr);
    let database = store.path().join("acme.db");
    fs::File::create(&database).unwrap();
    declare(&ann, &format!("sqlite://{}", database.display())).await.unwrap();
    let mut pins = PinServiceClient::new(ann.transport());
    let (tenant, service, version) = ("acme".into(), "shop".into(), "2.0".into());
    let pin = Pin { tenant, service, version, ..Pin::default() };
    ann.call(pins.put_pin(PutPinRequest { pin: Some(pin), migrate: true, ..PutPinRequest::default() }))
        .await
        .unwrap();
    eventually(SOON, "the tenant is pinned", async || {
        let request = ListPinsRequest { tenant: "acme".into(), ..ListPinsRequest::default() };
        let pins = ann.call(pins.clone().list_pins(request)).await.unwrap().pins;
        pins.iter().any(|pin| pin.version == "v2.0")
    })
    .await;
    let mut tenants = TenantServiceClient::new(ann.transport());
    let acme = ann.call(tenants.get_tenant(GetTenantRequest { id: "acme".into() })).await.unwrap();
    assert_eq!(acme.schemas[0].schema, "1.2");
    let at_migrator = authority.caller("ann", migrator_addr);
    let mut schemas = SchemaServiceClient::new(at_migrator.transport());
    let listed = at_migrator.call(schemas.list_upgrades(ListUpgradesRequest::default())).await.unwrap();
    let [upgrade] = listed.upgrades.as_slice() else { panic!("{listed:?}") };
    assert_eq!((upgrade.actor.as_str(), upgrade.state()), ("ann via control-plane", UpgradeState::Succeeded));

    // Neither is called without a certificate, nor in clear.
    for addr in [plane_addr, migrator_addr] {
        let stranger = ClientOptions { cert_file: None, key_file: None, ..authority.client("ann") };
        let (https, http) = (format!("https://{addr}"), format!("http://{addr}"));
        for (url, tls) in [(https, Some(stranger)), (http, None)] {
            let client = client(url, "ann", tls);
            let mut tenants = TenantServiceClient::new(client.transport());
            let refused = client.call(tenants.get_tenant(GetTenantRequest { id: "acme".into() })).await;
            assert_eq!(refused.unwrap_err().reason, Reason::Unavailable);
        }
    }
    replica.stop().await;
    plane.stop().await;
}

#[tokio::test]
async fn migrator_that_does_not_trust_the_control_plane_says_which_setting_to_change() {
    let (authority, other) = (Authority::new(), Authority::new());
    let plane = Plane::start_with("127.0.0.1:0".parse().unwrap(), tempfile::tempdir().unwrap(), |config| {
        config.tls = Some(authority.server());
    })
    .await;
    let (files, store) = (folder(&PLAIN), tempfile::tempdir().unwrap());
    let url = format!("sqlite://{}/migrator.db", store.path().display());
    let mut config = config(&url, files.path(), &format!("https://{}", plane.addr));
    config.control.tls = Some(other.client("schema-migrator"));
    let replica = Replica::start(config).await;
    let refused = from_status(&replica.try_start(up("acme")).await.unwrap_err());
    assert_eq!(refused.reason, Reason::Unavailable, "{refused}");
    assert!(refused.message.contains("set control.tls.ca_file to the authority"), "{refused}");
    replica.stop().await;
    plane.stop().await;
}

/// A service whose version 2.0 works from schema 1.2 on, and a tenant with an empty database.
async fn declare(ann: &Client, database: &str) -> Result<(), ApiError> {
    let mut catalog = CatalogServiceClient::new(ann.transport());
    let service = Service { id: "shop".into(), default_version: "1.0".into(), revision: 0 };
    ann.call(catalog.put_service(PutServiceRequest { service: Some(service), write: None })).await?;
    let schema = Some(SchemaWindow { min: "1.2".into(), max: String::new() });
    let version = ServiceVersion { service: "shop".into(), version: "2.0".into(), schema, revision: 0 };
    ann.call(catalog.put_version(PutVersionRequest {
        version: Some(version),
        write: None,
        update_mask: Vec::new(),
    }))
    .await?;
    let mut tenants = TenantServiceClient::new(ann.transport());
    let tenant = Tenant { id: "acme".into(), ..Tenant::default() };
    ann.call(tenants.put_tenant(PutTenantRequest {
        tenant: Some(tenant),
        write: None,
        update_mask: Vec::new(),
    }))
    .await?;
    let mut databases = DatabaseServiceClient::new(ann.transport());
    let (tenant, service) = ("acme".into(), "shop".into());
    let registered =
        TenantDatabase { tenant, service, kind: DatabaseKind::File.into(), ..TenantDatabase::default() };
    let request = PutDatabaseRequest {
        database: Some(registered),
        url: database.into(),
        ..PutDatabaseRequest::default()
    };
    ann.call(databases.put_database(request)).await.map(drop)
}

/// The token of whoever is called `name`.
fn secret(name: &str) -> Secret {
    Secret::new(format!("secret-of-{name}"))
}

fn token(name: &str, role: &str) -> Token {
    let sha256 = TokenHash::of(secret(name).expose());
    Token { name: name.to_owned(), role: role.to_owned(), sha256 }
}

fn client(url: String, name: &str, tls: Option<ClientOptions>) -> Client {
    let options = Options { url, token: secret(name), tls, connect_timeout: SOON, timeout: SOON };
    Client::new(Peer { name: "service", section: "service" }, &options).unwrap()
}

/// An authority of a test's own, and the files it has issued.
struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        fs::write(dir.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { dir, issuer: Issuer::new(params, key) }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a certificate for `host` and its key.
    fn issue(&self, name: &str, host: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        let (cert, private) = (self.file(&format!("{name}.pem")), self.file(&format!("{name}.key")));
        fs::write(&cert, params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        fs::write(&private, key.serialize_pem()).unwrap();
        (cert, private)
    }

    /// A server on this machine that demands certificates of this authority.
    fn server(&self) -> ServerOptions {
        let (cert_file, key_file) = self.issue("server", "127.0.0.1");
        ServerOptions { cert_file, key_file, client_ca_file: Some(self.file("ca.pem")) }
    }

    /// A client that trusts this authority and shows a certificate of it.
    fn client(&self, name: &str) -> ClientOptions {
        let (cert_file, key_file) = self.issue(name, name);
        let (cert_file, key_file) = (Some(cert_file), Some(key_file));
        ClientOptions { ca_file: self.file("ca.pem"), cert_file, key_file, domain: None }
    }

    /// Someone with a token and a certificate.
    fn caller(&self, name: &str, addr: SocketAddr) -> Client {
        client(format!("https://{addr}"), name, Some(self.client(name)))
    }
}
