//! The connection URL of a tenant's database: what it says, read once and strictly, and where it may lead.
//!
//! The control plane reads a URL when it is registered, the migrator when it connects; both by the same rules, so that what
//! was checked is what is connected to. Whatever is not understood is refused: an option that a driver would pass over in
//! silence, such as a misspelt `sslmode`, would leave a connection in clear. No error repeats the URL, which has a password.
//!
//! What it does *not* do: it connects to nothing and resolves no name.
//!
//! ```
//! use grey_database_url::{DatabaseUrl, Strength};
//!
//! let url = DatabaseUrl::parse("postgres://app:s3cret@[::1]/acme?sslmode=verify-full")?;
//! assert_eq!(url.server(), "[::1]:5432");
//! assert_eq!(url.encryption.strength, Strength::Identity);
//! assert!(DatabaseUrl::parse("postgres://app:s3cret@db/acme?sslmod=verify-full").is_err());
//! # Ok::<(), grey_database_url::Fault>(())
//! ```

mod encryption;
mod guard;
mod options;
mod rules;

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use grey_core::database::Dialect;
use grey_runtime::Secret;
use percent_encoding::percent_decode_str;
use url::Url;

pub use encryption::{Encryption, Strength};
pub use guard::{Guard, is_never_a_database};
pub use rules::Rules;

/// Longest URL, in bytes.
const MAX_URL: usize = 4_096;

/// What the URL that migrations connect by is sealed for, beside the one that is sealed for the service itself.
#[must_use]
pub fn direct_context(service: &str) -> String {
    // No id of a service has a slash.
    format!("{service}/direct")
}

/// Why a URL is refused: a phrase that follows the word for it, as in "the url *names no user*".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub(crate) String);

impl Fault {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// What a URL says.
#[derive(Debug, Clone)]
pub struct DatabaseUrl {
    /// Where it leads.
    pub place: Place,
    /// What it insists on.
    pub encryption: Encryption,
    /// The MySQL family's character set.
    pub charset: Option<String>,
    /// The MySQL family's collation.
    pub collation: Option<String>,
    dialect: Dialect,
}

/// Where a URL leads.
#[derive(Debug, Clone)]
pub enum Place {
    /// A database on a server.
    Server(Server),
    /// A SQLite file.
    File {
        /// Its absolute path, without `.` and `..`.
        path: PathBuf,
        /// Whether it is made where it is missing.
        create: bool,
    },
}

/// A database on a server, and who logs in.
#[derive(Debug, Clone)]
pub struct Server {
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
    /// The user.
    pub user: String,
    /// The password; empty: none.
    pub password: Secret,
    /// The database.
    pub database: String,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A name, in lower case.
    Name(String),
    /// An address.
    Address(IpAddr),
    /// The path of a Unix socket (MySQL family) or of its folder (PostgreSQL).
    Socket(String),
}

impl Host {
    /// The host as drivers and tools take it: an IPv6 address without brackets.
    #[must_use]
    pub fn bare(&self) -> String {
        match self {
            Self::Name(text) | Self::Socket(text) => text.clone(),
            Self::Address(address) => address.to_string(),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            other => f.write_str(&other.bare()),
        }
    }
}

impl DatabaseUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// It is malformed, leads to no one database, or has an option that is not known or a value that is not one.
    pub fn parse(url: &str) -> Result<Self, Fault> {
        // Whoever parses a URL drops line breaks and tabs; what is sealed must be what was checked.
        if url.is_empty() || url.len() > MAX_URL || url.bytes().any(|it| it.is_ascii_control() || it == b' ')
        {
            return Err(Fault::new("must have 1 to 4096 bytes, without spaces and control characters"));
        }
        let parsed =
            Url::parse(url).map_err(|_| Fault::new("is malformed; percent-encode what is special"))?;
        if parsed.fragment().is_some() {
            return Err(Fault::new("has a `#`: write %23 for one in a password"));
        }
        let dialect = match parsed.scheme() {
            "postgres" | "postgresql" => Dialect::Postgres,
            "mysql" => Dialect::MySql,
            "sqlite" => Dialect::Sqlite,
            _ => return Err(Fault::new("must begin with postgres://, mysql:// or sqlite://")),
        };
        let options = options::read(dialect, &parsed)?;
        let place = match dialect {
            Dialect::Postgres => Place::Server(server(&parsed, dialect, 5_432)?),
            Dialect::MySql => Place::Server(server(&parsed, dialect, 3_306)?),
            Dialect::Sqlite => Place::File { path: file(url)?, create: options.create },
        };
        let options::Options { encryption, charset, collation, .. } = options;
        Ok(Self { place, encryption, charset, collation, dialect })
    }

