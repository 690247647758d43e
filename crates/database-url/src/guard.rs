//! Whether a URL may lead where it leads.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use grey_core::database::Dialect;
use url::Url;

use crate::rules::Rules;
use crate::{DatabaseUrl, Fault, Host, Place, Server, decoded, is_below, named};

/// Refuses URLs that lead where no tenant's database may be.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    rules: Rules,
    own: Vec<Location>,
}

/// Where a database of our own is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Location {
    Server { dialect: Dialect, host: Host, port: u16, database: String },
    File(PathBuf),
}

impl Guard {
    /// By these rules, and never to the databases that `own` lead to: URLs that are ours, read as far as they can be.
    #[must_use]
    pub fn new<'a>(rules: Rules, own: impl IntoIterator<Item = &'a str>) -> Self {
        Self { rules, own: own.into_iter().filter_map(location).collect() }
    }

    /// Whether the URL may be used.
    ///
    /// # Errors
    /// It leads to a host or folder that is not listed, to an address that no database has, to a database of our own, or
    /// names a file outside the folders for certificates.
    pub fn check(&self, url: &DatabaseUrl) -> Result<(), Fault> {
        match &url.place {
            Place::Server(server) => self.check_server(url.dialect(), server)?,
            Place::File { path, .. } => self.check_file(path)?,
        }
        let outside = |file: &Path| !self.rules.certificates.iter().any(|folder| is_below(file, folder));
        if url.encryption.files().any(|(_, file)| outside(file)) {
            let why =
                "names a certificate or a key outside the folders of `certificates` in [tenant_databases]";
            return Err(Fault::new(why));
        }
        Ok(())
    }

    fn check_server(&self, dialect: Dialect, server: &Server) -> Result<(), Fault> {
        if let Host::Address(address) = server.host
            && is_never_a_database(address)
        {
            let why = "leads to an address that no database has: link-local, unspecified or multicast";
            return Err(Fault::new(why));
        }
        if !self.rules.admits(&server.host) {
            return Err(Fault::new("leads to a host that is not among `hosts` in [tenant_databases]"));
        }
        let Server { host, port, database, .. } = server;
        let there =
            Location::Server { dialect, host: told_apart(host), port: *port, database: database.clone() };
        self.not_ours(&there)
    }

    fn check_file(&self, path: &Path) -> Result<(), Fault> {
        let folders = &self.rules.folders;
        if !folders.is_empty() && !folders.iter().any(|folder| is_below(path, folder)) {
            return Err(Fault::new("leads to a file outside the `folders` in [tenant_databases]"));
        }
        self.not_ours(&Location::File(resolved(path)))
    }

    fn not_ours(&self, there: &Location) -> Result<(), Fault> {
        if self.own.contains(there) {
            return Err(Fault::new("leads to Grey Router's own database, which no tenant has"));
        }
        Ok(())
    }
}

/// Whether an address is one that no database server is at: link-local ones, where clouds hand out credentials,
/// unspecified and multicast ones.
#[must_use]
pub fn is_never_a_database(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(it) => it.is_link_local() || it.is_unspecified() || it.is_multicast() || it.is_broadcast(),
        IpAddr::V6(it) => it.is_unicast_link_local() || it.is_unspecified() || it.is_multicast(),
    }
}

/// Reads where a URL of ours leads. Its options are its driver's.
fn location(text: &str) -> Option<Location> {
    if let Some(path) = text.strip_prefix("sqlite:") {
        let path = path.strip_prefix("//").unwrap_or(path).split('?').next().unwrap_or_default();
        return Some(Location::File(resolved(Path::new(&decoded(path).ok()?))));
    }
    let url = Url::parse(text).ok()?;
    let (dialect, port) = match url.scheme() {
        "postgres" | "postgresql" => (Dialect::Postgres, 5_432),
        "mysql" => (Dialect::MySql, 3_306),
        _ => return None,
    };
    let host = match url.host()? {
        url::Host::Ipv6(address) => Host::Address(IpAddr::V6(address)),
        url::Host::Ipv4(address) => Host::Address(IpAddr::V4(address)),
        url::Host::Domain(name) => named(&decoded(name).ok()?).ok()?,
    };
    let database = decoded(url.path().strip_prefix('/').unwrap_or_default()).ok()?;
    let port = url.port().unwrap_or(port);
    Some(Location::Server { dialect, host: told_apart(&host), port, database })
}

/// The same host for all names of this machine.
fn told_apart(host: &Host) -> Host {
    match host {
        Host::Address(address) if address.to_canonical().is_loopback() => Host::Name("localhost".to_owned()),
        other => other.clone(),
    }
}

/// The path that the file has on the disk, as far as there is one.
fn resolved(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if let Ok(real) = absolute.canonicalize() {
        return real;
    }
    match (absolute.parent().and_then(|folder| folder.canonicalize().ok()), absolute.file_name()) {
        (Some(folder), Some(name)) => folder.join(name),
        _ => absolute,
    }
}
