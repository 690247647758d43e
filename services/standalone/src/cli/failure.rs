//! How a command ends badly, and what its user can do about it.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use grey_core::error::Reason;
use grey_proto::control::{RouterProgress, RouterStatus};
use grey_proto::status::{ApiError, ErrorBody};

use super::output::plain;
use super::routers::word;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// A service refused the call, or did not answer.
    #[error("{attempted}: {error}")]
    Refused {
        /// As a verb phrase.
        attempted: String,
        /// What the service said.
        error: ApiError,
    },
    /// The URL or the authorities are not usable.
    #[error("use {what}")]
    Target {
        /// The URL or file.
        what: String,
        /// Why not.
        source: anyhow::Error,
    },
    /// A file could not be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// What was given contradicts itself or cannot be understood.
    #[error("{0}")]
    Input(String),
    /// The write is committed, but not every router has it.
    #[error("revision {revision} is committed, but not known to be everywhere: {}", progress_text(.progress))]
    Behind {
        /// Where the write is in the log.
        revision: u64,
        /// How far the routers are.
        progress: RouterProgress,
    },
    /// An event is not as it was written.
    #[error("event {revision} is not as it was written: {why}")]
    Touched {
        /// The first that is not.
        revision: u64,
        /// What is wrong with it.
        why: String,
    },
    /// Shared state cannot be used.
    #[error("{attempted}")]
    State {
        /// As a verb phrase.
        attempted: String,
        /// What it said.
        source: grey_state::Error,
    },
    /// Shared state does not answer.
    #[error("{attempted}: no answer within {deadline:?}")]
    Late {
        /// As a verb phrase.
        attempted: String,
        /// How long was waited.
        deadline: Duration,
    },
    /// A mirror has carried out what it was asked, without success.
    #[error("{attempted}: {error}")]
    Mirror {
        /// As a verb phrase.
        attempted: String,
        /// What the mirror said.
        error: String,
    },
    /// A mirror has taken a request, and not ended it in the time that was given.
    #[error(
        "{attempted}: request {request} was taken, but has not ended within {wait:?}; see `grey sync status`"
    )]
    Unended {
        /// As a verb phrase.
        attempted: String,
        /// Names the request.
        request: String,
        /// How long was waited.
        wait: Duration,
    },
    /// Upgrades were refused or have not succeeded; what became of each was printed.
    #[error("{} of {total} upgrades did not succeed: {}", .tenants.len(), few(.tenants))]
    Upgrades {
        /// Whose.
        tenants: Vec<String>,
        /// Upgrades altogether.
        total: usize,
    },
    /// Upgrades that were planned would be refused; the plans were printed.
    #[error("the upgrade would be refused: {}", few(.tenants))]
    PlansRefused {
        /// Whose.
        tenants: Vec<String>,
    },
    /// Databases are not as their last upgrades have left them; what differs was printed.
    #[error("{} databases have drifted: {}", .tenants.len(), few(.tenants))]
    Drifted {
        /// Whose.
        tenants: Vec<String>,
    },
    /// Upgrades are not waited for any longer.
    #[error("{why}, but {running} upgrades may go on; see `grey migrate status`")]
    Unwatched {
        /// How many may go on.
        running: usize,
        /// Why they are not waited for.
        why: String,
    },
    /// More than one thing went wrong; what succeeded was printed.
    #[error("{} things went wrong", .0.len())]
    Several(Vec<Failure>),
    /// Standard output is closed or full.
    #[error("write to standard output")]
    Output(#[source] io::Error),
    /// A server in this process failed.
    #[error(transparent)]
    Server(anyhow::Error),
}

