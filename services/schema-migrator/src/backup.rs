//! Backups of a tenant's database before it is migrated, made by the database's own tools.
//!
//! PostgreSQL: `pg_dump`, of the tenant's schema where it has one. MySQL family: `mariadb-dump` (or `mysqldump`). SQLite:
//! a copy that the engine writes itself. Tools are children started with a vector of arguments, without a shell; their
//! passwords are in the environment, which other users of the machine cannot read. A backup that fails leaves no file.

use crate::files::Dialect;
use crate::tenant::{Connection, Error, Stop, server};
use grey_database_url::{Encryption, Host, Strength};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

/// Bytes of a tool's error output that are kept.
const TAIL: usize = 1_000;

/// Bytes of a tool's error output that are read; a tool that writes more is stuck, and its deadline ends it.
const MOST_OUTPUT: u64 = 64 * 1024;

/// Authorities that Debian and its kin trust.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What an error of this module says first.
const ATTEMPTED: &str = "back the tenant's database up";

/// How backups are made.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Where they are kept; this process must be able to write there.
    pub folder: PathBuf,
    /// The program for PostgreSQL.
    #[serde(default = "pg_dump")]
    pub pg_dump: PathBuf,
    /// The program for the MySQL family.
    #[serde(default = "mariadb_dump")]
    pub mariadb_dump: PathBuf,
    /// How long one may take.
    #[serde(with = "grey_runtime::config::duration", default = "timeout")]
    pub timeout: Duration,
}

fn pg_dump() -> PathBuf {
    PathBuf::from("pg_dump")
}

fn mariadb_dump() -> PathBuf {
    PathBuf::from("mariadb-dump")
}

fn timeout() -> Duration {
    Duration::from_secs(600)
}

impl Options {
    /// Backups in `folder`, by the programs that the search path leads to.
    #[must_use]
    pub fn in_folder(folder: PathBuf) -> Self {
        Self { folder, pg_dump: pg_dump(), mariadb_dump: mariadb_dump(), timeout: timeout() }
    }
}

/// A file that goes unless it is kept.
struct Partial(Option<PathBuf>);

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && let Err(error) = fs::remove_file(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(error = %error, "what is left of a failed backup could not be removed");
        }
    }
}

/// Backs the database up, and tells in which file. An upgrade that has a backup already gets no second one.
///
/// # Errors
/// When the tool is missing or fails, the file cannot be written, or it is time to stop.
pub async fn backup(
    connection: &Connection,
    options: &Options,
    upgrade: &str,
    stop: &Stop,
) -> Result<PathBuf, Error> {
    stop.check()?;
    let target = connection.target();
    let ending = match target.dialect {
        Dialect::Postgres => "dump",
        Dialect::MySql => "sql",
        Dialect::Sqlite => "db",
    };
    let plain = upgrade.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if !plain || upgrade.is_empty() {
        return Err(failed("the upgrade's id is no file name"));
    }
    let path = options.folder.join(format!("{}.{}.{upgrade}.{ending}", target.tenant, target.service));
    if path.exists() {
        return Ok(path);
    }
    let unfinished = path.with_extension(format!("{ending}.partial"));
    remove(&unfinished)?;
    let partial = Partial(Some(unfinished.clone()));
    let file = File::options().write(true).create_new(true).mode(0o600).open(&unfinished);
    let file = file.map_err(|error| failed(&format!("write into {}: {error}", options.folder.display())))?;
    let deadline = stop.deadline.min(tokio::time::Instant::now() + options.timeout);
    let stop = Stop { token: stop.token.clone(), deadline };
    match target.dialect {
        Dialect::Postgres => run(postgres(connection, options)?, file, &stop).await?,
        Dialect::MySql => run(mysql(connection, options)?, file, &stop).await?,
        Dialect::Sqlite => {
            drop(file);
            sqlite(connection, &unfinished, &stop).await?;
        }
    }
    let kept = File::open(&unfinished).and_then(|file| file.sync_all());
    kept.and_then(|()| fs::rename(&unfinished, &path)).map_err(|error| failed(&error.to_string()))?;
    let mut partial = partial;
    partial.0 = None;
    Ok(path)
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&error.to_string())),
        _ => Ok(()),
    }
}

fn failed(why: &str) -> Error {
    Error::Conflict(format!("{ATTEMPTED}: {why}"))
}

