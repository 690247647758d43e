//! What every write may state, and how its outcome is told.

use std::time::Duration;

use clap::Args;
use grey_proto::control::{RouterProgress, WriteOptions, WriteResult};
use serde::Serialize;

use super::session::Session;
use super::{Failure, positive};

/// What every write may state.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options of the write")]
pub(super) struct Write {
    /// Refuse unless this is the revision of the last change (0: it must not exist yet)
    #[arg(long, value_name = "REVISION")]
    pub(super) expect: Option<u64>,
    /// Why, kept in the log of changes
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(super) reason: String,
    /// Wait until every router that may still answer has applied the write, at most this long
    #[arg(long, value_name = "DURATION", value_parser = positive)]
    pub(super) wait: Option<Duration>,
}

impl Write {
    pub(super) fn options(&self) -> Option<WriteOptions> {
        Some(WriteOptions {
            expected_revision: self.expect,
            reason: self.reason.clone(),
            wait: self.wait.map(Into::into),
            ..WriteOptions::default()
        })
    }

    /// How long the service may hold the call back.
    pub(super) fn patience(&self) -> Duration {
        self.wait.unwrap_or_default()
    }
}

/// Prints the outcome of a write. `done` says what was done, as in "pinned acme".
///
/// # Errors
/// [`Failure::Behind`], after printing, if routers were waited for and not every one is known to have applied the write.
pub(super) fn show(
    session: &Session,
    response: &impl Serialize,
    result: Option<&WriteResult>,
    done: &str,
) -> Result<(), Failure> {
    let revision = result.map(|result| result.revision).unwrap_or_default();
    let progress = result.and_then(|result| result.routers.as_ref());
    session.show(response, || text(done, revision, progress))?;
    match progress {
        Some(progress) if !progress.complete => Err(Failure::Behind { revision, progress: progress.clone() }),
        _ => Ok(()),
    }
}

fn text(done: &str, revision: u64, progress: Option<&RouterProgress>) -> String {
    let routers = progress.map(|progress| {
        let elapsed = progress.elapsed.unwrap_or_default();
        let millis = elapsed.seconds * 1_000 + i64::from(elapsed.nanos) / 1_000_000;
        format!(", applied by {} of {} routers in {millis} ms", progress.applied, progress.total)
    });
    format!("{done} at revision {revision}{}\n", routers.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcome_tells_how_far_routers_are() {
        let elapsed = Some(Duration::from_millis(1_084).into());
        let progress = RouterProgress { applied: 12, total: 12, elapsed, ..RouterProgress::default() };
        assert_eq!(
            text("pinned acme", 17, Some(&progress)),
            "pinned acme at revision 17, applied by 12 of 12 routers in 1084 ms\n"
        );
        assert_eq!(text("pinned acme", 17, None), "pinned acme at revision 17\n");
    }
}
