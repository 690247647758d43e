//! The rules, applied to what statements do.

use super::effect::{Added, Effect, Effects, Known, Preset};
use super::kinds::{may_narrow, rewrites};
use super::pattern::Words;
use super::{Finding, Level, Rule, parse};
use crate::files::{Dialect, Migration, Phase, Repeatable, Scripts, Step, Undo};
use crate::plan::{Direction, Facts, Options, rules};
use std::collections::{BTreeMap, BTreeSet};

/// Judges migrations in the order in which they run.
pub(crate) struct Linter<'a> {
    pub(super) dialect: Dialect,
    options: &'a Options,
    facts: &'a Facts,
    /// Tables that the plan itself creates, which have no rows.
    pub(super) created: BTreeSet<String>,
    /// Types of columns, as far as the files tell.
    types: BTreeMap<(String, String), String>,
    /// Columns that were added with a default, so that none of their rows is NULL.
    filled: BTreeSet<(String, String)>,
}

/// Judges every migration of a service without a database: each as if it met tables with rows.
#[must_use]
pub fn validate(scripts: &Scripts, options: &Options) -> Vec<Finding> {
    let facts = Facts::default();
    let mut linter = Linter::new(scripts.dialect, options, &facts);
    let mut findings = Vec::new();
    for migration in &scripts.migrations {
        linter.created.clear();
        findings.extend(linter.up(migration));
    }
    for repeatable in &scripts.repeatables {
        findings.extend(linter.repeatable(repeatable));
    }
    findings.extend(scripts.ignored.iter().map(|file| Finding {
        level: Level::Warning,
        rule: "ignored-file",
        message: "it is left alone: the name of a migration ends in .sql".to_owned(),
        file: file.clone(),
        line: 0,
    }));
    findings
}

/// One step, as the rules see it.
struct Seen<'s> {
    effects: &'s Effects,
    file: &'s str,
    line: u32,
    transactional: bool,
    /// A tool or a backfill does it without holding up others.
    online: bool,
    direction_down: bool,
}

impl<'a> Linter<'a> {
    pub(crate) fn new(dialect: Dialect, options: &'a Options, facts: &'a Facts) -> Self {
        let (created, types, filled) = (BTreeSet::new(), BTreeMap::new(), BTreeSet::new());
        Self { dialect, options, facts, created, types, filled }
    }

    /// Remembers what a migration does that ran before.
    pub(crate) fn learn(&mut self, migration: &Migration) {
        for known in &of_migration(migration, self.dialect).steps {
            for effect in &known.effects {
                self.remember(effect);
            }
        }
        self.created.clear();
    }

    /// Judges a migration that is applied.
    pub(crate) fn up(&mut self, migration: &Migration) -> Vec<Finding> {
        let mut findings = Vec::new();
        let file = migration.file.as_str();
        if migration.undo.is_none() {
            self.find(&mut findings, Rule::MissingUndo, file, 0, "there is no undo file".to_owned());
        }
        if self.dialect == Dialect::MySql && migration.steps.len() > 1 && !migration.transactional {
            let text =
                "the server commits after each change of a table: a failure leaves the statements before it";
            self.find(&mut findings, Rule::ImplicitCommit, file, 0, text.to_owned());
        }
        let known = of_migration(migration, self.dialect);
        self.mixed(&mut findings, known, file);
        self.steps(&mut findings, (&migration.steps, known), file, migration.transactional, false);
        findings
    }

    /// Judges a repeatable file that is run.
    pub(crate) fn repeatable(&mut self, it: &Repeatable) -> Vec<Finding> {
        let mut findings = Vec::new();
        let known = it.understood.or_find_out(|| known(&it.steps, self.dialect));
        self.steps(&mut findings, (&it.steps, known), &it.file, it.transactional, false);
        findings
    }

    /// What a migration takes away that the version before needs, or that its file says so; `None`: nothing.
    pub(crate) fn contracts(&self, migration: &Migration) -> Option<String> {
        match migration.phase {
            Some(Phase::Contract) => Some("its file says so".to_owned()),
            Some(Phase::Expand) => None,
            None => self.takes_away(of_migration(migration, self.dialect)),
        }
    }

