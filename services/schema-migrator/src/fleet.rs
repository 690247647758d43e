//! Where many databases are, and which of them need work: read together, judged once per kind of history.

use crate::files::{Checksum, Dialect, Scripts};
use crate::plan::{Entry, Facts, History, Leftover, Options, Outcome, Stopped};
use crate::run::Goal;
use crate::tenant::{Error, Target, Timeouts, read_many};
use grey_core::schema::SchemaVersion;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where a database is, compared with the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The schema.
    pub schema: Option<SchemaVersion>,
    /// Migrations that are not applied.
    pub pending: u32,
    /// Whether an upgrade to the target would do anything, or be refused.
    pub needs_work: bool,
    /// Of the files that it was compared with.
    pub fingerprint: Option<Checksum>,
    /// What an upgrade would stop before.
    pub stopped: Option<Stopped>,
}

/// What of a history decides what is to be done.
type Kind = (Dialect, Vec<(String, Option<String>, &'static str, String)>, usize);

/// Looks at all `targets`, in their order, over at most `concurrency` connections at a time: where each stands on the way
/// to the goal, and its history. A dialect without scripts needs no work.
pub async fn check(
    targets: &[Target],
    scripts: &BTreeMap<Dialect, Arc<Scripts>>,
    (goal, options): (&Goal, &Options),
    timeouts: &Timeouts,
    concurrency: usize,
) -> Vec<Result<(Standing, History), Error>> {
    let histories = Box::pin(read_many(targets, timeouts, concurrency)).await;
    let fingerprints: BTreeMap<Dialect, Checksum> =
        scripts.iter().map(|(dialect, scripts)| (*dialect, scripts.fingerprint())).collect();
    // Tenants of one fleet have the same few histories, and judging one goes through every migration.
    let mut judged: BTreeMap<Kind, Standing> = BTreeMap::new();
    let mut standings = Vec::with_capacity(targets.len());
    for (target, history) in targets.iter().zip(histories) {
        standings.push(history.map(|history| {
            let judge = || {
                judge(
                    scripts.get(&target.dialect),
                    fingerprints.get(&target.dialect),
                    &history,
                    (goal, options),
                )
            };
            let standing = judged.entry(kind(target.dialect, &history)).or_insert_with(judge).clone();
            (standing, history)
        }));
    }
    standings
}

fn kind(dialect: Dialect, history: &History) -> Kind {
    let entry = |entry: &Entry| {
        let checksum = entry.checksum.as_ref().map(|checksum| checksum.as_str().to_owned());
        // Descriptions tell repeatable files apart; of others, the version says enough.
        let about =
            if entry.outcome == Outcome::Repeated { entry.description.clone() } else { String::new() };
        (entry.version.to_string(), checksum, entry.outcome.as_str(), about)
    };
    let leftover = |left: &Leftover| (left.version.to_string(), None, left.direction.as_str(), String::new());
    let entries = history.entries.iter().map(entry);
    (dialect, entries.chain(history.leftovers.iter().map(leftover)).collect(), history.leftovers.len())
}

fn judge(
    scripts: Option<&Arc<Scripts>>,
    fingerprint: Option<&Checksum>,
    history: &History,
    (goal, options): (&Goal, &Options),
) -> Standing {
    let schema = history.present().cloned();
    let Some(scripts) = scripts else {
        return Standing { schema, pending: 0, needs_work: false, fingerprint: None, stopped: None };
    };
    let plan = goal.plan(scripts, history, options, &Facts::default());
    Standing {
        schema,
        pending: pending(scripts, history),
        needs_work: !plan.is_empty() || plan.verdict().is_err(),
        fingerprint: fingerprint.cloned(),
        stopped: plan.stopped,
    }
}

/// Migrations that are not applied.
#[must_use]
pub fn pending(scripts: &Scripts, history: &History) -> u32 {
    let (applied, baseline) = (history.applied(), history.baseline());
    let missing = scripts.migrations.iter().filter(|migration| {
        !applied.contains_key(&migration.schema)
            && baseline.is_none_or(|baseline| migration.schema > *baseline)
    });
    let changed =
        scripts.repeatables.iter().filter(|it| history.repeated(&it.description) != Some(&it.checksum));
    u32::try_from(missing.count() + changed.count()).unwrap_or(u32::MAX)
}
