//! What the URL of a tenant's database says of encryption, for tools, each of which is told in words of its own.

use crate::tenant::percent_decoded;
use std::path::{Path, PathBuf};

/// How much of an encrypted connection is insisted on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Strength {
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

/// What the URL says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Encryption {
    pub(crate) strength: Strength,
    /// Certificates of the authorities to trust.
    pub(crate) authority: Option<PathBuf>,
    /// What this side shows.
    pub(crate) certificate: Option<PathBuf>,
    /// Its key.
    pub(crate) key: Option<PathBuf>,
}

impl Encryption {
    /// Reads the URL as the driver does: the last of several counts. No error text quotes it.
    pub(crate) fn of(url: &str) -> Result<Self, String> {
        let mut read = Self { strength: Strength::Preferred, authority: None, certificate: None, key: None };
        let query = url.split('#').next().and_then(|url| url.split_once('?')).map_or("", |(_, query)| query);
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = |text: &str| {
                let decoded = percent_decoded(&text.replace('+', " "));
                decoded.ok_or("a parameter of the URL has percent signs that mean nothing")
            };
            let (name, value) = (decoded(name)?, decoded(value)?);
            match name.as_str() {
                "sslmode" | "ssl-mode" => read.strength = strength(&value)?,
                "sslrootcert" | "ssl-root-cert" | "sslca" | "ssl-ca" => read.authority = Some(file(&value)?),
                "sslcert" | "ssl-cert" => read.certificate = Some(file(&value)?),
                "sslkey" | "ssl-key" => read.key = Some(file(&value)?),
                _ => {}
            }
        }
        Ok(read)
    }

    /// Whether a connection that is not encrypted will not do.
    pub(crate) fn is_required(&self) -> bool {
        matches!(self.strength, Strength::Required | Strength::Authority | Strength::Identity)
    }

    /// Whether the server's certificate counts.
    pub(crate) fn is_verified(&self) -> bool {
        matches!(self.strength, Strength::Authority | Strength::Identity)
    }

    /// The files that are given, each by the name that most tools have for it.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        [("ssl-ca", &self.authority), ("ssl-cert", &self.certificate), ("ssl-key", &self.key)]
            .into_iter()
            .filter_map(|(name, file)| file.as_deref().map(|file| (name, file)))
    }
}

fn strength(text: &str) -> Result<Strength, String> {
    match text.to_ascii_lowercase().replace('-', "_").as_str() {
        "disable" | "disabled" => Ok(Strength::Off),
        "allow" | "prefer" | "preferred" => Ok(Strength::Preferred),
        "require" | "required" => Ok(Strength::Required),
        "verify_ca" => Ok(Strength::Authority),
        "verify_full" | "verify_identity" => Ok(Strength::Identity),
        _ => Err("the URL names no known mode of encryption".to_owned()),
    }
}

/// A file from the root, as tools run elsewhere.
fn file(text: &str) -> Result<PathBuf, String> {
    if text.trim_start().starts_with("-----BEGIN") {
        let text = "the URL holds a certificate or a key itself, which tools read from files: give the path of a file";
        return Err(text.to_owned());
    }
    std::path::absolute(text).map_err(|_| "a certificate or key of the URL is no path of a file".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;

    #[test]
    fn urls_are_read_as_the_drivers_do() {
        let read = Encryption::of(
            "postgres://u:p@h/d?sslmode=verify-full&sslrootcert=%2Fetc%2Fmy%20ca.pem&sslcert=/c&sslkey=/k",
        )
        .unwrap();
        assert!(read.strength == Strength::Identity && read.is_required() && read.is_verified());
        let files: Vec<_> = read.files().collect();
        assert_eq!(
            files,
            [("ssl-ca", "/etc/my ca.pem"), ("ssl-cert", "/c"), ("ssl-key", "/k")]
                .map(|(name, file)| (name, Path::new(file)))
        );
        for (mode, expected) in [
            ("ssl-mode=VERIFY_CA", Strength::Authority),
            ("ssl-mode=REQUIRED", Strength::Required),
            ("sslmode=require", Strength::Required),
            ("ssl-mode=required&ssl-mode=disabled", Strength::Off),
            ("charset=utf8mb4", Strength::Preferred),
        ] {
            assert_eq!(
                Encryption::of(&format!("mysql://u@h/d?{mode}")).unwrap().strength,
                expected,
                "{mode}"
            );
        }
        assert!(!Encryption::of("mysql://u@h/d").unwrap().is_required());
        let relative = Encryption::of("mysql://u@h/d?ssl-ca=ca.pem").unwrap();
        assert!(relative.authority.unwrap().is_absolute());
    }

    #[test]
    fn what_tools_cannot_be_given_is_told_and_not_quoted() {
        for wrong in ["ssl-ca=-----BEGIN%20s3cret-----", "ssl-mode=s3cret", "ssl-key=s3cret%zz", "ssl-ca="] {
            let error = Encryption::of(&format!("mysql://u:s3cret@h/d?{wrong}")).unwrap_err();
            assert!(!error.contains("s3cret"), "{wrong}: {error}");
        }
    }
}
