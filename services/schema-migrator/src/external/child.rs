//! A tool as a supervised child process.

use super::login::Private;
use super::output::{Lines, Progress, Stream, Tail, progress as read_progress};
use super::{Error, Program, TenantError};
use crate::files::{External, Tool};
use crate::tenant::Stop;
use grey_runtime::Secret;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::future::Future;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::{Instant, sleep_until, timeout};

/// How long the rest of the output may take once the tool has ended.
const REST: Duration = Duration::from_secs(2);
/// Programs and scripts are looked for here by the tool itself.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Makes the kernel end the tool when the migrator is killed; part of every Debian.
const SETPRIV: &str = "/usr/bin/setpriv";

/// What is started.
pub(super) struct Invocation<'a> {
    pub(super) tool: Tool,
    pub(super) program: &'a Program,
    pub(super) arguments: Vec<String>,
    /// Its credentials, in a folder that is its home.
    pub(super) private: &'a Private,
    /// Not to be seen in errors.
    pub(super) secret: &'a Secret,
}

/// How a tool ended.
pub(super) struct End {
    tool: Tool,
    status: ExitStatus,
    tail: Tail,
    /// Why it was told to end.
    told: Option<TenantError>,
}

impl End {
    /// Whether the table was changed.
    pub(super) fn succeeded(&self) -> bool {
        let says_so = || match self.tool {
            Tool::GhOst => self.tail.tells("Done migrating"),
            Tool::PtOnlineSchemaChange => self.tail.tells("Successfully altered"),
        };
        // One that was told to end may call that a success as well.
        self.status.success() && (self.told.is_none() || says_so())
    }

    /// Why the table was not changed.
    pub(super) fn failure(self, step: &External) -> Error {
        if let Some(told) = self.told {
            return Error::Tenant(told);
        }
        let code = self.status.code();
        let status = match (code, self.status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "an unknown status".to_owned(),
        };
        let (tool, tail) = (self.tool, self.tail.text());
        let no_connection = match tool {
            Tool::PtOnlineSchemaChange => matches!(code, Some(18 | 19)),
            Tool::GhOst => {
                ["connect: connection refused", "invalid connection", "bad connection", "i/o timeout"]
                    .iter()
                    .any(|text| self.tail.tells(text))
            }
        };
        if no_connection {
            return Error::NoConnection { tool, status, tail };
        }
        let meaning = match tool {
            Tool::GhOst => "",
            Tool::PtOnlineSchemaChange => meaning(code),
        };
        Error::Failed { tool, status, meaning, tail, line: step.statement.line }
    }
}

/// What pt-online-schema-change means by an exit code.
fn meaning(code: Option<i32>) -> &'static str {
    match code {
        Some(1) => ", its arguments or the table do not suit it",
        Some(2 | 3) => ", the server does not suit it",
        Some(4) => ", the table has neither a primary key nor a unique one",
        Some(6 | 15) => ", foreign keys refer to the table",
        Some(7..=9) => ", the table's key does not suit it",
        Some(10) => ", the copy could not be made",
        Some(11) => ", the copy could not be changed",
        Some(12 | 13) => ", its triggers could not be made",
        Some(14) => ", the tables could not be swapped",
        Some(16) => ", the old table could not be dropped",
        Some(17) => ", it does not do such a change",
        _ => "",
    }
}

/// A process group that is killed unless it has ended.
struct Group {
    leader: Pid,
    ended: bool,
}