impl Failure {
    /// The stable reason, for programs.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Refused { error, .. } => error.reason,
            Self::Target { .. } | Self::Read { .. } | Self::Input(_) => Reason::InvalidArgument,
            Self::Behind { .. } => Reason::RoutersBehind,
            Self::State { .. }
            | Self::Late { .. }
            | Self::Mirror { .. }
            | Self::Unended { .. }
            | Self::Unwatched { .. } => Reason::Unavailable,
            Self::Upgrades { .. } | Self::PlansRefused { .. } | Self::Drifted { .. } => {
                Reason::MigrationRefused
            }
            Self::Several(failures) => failures.first().map_or(Reason::Internal, Self::reason),
            Self::Output(_) | Self::Server(_) | Self::Touched { .. } => Reason::Internal,
        }
    }

    /// Prints the failure on standard error and chooses the exit code: 1, or 2 where the command line is at fault.
    ///
    /// People get one line for each failure; with `json` it is the body that the services' HTTP API uses.
    pub fn report(&self, json: bool) -> ExitCode {
        if let Self::Several(failures) = self {
            return failures.iter().fold(ExitCode::FAILURE, |_, failure| failure.report(json));
        }
        // A reader that has seen enough (`grey events | head`) is not an error worth a message.
        if !matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe) {
            let line = if json { self.json() } else { self.line() };
            // There is no place left to complain about standard error.
            drop(writeln!(io::stderr(), "{line}"));
        }
        ExitCode::from(if matches!(self, Self::Input(_)) { 2 } else { 1 })
    }

    /// The failure as the services tell theirs.
    pub(super) fn told(&self) -> ApiError {
        match self {
            Self::Refused { error, .. } => ApiError { message: self.chain(), ..error.clone() },
            other => ApiError::new(other.reason(), other.chain()),
        }
    }

    fn json(&self) -> String {
        serde_json::to_string(&ErrorBody::from(&self.told()))
            .expect("an error body has only text and numbers")
    }

    fn line(&self) -> String {
        let text = plain(&self.chain());
        match self {
            Self::Refused { error, .. } => {
                let hint = hint(error).map(|hint| format!("; {hint}")).unwrap_or_default();
                format!("error: {text} ({}){hint}", error.reason.as_str())
            }
            Self::Behind { .. } => format!("error: {text} ({})", self.reason().as_str()),
            _ => format!("error: {text}"),
        }
    }

    fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(next) = cause {
            let words = next.to_string();
            // Transport errors repeat their cause in their own text.
            if !text.ends_with(&words) {
                text = format!("{text}: {words}");
            }
            cause = next.source();
        }
        text
    }
}

/// How far routers are, and which ones are not there.
fn progress_text(progress: &RouterProgress) -> String {
    if !progress.fault.is_empty() {
        return progress.fault.clone();
    }
    if progress.total == 0 {
        return "no router is known".to_owned();
    }
    let late = progress.routers.iter().filter(|router| router.status() != RouterStatus::Applied);
    let named = late.map(|router| match router.status() {
        RouterStatus::Behind => format!("{} is behind at {}", router.id, router.revision),
        _ => format!("{} is {}", router.id, word(router)),
    });
    let named: Vec<_> = named.collect();
    format!("{} of {} routers have applied it; {}", progress.applied, progress.total, named.join(", "))
}