    /// Judges a migration that is undone. That something is lost is the nature of it, so it is told only.
    pub(crate) fn down(&mut self, undo: &Undo) -> Vec<Finding> {
        let mut findings = Vec::new();
        let known = of_undo(undo, self.dialect);
        self.steps(&mut findings, (&undo.steps, known), &undo.file, undo.transactional, true);
        findings
    }

    fn steps(
        &mut self,
        findings: &mut Vec<Finding>,
        (steps, known): (&[Step], &Known),
        file: &str,
        transactional: bool,
        down: bool,
    ) {
        let mut unchecked = false;
        for (step, effects) in steps.iter().zip(&known.steps) {
            unchecked |= effects.adds_unchecked;
            if unchecked && effects.validates && transactional && !down {
                let text = "the constraint is checked in the transaction that adds it, whose lock others wait for: put \
                            VALIDATE into a file of its own";
                self.find(findings, Rule::ValidateTogether, file, step.line(), text.to_owned());
            }
            let seen = Seen {
                effects,
                file,
                line: step.line(),
                transactional,
                online: matches!(step, Step::Backfill(_) | Step::External(_)),
                direction_down: down,
            };
            self.judge(findings, &seen);
            for effect in &seen.effects.effects {
                self.remember(effect);
            }
        }
    }

    fn judge(&self, findings: &mut Vec<Finding>, seen: &Seen<'_>) {
        for effect in &seen.effects.effects {
            if let Some(text) = self.destroys(effect) {
                let from = findings.len();
                self.find(findings, Rule::Destructive, seen.file, seen.line, text);
                if seen.direction_down {
                    findings.iter_mut().skip(from).for_each(|it| it.level = Level::Warning);
                }
            }
            if !seen.online {
                if let Some((table, text)) = self.rewrites(effect) {
                    self.find_on(findings, Rule::Rewrite, seen, table, text);
                }
                if let Some((table, text)) = self.locks(effect)
                    && self.facts.rows.get(table).is_some_and(|rows| *rows >= self.options.big_table_rows)
                {
                    self.find(findings, Rule::BigTableLock, seen.file, seen.line, text);
                }
            }
            match effect {
                Effect::AddsColumn(Added {
                    table, column, not_null: true, default: Preset::Nothing, ..
                }) if !self.created.contains(table) => {
                    let text =
                        format!("`{table}.{column}` may not be NULL and has no default for rows that exist");
                    self.find(findings, Rule::NotNullWithoutDefault, seen.file, seen.line, text);
                }
                Effect::Updates { table, nulls } => {
                    for column in nulls {
                        if self.filled.contains(&(table.clone(), column.clone())) {
                            let text = format!(
                                "`{table}.{column}` was added with a default, so no row is NULL any more: \
                                 add it without, fill it, then set the default"
                            );
                            self.find(findings, Rule::BackfillAfterDefault, seen.file, seen.line, text);
                        }
                    }
                }
                _ => {}
            }
        }
        self.judge_whole(findings, seen);
    }

    /// Rules that look at the statement as a whole.
    fn judge_whole(&self, findings: &mut Vec<Finding>, seen: &Seen<'_>) {
        let effects = &seen.effects;
        let renames = !effects.effects.is_empty()
            && effects.effects.iter().all(|it| matches!(it, Effect::Renames { .. }));
        if let Some(alters) = &effects.alters
            && !alters.asserted
            && !seen.online
            && !renames
            && !self.created.contains(&alters.table)
        {
            let text = format!(
                "the server may copy `{}`: write ALGORITHM=INPLACE or INSTANT, so that it refuses instead",
                alters.table
            );
            self.find_on(findings, Rule::Rewrite, seen, &alters.table, text);
        }
        let old = self.facts.server.is_some_and(|server| server.major < 12);
        if effects.adds_enum_value && seen.transactional && old {
            findings.push(Finding {
                level: Level::Error,
                rule: rules::NEEDS_NO_TRANSACTION,
                message: "before PostgreSQL 12, ALTER TYPE … ADD VALUE cannot run in a transaction: \
                          put `-- grey: no-transaction` at the top of the file"
                    .to_owned(),
                file: seen.file.to_owned(),
                line: seen.line,
            });
        }
        if effects.drops_index && !seen.direction_down {
            let text = "dropping the index waits for everyone who uses its table, and makes others wait: write CONCURRENTLY";
            self.find(findings, Rule::DropIndex, seen.file, seen.line, text.to_owned());
        }
        for (column, what) in self.regretted(effects) {
            self.find(findings, Rule::ColumnType, seen.file, seen.line, format!("`{column}` is {what}"));
        }
        if !effects.understood {
            let text = "the statement is not understood, so only its words were looked at";
            self.find(findings, Rule::Unparsed, seen.file, seen.line, text.to_owned());
        }
    }

