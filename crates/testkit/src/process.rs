//! Our own programs, started by a test and gone with it.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use crate::eventually::POLL;
use crate::nest::Nest;

/// Lines of output kept; older ones are forgotten.
const KEPT_LINES: usize = 10_000;

/// Bytes of one line kept; the rest counts as the next line.
const LINE_BYTES: u64 = 64 * 1024;

/// A running program whose output is captured; it is killed when dropped or when the test process dies.
#[derive(Debug)]
pub struct Spawned {
    // The order is that of the end: the process, then whatever it started, with its directory.
    child: Mutex<Running>,
    nest: Nest,
    output: Arc<Mutex<VecDeque<String>>>,
}

/// Builds a binary of this workspace, if it is not fresh, and tells where it is.
///
/// A crate's own binaries are in `env!("CARGO_BIN_EXE_...")`; this is for those of other crates. It uses
/// the profile of the test that asks.
///
/// # Errors
/// Fails when the build does, with its messages.
pub fn cargo_binary(binary: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("find the test's own program")?;
    let folder = own.parent().and_then(Path::parent).context("find the target directory")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = std::process::Command::new(cargo);
    // Of the whole workspace, so that dependencies have the features that the test's own build gave them.
    command.args(["build", "--quiet", "--workspace", "--bin", binary]);
    if folder.ends_with("release") {
        command.arg("--release");
    }
    // What `cargo test` tells a test about its own package would look like a change to build scripts that read it.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|own| text.starts_with(own)) {
            command.env_remove(&name);
        }
    }
    let built = command.output().with_context(|| format!("build {binary}"))?;
    anyhow::ensure!(built.status.success(), "build {binary}: {}", String::from_utf8_lossy(&built.stderr));
    Ok(folder.join(binary))
}

/// How a [`Spawned`] program is started.
#[derive(Clone, Debug)]
pub struct SpawnedBuilder {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
}

/// A child that is killed and reaped when dropped.
#[derive(Debug)]
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl SpawnedBuilder {
    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Sets one environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Starts the program in an empty directory, as the test's own user.
    ///
    /// Settings of the product in the test's own environment (`GREY_...`) are not passed on.
    ///
    /// # Errors
    /// Fails when the program cannot be executed.
    pub fn start(self) -> Result<Spawned> {
        let nest = Nest::new("process")?;
        let mut command = nest.command(&self.program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"GREY_"))
        {
            command.env_remove(name);
        }
        // What it leaves behind when it is killed goes with the directory.
        command.env("TMPDIR", nest.dir());
        command.args(&self.args).envs(self.env).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("spawn {}", self.program.display()))?;
        let output = Arc::new(Mutex::new(VecDeque::new()));
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let child = Mutex::new(Running(child));
        stdout.map(|stream| capture(stream, Arc::clone(&output))).transpose()?;
        stderr.map(|stream| capture(stream, Arc::clone(&output))).transpose()?;
        Ok(Spawned { child, nest, output })
    }
}

impl Spawned {
    /// Prepares the start of `program`; a relative path is taken from the test's working directory.
    pub fn builder(program: impl AsRef<Path>) -> SpawnedBuilder {
        let program = std::path::absolute(program.as_ref()).unwrap_or_else(|_| program.as_ref().to_owned());
        SpawnedBuilder { program, args: Vec::new(), env: Vec::new() }
    }

    /// Returns the process id.
    pub fn id(&self) -> u32 {
        self.child().0.id()
    }

    /// Returns the program's working directory, removed at the end.
    pub fn dir(&self) -> &Path {
        self.nest.dir()
    }

    /// Returns what the program wrote so far to its output and its error output, the newest 10 000 lines.
    pub fn output(&self) -> String {
        lock(&self.output).iter().map(|line| format!("{line}\n")).collect()
    }

    /// Waits for a line of output that contains `pattern`, also one written before, and returns it.
    ///
    /// # Errors
    /// Fails with the whole output when the program exits without such a line or `deadline` passes.
    pub async fn wait_for_line(&self, pattern: &str, deadline: Duration) -> Result<String> {
        let end = Instant::now() + deadline;
        let mut exited = None;
        loop {
            let found = lock(&self.output).iter().find(|line| line.contains(pattern)).cloned();
            if let Some(line) = found {
                return Ok(line);
            }
            // What an exited program wrote last may still be on its way, so one more look follows.
            if let Some(status) = exited {
                bail!("wait for `{pattern}`: program exited: {status}: {}", self.output());
            }
            ensure!(Instant::now() < end, "wait for `{pattern}` within {deadline:?}: {}", self.output());
            exited = self.exit_status()?;
            sleep(POLL).await;
        }
    }

    /// Returns how the program ended, or nothing while it runs.
    ///
    /// # Errors
    /// Fails when the kernel does not tell.
    pub fn exit_status(&self) -> Result<Option<ExitStatus>> {
        self.child().0.try_wait().context("read the exit status")
    }

    /// Waits for the program to end by itself.
    ///
    /// # Errors
    /// Fails with the output when `deadline` passes first.
    pub async fn wait(&self, deadline: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.exit_status()? {
                return Ok(status);
            }
            ensure!(Instant::now() < end, "wait for the end within {deadline:?}: {}", self.output());
            sleep(POLL).await;
        }
    }

    /// Kills the program with `SIGKILL`; its sockets are closed when this returns.
    ///
    /// # Errors
    /// Fails when the process cannot be signalled.
    pub fn kill9(&self) -> Result<()> {
        let mut child = self.child();
        child.0.kill().context("kill the program")?;
        child.0.wait().context("wait for the killed program")?;
        Ok(())
    }

    /// Asks the program to end with `SIGTERM` and waits for it.
    ///
    /// # Errors
    /// Fails with the output when it has not ended by `deadline`.
    pub async fn terminate(&self, deadline: Duration) -> Result<ExitStatus> {
        if self.exit_status()?.is_none() {
            self.signal(Signal::SIGTERM)?;
        }
        self.wait(deadline).await
    }

    /// Freezes the program with `SIGSTOP`: it keeps its sockets and answers nothing.
    ///
    /// # Errors
    /// Fails when the process cannot be signalled.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets a frozen program go on.
    ///
    /// # Errors
    /// Fails when the process cannot be signalled.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.id()).context("read the process id")?;
        kill(Pid::from_raw(id), signal).with_context(|| format!("send {signal} to the program"))
    }

    fn child(&self) -> MutexGuard<'_, Running> {
        lock(&self.child)
    }
}

/// Collects the lines of `stream` on a thread, which ends with the stream.
fn capture(stream: impl Read + Send + 'static, output: Arc<Mutex<VecDeque<String>>>) -> Result<()> {
    let read = move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while matches!(reader.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line), Ok(read) if read > 0) {
            let mut output = lock(&output);
            if output.len() == KEPT_LINES {
                output.pop_front();
            }
            output.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
            line.clear();
        }
    };
    std::thread::Builder::new().name("capture".to_owned()).spawn(read).context("start a capture thread")?;
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
