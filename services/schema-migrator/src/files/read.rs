//! Reading one file: its text becomes steps, or faults.

use super::directive::{self, Directive};
use super::guard::Guarded;
use super::split::{Cut, Cuts, Remark, split};
use super::step::{Statement, Step};
use super::{Dialect, Fault, FaultKind};
use grey_core::schema::SchemaVersion;

/// A migration or undo file.
#[derive(Debug)]
pub(super) struct Script {
    /// What it does; never empty unless there are faults.
    pub(super) steps: Vec<Step>,
    /// As [`super::Migration::transactional`].
    pub(super) transactional: bool,
}

/// Reads the text of one file.
pub(super) struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    dialect: Dialect,
    faults: &'a mut Vec<Fault>,
    /// A client's command was met: what follows it need not be SQL.
    stopped: bool,
}

impl<'a> Reader<'a> {
    /// A reader that adds what is wrong to `faults`.
    pub(super) fn new(file: &'a str, text: &'a str, dialect: Dialect, faults: &'a mut Vec<Fault>) -> Self {
        Self { file, text, dialect, faults, stopped: false }
    }

    /// Reads it as a check file.
    pub(super) fn checks(mut self) -> Vec<Statement> {
        let cuts = split(self.text, self.dialect);
        let mut checks = Vec::new();
        for cut in &cuts.statements {
            if !self.admits(cut) {
                continue;
            }
            let statement = self.statement(cut);
            if !Guarded::new(&statement.sql, self.dialect).is_query() {
                self.fault(cut.line, FaultKind::CheckNotQuery);
            }
            checks.push(statement);
        }
        for remark in cuts.statements.iter().flat_map(|cut| &cut.remarks).chain(&cuts.remarks) {
            if Directive::read(remark).is_some() {
                self.fault(remark.line, FaultKind::Directive("has no place in a check file".to_owned()));
            }
        }
        self.end(cuts, checks.is_empty());
        checks
    }

    /// Reads it as a migration or undo file of `version`.
    pub(super) fn script(mut self, version: &SchemaVersion) -> Script {
        let cuts = split(self.text, self.dialect);
        let mut steps = Vec::new();
        let mut no_transaction = None;
        let mut needs = Vec::new();
        let mut keeps_transaction = true;
        for cut in &cuts.statements {
            let pending = self.remarks(&cut.remarks, version, &mut steps, &mut no_transaction);
            if !self.admits(cut) {
                continue;
            }
            let statement = self.statement(cut);
            let guarded = Guarded::new(&statement.sql, self.dialect);
            needs.extend(guarded.needs_no_transaction().map(|kind| (cut.line, kind)));
            keeps_transaction &= guarded.keeps_transaction();
            let step = match pending {
                Some((_, Directive::View { of })) => {
                    let is_query = guarded.is_query();
                    if let Err((line, kind)) = directive::shape(of, statement, is_query, &mut steps) {
                        self.fault(line, kind);
                    }
                    continue;
                }
                None => Ok(Step::Sql(statement)),
                Some((_, directive)) => directive::step(directive, statement, self.dialect),
            };
            match step {
                Ok(step) => {
                    if matches!(step, Step::Backfill(_)) {
                        needs.push((
                            step.line(),
                            FaultKind::NeedsNoTransaction("-- grey: backfill".to_owned()),
                        ));
                    }
                    steps.push(step);
                }
                Err((line, kind)) => self.fault(line, kind),
            }
        }
        if cuts.fault.is_none()
            && let Some((line, _)) = self.remarks(&cuts.remarks, version, &mut steps, &mut no_transaction)
        {
            self.fault(line, FaultKind::Directive("has no statement below it".to_owned()));
        }
        let all_sql = steps.iter().all(|step| matches!(step, Step::Sql(_)));
        let transactional = match self.dialect {
            _ if no_transaction == Some(true) => false,
            Dialect::MySql => keeps_transaction && all_sql,
            Dialect::Postgres | Dialect::Sqlite => {
                for (line, kind) in needs {
                    self.fault(line, kind);
                }
                true
            }
        };
        self.end(cuts, steps.is_empty());
        Script { steps, transactional }
    }

    /// Takes the directives above a statement: `views` are steps by themselves, another one is given back.
    ///
    /// `no_transaction` is `None` until the first statement or other directive.
    fn remarks(
        &mut self,
        remarks: &[Remark],
        version: &SchemaVersion,
        steps: &mut Vec<Step>,
        no_transaction: &mut Option<bool>,
    ) -> Option<(u32, Directive)> {
        let mut pending = None;
        for remark in remarks {
            let directive = match Directive::read(remark) {
                None => continue,
                Some(Err(kind)) => {
                    self.fault(remark.line, kind);
                    continue;
                }
                Some(Ok(directive)) => directive,
            };
            match directive {
                Directive::NoTransaction if no_transaction.is_some() => {
                    let text = "`no-transaction` belongs to the top of the file, once";
                    self.fault(remark.line, FaultKind::Directive(text.to_owned()));
                }
                Directive::NoTransaction => *no_transaction = Some(true),
                Directive::Views { of, version: other } => {
                    let version = other.unwrap_or_else(|| version.clone());
                    match directive::views(of, version, remark.line, self.dialect) {
                        Ok(step) => steps.push(step),
                        Err(kind) => self.fault(remark.line, kind),
                    }
                }
                other => {
                    if let Some((line, _)) = pending.replace((remark.line, other)) {
                        self.fault(line, FaultKind::Directive("has no statement below it".to_owned()));
                    }
                }
            }
        }
        no_transaction.get_or_insert(false);
        pending
    }

    fn statement(&self, cut: &Cut) -> Statement {
        let sql = self.text.get(cut.range.clone()).unwrap_or_default().to_owned();
        Statement { sql, line: cut.line }
    }

    /// Whether the statement may be in a file at all.
    fn admits(&mut self, cut: &Cut) -> bool {
        if self.stopped {
            return false;
        }
        let text = self.text.get(cut.range.clone()).unwrap_or_default();
        let guarded = Guarded::new(text, self.dialect);
        let command = guarded.client_command();
        self.stopped = command.is_some();
        let kind = command.or_else(|| guarded.forbidden());
        let admitted = kind.is_none();
        if let Some(kind) = kind {
            self.fault(cut.line, kind);
        }
        if let Some(line) = directive::misplaced(self.text, cut, self.dialect) {
            self.fault(line, FaultKind::Directive("is inside a statement".to_owned()));
        }
        admitted
    }

    fn end(&mut self, cuts: Cuts, empty: bool) {
        // A client's command without a delimiter swallows what follows, up to a quote perhaps.
        if let Some(unended) = &cuts.unended {
            let text = self.text.get(unended.range.clone()).unwrap_or_default();
            if let Some(kind) = Guarded::new(text, self.dialect).client_command() {
                self.fault(unended.line, kind);
                return;
            }
        }
        match cuts.fault {
            _ if self.stopped => {}
            Some((line, kind)) => self.fault(line, kind),
            None if empty && !self.faults.iter().any(|it| it.file == self.file) => {
                self.fault(0, FaultKind::Empty);
            }
            None => {}
        }
    }

    fn fault(&mut self, line: u32, kind: FaultKind) {
        self.faults.push(Fault { file: self.file.to_owned(), line, kind });
    }
}
