//! How a tool gets to the tenant's database: its address as arguments, its credentials in a private file.

use crate::files::Tool;
use grey_database_url::{DatabaseUrl, Encryption, Host, Place, Server, Strength};
use grey_runtime::Secret;
use std::fs::{self, DirBuilder, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Beginning of the names of private folders; the process id and something random follow.
const PREFIX: &str = "grey-tool-";

/// Where a database is and who logs in.
pub(super) struct Login {
    host: String,
    port: u16,
    user: String,
    password: Secret,
    database: String,
    encryption: Encryption,
}

impl Login {
    /// Reads a URL of the MySQL family: `mysql://user:password@host:port/database`. No error text quotes it.
    pub(super) fn read(url: &str, database: &str) -> Result<Self, String> {
        let unusable = |why: &str| {
            format!("the URL of the tenant's database is not one that a tool can be given: it {why}")
        };
        let url = DatabaseUrl::parse(url).map_err(|why| unusable(&why.to_string()))?;
        let DatabaseUrl { place: Place::Server(server), encryption, .. } = url else {
            return Err(unusable("is of a file"));
        };
        let Server { host, port, user, password, .. } = server;
        let host = match host {
            Host::Socket(_) => return Err(unusable("leads to a socket")),
            host => host.bare(),
        };
        // What quotes mean in a file of options differs between the tools.
        if !is_plain(&user) || !is_plain(password.expose()) {
            return Err("the user or the password has a quote or a backslash, which tools read differently"
                .to_owned());
        }
        let odd = |file: &Path| file.to_str().is_none_or(|text| !is_plain(text));
        if encryption.files().any(|(_, file)| odd(file)) {
            return Err(
                "the name of a certificate's file has a quote or a backslash, which tools read differently"
                    .to_owned(),
            );
        }
        Ok(Self { host, port, user, password, database: database.to_owned(), encryption })
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn database(&self) -> &str {
        &self.database
    }

    pub(super) fn password(&self) -> &Secret {
        &self.password
    }

    /// What gh-ost is told of encryption. It has no check of the authority alone, so it checks the host's name, too.
    pub(super) fn gh_ost_arguments(&self) -> Vec<String> {
        let encryption = &self.encryption;
        if !encryption.is_required() {
            return Vec::new();
        }
        let files = encryption.files().map(|(name, file)| format!("--{name}={}", file.display()));
        let mut arguments = vec!["--ssl".to_owned()];
        arguments.extend(files);
        if !encryption.is_verified() {
            arguments.push("--ssl-allow-insecure".to_owned());
        }
        arguments
    }

    /// The file of options with the credentials, in a form that `tool` reads.
    fn options(&self, tool: Tool) -> String {
        let (user, password) = (&self.user, self.password.expose());
        let mut text = format!("[client]\nuser=\"{user}\"\npassword=\"{password}\"\n");
        // gh-ost is told by arguments, and refuses options that it does not know.
        if tool == Tool::PtOnlineSchemaChange && self.encryption.is_required() {
            for (name, file) in self.encryption.files() {
                text.push_str(&format!("{name}=\"{}\"\n", file.display()));
            }
            // The first two are for MariaDB's library, which is mostly what the tool is made with; the last for MySQL's.
            text.push_str("ssl-enforce=1\n");
            if self.encryption.is_verified() {
                text.push_str("ssl-verify-server-cert=1\n");
            }
            text.push_str(match self.encryption.strength {
                Strength::Identity => "ssl-mode=VERIFY_IDENTITY\n",
                Strength::Authority => "ssl-mode=VERIFY_CA\n",
                _ => "ssl-mode=REQUIRED\n",
            });
        }
        text
    }

    /// Writes the credentials to a file of its own, in a form that `tool` reads.
    pub(super) fn write(&self, tool: Tool) -> Result<Private, String> {
        let wrong = |error: std::io::Error| format!("write a private file: {error}");
        let private = Private::make().map_err(wrong)?;
        let mut file = private.create().map_err(wrong)?;
        file.write_all(self.options(tool).as_bytes()).map_err(wrong)?;
        Ok(private)
    }
}

/// Whether text means the same in the files of options of all tools.
fn is_plain(text: &str) -> bool {
    !text.contains(['"', '\\', '`']) && !text.contains(char::is_control)
}

/// A folder with a file that only this user may read; both are removed when it is dropped.
pub(crate) struct Private {
    folder: PathBuf,
    file: PathBuf,
}

impl Private {
    pub(crate) fn make() -> std::io::Result<Self> {
        let parent = std::env::temp_dir();
        sweep(&parent);
        // Short, since the names of sockets are: a part of the random id, as one that is taken is refused.
        let random = uuid::Uuid::new_v4().as_fields().0;
        let folder = parent.join(format!("{PREFIX}{}-{random:x}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&folder)?;
        Ok(Self { file: folder.join("client.cnf"), folder })
    }

    fn create(&self) -> std::io::Result<File> {
        File::options().write(true).create_new(true).mode(0o600).open(&self.file)
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.file
    }

    /// The folder, which a tool may have for its own.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            tracing::warn!(error = %error, "a private file is still there");
        }
    }
}

/// Removes the folders of processes that were killed before they could do so themselves.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|rest| rest.split('-').next());
        let Some(owner) = owner.and_then(|id| id.parse::<i32>().ok()).filter(|id| *id > 0) else { continue };
        let gone =
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(owner), None) == Err(nix::errno::Errno::ESRCH);
        if gone && let Err(error) = fs::remove_dir_all(entry.path()) {
            tracing::debug!(error = %error, "a private file of a dead process is still there");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn urls_are_read_and_never_quoted() {
        let login = Login::read("mysql://gr%65y:p%40ss%23@[::1]:3307/shop?charset=utf8mb4", "shop").unwrap();
        assert_eq!((login.host(), login.port(), login.user.as_str()), ("::1", 3307, "grey"));
        assert_eq!(login.password().expose(), "p@ss#");
        assert_eq!(Login::read("mysql://u:p@h/d", "d").unwrap().port(), 3306);
        for wrong in [
            "mysql://h/d",
            "mysql://u:s3cret@h:x/d",
            "mysql://u:s3cret%zz@h/d",
            "mysql://u:s3cret%22@h/d",
            "mysql://u:s3cret@-h/d",
            "mysql://u:s3cret@/d",
            "mysql://u:s3cret@h/d?ssl-mode=VERIFY_CA&ssl-ca=/etc/a%22b",
            "mysql://u:s3cret@h/d?ssl-mode=s3cret",
        ] {
            let error = Login::read(wrong, "d").err().unwrap();
            assert!(!error.contains("s3cret"), "{wrong}: {error}");
        }
    }

    #[test]
    fn private_files_are_readable_by_their_owner_only_and_go() {
        let login = Login::read("mysql://grey:s3cret@h/d", "d").unwrap();
        let private = login.write(Tool::GhOst).unwrap();
        let (file, folder) = (private.path().to_owned(), private.folder().to_owned());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_to_string(&file).unwrap(), "[client]\nuser=\"grey\"\npassword=\"s3cret\"\n");
        drop(private);
        assert!(!folder.exists());
    }

    #[test]
    fn files_of_dead_processes_are_swept_and_those_of_living_ones_kept() {
        let parent = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let dead = parent.path().join(format!("{PREFIX}{}-x", child.id()));
        let alive = parent.path().join(format!("{PREFIX}{}-x", std::process::id()));
        let other = parent.path().join("other");
        for folder in [&dead, &alive, &other] {
            fs::create_dir(folder).unwrap();
        }
        sweep(parent.path());
        assert!(!dead.exists() && alive.exists() && other.exists());
    }

    #[test]
    fn tools_are_told_to_encrypt_as_the_url_says() {
        let read = |query: &str| Login::read(&format!("mysql://u:p@h/d?{query}"), "d").unwrap();
        let plain = read("charset=utf8mb4");
        assert!(plain.gh_ost_arguments().is_empty());
        assert!(!plain.options(Tool::PtOnlineSchemaChange).contains("ssl"));
        let required = read("ssl-mode=REQUIRED");
        assert_eq!(required.gh_ost_arguments(), ["--ssl", "--ssl-allow-insecure"]);
        let options = required.options(Tool::PtOnlineSchemaChange);
        assert!(options.ends_with("ssl-enforce=1\nssl-mode=REQUIRED\n"), "{options}");
        let verified = read("ssl-mode=VERIFY_IDENTITY&ssl-ca=/etc/ca.pem&ssl-cert=/c&ssl-key=/k");
        let expected = ["--ssl", "--ssl-ca=/etc/ca.pem", "--ssl-cert=/c", "--ssl-key=/k"];
        assert_eq!(verified.gh_ost_arguments(), expected);
        assert!(!verified.options(Tool::GhOst).contains("ssl"));
        let options = verified.options(Tool::PtOnlineSchemaChange);
        let expected = "ssl-ca=\"/etc/ca.pem\"\nssl-cert=\"/c\"\nssl-key=\"/k\"\nssl-enforce=1\n\
                        ssl-verify-server-cert=1\nssl-mode=VERIFY_IDENTITY\n";
        assert!(options.ends_with(expected), "{options}");
    }
}