    fn destroys(&self, effect: &Effect) -> Option<String> {
        match effect {
            Effect::DropsTable { table } if !self.created.contains(table) => {
                Some(format!("it drops the table `{table}`"))
            }
            Effect::DropsColumn { table, column } => Some(format!("it drops the column `{table}.{column}`")),
            Effect::DropsSchema { name } => Some(format!("it drops the schema or database `{name}`")),
            Effect::Empties { table } if !self.created.contains(table) => {
                Some(format!("it deletes every row of `{table}`"))
            }
            Effect::ChangesType { table, column, to } if !self.created.contains(table) => {
                let from = self.type_of(table, column);
                let was = from.map_or_else(|| "another type".to_owned(), |from| format!("`{from}`"));
                may_narrow(from, to)
                    .then(|| format!("`{table}.{column}` becomes `{to}` from {was}, which may not fit"))
            }
            _ => None,
        }
    }

    /// Effects by which PostgreSQL writes a table anew. SQLite has none, the MySQL family is told by its algorithm.
    fn rewrites<'e>(&self, effect: &'e Effect) -> Option<(&'e str, String)> {
        if self.dialect != Dialect::Postgres {
            return None;
        }
        let (table, text) = match effect {
            Effect::ChangesType { table, column, to } if rewrites(self.type_of(table, column), to) => {
                (table, format!("changing the type of `{table}.{column}` writes the table anew"))
            }
            Effect::AddsColumn(Added { table, column, default: Preset::Volatile, .. }) => (
                table,
                format!("the default of `{table}.{column}` may differ by row, so the table is written anew"),
            ),
            Effect::Rewrites { table, by } => (table, format!("{by} writes `{table}` anew")),
            _ => return None,
        };
        (!self.created.contains(table)).then_some((table.as_str(), text))
    }

    /// Effects by which a table is locked against writers while its rows are read or written.
    fn locks<'e>(&self, effect: &'e Effect) -> Option<(&'e str, String)> {
        let postgres = self.dialect == Dialect::Postgres;
        let (table, text) = match effect {
            // InnoDB builds indexes while others write.
            Effect::CreatesIndex { table, concurrently: false } if self.dialect != Dialect::MySql => {
                let remedy = if postgres { ": write CONCURRENTLY" } else { "" };
                (table, format!("building the index locks `{table}`{remedy}"))
            }
            Effect::AddsConstraint { table, kind } => {
                let remedy = match *kind {
                    "foreign key" | "check" if postgres => ": add it NOT VALID, then VALIDATE it",
                    "unique" | "primary key" if postgres => {
                        ": build the index CONCURRENTLY, then add it USING INDEX"
                    }
                    _ => "",
                };
                (
                    table,
                    format!(
                        "adding the {kind} constraint locks `{table}` while every row is checked{remedy}"
                    ),
                )
            }
            Effect::SetsNotNull { table, column } => {
                (table, format!("`{table}` is locked while every `{column}` is checked for NULL"))
            }
            Effect::Updates { table, .. } => (
                table,
                format!("one UPDATE locks rows of `{table}` until it ends: write `-- grey: backfill`"),
            ),
            _ => return None,
        };
        (!self.created.contains(table)).then_some((table.as_str(), text))
    }

    pub(super) fn type_of(&self, table: &str, column: &str) -> Option<&str> {
        self.types.get(&(table.to_owned(), column.to_owned())).map(String::as_str)
    }

    fn remember(&mut self, effect: &Effect) {
        match effect {
            Effect::CreatesTable { table, columns } => {
                self.created.insert(table.clone());
                for (column, to) in columns {
                    self.types.insert((table.clone(), column.clone()), to.clone());
                }
            }
            Effect::AddsColumn(added) => {
                let key = (added.table.clone(), added.column.clone());
                self.types.insert(key.clone(), added.to.clone());
                if added.default != Preset::Nothing && !self.created.contains(&added.table) {
                    self.filled.insert(key);
                }
            }
            Effect::ChangesType { table, column, to } => {
                self.types.insert((table.clone(), column.clone()), to.clone());
            }
            Effect::DropsColumn { table, column } => {
                let key = (table.clone(), column.clone());
                self.types.remove(&key);
                self.filled.remove(&key);
            }
            Effect::DropsTable { table } => {
                self.created.remove(table);
                self.types.retain(|(other, _), _| other != table);
                self.filled.retain(|(other, _)| other != table);
            }
            _ => {}
        }
    }

    /// Adds a finding about a table; one that is known to be small is worth a warning at most.
    fn find_on(&self, findings: &mut Vec<Finding>, rule: Rule, seen: &Seen<'_>, table: &str, text: String) {
        let from = findings.len();
        self.find(findings, rule, seen.file, seen.line, text);
        if self.facts.rows.get(table).is_some_and(|rows| *rows < self.options.big_table_rows) {
            findings.iter_mut().skip(from).for_each(|it| it.level = Level::Warning);
        }
    }

    pub(super) fn find(
        &self,
        findings: &mut Vec<Finding>,
        rule: Rule,
        file: &str,
        line: u32,
        message: String,
    ) {
        if let Some(level) = self.options.policy.level(rule, &self.options.accept) {
            findings.push(Finding { level, rule: rule.as_str(), message, file: file.to_owned(), line });
        }
    }
}

