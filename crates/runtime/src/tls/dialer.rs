//! Client-side handshakes, for protocols that this process only passes on.

use std::io;
use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{ClientOptions, Error, certificates};

/// Makes encrypted connections. Cheap to clone.
#[derive(Clone)]
pub struct Dialer {
    connector: TlsConnector,
    domain: Option<String>,
}

impl Dialer {
    /// Trusts and shows what `options` say, and offers `protocol` to servers, such as `h2`. The files are read once.
    ///
    /// # Errors
    /// A file that cannot be read, or that does not hold what it should.
    pub fn new(options: &ClientOptions, protocol: &str) -> Result<Self, Error> {
        let unusable = |source| Error::Certificate { path: options.ca_file.clone(), source };
        let mut authorities = RootCertStore::empty();
        for certificate in certificates(&options.ca_file)? {
            authorities.add(certificate).map_err(unusable)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(unusable)?.with_root_certificates(authorities);
        let mut config = match (&options.cert_file, &options.key_file) {
            (Some(cert), Some(key)) => {
                let read = PrivateKeyDer::from_pem_file(key);
                let read = read.map_err(|source| Error::Read { path: key.clone(), source })?;
                let unusable = |source| Error::Certificate { path: cert.clone(), source };
                builder.with_client_auth_cert(certificates(cert)?, read).map_err(unusable)?
            }
            (None, None) => builder.with_no_client_auth(),
            _ => return Err(Error::HalfIdentity),
        };
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), domain: options.domain.clone() })
    }

    /// Connects to `host`, whose certificate must name it, or the domain that is expected instead.
    ///
    /// # Errors
    /// As the connection or the handshake.
    pub async fn dial(&self, host: &str, port: u16) -> io::Result<TlsStream<TcpStream>> {
        let name = self.domain.as_deref().unwrap_or(host).to_owned();
        let name = ServerName::try_from(name).map_err(io::Error::other)?;
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        self.connector.connect(name, stream).await
    }
}