/// The first few, and how many more.
fn few(tenants: &[String]) -> String {
    let shown = tenants.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
    match tenants.len().saturating_sub(5) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// What to do, where the service itself cannot know it.
fn hint(error: &ApiError) -> Option<String> {
    if ["see `grey ", "retry later"].iter().any(|said| error.message.contains(said)) {
        return None;
    }
    let text = match error.reason {
        Reason::UnknownTenant => "see `grey tenant list`, or create it with `grey tenant put`",
        Reason::UnknownService => "see `grey service list`, or create it with `grey service put`",
        Reason::UnknownVersion => "see `grey service get`, or declare it with `grey version put`",
        Reason::UnknownPin => "see `grey pin list`",
        Reason::RoutersTooOld => "see `grey routers list` for the routers",
        Reason::UnknownOverlay => "see `grey service get`, or set it with `grey overlay put`",
        Reason::UnknownChange => "see `grey sync status`",
        Reason::UnknownUpgrade | Reason::UpgradeRunning => "see `grey migrate status`",
        Reason::UnknownRouter => "see `grey routers list --all`",
        Reason::UnknownDatabase => "register it with `grey database put`",
        Reason::MigrationRefused => "see `grey migrate plan`",
        Reason::DatabaseRefused => "check the registered credentials and rights",
        Reason::DatabaseUnavailable => "check that the tenant's database runs and can be reached",
        Reason::TenantSuspended => "see `grey tenant activate`",
        Reason::NoInstance => "see `grey explain`",
        Reason::RevisionMismatch => {
            let epoch = error.get("epoch").map(|epoch| format!("{epoch}-")).unwrap_or_default();
            let present = error.get("present").map(|present| match present {
                "0" => "--expect 0".to_owned(),
                _ => format!("--expect {epoch}{present}"),
            });
            let expect = present.unwrap_or_else(|| "its revision as --expect".to_owned());
            return Some(format!("look again, then repeat with {expect}"));
        }
        Reason::RevisionUnavailable => "see `grey events` for the revisions there are",
        Reason::Stale => "see `grey routers list` for how far they are",
        Reason::Unauthenticated => "give a token by --token or GREY_TOKEN",
        Reason::Denied => "the token's role does not allow it; use another token",
        Reason::RateLimited | Reason::Maintenance | Reason::TenantMoving => "retry later",
        Reason::Unavailable => {
            "check that it runs, and where: --control, --router, --registry-sync, --tenant-sync or --migrator"
        }
        Reason::Internal => "see the service's log",
        Reason::InvalidArgument
        | Reason::MovesOverBudget
        | Reason::TooLarge
        | Reason::NoLegalVersion
        | Reason::InUse
        | Reason::RoutersBehind => return None,
    };
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use grey_proto::control::RouterState;

    fn refused(error: ApiError) -> Failure {
        Failure::Refused { attempted: "pin `acme`".to_owned(), error }
    }

    #[test]
    fn a_refusal_is_one_line_with_its_reason_and_a_way_on() {
        let error = ApiError::new(Reason::RevisionMismatch, "the pin changed\nat 7").with("present", "7");
        insta::assert_snapshot!(
            refused(error).line(),
            @"error: pin `acme`: the pin changed at 7 (REVISION_MISMATCH); look again, then repeat with --expect 7"
        );
    }

    #[test]
    fn what_the_service_says_itself_is_not_said_again() {
        let error = ApiError::new(Reason::Unavailable, "the control database does not answer; retry later");
        assert_eq!(hint(&error), None);
        assert!(hint(&ApiError::new(Reason::Unavailable, "connection refused")).is_some());
    }

    #[test]
    fn json_failures_are_the_body_of_the_http_api() {
        let error = ApiError::new(Reason::UnknownTenant, "no such tenant");
        insta::assert_snapshot!(
            refused(error).json(),
            @r#"{"error":{"code":404,"status":"NOT_FOUND","reason":"UNKNOWN_TENANT","message":"pin `acme`: no such tenant","metadata":{}}}"#
        );
    }

    #[test]
    fn routers_behind_are_named() {
        let state = |id: &str, status: RouterStatus| RouterState {
            id: id.to_owned(),
            epoch: 1,
            revision: 3,
            status: status.into(),
            ..RouterState::default()
        };
        let late = |progress| Failure::Behind { revision: 9, progress }.line();
        let routers = vec![
            state("r7", RouterStatus::Behind),
            state("r8", RouterStatus::Unreachable),
            state("r1", RouterStatus::Applied),
        ];
        insta::assert_snapshot!(
            late(RouterProgress { applied: 1, total: 3, routers, ..RouterProgress::default() }),
            @"error: revision 9 is committed, but not known to be everywhere: 1 of 3 routers have applied it; r7 is behind at 3, r8 is unreachable (ROUTERS_BEHIND)"
        );
        insta::assert_snapshot!(
            late(RouterProgress::default()),
            @"error: revision 9 is committed, but not known to be everywhere: no router is known (ROUTERS_BEHIND)"
        );
        let fault = "shared state does not answer".to_owned();
        insta::assert_snapshot!(
            late(RouterProgress { total: 2, fault, ..RouterProgress::default() }),
            @"error: revision 9 is committed, but not known to be everywhere: shared state does not answer (ROUTERS_BEHIND)"
        );
    }
}
