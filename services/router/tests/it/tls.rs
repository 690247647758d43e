//! Both ports under TLS.

use std::fs;

use grey_proto::router::router_service_client::RouterServiceClient;
use grey_router::App;
use grey_runtime::tls::{ClientOptions, ServerOptions};
use grey_runtime::{Shutdown, Telemetry};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tonic::transport::Endpoint;

use crate::world::{DEADLINE, World, call, config, eventually, within};

#[tokio::test]
async fn both_ports_speak_tls_and_nothing_else() {
    grey_runtime::tls::install_provider();
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let ca = authority.self_signed(&authority_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let names = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let cert = names.signed_by(&key, &Issuer::new(authority, authority_key)).unwrap().pem();
    let (cert_file, key_file) = (file("server.pem", cert), file("server.key", key.serialize_pem()));
    let ca_file = file("ca.pem", ca.clone());

    let world = World::memory().await.with_payment().await;
    let config = config(|c| c.tls = Some(ServerOptions { cert_file, key_file, client_ca_file: None }));
    let telemetry = Telemetry::start("grey-router", &config.telemetry).unwrap();
    let app = App::bind(config, world.state.clone(), telemetry).await.unwrap();
    let (grpc, http, shutdown) = (app.grpc_addr(), app.http_addr(), Shutdown::new());
    let served = {
        let shutdown = shutdown.clone();
        tokio::spawn(async move { app.serve(&shutdown).await })
    };

    let options =
        ClientOptions { ca_file, cert_file: None, key_file: None, domain: Some("localhost".into()) };
    let endpoint = Endpoint::from_shared(format!("https://{grpc}")).unwrap().timeout(DEADLINE);
    let channel = within(endpoint.tls_config(options.tonic().unwrap()).unwrap().connect()).await.unwrap();
    let mut client = RouterServiceClient::new(channel);
    eventually("it decides", async || client.route(call("beta", "payment")).await.is_ok()).await;

    let ca = reqwest::Certificate::from_pem(ca.as_bytes()).unwrap();
    let secure = reqwest::Client::builder().tls_certs_only([ca]).resolve("localhost", http).build().unwrap();
    let url = format!("https://localhost:{}/health/ready", http.port());
    eventually("it is ready", async || within(secure.get(&url).send()).await.unwrap().status() == 200).await;

    assert!(within(reqwest::get(format!("http://{http}/health/ready"))).await.is_err());
    let plain = Endpoint::from_shared(format!("http://{grpc}")).unwrap().connect_lazy();
    assert!(within(RouterServiceClient::new(plain).route(call("beta", "payment"))).await.is_err());
    shutdown.begin();
    within(served).await.unwrap().unwrap();
}
