//! Changes of large tables by a tool that copies them while they are in use: gh-ost and pt-online-schema-change.
//!
//! The tool is a child process in a process group of its own, started from a vector of arguments: no shell reads any of
//! it. Only tools that the configuration names are run. Credentials are in a file that only this user may read and that
//! is gone afterwards, never on a command line, where every user of the machine sees them.
//!
//! A tool that is stopped, or whose migrator dies, leaves the original table as it was, and a half-filled copy and
//! triggers beside it: [`clean_up`] removes those. It is called before every start, and whoever finds a step that was
//! under way calls it before looking whether the table was changed: a tool that outlived its migrator fails then, as
//! what it copies into is gone.

mod arguments;
mod child;
mod login;
mod output;

pub use output::Progress;

use crate::files::{Dialect, External, Tool};
use crate::tenant::{Connection, Error as TenantError, Stop};
use login::Login;
pub(crate) use login::Private;
use std::path::PathBuf;
use std::time::Duration;

/// Time between two looks at whether this migrator still holds the tenant's lock.
const LOCK_CHECK: Duration = Duration::from_secs(30);

/// Which tools may be run; none unless configured.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tools {
    /// gh-ost.
    #[serde(rename = "gh-ost", skip_serializing_if = "Option::is_none")]
    pub gh_ost: Option<Program>,
    /// pt-online-schema-change.
    #[serde(rename = "pt-online-schema-change", skip_serializing_if = "Option::is_none")]
    pub pt_online_schema_change: Option<Program>,
}

/// A tool that may be run.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// Where it is, from the root.
    pub path: PathBuf,
    /// Further arguments, each beginning with `--`, such as `--max-load=Threads_running=25`.
    #[serde(default)]
    pub args: Vec<String>,
    /// How long it may take to put things in order once it is told to end; then it is killed.
    #[serde(default = "twenty_seconds", with = "grey_runtime::config::duration")]
    pub grace: Duration,
}

fn twenty_seconds() -> Duration {
    Duration::from_secs(20)
}

impl Tools {
    /// The program for `tool`, if it may be run.
    #[must_use]
    pub fn get(&self, tool: Tool) -> Option<&Program> {
        match tool {
            Tool::GhOst => self.gh_ost.as_ref(),
            Tool::PtOnlineSchemaChange => self.pt_online_schema_change.as_ref(),
        }
    }

    /// Everything that is wrong with the settings, in words.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for tool in [Tool::GhOst, Tool::PtOnlineSchemaChange] {
            let Some(program) = self.get(tool) else { continue };
            if !program.path.is_absolute() {
                faults.push(format!(
                    "tools.{tool}.path: {} does not begin at the root",
                    program.path.display()
                ));
            }
            for argument in &program.args {
                if let Some(why) = arguments::objection(argument) {
                    faults.push(format!("tools.{tool}.args: {why}"));
                }
            }
        }
        faults
    }
}

/// Why a tool did not change a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The configuration does not name the tool.
    #[error("run {0}: the tool is not configured, so it may not be run")]
    NotConfigured(Tool),
    /// What the configuration says of the tool cannot be used.
    #[error("run {tool}: {why}")]
    Unusable {
        /// The tool.
        tool: Tool,
        /// In words.
        why: String,
    },
    /// There is no such program.
    #[error("run {tool}: {why}")]
    NotStarted {
        /// The tool.
        tool: Tool,
        /// In words, with the path.
        why: String,
    },
    /// The tool lost the database, or never had it.
    #[error("{tool} ended with {status}, having no connection to the database: {tail}")]
    NoConnection {
        /// The tool.
        tool: Tool,
        /// Its exit code or signal.
        status: String,
        /// The end of what it wrote.
        tail: String,
    },
    /// The tool failed.
    #[error("{tool} ended with {status}{meaning}: {tail}")]
    Failed {
        /// The tool.
        tool: Tool,
        /// Its exit code or signal.
        status: String,
        /// What the tool's documentation says of that code, after a comma; empty: nothing.
        meaning: &'static str,
        /// The end of what it wrote.
        tail: String,
        /// The line of the file that the step begins on.
        line: u32,
    },
    /// The tenant's database said something else, or it is time to stop.
    #[error(transparent)]
    Tenant(#[from] TenantError),
}

