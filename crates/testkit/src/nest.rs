//! A directory and a process group that cannot outlive the test process.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::unistd::geteuid;
use tokio::time::timeout;

/// The user and group `nobody`: database servers refuse to run as root.
const NOBODY: u32 = 65534;

/// Longest run of a program that prepares or asks a server.
const RUN_DEADLINE: Duration = Duration::from_secs(120);

/// Keeps a process group in existence. Waits for the end of its input, which the test process holds open for as
/// long as it lives, then a little longer, to be killed with its group.
const ANCHOR: &str = "trap '' HUP INT TERM; while read -r _; do :; done; exec sleep 60";

/// Waits for the end of its input in the same way, then kills the group `$2` and removes the directory `$1`.
///
/// It tries to remove for a while because processes that left the group follow their parent with a delay.
const WATCHDOG: &str = r#"
trap '' HUP INT TERM
while read -r _; do :; done
kill -s KILL -- "-$2"
tries=0
while [ -e "$1" ] && [ "$tries" -lt 100 ]; do
    rm -rf -- "$1" || sleep 0.1
    tries=$((tries + 1))
done
"#;

/// A temporary directory with a process group; dropping it kills the group and removes the directory.
#[derive(Debug)]
pub(crate) struct Nest {
    dir: PathBuf,
    anchor: Child,
    watchdog: Child,
    group: i32,
}

impl Nest {
    /// Makes an empty nest; `name` appears in the directory's name.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix(&format!("grey-{name}-")).tempdir()?;
        let anchor = shell(ANCHOR).spawn().context("start the anchor of a process group")?;
        let group = i32::try_from(anchor.id()).context("read the anchor's process id")?;
        let mut watchdog = shell(WATCHDOG);
        watchdog.arg(dir.path()).arg(group.to_string());
        let watchdog = watchdog.spawn().context("start the watchdog of a process group")?;
        let nest = Self { dir: dir.keep(), anchor, watchdog, group };
        give_to_server_user(&nest.dir)?;
        Ok(nest)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes a directory in the nest that the server may write to.
    pub(crate) fn subdir(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        give_to_server_user(&path)?;
        Ok(path)
    }

    /// Writes a file that the server may read and replace.
    pub(crate) fn write(&self, path: &Path, contents: &[u8]) -> Result<()> {
        fs::write(path, contents).with_context(|| format!("write {}", path.display()))?;
        give_to_server_user(path)
    }

    /// A command in this nest's process group that runs as the test's own user.
    ///
    /// The group is joined before the program starts, so no instant exists in which it could escape.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.dir).stdin(Stdio::null()).process_group(self.group);
        command
    }

    /// The same, but as `nobody` where the test runs as root.
    pub(crate) fn server_command(&self, program: &Path) -> Command {
        let mut command = self.command(program);
        if geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        // Temporary files belong here too: a shared place may be closed to the server's user, and two MariaDB
        // servers that share one remove each other's temporary tables when they start.
        command
            .env("HOME", &self.dir)
            .env("TMPDIR", &self.dir)
            .env("LC_ALL", "C")
            .env_remove("LANG")
            .env_remove("LANGUAGE");
        command
    }

    /// Runs a command to its end and returns what it printed.
    ///
    /// # Errors
    /// Fails with the command's own words when it does not succeed within two minutes.
    pub(crate) async fn run(&self, command: Command) -> Result<String> {
        let program = command.get_program().to_string_lossy().into_owned();
        let output = tokio::process::Command::from(command).kill_on_drop(true).output();
        let output = timeout(RUN_DEADLINE, output)
            .await
            .with_context(|| format!("run {program} within {RUN_DEADLINE:?}"))?
            .with_context(|| format!("run {program}"))?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "run {program}: {}: {stdout}{stderr}", output.status);
        Ok(stdout)
    }
}

impl Drop for Nest {
    fn drop(&mut self) {
        // The watchdog does the work, as it would had this process died, and ends once it is done.
        drop(self.watchdog.stdin.take());
        drop(self.watchdog.wait());
        drop(self.anchor.wait());
    }
}

/// A shell in a process group of its own, so that an interrupt from the terminal does not reach it.
fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).current_dir("/").process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn give_to_server_user(path: &Path) -> Result<()> {
    if geteuid().is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).with_context(|| format!("chown {}", path.display()))?;
    }
    Ok(())
}
