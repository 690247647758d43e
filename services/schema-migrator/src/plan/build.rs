//! Working plans out.

use super::{
    Contents, Direction, Entry, Facts, History, Options, Outcome, Plan, PlannedStep, Stopped, Target, rules,
};
use crate::files::{Migration, Repeatable, Scripts};
use crate::lint::{Finding, Level, Linter, Rule, Weight};
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
    let mut to = findings.target(scripts, history, target);
    let mut linter = Linter::new(scripts.dialect, options, facts);
    let mut steps: Vec<PlannedStep> = Vec::new();
    let mut stopped = None;
    // Nothing runs yet on a database that has nothing.
    let stops = present.is_some()
        && options.policy.weight(Rule::Contract) == Weight::Refuse
        && !options.accept.contains(&Rule::Contract);
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
        } else if to.as_ref().is_some_and(|to| version <= to) && stopped.is_none() {
            if stops && !options.contract.contains(&migration.file) {
                stopped = linter.contracts(migration).map(|what| stop(migration, &what));
            }
            if stopped.is_some() {
                continue;
            }
            steps.push(PlannedStep { findings: linter.up(migration), migration: Arc::clone(migration) });
        }
    }
    if let Some(stopped) = &stopped {
        to = steps.last().map(|step| step.migration.schema.clone()).max(present.cloned());
        findings.stopped(stopped, target, to.as_ref());
    }
    let complete = stopped.is_none() && to.as_ref() >= scripts.newest();
    let changed = |it: &&Arc<Repeatable>| history.repeated(&it.description) != Some(&it.checksum);
    let repeatables: Vec<_> =
        if complete { scripts.repeatables.iter().filter(changed).cloned().collect() } else { Vec::new() };
    for repeatable in &repeatables {
        findings.0.extend(linter.repeatable(repeatable));
    }
    if history.is_blank() && !(steps.is_empty() && repeatables.is_empty()) {
        findings.contents(scripts, facts, options);
    }
    Plan {
        repeatables,
        stopped,
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
        repeatables: Vec::new(),
        stopped: None,
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

fn stop(migration: &Arc<Migration>, what: &str) -> Stopped {
    let (schema, file) = (&migration.schema, &migration.file);
    let why = format!(
        "stopped before {schema}, which contracts ({what}): what works on the schema before it must not run any more; \
         once it is drained, accept it by name (--contract {file})"
    );
    Stopped { migration: Arc::clone(migration), why }
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
        let text = format!(
            "{version} is applied, and its file is gone: bring it back, or accept that \
             (`grey migrate repair --accept-checksum` and the file's name)"
        );
        self.error(rules::MISSING_FILE, text);
    }

    /// That the plan leads no further; it matters where further was asked for.
    fn stopped(&mut self, stopped: &Stopped, target: &Target, to: Option<&SchemaVersion>) {
        let enough = match target {
            Target::Newest => true,
            Target::Version(_) => false,
            Target::Window(window) => window.admits(to),
        };
        let level = if enough { Level::Warning } else { Level::Refusal };
        self.push(level, Rule::Contract.as_str(), stopped.why.clone(), &stopped.migration.file);
    }

    /// Whether what is in a database without a history is there by someone else's doing.
    fn contents(&mut self, scripts: &Scripts, facts: &Facts, options: &Options) {
        let service = &scripts.service;
        match &facts.contents {
            Contents::Ours => {}
            Contents::Flyway => {
                let text = format!(
                    "Flyway has migrated this database, and files would run again: take its history over by \
                     `grey migrate baseline {service}`"
                );
                self.error(rules::FLYWAY, text);
            }
            Contents::Others { count, example } => {
                let Some(level) = options.policy.level(Rule::NotEmpty, &options.accept) else { return };
                let text = format!(
                    "no migration was ever run here, but there are {count} tables or views such as `{example}`: declare \
                     which schema that is by `grey migrate baseline {service} --at SCHEMA`, or accept `{}` if they are \
                     not the service's",
                    Rule::NotEmpty
                );
                self.push(level, Rule::NotEmpty.as_str(), text, "");
            }
        }
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
                Outcome::Accepted | Outcome::Repeated | Outcome::Failed => {}
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
                None if entry.outcome == Outcome::Accepted => {}
                None => self.missing(version),
            }
        }
    }

    fn unchanged(&mut self, migration: &Migration, entry: &Entry) {
        if let Some(applied) = &entry.checksum
            && *applied != migration.checksum
        {
            let text = format!(
                "{} was changed after it was applied: its checksum was {applied} and is {}; write another migration, \
                 or accept it if the database is right (`grey migrate repair --accept-checksum {}`)",
                migration.schema, migration.checksum, migration.file
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
