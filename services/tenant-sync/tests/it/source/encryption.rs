//! Whom the service trusts, and how it shows who it is.

use std::fs;
use std::path::{Path, PathBuf};

use axum::{Router, routing::get};
use grey_runtime::server::http::Server;
use grey_runtime::tls::{Acceptor, Alpn, ClientOptions, ServerOptions, install_provider};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio_util::sync::CancellationToken;

use super::*;

/// Writes an authority's certificate, and one that it has issued for `localhost`, with its key.
fn issue(dir: &Path) -> [PathBuf; 3] {
    let files = ["ca.pem", "localhost.pem", "localhost.key"].map(|name| dir.join(name));
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    fs::write(&files[0], params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    fs::write(&files[1], leaf.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    fs::write(&files[2], key.serialize_pem()).unwrap();
    files
}

#[tokio::test]
async fn the_configured_authority_and_client_certificate_are_used() {
    install_provider();
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let [ca, cert, key] = issue(ours.path());
    let [other_ca, ..] = issue(theirs.path());
    let server = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (addr, draining) = (server.local_addr(), CancellationToken::new());
    let tls =
        ServerOptions { cert_file: cert.clone(), key_file: key.clone(), client_ca_file: Some(ca.clone()) };
    let acceptor = Acceptor::load(&tls, Alpn::H2AndHttp1).unwrap();
    let api = Router::new().route("/api/tenants", get(async || r#"{"tenants":[{"id":"acme"}]}"#));
    let serving = tokio::spawn(server.serve(api, Some(acceptor), draining.clone(), DEADLINE));

    let known = ClientOptions { ca_file: ca, cert_file: Some(cert), key_file: Some(key), domain: None };
    let nameless = ClientOptions { cert_file: None, key_file: None, ..known.clone() };
    let distrustful = ClientOptions { ca_file: other_ca, ..known.clone() };
    let with = |tls: Option<ClientOptions>| Options {
        url: format!("https://localhost:{}", addr.port()),
        retries: Retries { attempts: 1, ..Retries::default() },
        tls,
        ..Options::default()
    };
    assert_eq!(ids(&full(&mut source(&with(Some(known)))).await), ["acme"]);
    for tls in [Some(nameless), Some(distrustful), None] {
        let error = failure(&mut source(&with(tls))).await;
        assert_eq!(error.kind(), "unreachable", "{error:?}");
    }
    draining.cancel();
    assert!(timeout(DEADLINE, serving).await.unwrap().unwrap());
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty.pem");
    fs::write(&empty, "").unwrap();
    for (file, told) in [(dir.path().join("absent.pem"), "read PEM file"), (empty, "no certificate in")] {
        let tls = ClientOptions { ca_file: file.clone(), cert_file: None, key_file: None, domain: None };
        let options = Options { url: "https://localhost".to_owned(), tls: Some(tls), ..Options::default() };
        let error = Source::new(&options, &mapping::Options::default()).unwrap_err().to_string();
        assert!(error.contains(told) && error.contains(file.to_str().unwrap()), "{error}");
    }
}
