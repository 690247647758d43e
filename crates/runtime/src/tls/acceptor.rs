//! Server-side handshakes with certificates that may be renewed while the server runs.

use std::{
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{Alpn, Error, ServerOptions};

/// How often, at most, a new connection looks whether the files have changed.
const RELOAD_INTERVAL: Duration = Duration::from_secs(60);

/// A cheap handle on a server's current certificates.
#[derive(Debug, Clone)]
pub struct Acceptor {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: ServerOptions,
    alpn: Alpn,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    stamp: Stamp,
    checked: Instant,
}

/// Size and modification time of each file.
type Stamp = Vec<Option<(u64, SystemTime)>>;

impl Acceptor {
    /// Reads the files. Within a minute of their change, new connections use what they hold by then.
    ///
    /// # Errors
    /// A file that cannot be read, or that does not hold what it should.
    pub fn load(options: &ServerOptions, alpn: Alpn) -> Result<Self, Error> {
        // Taken before reading: a change in between is seen by the next check.
        let stamp = stamp(options);
        let config = Arc::new(options.server_config(alpn)?);
        let current = Mutex::new(Current { config, stamp, checked: Instant::now() });
        Ok(Self { inner: Arc::new(Inner { options: options.clone(), alpn, current }) })
    }

    /// Does the server's part of a handshake; the caller sets the deadline.
    ///
    /// # Errors
    /// The handshake's failure, such as a client without the certificate that it needs.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<TlsStream<S>> {
        TlsAcceptor::from(self.current()).accept(stream).await
    }

    /// The configuration for a new connection. Unusable new files are reported and the old ones stay in use.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        let Inner { options, alpn, current } = &*self.inner;
        let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.checked.elapsed() >= RELOAD_INTERVAL {
            current.checked = Instant::now();
            let seen = stamp(options);
            if seen != current.stamp {
                match options.server_config(*alpn) {
                    Ok(config) => {
                        current.config = Arc::new(config);
                        tracing::info!(tls.cert_file = %options.cert_file.display(), "certificate reloaded");
                    }
                    Err(error) => {
                        let error: &dyn std::error::Error = &error;
                        tracing::error!(error, "changed certificate is unusable, the old one stays");
                    }
                }
                current.stamp = seen;
            }
        }
        Arc::clone(&current.config)
    }
}

fn stamp(options: &ServerOptions) -> Stamp {
    let seen = |path: &PathBuf| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.len(), metadata.modified().ok()?))
    };
    [Some(&options.cert_file), Some(&options.key_file), options.client_ca_file.as_ref()]
        .into_iter()
        .map(|path| path.and_then(seen))
        .collect()
}
