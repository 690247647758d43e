//! The schema migrator and the control plane of one process, which call each other.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context, ensure};
use grey_runtime::access::{self, Token, TokenHash};
use grey_runtime::config::{Source, load};
use grey_runtime::{Secret, tls};
use grey_vault::{MasterKey, Vault};
use tokio::net::TcpSocket;

use super::{Config, reachable};

/// The master key that is made where none is configured, within the data directory.
const KEY_FILE: &str = "vault.key";
/// Its id.
const KEY_ID: &str = "standalone";
/// The name of the control plane towards the migrator, as it is in histories.
const CONTROL_PLANE: &str = "control-plane";
/// The name of the migrator towards the control plane, as it is in the log.
const MIGRATOR: &str = "schema-migrator";

/// How the two reach each other, and what both must know.
pub(crate) struct Links {
    /// Where the migrator serves gRPC.
    migrator: SocketAddr,
    _reserved: Option<TcpSocket>,
    /// What each shows the other; none: nobody has to show anything.
    token: Option<Secret>,
    scheme: &'static str,
    tls: Option<tls::ClientOptions>,
    vault: grey_vault::Options,
}

impl Config {
    /// How the control plane and the migrator reach each other; none where [tls] does not say whom they may trust.
    ///
    /// # Errors
    /// The master key cannot be read or made, or no port is free.
    pub(crate) fn links(&self, data_dir: &Path) -> anyhow::Result<Option<Links>> {
        let (scheme, tls) = match (&self.tls, &self.client_tls) {
            (None, _) => ("http", None),
            (Some(_), Some(tls)) => ("https", Some(tls.clone())),
            (Some(_), None) => return Ok(None),
        };
        let token = (!self.access.tokens.is_empty()).then(|| Secret::new(Vault::generate_secret()));
        let ((migrator, reserved), vault) = (chosen(self.schema_migrator.grpc)?, self.vault(data_dir)?);
        Ok(Some(Links { migrator, _reserved: reserved, token, scheme, tls, vault }))
    }

    /// The configured master keys and the one in the data directory, which is made where there is none at all.
    fn vault(&self, data_dir: &Path) -> anyhow::Result<grey_vault::Options> {
        let path = data_dir.join(KEY_FILE);
        if self.vault.is_empty() && !path.exists() {
            make_key(&path).with_context(|| format!("write a master key to {}", path.display()))?;
        }
        let mut vault = self.vault.clone();
        if path.exists() && vault.keys.iter().all(|key| key.id != KEY_ID) {
            let secret = fs::read_to_string(&path)
                .with_context(|| format!("read the master key in {}", path.display()))?;
            vault.keys.push(MasterKey { id: KEY_ID.to_owned(), secret: Secret::new(secret.trim()) });
            if vault.active.is_empty() {
                KEY_ID.clone_into(&mut vault.active);
            }
        }
        Ok(vault)
    }

    /// What the schema migrator is started with, which works for the control plane at `control`.
    pub(crate) fn for_schema_migrator(
        &self,
        data_dir: &Path,
        links: &Links,
        control: SocketAddr,
    ) -> anyhow::Result<grey_schema_migrator::Config> {
        let file = self.standalone.schema_migrator.as_path();
        let file = (!file.as_os_str().is_empty()).then_some(file);
        // The environment is about this process as a whole.
        let source = Source { defaults: grey_schema_migrator::DEFAULTS, file, env: [] };
        let mut config: grey_schema_migrator::Config = load(source)?;
        config.grpc.listen = links.migrator;
        config.http.listen = self.schema_migrator.http;
        config.database.url = Secret::new(format!("sqlite://{}", data_dir.join("migrator.db").display()));
        if !self.schema_migrator.migrations.as_os_str().is_empty() {
            config.migrations.folder.clone_from(&self.schema_migrator.migrations);
        }
        config.control.url = links.url(control);
        config.control.token = links.shown();
        config.control.tls.clone_from(&links.tls);
        config.vault.clone_from(&links.vault);
        config.tenant_databases.clone_from(&self.tenant_databases);
        config.tls.clone_from(&self.tls);
        config.access = links.access(&self.access, CONTROL_PLANE, "admin");
        config.telemetry.clone_from(&self.telemetry);
        Ok(config)
    }
}

impl Links {
    /// Tells the control plane where the migrator is, and lets the migrator in.
    pub(super) fn apply(&self, config: &mut grey_control_plane::Config) {
        config.migrator.url = self.url(self.migrator);
        config.migrator.token = self.shown();
        config.migrator.tls.clone_from(&self.tls);
        config.vault.clone_from(&self.vault);
        // It registers what it makes, on behalf of whoever may.
        config.access = self.access(&config.access, MIGRATOR, "admin");
    }

    fn url(&self, addr: SocketAddr) -> String {
        format!("{}://{}", self.scheme, reachable(addr))
    }

    fn shown(&self) -> Secret {
        self.token.clone().unwrap_or_else(|| Secret::new(""))
    }

    /// Who may call: those who may anyway, and the other one of the two.
    fn access(&self, access: &access::Options, name: &str, role: &str) -> access::Options {
        let mut access = access.clone();
        let token = self.token.as_ref().map(|token| Token {
            name: name.to_owned(),
            role: role.to_owned(),
            sha256: TokenHash::of(token.expose()),
        });
        access.tokens.extend(token);
        access
    }
}

