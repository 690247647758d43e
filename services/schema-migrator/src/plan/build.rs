//! Working plans out.

use super::{Direction, Entry, Facts, History, Options, Outcome, Plan, PlannedStep, Target, rules};
use crate::files::{Migration, Scripts};
use crate::lint::{Finding, Level, Linter};
use grey_core::schema::{SchemaVersion, SchemaWindow};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What leads from the history to the target, and what speaks against it.
///
/// Steps are given even if the plan may not be run, so that a dry run shows them.
#[must_use]
pub fn plan(scripts: &Scripts, history: &History, target: &Target, options: &Options, facts: &Facts) -> Plan {
    let mut findings = Findings::default();
    findings.history(history);
    findings.files(scripts, history);
    let applied = history.applied();
    let (present, baseline) = (history.present(), history.baseline());
    let to = findings.target(scripts, history, target);
    let mut linter = Linter::new(scripts.dialect, options, facts);
    let mut steps = Vec::new();
    for migration in &scripts.migrations {
        let version = &migration.schema;
        if applied.contains_key(version) || baseline.is_some_and(|baseline| version < baseline) {
            linter.learn(migration);
            continue;
        }
        if present.is_some_and(|present| version < present) && !options.out_of_order {
            let text = format!(
                "{version} is not applied although {} is: allow out of order, or give it a newer version",
                present.map(ToString::to_string).unwrap_or_default()
            );
            findings.error_in(rules::OUT_OF_ORDER, text, migration);
        } else if to.as_ref().is_some_and(|to| version <= to) {
            steps.push(PlannedStep { findings: linter.up(migration), migration: Arc::clone(migration) });
        }
    }
    Plan {
        service: scripts.service.clone(),
        dialect: scripts.dialect,
        direction: Direction::Up,
        from: present.cloned(),
        to: to.or_else(|| present.cloned()),
        steps,
        findings: findings.0,
        fingerprint: scripts.fingerprint(),
    }
}

/// What leads back to `to`, newest first; `None`: to before the first migration.
#[must_use]
pub fn plan_undo(
    scripts: &Scripts,
    history: &History,
    to: Option<&SchemaVersion>,
    options: &Options,
    facts: &Facts,
) -> Plan {
    let mut findings = Findings::default();
    findings.history(history);
    let applied = history.applied();
    let present = history.present();
    let reachable = findings.way_back(history, to);
    let mut linter = Linter::new(scripts.dialect, options, facts);
    for migration in &scripts.migrations {
        linter.learn(migration);
    }
    let mut steps = Vec::new();
    let undone = applied.iter().rev().filter(|(version, _)| reachable && to.is_none_or(|to| **version > to));
    for (version, entry) in undone {
        if entry.outcome == Outcome::Baseline {
            let text = format!("{version} was there before the history began: nothing is known to undo it");
            findings.error(rules::BELOW_BASELINE, text);
            continue;
        }
        let Some(migration) = scripts.get(version) else {
            findings.missing(version);
            continue;
        };
        findings.unchanged(migration, entry);
        match &migration.undo {
            None => {
                findings.error_in(rules::NO_UNDO, format!("{version} has no undo file"), migration);
            }
            Some(undo) => {
                steps.push(PlannedStep { findings: linter.down(undo), migration: Arc::clone(migration) });
            }
        }
    }
    Plan {
        service: scripts.service.clone(),
        dialect: scripts.dialect,
        direction: Direction::Down,
        from: present.cloned(),
        to: if reachable { to.cloned() } else { present.cloned() },
        steps,
        findings: findings.0,
        fingerprint: scripts.fingerprint(),
    }
}

