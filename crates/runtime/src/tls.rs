//! TLS for servers and clients: rustls with the ring provider, nothing else.

mod acceptor;
mod dialer;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    server::{VerifierBuilderError, WebPkiClientVerifier},
};
use serde::{Deserialize, Serialize};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::config::{Faults, Validate};

pub use acceptor::Acceptor;
pub use dialer::Dialer;

/// A server's certificate, and whom it lets in. All files are PEM.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ServerOptions {
    /// The certificate, followed by its intermediates.
    pub cert_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
    /// Authorities of which every client must show a certificate; none: clients need no certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca_file: Option<PathBuf>,
}

/// Whom a client trusts, and how it identifies itself. All files are PEM.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClientOptions {
    /// The authorities whose servers are trusted; those of the operating system are not.
    pub ca_file: PathBuf,
    /// The client's certificate, if servers demand one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// Its private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// The name to expect in the server's certificate, if it is not the host that is dialled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
}

/// The protocols that a server offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/2 alone, for gRPC.
    H2,
    /// HTTP/2, or HTTP/1.1 for clients without it.
    H2AndHttp1,
}

impl Alpn {
    fn protocols(self) -> Vec<Vec<u8>> {
        match self {
            Self::H2 => vec![b"h2".to_vec()],
            Self::H2AndHttp1 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        }
    }
}

/// Why TLS is not available.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file is absent, unreadable or not PEM.
    #[error("read PEM file {}", path.display())]
    Read {
        /// As configured.
        path: PathBuf,
        /// The reader's complaint.
        source: pem::Error,
    },
    /// A file is PEM but holds no certificate.
    #[error("find a certificate in {}", path.display())]
    NoCertificate {
        /// As configured.
        path: PathBuf,
    },
    /// The certificate and key do not fit together or are of an unsupported kind.
    #[error("use certificate {}", path.display())]
    Certificate {
        /// As configured.
        path: PathBuf,
        /// What rustls says.
        source: rustls::Error,
    },
    /// The clients' authorities cannot be used.
    #[error("use client authorities {}", path.display())]
    ClientAuthorities {
        /// As configured.
        path: PathBuf,
        /// What rustls says.
        source: VerifierBuilderError,
    },
    /// A certificate without key, or a key without certificate.
    #[error("use a client certificate: cert_file and key_file belong together")]
    HalfIdentity,
}

/// Makes ring the process's cryptography, for libraries that ask for a default. Any number of calls do no harm.
pub fn install_provider() {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::trace!("a TLS provider is already installed");
    }
}

impl Validate for ClientOptions {
    fn validate(&self, faults: &mut Faults) {
        let complete = self.cert_file.is_some() == self.key_file.is_some();
        faults.check(complete, "", "cert_file and key_file belong together");
    }
}

impl ServerOptions {
    /// Reads the files.
    ///
    /// # Errors
    /// A file that cannot be read, or that does not hold what it should.
    pub fn server_config(&self, alpn: Alpn) -> Result<ServerConfig, Error> {
        let chain = certificates(&self.cert_file)?;
        let key = PrivateKeyDer::from_pem_file(&self.key_file)
            .map_err(|source| Error::Read { path: self.key_file.clone(), source })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let unusable = |source| Error::Certificate { path: self.cert_file.clone(), source };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?;
        let builder = match &self.client_ca_file {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut authorities = RootCertStore::empty();
                for certificate in certificates(path)? {
                    authorities
                        .add(certificate)
                        .map_err(|source| Error::Certificate { path: path.clone(), source })?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider)
                    .build()
                    .map_err(|source| Error::ClientAuthorities { path: path.clone(), source })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_single_cert(chain, key).map_err(unusable)?;
        config.alpn_protocols = alpn.protocols();
        Ok(config)
    }
}

impl ClientOptions {
    /// The same for tonic's channels.
    ///
    /// # Errors
    /// A file that cannot be read or holds no certificate, or half an identity.
    pub fn tonic(&self) -> Result<ClientTlsConfig, Error> {
        // Of a file without any, nobody would be trusted, and only each call would say so.
        certificates(&self.ca_file)?;
        let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(&self.ca_file)?));
        match (&self.cert_file, &self.key_file) {
            (Some(cert), Some(key)) => config = config.identity(Identity::from_pem(read(cert)?, read(key)?)),
            (None, None) => {}
            _ => return Err(Error::HalfIdentity),
        }
        if let Some(domain) = &self.domain {
            config = config.domain_name(domain);
        }
        Ok(config)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path)
        .map_err(|source| Error::Read { path: path.to_owned(), source: pem::Error::Io(source) })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let wrap = |source| Error::Read { path: path.to_owned(), source };
    let found: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(wrap)?.collect::<Result<_, _>>().map_err(wrap)?;
    if found.is_empty() { Err(Error::NoCertificate { path: path.to_owned() }) } else { Ok(found) }
}