impl From<Error> for TenantError {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::Tenant(error) => error,
            Error::NotConfigured(_) | Error::Unusable { .. } | Error::NotStarted { .. } => {
                Self::Conflict(text)
            }
            Error::NoConnection { .. } => {
                Self::Unreachable { attempted: "change a table by a tool", why: text }
            }
            Error::Failed { status, line, .. } => {
                let attempted = "change a table by a tool";
                Self::Statement { attempted, code: status, message: text, line, text: String::new() }
            }
        }
    }
}

/// Changes a table by a tool. When it fails or is stopped, the table is as it was.
///
/// # Errors
/// When the tool may not be run, does not start or fails; when it is time to stop; and when the lock on the tenant's
/// history is lost meanwhile, since another migrator may be at the table then.
pub async fn run(
    connection: &Connection,
    step: &External,
    tools: &Tools,
    progress: &mut (dyn FnMut(Progress) + Send),
    stop: &Stop,
) -> Result<(), Error> {
    stop.check()?;
    let tool = step.tool;
    let unusable = |why: String| Error::Unusable { tool, why };
    if connection.dialect() != Dialect::MySql {
        return Err(unusable("it is for the MySQL family only".to_owned()));
    }
    let program = tools.get(tool).ok_or(Error::NotConfigured(tool))?;
    if let Some(fault) = tools.faults().into_iter().next() {
        return Err(unusable(fault));
    }
    let login = Login::read(connection.target().url.expose(), connection.place()).map_err(unusable)?;
    let private = login.write(tool).map_err(unusable)?;
    let arguments = arguments::of(step, &login, private.path(), &program.args).map_err(unusable)?;
    clean_up(connection, step).await?;
    let invocation =
        child::Invocation { tool, program, arguments, private: &private, secret: login.password() };
    let ended = Box::pin(child::supervise(invocation, progress, stop, lock_is_lost(connection))).await;
    let result = match ended {
        Ok(end) if end.succeeded() => Ok(()),
        Ok(end) => Err(end.failure(step)),
        Err(error) => Err(error),
    };
    if result.is_err()
        && let Err(error) = clean_up(connection, step).await
    {
        tracing::warn!(error = %error, "what a tool left behind is still there");
    }
    result
}

/// Comes back when the lock on the tenant's history is no longer held.
async fn lock_is_lost(connection: &Connection) -> TenantError {
    loop {
        tokio::time::sleep(LOCK_CHECK).await;
        // It also keeps the session from being idle for so long that the server ends it.
        if let Err(error) = connection.verify_lock().await {
            return error;
        }
    }
}

/// Removes what a tool that did not end well left beside the table: its copy, its notes and its triggers.
///
/// The table itself is never touched, nor the original table that gh-ost keeps under another name after it has put its
/// copy in place; gh-ost itself removes that.
///
/// # Errors
/// When the database refuses it, or is not reached.
pub async fn clean_up(connection: &Connection, step: &External) -> Result<(), TenantError> {
    let sql = connection.sql();
    let place = step.table.as_str().split_once('.').map_or(connection.place(), |(place, _)| place);
    let table = step.table.last();
    let in_place = |name: &str| format!("{}.{}", sql.quoted(place), sql.quoted(name));
    let statements: Vec<String> = match step.tool {
        Tool::GhOst => arguments::gh_ost_tables(table)
            .iter()
            .map(|name| format!("DROP TABLE IF EXISTS {}", in_place(name)))
            .collect(),
        // The triggers go first: they write into the copy.
        Tool::PtOnlineSchemaChange => ["ins", "upd", "del"]
            .iter()
            .map(|event| arguments::pt_trigger(place, table, event))
            .map(|name| format!("DROP TRIGGER IF EXISTS {}", in_place(&name)))
            .chain([format!("DROP TABLE IF EXISTS {}", in_place(&arguments::pt_copy(table)))])
            .collect(),
    };
    for statement in statements {
        connection.run(connection.db(), "remove what a tool left behind", sql.plain(statement)).await?;
    }
    Ok(())
}