/// What speaks against a plan as a whole.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn push(&mut self, level: Level, rule: &'static str, message: String, file: &str) {
        self.0.push(Finding { level, rule, message, file: file.to_owned(), line: 0 });
    }

    fn error(&mut self, rule: &'static str, message: String) {
        self.push(Level::Error, rule, message, "");
    }

    fn error_in(&mut self, rule: &'static str, message: String, migration: &Migration) {
        self.push(Level::Error, rule, message, &migration.file);
    }

    fn missing(&mut self, version: &SchemaVersion) {
        self.error(rules::MISSING_FILE, format!("{version} is applied, and its file is gone"));
    }

    /// What the history says of itself.
    fn history(&mut self, history: &History) {
        for leftover in &history.leftovers {
            let (version, direction, done) = (&leftover.version, leftover.direction, leftover.steps_done);
            let text =
                format!("{version} is half done ({direction}, {done} steps done): resume or undo it first");
            self.error(rules::LEFTOVER, text);
        }
        let mut standing = BTreeSet::new();
        for entry in &history.entries {
            match entry.outcome {
                Outcome::Applied | Outcome::Baseline => {
                    if !standing.insert(&entry.version) {
                        self.error(rules::DUPLICATE, format!("the history applies {} twice", entry.version));
                    }
                }
                Outcome::Undone => {
                    standing.remove(&entry.version);
                }
                Outcome::Failed => {}
            }
        }
    }

    /// Whether what is applied is what the files say.
    fn files(&mut self, scripts: &Scripts, history: &History) {
        let baseline = history.baseline();
        for (version, entry) in history.applied() {
            match scripts.get(version) {
                Some(migration) => self.unchanged(migration, entry),
                None if baseline.is_some_and(|baseline| version <= baseline) => {}
                None => self.missing(version),
            }
        }
    }

    fn unchanged(&mut self, migration: &Migration, entry: &Entry) {
        if let Some(applied) = &entry.checksum
            && *applied != migration.checksum
        {
            let text = format!(
                "{} was changed after it was applied: its checksum was {applied} and is {}",
                migration.schema, migration.checksum
            );
            self.error_in(rules::CHECKSUM, text, migration);
        }
        if let (Some(applied), Some(undo)) = (&entry.undo_checksum, &migration.undo)
            && *applied != undo.checksum
        {
            let text = format!("the undo file of {} was changed after it was applied", migration.schema);
            self.push(Level::Warning, rules::UNDO_CHANGED, text, &undo.file);
        }
    }

    /// Where the plan leads; `None` when that is not a version, which is told.
    fn target(&mut self, scripts: &Scripts, history: &History, target: &Target) -> Option<SchemaVersion> {
        let present = history.present();
        let to = match target {
            Target::Newest => return scripts.newest().into_iter().chain(present).max().cloned(),
            Target::Version(version) => {
                if scripts.get(version).is_none() && !history.applied().contains_key(version) {
                    let text = format!("{version} is not a version of service `{}`", scripts.service);
                    self.error(rules::UNKNOWN_VERSION, text);
                    return None;
                }
                version
            }
            Target::Window(window) => self.newest_within(scripts, present, window)?,
        };
        if present.is_some_and(|present| to < present) {
            let text = format!(
                "the schema is {}, which is newer than {to}: undo leads back",
                present.map(ToString::to_string).unwrap_or_default()
            );
            self.error(rules::BELOW_PRESENT, text);
            return None;
        }
        Some(to.clone())
    }

    fn newest_within<'a>(
        &mut self,
        scripts: &'a Scripts,
        present: Option<&'a SchemaVersion>,
        window: &SchemaWindow,
    ) -> Option<&'a SchemaVersion> {
        let versions = scripts.migrations.iter().map(|migration| &migration.schema).chain(present);
        let newest = versions.filter(|version| window.admits(Some(version))).max();
        if newest.is_none() && *window != SchemaWindow::default() {
            let text = format!("no version of service `{}` is within {window}", scripts.service);
            self.error(rules::UNKNOWN_VERSION, text);
        }
        newest
    }

    /// Whether `to` is a version that the database was at.
    fn way_back(&mut self, history: &History, to: Option<&SchemaVersion>) -> bool {
        let Some(to) = to else { return true };
        if history.applied().contains_key(to) {
            return true;
        }
        match history.present() {
            Some(present) if present < to => {
                let text =
                    format!("the schema is {present}, which is older than {to}: an upgrade leads there");
                self.error(rules::ABOVE_PRESENT, text);
            }
            _ => self
                .error(rules::UNKNOWN_VERSION, format!("{to} is not applied, so nothing leads back to it")),
        }
        false
    }
}
