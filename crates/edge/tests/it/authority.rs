//! Certificates made for one test.

use std::fs;
use std::path::PathBuf;

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

    fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Writes a certificate for `host` and its key.
    fn issue(&self, name: &str, host: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        let (cert_file, key_file) =
            (self.dir.path().join(format!("{name}.pem")), self.dir.path().join(format!("{name}.key")));
        fs::write(&cert_file, params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        fs::write(&key_file, key.serialize_pem()).unwrap();
        (cert_file, key_file)
    }

    /// A server called `host`.
    pub(crate) fn server(&self, host: &str) -> ServerOptions {
        let (cert_file, key_file) = self.issue("server", host);
        ServerOptions { cert_file, key_file, client_ca_file: None }
    }

    /// The same where clients must show a certificate of this authority.
    pub(crate) fn strict_server(&self, host: &str) -> ServerOptions {
        ServerOptions { client_ca_file: Some(self.ca_file()), ..self.server(host) }
    }

    /// A client without a certificate that trusts this authority.
    pub(crate) fn client(&self) -> ClientOptions {
        ClientOptions { ca_file: self.ca_file(), cert_file: None, key_file: None, domain: None }
    }

    /// A client that shows a certificate of this authority.
    pub(crate) fn client_with_certificate(&self) -> ClientOptions {
        let (cert_file, key_file) = self.issue("client", "client");
        ClientOptions { cert_file: Some(cert_file), key_file: Some(key_file), ..self.client() }
    }
}