/// The address, with a port that is free where any will do: the control plane must know it before it is served. Until then a
/// socket that does not listen keeps others from getting the port.
fn chosen(addr: SocketAddr) -> anyhow::Result<(SocketAddr, Option<TcpSocket>)> {
    if addr.port() != 0 {
        return Ok((addr, None));
    }
    let reserve = || {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        Ok::<_, std::io::Error>((socket.local_addr()?, Some(socket)))
    };
    reserve().with_context(|| format!("find a free port of {}", addr.ip()))
}

/// Writes a new master key that only its owner can read.
fn make_key(path: &Path) -> anyhow::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{}", Vault::generate_secret())?;
    file.sync_all()?;
    ensure!(file.metadata()?.len() > 0, "nothing was written");
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "test code panics")]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn load(env: &[(&str, &str)]) -> Config {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::load(None, env).unwrap()
    }

    const CONTROL: ([u8; 4], u16) = ([0, 0, 0, 0], 4);

    #[test]
    fn the_two_find_each_other_and_share_the_keys() {
        let dir = tempfile::tempdir().unwrap();
        let config = load(&[
            ("GREY__SCHEMA_MIGRATOR__GRPC", "127.0.0.1:3"),
            ("GREY__SCHEMA_MIGRATOR__MIGRATIONS", "/files"),
        ]);
        let links = config.links(dir.path()).unwrap().unwrap();
        let control = config.for_control_plane(dir.path(), Some(&links)).unwrap();
        let migrator = config.for_schema_migrator(dir.path(), &links, CONTROL.into()).unwrap();
        assert_eq!((control.migrator.url.as_str(), migrator.grpc.listen.port()), ("http://127.0.0.1:3", 3));
        assert_eq!(migrator.control.url, "http://127.0.0.1:4");
        assert_eq!(migrator.migrations.folder, Path::new("/files"));
        assert!(migrator.database.url.expose().ends_with("/migrator.db"));
        let secret = |vault: &grey_vault::Options| vault.keys[0].secret.expose().to_owned();
        assert_eq!(secret(&control.vault), secret(&migrator.vault));
        // Without tokens nobody is asked for one.
        assert!(control.access.tokens.is_empty() && migrator.control.token.expose().is_empty());
    }

    #[test]
    fn a_master_key_is_made_once_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let secret = |config: &Config| {
            let vault = config.links(dir.path()).unwrap().unwrap().vault;
            (
                vault.active.clone(),
                vault.keys.iter().map(|key| key.secret.expose().to_owned()).collect::<Vec<_>>(),
            )
        };
        let config = load(&[]);
        let first = secret(&config);
        assert_eq!((first.0.as_str(), first.1.len()), (KEY_ID, 1));
        assert_eq!(secret(&config), first);
        let mode = fs::metadata(dir.path().join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        // One that is configured later seals from then on; what was sealed before still opens.
        let own = format!("[{{ id = \"2026-11\", secret = \"{}\" }}]", Vault::generate_secret());
        let config = load(&[("GREY__VAULT__ACTIVE", "2026-11"), ("GREY__VAULT__KEYS", &own)]);
        let later = secret(&config);
        assert_eq!((later.0.as_str(), later.1.len()), ("2026-11", 2));
        assert_eq!(later.1[1], first.1[0]);

        let empty = tempfile::tempdir().unwrap();
        config.links(empty.path()).unwrap().unwrap();
        assert!(!empty.path().join(KEY_FILE).exists());
    }

    #[test]
    fn where_callers_need_tokens_the_two_have_some() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = format!("[{{ name = \"ann\", role = \"viewer\", sha256 = \"{}\" }}]", "0".repeat(64));
        let config = load(&[("GREY__ACCESS__TOKENS", &tokens)]);
        let links = config.links(dir.path()).unwrap().unwrap();
        let control = config.for_control_plane(dir.path(), Some(&links)).unwrap();
        let migrator = config.for_schema_migrator(dir.path(), &links, CONTROL.into()).unwrap();
        let known = |access: &access::Options, token: &Secret, role: &str| {
            let hash = TokenHash::of(token.expose());
            access.tokens.iter().any(|known| known.sha256 == hash && known.role == role)
        };
        assert!(known(&migrator.access, &control.migrator.token, "admin"));
        assert!(known(&control.access, &migrator.control.token, "admin"));
        assert_eq!((migrator.access.tokens.len(), control.access.tokens.len()), (2, 2));
    }

    #[test]
    fn with_tls_the_two_must_be_told_whom_to_trust() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = load(&[]);
        let file = |name: &str| dir.path().join(name);
        config.tls =
            Some(tls::ServerOptions { cert_file: file("crt"), key_file: file("key"), client_ca_file: None });
        assert!(config.links(dir.path()).unwrap().is_none());
        config.client_tls =
            Some(tls::ClientOptions { ca_file: file("ca"), cert_file: None, key_file: None, domain: None });
        let links = config.links(dir.path()).unwrap().unwrap();
        let control = config.for_control_plane(dir.path(), Some(&links)).unwrap();
        assert!(control.migrator.url.starts_with("https://127.0.0.1:"), "{}", control.migrator.url);
        assert_eq!(control.migrator.tls, config.client_tls);
    }
}
