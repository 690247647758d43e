//! Where URLs may lead, as an operator sets it.

use std::net::IpAddr;
use std::path::PathBuf;

use grey_runtime::{Faults, Validate};
use serde::{Deserialize, Serialize};

use crate::{Host, is_plain_path};

/// Where URLs may lead.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// Hosts: names, `*.example.com`, addresses, `10.0.0.0/8`, folders of sockets; none: any.
    pub hosts: Vec<String>,
    /// Folders that SQLite files may be in; none: any.
    pub folders: Vec<PathBuf>,
    /// Folders of the certificates and keys that URLs may name; none: they may name no file.
    pub certificates: Vec<PathBuf>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { hosts: Vec::new(), folders: Vec::new(), certificates: vec![PathBuf::from("/etc/grey")] }
    }
}

impl Validate for Rules {
    fn validate(&self, faults: &mut Faults) {
        for (index, text) in self.hosts.iter().enumerate() {
            let why =
                "must be a name, *.name, an address, a network such as 10.0.0.0/8, or the folder of a socket";
            faults.check(Pattern::read(text).is_some(), &format!("hosts.{index}"), why);
        }
        for (key, folders) in [("folders", &self.folders), ("certificates", &self.certificates)] {
            for (index, folder) in folders.iter().enumerate() {
                let plain = folder.to_str().is_some_and(is_plain_path);
                let why = "must be an absolute path without `.` and `..` and a slash at its end";
                faults.check(plain, &format!("{key}.{index}"), why);
            }
        }
    }
}

impl Rules {
    /// Whether a URL may name this host.
    pub(crate) fn admits(&self, host: &Host) -> bool {
        self.hosts.is_empty()
            || self.hosts.iter().filter_map(|text| Pattern::read(text)).any(|it| it.fits(host))
    }
}

/// What one entry of the hosts means.
enum Pattern {
    Exactly(Host),
    Below(String),
    Network(IpAddr, u8),
}

impl Pattern {
    fn read(text: &str) -> Option<Self> {
        if text.starts_with('/') {
            return is_plain_path(text).then(|| Self::Exactly(Host::Socket(text.to_owned())));
        }
        if let Some((address, bits)) = text.split_once('/') {
            let (address, bits): (IpAddr, u8) = (address.parse().ok()?, bits.parse().ok()?);
            return (bits <= width(address)).then_some(Self::Network(address, bits));
        }
        if let Some(suffix) = text.strip_prefix("*.") {
            let Ok(Host::Name(name)) = crate::named(suffix) else { return None };
            return Some(Self::Below(name));
        }
        let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(text);
        crate::named(bare).ok().map(Self::Exactly)
    }

    fn fits(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Exactly(known), host) => known == host,
            (Self::Below(suffix), Host::Name(name)) => {
                name.strip_suffix(suffix.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            (Self::Network(network, bits), Host::Address(address)) => is_within(*address, *network, *bits),
            _ => false,
        }
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn is_within(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let number = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    };
    let address = address.to_canonical();
    let rest = 128_u32.saturating_sub(u32::from(bits));
    // Of no bits nothing is left to differ.
    let start = |address| number(address).checked_shr(rest).unwrap_or_default();
    address.is_ipv4() == network.is_ipv4() && start(address) == start(network)
}
