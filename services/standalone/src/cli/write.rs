//! What every write may state, and how its outcome is told.

use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use grey_proto::control::{Lack, Move, Moves, RouterProgress, WriteOptions, WriteResult};
use serde::Serialize;

use super::Failure;
use super::output::table;
use super::session::Session;

/// What a write about many tenants may take beyond the usual.
pub(super) const BULK: Duration = Duration::from_secs(60);
/// Groups of moves that are printed.
const ROWS: usize = 20;
/// Gained versions that a line names.
const GAINS: usize = 5;

/// What every write may state.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options of the write")]
pub(super) struct Write {
    /// Refuse unless this is the revision of the last change (0: it must not exist yet); 2-17 is revision 17 of epoch 2
    #[arg(long, value_name = "REVISION")]
    pub(super) expect: Option<Expected>,
    /// Why, kept in the log of changes
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(super) reason: String,
    /// Wait until every router that may still answer has applied the write, at most this long and at most 60s
    #[arg(long, value_name = "DURATION", value_parser = super::wait)]
    pub(super) wait: Option<Duration>,
    /// Refuse if more tenants of a service than this would move to another version or lose theirs
    ///
    /// If it is not given, the greater of 100 and 5 % of the active tenants may.
    #[arg(long = "moves", value_name = "TENANTS")]
    max_moves: Option<u64>,
    /// Change nothing, and tell which tenants would move
    #[arg(long)]
    dry_run: bool,
}

/// The revision that a write expects, in a certain history or in whichever is present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expected {
    /// 0: whichever is present.
    epoch: u64,
    revision: u64,
}

impl FromStr for Expected {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| text.parse().map_err(|_| "must be a revision, such as 17, or 2-17");
        match text.split_once('-') {
            None => Ok(Self { epoch: 0, revision: number(text)? }),
            Some((epoch, revision)) => Ok(Self { epoch: number(epoch)?, revision: number(revision)? }),
        }
    }
}

impl Write {
    pub(super) fn options(&self) -> Option<WriteOptions> {
        Some(WriteOptions {
            expected_revision: self.expect.map(|expected| expected.revision),
            expected_epoch: self.expect.map_or(0, |expected| expected.epoch),
            reason: self.reason.clone(),
            wait: self.wait.map(Into::into),
            max_moves: self.max_moves,
            dry_run: self.dry_run,
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
    session.show(response, || match result {
        Some(result) if result.dry_run => {
            format!("dry run at revision {revision}, nothing was changed: {done}\n") + &moves(result, true)
        }
        Some(result) => text(done, revision, progress) + &moves(result, false),
        None => text(done, revision, progress),
    })?;
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

/// Which tenants move, and what has to be stated to let them. If there is nothing to tell but gains, a write tells them
/// in a line: a tenant that is created gains every service there is.
fn moves(result: &WriteResult, dry_run: bool) -> String {
    let Some(moves) = &result.moves else { return String::new() };
    let taken: Vec<&Move> = moves.groups.iter().collect();
    if taken.is_empty() {
        return String::new();
    }
    if !dry_run && taken.iter().all(|group| group.from.is_empty()) {
        return gains(&taken, moves.omitted);
    }
    let or_refused = |version: &str| if version.is_empty() { "refused" } else { version }.to_owned();
    let rows = taken.iter().take(ROWS).map(|group| {
        let why = match group.lack() {
            Lack::Schema => format!("{} does not work on their schema", group.wanted),
            Lack::Instance => format!("{} has no instance for them", group.wanted),
            Lack::Unspecified => String::new(),
        };
        let more = if group.tenants > group.examples.len() as u64 { ", …" } else { "" };
        let examples = group.examples.join(", ") + more;
        let tenants = group.tenants.to_string();
        [group.service.clone(), tenants, or_refused(&group.from), or_refused(&group.to), why, examples]
    });
    let mut text = table(["SERVICE", "TENANTS", "FROM", "TO", "WHY", "SUCH AS"], rows);
    let left = taken.len().saturating_sub(ROWS) as u64 + moves.omitted;
    if left > 0 {
        text.push_str(&format!("and {left} more groups; see them with --json\n"));
    }
    if dry_run && moves.largest > moves.budget {
        let Moves { largest, budget, .. } = moves;
        text.push_str(&format!("more than {budget} tenants would move: state --moves {largest}\n"));
    }
    text
}

fn gains(groups: &[&Move], omitted: u64) -> String {
    let named = groups.iter().take(GAINS).map(|group| {
        let s = if group.tenants == 1 { "" } else { "s" };
        format!("{} tenant{s} of {} to {}", group.tenants, group.service, group.to)
    });
    let named: Vec<String> = named.collect();
    let left = groups.len().saturating_sub(GAINS) as u64 + omitted;
    let more = if left > 0 { format!(", and {left} more groups") } else { String::new() };
    format!("served from now on: {}{more}\n", named.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_expected_in_any_history_or_in_one() {
        assert_eq!("17".parse(), Ok(Expected { epoch: 0, revision: 17 }));
        assert_eq!("2-17".parse(), Ok(Expected { epoch: 2, revision: 17 }));
        for wrong in ["", "-", "2-", "-17", "x", "2-17-1"] {
            assert!(wrong.parse::<Expected>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn moves_are_told_in_columns_with_the_number_to_state() {
        let group = |from: &str, to: &str, tenants| Move {
            service: "payment".to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
            tenants,
            examples: vec!["acme".to_owned(), "beta".to_owned()],
            ..Move::default()
        };
        let lacking = Move { lack: Lack::Instance.into(), wanted: "v3.0".to_owned(), ..group("v1.0", "", 2) };
        let groups = vec![group("v1.0", "v2.0", 120), lacking, group("", "v3.0", 7)];
        let told = Moves { active: 200, groups, largest: 122, budget: 100, omitted: 0 };
        let result = WriteResult { moves: Some(told), ..WriteResult::default() };
        insta::assert_snapshot!(moves(&result, true), @"
        SERVICE  TENANTS  FROM     TO       WHY                            SUCH AS
        payment  120      v1.0     v2.0     -                              acme, beta, …
        payment  2        v1.0     refused  v3.0 has no instance for them  acme, beta
        payment  7        refused  v3.0     -                              acme, beta, …
        more than 100 tenants would move: state --moves 122
        ");
        assert!(!moves(&result, false).contains("--moves"));
        assert_eq!(moves(&WriteResult::default(), true), "");
        let groups = vec![group("", "v3.0", 7), group("", "v2.0", 1)];
        let result = WriteResult {
            moves: Some(Moves { groups, omitted: 3, ..Moves::default() }),
            ..WriteResult::default()
        };
        insta::assert_snapshot!(
            moves(&result, false),
            @"served from now on: 7 tenants of payment to v3.0, 1 tenant of payment to v2.0, and 3 more groups"
        );
    }

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
