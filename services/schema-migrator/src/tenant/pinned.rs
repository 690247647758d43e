//! Servers whose certificate is its own authority.
//!
//! Whoever is told to trust just that certificate trusts the server that shows it. The driver's library does not: to it, what
//! may sign others must not be shown. So such a connection is made here, and led to the driver through a socket in a
//! folder that only this user may enter. Whether the certificate is the one that is trusted, and names the host where that
//! counts, is checked as strictly as elsewhere.

use super::{Error, Target, mysql_tls};
use crate::external::Private;
use crate::files::Dialect;
use grey_database_url::{DatabaseUrl, Encryption, Server, Strength};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpStream, UnixListener};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What the library says of such a certificate.
const OWN_AUTHORITY: &str = "CaUsedAsEndEntity";

/// PostgreSQL's request for encryption, and the answer that grants it.
const REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const GRANTED: u8 = b'S';

/// A socket that leads to the server; good for one connection.
pub(super) struct Tunnel {
    private: Private,
}

impl Tunnel {
    /// The folder that the socket is in: what PostgreSQL's driver is told.
    pub(super) fn folder(&self) -> &Path {
        self.private.folder()
    }

    /// The socket: what the MySQL family's driver is told.
    pub(super) fn socket(&self) -> std::path::PathBuf {
        self.private.folder().join(MYSQL_SOCKET)
    }
}

const MYSQL_SOCKET: &str = "s";

/// Whether an error says that the server's certificate is an authority's.
pub(super) fn is_own_authority(error: &Error) -> bool {
    matches!(error, Error::Refused { why, .. } if why.contains(OWN_AUTHORITY))
}

/// Connects to a server that shows the certificate which the URL names as authority.
pub(super) async fn tunnel(target: &Target) -> Result<Tunnel, Error> {
    let (server, url) = super::server(target)?;
    let DatabaseUrl { encryption, .. } = url;
    let config = config(&encryption).map_err(|why| refused(&why))?;
    let name = ServerName::try_from(server.host.bare()).map_err(|error| refused(&error.to_string()))?;
    let private = Private::make().map_err(|error| refused(&format!("make a private folder: {error}")))?;
    let socket = match target.dialect {
        Dialect::Postgres => private.folder().join(format!(".s.PGSQL.{}", server.port)),
        _ => private.folder().join(MYSQL_SOCKET),
    };
    let listener = UnixListener::bind(socket).map_err(|error| refused(&error.to_string()))?;
    let connector = TlsConnector::from(Arc::new(config));
    match target.dialect {
        Dialect::Postgres => {
            let mut encrypted = postgres(&server, &connector, name).await.map_err(|why| refused(&why))?;
            tokio::spawn(async move {
                if let Ok((mut client, _)) = listener.accept().await {
                    // Either side ends it, and is told of a fault by its own protocol.
                    drop(copy_bidirectional(&mut client, &mut encrypted).await);
                }
            });
        }
        _ => {
            let stream = connect(&server).await.map_err(|why| refused(&why))?;
            tokio::spawn(async move {
                if let Ok((client, _)) = listener.accept().await
                    && let Err(error) =
                        mysql_tls::lead(client, stream, &connector, name, &server.password).await
                {
                    tracing::debug!(error = %error, "an encrypted connection has ended");
                }
            });
        }
    }
    Ok(Tunnel { private })
}

async fn connect(server: &Server) -> Result<TcpStream, String> {
    let stream =
        TcpStream::connect((server.host.bare(), server.port)).await.map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    Ok(stream)
}

async fn postgres(
    server: &Server,
    connector: &TlsConnector,
    name: ServerName<'static>,
) -> Result<TlsStream<TcpStream>, String> {
    let told = |error: std::io::Error| error.to_string();
    let mut stream = connect(server).await?;
    stream.write_all(&REQUEST).await.map_err(told)?;
    if stream.read_u8().await.map_err(told)? != GRANTED {
        return Err("server does not support TLS".to_owned());
    }
    connector.connect(name, stream).await.map_err(told)
}

fn refused(why: &str) -> Error {
    Error::Refused { attempted: "connect to the tenant's database", why: why.to_owned() }
}

fn config(encryption: &Encryption) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let authority = encryption.authority.as_ref().ok_or("the url names no authority")?;
    let trusted = certificates(authority)?;
    let mut roots = RootCertStore::empty();
    for certificate in &trusted {
        roots.add(certificate.clone()).map_err(|error| error.to_string())?;
    }
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let inner = inner.build().map_err(|error| error.to_string())?;
    let by_name = encryption.strength == Strength::Identity;
    let verifier = Arc::new(Verifier { trusted, by_name, inner, provider: Arc::clone(&provider) });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let (Some(certificate), Some(key)) = (&encryption.certificate, &encryption.key) else {
        return Ok(builder.with_no_client_auth());
    };
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| error.to_string())?;
    builder.with_client_auth_cert(certificates(certificate)?, key).map_err(|error| error.to_string())
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(file).map_err(|error| error.to_string())?;
    read.collect::<Result<_, _>>().map_err(|error| error.to_string())
}

/// Trusts a certificate that is shown and is among the trusted ones.
#[derive(Debug)]
struct Verifier {
    trusted: Vec<CertificateDer<'static>>,
    /// Whether it must name the host.
    by_name: bool,
    inner: Arc<WebPkiServerVerifier>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // It looks at the time first, so a certificate that has expired ends with that.
        match self.inner.verify_server_cert(shown, intermediates, name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(why)))
                if format!("{why:?}").contains(OWN_AUTHORITY) && self.trusted.contains(shown) =>
            {
                if self.by_name {
                    verify_server_name(&ParsedCertificate::try_from(shown)?, name)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