/// The names in what is run in that direction, as written and in lower case: its tables are among them.
pub(crate) fn names(migration: &Migration, direction: Direction, dialect: Dialect) -> BTreeSet<String> {
    match (direction, &migration.undo) {
        (Direction::Up, _) => of_migration(migration, dialect).names.clone(),
        (Direction::Down, Some(undo)) => of_undo(undo, dialect).names.clone(),
        (Direction::Down, None) => BTreeSet::new(),
    }
}

fn of_migration(migration: &Migration, dialect: Dialect) -> &Known {
    migration.understood.or_find_out(|| known(&migration.steps, dialect))
}

fn of_undo(undo: &Undo, dialect: Dialect) -> &Known {
    undo.understood.or_find_out(|| known(&undo.steps, dialect))
}

fn known(steps: &[Step], dialect: Dialect) -> Known {
    let mut known = Known { steps: Vec::with_capacity(steps.len()), names: BTreeSet::new() };
    for step in steps {
        known.steps.push(effects(step, dialect, &mut known.names));
    }
    known
}

/// What a step does; the names in it are added to `names`.
fn effects(step: &Step, dialect: Dialect, names: &mut BTreeSet<String>) -> Effects {
    let sql = match step {
        Step::Sql(statement) => statement.sql.clone(),
        Step::Backfill(backfill) => backfill.between("0", "0"),
        Step::External(external) => external.statement.sql.clone(),
        Step::Views(_) => return Effects { understood: true, ..Effects::default() },
    };
    let words = Words::read(&sql, dialect);
    names.extend(words.names());
    if words.defines_routine() {
        return Effects { understood: true, ..Effects::default() };
    }
    let postgres = dialect == Dialect::Postgres;
    let told = Effects {
        effects: Vec::new(),
        understood: true,
        alters: if dialect == Dialect::MySql { words.alters() } else { None },
        adds_enum_value: postgres && words.adds_enum_value(),
        drops_index: postgres && words.drops_index(),
        adds_unchecked: postgres && words.alters_with("NOT", "VALID"),
        validates: postgres && words.alters_with("VALIDATE", "CONSTRAINT"),
    };
    if let Some(rewrites) = words.rewrites() {
        return Effects { effects: vec![rewrites], ..told };
    }
    match parse::effects(&sql, dialect) {
        Some(effects) => Effects { effects, ..told },
        None => Effects { effects: words.effects(), understood: false, ..told },
    }
}
