//! Certificates made for one test.

use std::{fs, net::SocketAddr, path::PathBuf};

use grey_runtime::tls::{ClientOptions, ServerOptions};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// A private authority and the files it has issued.
pub(crate) struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        fs::write(dir.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { dir, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Writes a certificate for `localhost` and its key; replaces those of the same name.
    pub(crate) fn issue(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let (cert_file, key_file) =
            (self.dir.path().join(format!("{name}.pem")), self.dir.path().join(format!("{name}.key")));
        fs::write(&cert_file, params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        fs::write(&key_file, key.serialize_pem()).unwrap();
        (cert_file, key_file)
    }

    pub(crate) fn server(&self) -> ServerOptions {
        let (cert_file, key_file) = self.issue("server");
        ServerOptions { cert_file, key_file, client_ca_file: None }
    }

    /// A client without a certificate that trusts this authority.
    pub(crate) fn client(&self) -> ClientOptions {
        ClientOptions {
            ca_file: self.ca_file(),
            cert_file: None,
            key_file: None,
            domain: Some("localhost".to_owned()),
        }
    }

    /// A client that shows a certificate of this authority.
    pub(crate) fn client_with_certificate(&self) -> ClientOptions {
        let (cert_file, key_file) = self.issue("client");
        ClientOptions { cert_file: Some(cert_file), key_file: Some(key_file), ..self.client() }
    }
}

/// An address as a URL for TLS.
pub(crate) fn url(addr: SocketAddr) -> String {
    format!("https://{addr}")
}
