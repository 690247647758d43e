//! What is insisted on of an encrypted connection.

use std::path::{Path, PathBuf};

/// How much of an encrypted connection is insisted on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Strength {
    /// None, even if the server can.
    Off,
    /// Encrypted if the server can.
    Preferred,
    /// Encrypted, to whomever.
    Required,
    /// Encrypted, to a server whose certificate a trusted authority signed.
    Authority,
    /// The same, and the certificate names the host.
    Identity,
}

impl Strength {
    /// Reads PostgreSQL's `sslmode` or the MySQL family's `ssl-mode`; each takes the other's words.
    pub(crate) fn read(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().replace('-', "_").as_str() {
            "disable" | "disabled" => Self::Off,
            "prefer" | "preferred" => Self::Preferred,
            "require" | "required" => Self::Required,
            "verify_ca" => Self::Authority,
            "verify_full" | "verify_identity" => Self::Identity,
            _ => return None,
        })
    }
}

/// What a URL says of encryption.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Encryption {
    /// How much is insisted on.
    pub strength: Strength,
    /// Certificates of the authorities to trust, or the server's own, which then is the only one.
    pub authority: Option<PathBuf>,
    /// What this side shows.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

impl Encryption {
    /// Whether a connection that is not encrypted will not do.
    #[must_use]
    pub fn is_required(&self) -> bool {
        matches!(self.strength, Strength::Required | Strength::Authority | Strength::Identity)
    }

    /// Whether the server's certificate counts.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        matches!(self.strength, Strength::Authority | Strength::Identity)
    }

    /// The files that are given, each by the name that most tools have for it.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        [("ssl-ca", &self.authority), ("ssl-cert", &self.certificate), ("ssl-key", &self.key)]
            .into_iter()
            .filter_map(|(name, file)| file.as_deref().map(|file| (name, file)))
    }
}
