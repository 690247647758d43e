//! One server process: its start, its log, its end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use crate::eventually::POLL;

/// Longest wait for a server's "ready" or for its end; far above what even a busy machine needs.
const DEADLINE: Duration = Duration::from_secs(60);

/// Longest wait for the end of a server that is dropped.
const END_DEADLINE: Duration = Duration::from_secs(10);

/// Lines of the log shown with an error.
const LOG_TAIL: usize = 20;

/// A running server process whose output goes to a file; killed and reaped when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts `command` and waits until its log has a line that contains `ready`.
    ///
    /// The log, unlike the port, cannot be confused with that of another server.
    ///
    /// # Errors
    /// Fails with the end of the log when the server exits or is not ready within a minute.
    pub(crate) async fn start(mut command: Command, log: &Path, ready: &str) -> Result<Self> {
        // A new file, since a dying process of the former start may still write to the old one.
        drop(fs::remove_file(log));
        let output = File::create_new(log).with_context(|| format!("create {}", log.display()))?;
        command.stdout(output.try_clone()?).stderr(output);
        let child =
            command.spawn().with_context(|| format!("spawn {}", command.get_program().to_string_lossy()))?;
        let mut server = Self { child, log: log.to_path_buf() };
        let end = Instant::now() + DEADLINE;
        while !server.log().contains(ready) {
            if let Some(status) = server.child.try_wait()? {
                bail!("server exited at start: {status}: {}", server.log_tail());
            }
            ensure!(Instant::now() < end, "server not ready within {DEADLINE:?}: {}", server.log_tail());
            sleep(POLL).await;
        }
        Ok(server)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills the process with `SIGKILL`; its sockets are closed when this returns.
    pub(crate) fn kill9(&mut self) -> Result<()> {
        self.child.kill().context("kill the server")?;
        self.child.wait().context("wait for the killed server")?;
        Ok(())
    }

    /// Asks the process to end by `signal` and waits for it.
    pub(crate) async fn stop(&mut self, signal: Signal) -> Result<ExitStatus> {
        self.signal(signal)?;
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(Instant::now() < end, "server not stopped within {DEADLINE:?}: {}", self.log_tail());
            sleep(POLL).await;
        }
    }

    /// Ends the process by `signal`, or by `SIGKILL` where that does not help within a few seconds.
    ///
    /// For servers that end their own children only when asked to end.
    pub(crate) fn end(&mut self, signal: Signal) {
        let tries = END_DEADLINE.as_millis() / POLL.as_millis();
        // Neither a vanished process nor a deaf one matters: `SIGKILL` follows with the drop.
        drop(self.signal(signal));
        for _ in 0..tries {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            #[expect(clippy::disallowed_methods, reason = "a drop cannot await, and the wait is bounded")]
            std::thread::sleep(POLL);
        }
    }

    /// Freezes the process: its connections stay open and nothing answers.
    pub(crate) fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        // `WNOWAIT` leaves an exit status, if that is what arrives, to be read by its owner.
        let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        waitid(Id::Pid(self.pid()?), flags).context("wait for the server to stop")?;
        Ok(())
    }

    /// Lets a frozen process go on.
    pub(crate) fn resume(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Sends a signal to the processes that this one has started.
    pub(crate) fn signal_children(&self, signal: Signal) -> Result<()> {
        let pid = self.pid()?;
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
            .context("list the server's processes")?;
        for child in children.split_ascii_whitespace() {
            let child = Pid::from_raw(child.parse().context("read a process id")?);
            match kill(child, signal) {
                // It has ended since.
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => bail!("send {signal} to a process of the server: {error}"),
            }
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid()?, signal).with_context(|| format!("send {signal} to the server"))
    }

    fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.child.id()).context("read the process id")?))
    }

    fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines.split_at(lines.len().saturating_sub(LOG_TAIL)).1.join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails only for a process that is gone already.
        drop(self.kill9());
    }
}

/// Whether a server did not start because its port was taken.
pub(crate) fn is_port_clash(error: &anyhow::Error) -> bool {
    let text = format!("{error:#}").to_lowercase();
    text.contains("address already in use") || text.contains("port already in use")
}

/// The error of a verb that needs a running server.
pub(crate) fn not_running() -> anyhow::Error {
    anyhow!("the server was killed and not restarted")
}
