//! Handshakes that must succeed, and those that must not.

use std::{fs, sync::Arc, time::Duration};

use axum::{Router, routing::get};
use grey_runtime::{
    Faults,
    server::{self, PerCore, PerCoreHandle, http::Server},
    tls::{Acceptor, Alpn, ClientOptions, Error, ServerOptions, install_provider},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use tonic_health::pb::health_client::HealthClient;

use crate::{
    DEADLINE, any_port,
    pki::{Authority, url},
    rpc::{Gate, ask},
    within,
};

fn start(options: &ServerOptions) -> (PerCoreHandle, CancellationToken) {
    let (gate, draining) = (Gate::new(), CancellationToken::new());
    let options =
        server::Options { tls: Some(Acceptor::load(options, Alpn::H2).unwrap()), ..Default::default() };
    let server = PerCore::bind(any_port(), 1).unwrap();
    (server.serve(options, gate.on_threads(), draining.clone()).unwrap(), draining)
}

/// Whether one call succeeds.
async fn reaches(handle: &PerCoreHandle, options: &ClientOptions) -> bool {
    let endpoint = Endpoint::from_shared(url(handle.local_addr())).unwrap().timeout(DEADLINE);
    let endpoint = endpoint.tls_config(options.tonic().unwrap()).unwrap();
    let Ok(channel) = within(endpoint.connect()).await else { return false };
    within(HealthClient::new(channel).check(ask(""))).await.is_ok()
}

#[tokio::test]
async fn client_that_trusts_the_authority_is_served_and_another_is_not() {
    install_provider();
    install_provider();
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (handle, draining) = start(&ours.server());
    assert!(reaches(&handle, &ours.client()).await);
    assert!(!reaches(&handle, &theirs.client()).await, "wrong authority");
    let misnamed = ClientOptions { domain: Some("elsewhere".to_owned()), ..ours.client() };
    assert!(!reaches(&handle, &misnamed).await, "wrong name");
    draining.cancel();
    assert!(within(handle.wait()).await);
}

#[tokio::test]
async fn client_certificate_is_demanded_where_configured() {
    install_provider();
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (handle, draining) = start(&ServerOptions { client_ca_file: Some(ours.ca_file()), ..ours.server() });
    assert!(reaches(&handle, &ours.client_with_certificate()).await);
    assert!(!reaches(&handle, &ours.client()).await, "no certificate");
    let foreign = ClientOptions { ca_file: ours.ca_file(), ..theirs.client_with_certificate() };
    assert!(!reaches(&handle, &foreign).await, "certificate of another authority");
    draining.cancel();
    assert!(within(handle.wait()).await);
}

#[tokio::test]
async fn http_server_speaks_tls_with_http1_clients() {
    install_provider();
    let authority = Authority::new();
    let server = Server::bind(any_port()).await.unwrap();
    let (addr, draining) = (server.local_addr(), CancellationToken::new());
    let acceptor = Acceptor::load(&authority.server(), Alpn::H2AndHttp1).unwrap();
    let router = Router::new().route("/", get(async || "hello"));
    let serving = tokio::spawn(server.serve(router, Some(acceptor), draining.clone(), DEADLINE));
    let ca = reqwest::Certificate::from_pem(&fs::read(authority.ca_file()).unwrap()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([ca]).resolve("localhost", addr).build().unwrap();
    let response = within(client.get(format!("https://localhost:{}/", addr.port())).send()).await.unwrap();
    assert_eq!(response.text().await.unwrap(), "hello");
    draining.cancel();
    assert!(within(serving).await.unwrap());
}

/// The certificate that a new connection is shown.
async fn shown(acceptor: &Acceptor, authority: &Authority) -> CertificateDer<'static> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.ca_file()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (client, server) = tokio::io::duplex(64 << 10);
    let name = ServerName::try_from("localhost").unwrap();
    let (client, server) =
        tokio::join!(TlsConnector::from(Arc::new(config)).connect(name, client), acceptor.accept(server));
    assert_eq!(server.unwrap().get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    client.unwrap().get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

#[tokio::test(start_paused = true)]
async fn renewed_certificate_is_used_within_a_minute() {
    let authority = Authority::new();
    let options = authority.server();
    let acceptor = Acceptor::load(&options, Alpn::H2).unwrap();
    let old = shown(&acceptor, &authority).await;

    authority.issue("server");
    // File systems may count time coarsely: set apart what the two writes could not.
    let later = std::time::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    fs::File::options().write(true).open(&options.cert_file).unwrap().set_modified(later).unwrap();
    assert_eq!(shown(&acceptor, &authority).await, old, "files are not looked at for every connection");
    tokio::time::advance(Duration::from_secs(61)).await;
    let new = shown(&acceptor, &authority).await;
    assert_ne!(new, old);

    fs::write(&options.cert_file, "not a certificate").unwrap();
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(shown(&acceptor, &authority).await, new, "an unusable file leaves the old certificate in use");
}

#[test]
fn unusable_files_are_named() {
    let authority = Authority::new();
    let good = authority.server();
    let empty = authority.ca_file().with_file_name("empty.pem");
    fs::write(&empty, "").unwrap();
    let load = |options: ServerOptions| Acceptor::load(&options, Alpn::H2).unwrap_err();

    let error = load(ServerOptions { cert_file: "/nowhere/cert.pem".into(), ..good.clone() });
    assert_eq!(error.to_string(), "read PEM file /nowhere/cert.pem");
    let error = load(ServerOptions { cert_file: empty.clone(), ..good.clone() });
    assert!(matches!(&error, Error::NoCertificate { path } if *path == empty), "{error}");
    let error = load(ServerOptions { client_ca_file: Some(empty.clone()), ..good.clone() });
    assert!(matches!(&error, Error::NoCertificate { path } if *path == empty), "{error}");
    let error = ClientOptions { ca_file: empty.clone(), ..authority.client() }.tonic().unwrap_err();
    assert!(matches!(&error, Error::NoCertificate { path } if *path == empty), "{error}");
    let (_, other_key) = authority.issue("other");
    let error = load(ServerOptions { key_file: other_key, ..good });
    assert!(matches!(error, Error::Certificate { .. }), "{error}");
}

#[test]
fn half_a_client_identity_is_a_fault() {
    let authority = Authority::new();
    let half = ClientOptions { key_file: None, ..authority.client_with_certificate() };
    assert!(matches!(half.tonic(), Err(Error::HalfIdentity)));
    let mut faults = Faults::default();
    faults.section("tls", &half);
    assert_eq!(faults.found()[0].to_string(), "tls: cert_file and key_file belong together");
}
