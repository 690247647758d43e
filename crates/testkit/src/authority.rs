//! A certificate authority of a test's own.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;

use crate::nest::Nest;

/// A private certificate authority; its file is gone when it is dropped.
#[derive(Debug)]
pub struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// What a server shows and the key to it, both PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    certificate: String,
    key: String,
}

impl Authority {
    /// Makes an authority that nobody trusts yet.
    ///
    /// # Errors
    /// Fails when the temporary directory cannot be written to.
    pub fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut params = named("Grey Router's test authority", &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        std::fs::write(dir.path().join("ca.pem"), certificate).context("write an authority's certificate")?;
        Ok(Self { dir, issuer: Issuer::new(params, key) })
    }

    /// Makes a server's certificate that is its own authority, as `openssl req -x509` does.
    ///
    /// # Errors
    /// Fails when one of the names is neither a host name nor an address, or the temporary directory cannot be written to.
    pub fn of_itself(names: &[&str]) -> Result<(Self, Identity)> {
        let dir = tempfile::tempdir()?;
        let mut params = named("Grey Router's test server", names)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        std::fs::write(dir.path().join("ca.pem"), &certificate).context("write a server's certificate")?;
        let identity = Identity { certificate, key: key.serialize_pem() };
        Ok((Self { dir, issuer: Issuer::new(params, key) }, identity))
    }

    /// The authority's certificate, for those who are to trust it.
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Issues a certificate for a server that is called by `names`: host names or addresses.
    ///
    /// # Errors
    /// Fails when one of them is neither.
    pub fn issue(&self, names: &[&str]) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let mut params = named("Grey Router's test server", names)?;
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Identity { certificate, key: key.serialize_pem() })
    }
}

/// Names differ, since some take a certificate that is named like its issuer for one that signed itself.
fn named(name: &str, names: &[&str]) -> Result<CertificateParams> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

impl Identity {
    /// Writes the certificate and the key to a folder, for a server that this crate does not start; says where they are.
    ///
    /// # Errors
    /// Fails when the folder cannot be written to.
    pub fn save(&self, folder: &Path) -> Result<(PathBuf, PathBuf)> {
        let (certificate, key) = (folder.join("server.pem"), folder.join("server.key"));
        std::fs::write(&certificate, &self.certificate).context("write a server's certificate")?;
        std::fs::write(&key, &self.key).context("write a server's key")?;
        Ok((certificate, key))
    }

    /// Writes the two files that a server reads, the certificate and the key, which only it may read.
    pub(crate) fn write(&self, nest: &Nest) -> Result<()> {
        let (certificate, key) = Self::files(nest);
        nest.write(&certificate, self.certificate.as_bytes())?;
        nest.write(&key, self.key.as_bytes())?;
        std::fs::set_permissions(&key, Permissions::from_mode(0o600))
            .context("close a server's key to others")
    }

    /// Where they are.
    pub(crate) fn files(nest: &Nest) -> (PathBuf, PathBuf) {
        (nest.dir().join("server.pem"), nest.dir().join("server.key"))
    }
}