fn postgres(connection: &Connection, options: &Options) -> Result<Command, Error> {
    let target = connection.target();
    let (login, url) = server(target)?;
    let mut command = Command::new(&options.pg_dump);
    command.args(["--format=custom", "--no-password", "--lock-wait-timeout"]);
    command.arg(connection.timeouts().lock.as_millis().to_string());
    if let Some(schema) = &target.schema {
        // In quotes it is a name, otherwise a pattern.
        command.arg(format!("--schema={}", connection.sql().quoted(schema)));
    }
    let encryption = url.encryption;
    let mode = match encryption.strength {
        Strength::Off => "disable",
        Strength::Preferred => "prefer",
        Strength::Required => "require",
        Strength::Authority => "verify-ca",
        Strength::Identity => "verify-full",
    };
    command.env("PGHOST", login.host.bare());
    command.env("PGPORT", login.port.to_string()).env("PGUSER", &login.user);
    command.env("PGDATABASE", &login.database);
    command.env("PGSSLMODE", mode).env("PGPASSWORD", login.password.expose());
    command.env("PGCONNECT_TIMEOUT", connection.timeouts().connect.as_secs().max(2).to_string());
    // Without a file the tool looks in a home; the migrator's own driver trusts public authorities, unless the environment,
    // which the tool has as well, names others.
    let told = std::env::var_os("PGSSLROOTCERT").is_some();
    let public = Some(Path::new(SYSTEM_AUTHORITIES))
        .filter(|file| !told && encryption.is_verified() && file.is_file());
    if let Some(authority) = encryption.authority.as_deref().or(public) {
        command.env("PGSSLROOTCERT", authority);
    }
    if let Some(certificate) = &encryption.certificate {
        command.env("PGSSLCERT", certificate);
    }
    if let Some(key) = &encryption.key {
        command.env("PGSSLKEY", key);
    }
    Ok(command)
}

fn mysql(connection: &Connection, options: &Options) -> Result<Command, Error> {
    let target = connection.target();
    let (login, url) = server(target)?;
    let mut command = Command::new(&options.mariadb_dump);
    command.args(["--no-defaults", "--single-transaction", "--quick", "--skip-lock-tables"]);
    command.args(["--routines", "--triggers", "--events", "--hex-blob"]);
    match &login.host {
        Host::Socket(socket) => {
            command.arg("--protocol=socket").arg(format!("--socket={socket}"));
        }
        host => {
            command.args(["--protocol=tcp", &format!("--host={}", host.bare())]);
            command.arg(format!("--port={}", login.port));
        }
    }
    encrypt(&mut command, &url.encryption);
    command.arg(format!("--user={}", login.user)).arg("--").arg(connection.place());
    command.env("MYSQL_PWD", login.password.expose());
    Ok(command)
}

/// Tells the tool of the MySQL family what the URL says of encryption.
fn encrypt(command: &mut Command, encryption: &Encryption) {
    match encryption.strength {
        Strength::Preferred => {}
        Strength::Off => {
            command.arg("--skip-ssl");
        }
        Strength::Required => {
            command.args(["--ssl", "--skip-ssl-verify-server-cert"]);
        }
        // The tool knows no check of the authority alone that holds against a server that says it cannot encrypt.
        Strength::Authority | Strength::Identity => {
            command.args(["--ssl", "--ssl-verify-server-cert"]);
        }
    }
    if encryption.is_required() {
        for (name, file) in encryption.files() {
            let mut argument = std::ffi::OsString::from(format!("--{name}="));
            argument.push(file);
            command.arg(argument);
        }
    }
}

async fn sqlite(connection: &Connection, path: &Path, stop: &Stop) -> Result<(), Error> {
    let text = path.to_str().ok_or_else(|| failed("the folder's name is not text"))?;
    // It writes into an empty file that is there already, so nobody else can read it at any time.
    let sql = format!("VACUUM INTO {}", connection.sql().literal(text));
    connection.execute(connection.db(), &sql, 0, stop).await?;
    Ok(())
}

async fn run(mut command: Command, file: File, stop: &Stop) -> Result<(), Error> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(file).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| failed(&format!("start {name}: {error}")))?;
    let output = child.stderr.take();
    let ended = async {
        let mut text = Vec::new();
        if let Some(output) = output {
            output.take(MOST_OUTPUT).read_to_end(&mut text).await?;
        }
        child.wait().await.map(|status| (status, text))
    };
    let (status, text) = tokio::select! {
        ended = ended => ended.map_err(|error| failed(&format!("watch {name}: {error}")))?,
        () = stop.token.cancelled() => return Err(Error::Cancelled),
        () = tokio::time::sleep_until(stop.deadline) => return Err(failed("it took too long")),
    };
    if status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&text);
    let skipped = text.chars().count().saturating_sub(TAIL);
    let tail: String = text.chars().skip(skipped).collect();
    Err(failed(&format!("{name} ended with {status}: {}", tail.trim())))
}