    /// What the database understands.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Host and port, the folder of a socket, or the file.
    #[must_use]
    pub fn server(&self) -> String {
        match &self.place {
            Place::Server(Server { host: Host::Socket(path), .. }) => path.clone(),
            Place::Server(server) => format!("{}:{}", server.host, server.port),
            Place::File { path, .. } => path.display().to_string(),
        }
    }

    /// The database on the server; empty for a file.
    #[must_use]
    pub fn database(&self) -> &str {
        match &self.place {
            Place::Server(server) => &server.database,
            Place::File { .. } => "",
        }
    }
}

fn server(url: &Url, dialect: Dialect, port: u16) -> Result<Server, Fault> {
    let host = match url.host() {
        Some(url::Host::Ipv6(address)) => Host::Address(IpAddr::V6(address)),
        Some(url::Host::Ipv4(address)) => Host::Address(IpAddr::V4(address)),
        Some(url::Host::Domain(name)) if !name.is_empty() => named(&decoded(name)?)?,
        _ => return Err(Fault::new("names no host")),
    };
    let user = decoded(url.username())?;
    if user.is_empty() {
        return Err(Fault::new("names no user"));
    }
    let password = decoded(url.password().unwrap_or_default())?;
    let database = decoded(url.path().strip_prefix('/').unwrap_or_default())?;
    let clean = |text: &str| !text.contains('\0');
    if database.is_empty() || database.contains('/') || !clean(&database) {
        return Err(Fault::new("must name one database behind the host"));
    }
    if !clean(&user) || !clean(&password) {
        return Err(Fault::new("has a user or password that no database takes"));
    }
    let port = url.port().unwrap_or(port);
    if port == 0 {
        return Err(Fault::new("names port 0, which nothing listens on"));
    }
    if dialect == Dialect::Postgres && matches!(&host, Host::Socket(path) if path.ends_with('/')) {
        return Err(Fault::new("must name the folder of a socket without a slash at its end"));
    }
    Ok(Server { host, port, user, password: Secret::new(password), database })
}

/// A host that is no address in brackets.
fn named(text: &str) -> Result<Host, Fault> {
    if text.starts_with('/') {
        return if is_plain_path(text) {
            Ok(Host::Socket(text.to_owned()))
        } else {
            Err(plain_path("a socket"))
        };
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Host::Address(address));
    }
    let name = text.to_ascii_lowercase();
    let label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty() && !label.starts_with('-') && label.bytes().all(allowed)
    };
    let absolute = name.strip_suffix('.').unwrap_or(&name);
    // Resolvers take `2130706433`, `127.1` and `0x7f.1` for addresses, which no rule about addresses would see.
    let number = |label: &str| {
        label.bytes().all(|it| it.is_ascii_digit()) || label.starts_with("0x") || label.starts_with("0X")
    };
    if !absolute.split('.').all(label) || absolute.rsplit('.').next().is_none_or(number) {
        return Err(Fault::new("names a host that is neither a name nor an address"));
    }
    Ok(Host::Name(absolute.to_owned()))
}

fn file(url: &str) -> Result<PathBuf, Fault> {
    // A parser of URLs resolves `..`; the driver takes the path as it is written.
    let path = url.strip_prefix("sqlite://").unwrap_or_default().split('?').next().unwrap_or_default();
    let path = decoded(path)?;
    if path.contains(":memory:") {
        return Err(Fault::new("must be of a file, not of memory"));
    }
    if !is_plain_path(&path) {
        return Err(Fault::new("must be sqlite:// and the absolute path of a file, without `.` and `..`"));
    }
    Ok(PathBuf::from(path))
}

/// Whether the text is an absolute path that leads nowhere but where it says.
pub(crate) fn is_plain_path(text: &str) -> bool {
    let mut parts = text.split('/');
    text.starts_with('/')
        && parts.next() == Some("")
        && !text.contains('\0')
        && parts.all(|it| !matches!(it, "" | "." | ".."))
}

pub(crate) fn plain_path(what: &str) -> Fault {
    Fault::new(format!("must name the absolute path of {what}, without `.` and `..`"))
}

/// Whether a path lies below a folder.
pub(crate) fn is_below(path: &Path, folder: &Path) -> bool {
    path.starts_with(folder) && path != folder
}

pub(crate) fn decoded(part: &str) -> Result<String, Fault> {
    // The decoder passes over what is no escape; another reader might not.
    let is_escape = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|it| it.is_ascii_hexdigit());
    if !part.split('%').skip(1).all(is_escape) {
        return Err(Fault::new("has a `%` that begins no escape: write %25 for one"));
    }
    let text = percent_decode_str(part).decode_utf8();
    text.map(Into::into).map_err(|_| Fault::new("has percent-encoded bytes that are no UTF-8"))
}

#[cfg(test)]
mod tests;