impl Group {
    fn signal(&self, signal: Signal) {
        // It fails only when nobody is left.
        if let Err(error) = killpg(self.leader, signal) {
            tracing::debug!(error = %error, "a tool could not be signalled");
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.ended {
            self.signal(Signal::SIGKILL);
        }
    }
}

/// Runs a tool to its end, which comes early when it is time to stop or when `lost` comes.
pub(super) async fn supervise(
    invocation: Invocation<'_>,
    progress: &mut (dyn FnMut(Progress) + Send),
    stop: &Stop,
    lost: impl Future<Output = TenantError>,
) -> Result<End, Error> {
    let tool = invocation.tool;
    let mut child = start(&invocation)?;
    let leader = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let leader = leader.ok_or_else(|| Error::NotStarted { tool, why: "it has no process id".to_owned() })?;
    let mut group = Group { leader, ended: false };
    let mut output = Output {
        streams: (child.stdout.take(), child.stderr.take()),
        lines: (Lines::default(), Lines::default()),
        tail: Tail::new(invocation.secret.expose()),
        last: None,
    };
    let mut told = None;
    // It is set when the tool is told to end.
    let mut patience: Option<Instant> = None;
    tokio::pin!(lost);
    let status = loop {
        let why = tokio::select! {
            status = child.wait() => break status,
            () = output.read(progress) => continue,
            () = stop.token.cancelled(), if told.is_none() => TenantError::Cancelled,
            () = sleep_until(stop.deadline), if told.is_none() => TenantError::OutOfTime,
            why = &mut lost, if told.is_none() => why,
            () = sleep_until(patience.unwrap_or(stop.deadline)), if patience.is_some() => {
                group.signal(Signal::SIGKILL);
                patience = None;
                continue;
            }
        };
        told = Some(why);
        patience = Some(Instant::now() + invocation.program.grace);
        group.signal(Signal::SIGTERM);
    };
    let status = status.map_err(|error| Error::NotStarted { tool, why: format!("wait for it: {error}") })?;
    // What it started itself ends with it.
    group.signal(Signal::SIGKILL);
    group.ended = true;
    let rest = async {
        while !output.is_at_end() {
            output.read(progress).await;
        }
    };
    if timeout(REST, rest).await.is_err() {
        tracing::debug!("the rest of a tool's output did not come");
    }
    output.finish();
    Ok(End { tool, status, tail: output.tail, told })
}

fn start(invocation: &Invocation<'_>) -> Result<Child, Error> {
    let Invocation { tool, program, arguments, private, .. } = invocation;
    let path = &program.path;
    let not_started =
        |why: String| Error::NotStarted { tool: *tool, why: format!("{}: {why}", path.display()) };
    let found = std::fs::metadata(path).map_err(|error| not_started(error.to_string()))?;
    if !found.is_file() {
        return Err(not_started("it is not a file".to_owned()));
    }
    if found.permissions().mode() & 0o111 == 0 {
        return Err(not_started("it is not a program".to_owned()));
    }
    let mut command = if Path::new(SETPRIV).is_file() {
        let mut command = Command::new(SETPRIV);
        command.args(["--pdeathsig", "TERM", "--"]).arg(path);
        command
    } else {
        Command::new(path)
    };
    // The tool inherits nothing: no settings, no secrets of the migrator's environment.
    command
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", private.folder())
        .env("TMPDIR", private.folder())
        .env("LC_ALL", "C")
        .current_dir(private.folder())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    command.spawn().map_err(|error| not_started(error.to_string()))
}

/// Both streams of a tool.
struct Output {
    streams: (Option<ChildStdout>, Option<ChildStderr>),
    lines: (Lines, Lines),
    tail: Tail,
    last: Option<Progress>,
}

impl Output {
    fn is_at_end(&self) -> bool {
        self.streams.0.is_none() && self.streams.1.is_none()
    }

    /// Reads from either; never comes back when both are at their end.
    async fn read(&mut self, progress: &mut (dyn FnMut(Progress) + Send)) {
        let (mut out, mut err) = ([0; 4096], [0; 4096]);
        let (stream, lines) = tokio::select! {
            read = from(&mut self.streams.0, &mut out) => (Stream::Output, self.lines.0.feed(read)),
            read = from(&mut self.streams.1, &mut err) => (Stream::Errors, self.lines.1.feed(read)),
        };
        for line in lines {
            match read_progress(&line) {
                None => self.tail.keep(stream, &line),
                Some(now) if self.last != Some(now) => {
                    self.last = Some(now);
                    progress(now);
                }
                Some(_) => {}
            }
        }
    }

    fn finish(&mut self) {
        let ends = [(Stream::Output, self.lines.0.end()), (Stream::Errors, self.lines.1.end())];
        for (stream, line) in ends {
            if let Some(line) = line {
                self.tail.keep(stream, &line);
            }
        }
    }
}

/// Reads what has come; at the end of the stream, the stream is let go.
async fn from<'b>(stream: &mut Option<impl tokio::io::AsyncRead + Unpin>, buffer: &'b mut [u8]) -> &'b [u8] {
    let Some(open) = stream else { return std::future::pending().await };
    match open.read(buffer).await {
        Ok(count) if count > 0 => buffer.get(..count).unwrap_or_default(),
        _ => {
            *stream = None;
            &[]
        }
    }
}
