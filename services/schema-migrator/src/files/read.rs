//! Reading one file: its text becomes steps, or faults.

use super::directive::{self, Directive};
use super::guard::Guarded;
use super::head::{FileTimeouts, Head, Phase};
use super::split::{Cut, Cuts, Remark, split};
use super::step::{Statement, Step};
use super::{Dialect, Fault, FaultKind, placeholder};
use grey_core::schema::SchemaVersion;

/// A migration or undo file.
#[derive(Debug)]
pub(super) struct Script {
    /// What it does; never empty unless there are faults.
    pub(super) steps: Vec<Step>,
    /// As [`super::Migration::transactional`].
    pub(super) transactional: bool,
    /// As [`super::Migration::timeouts`].
    pub(super) timeouts: FileTimeouts,
    /// As [`super::Migration::phase`].
    pub(super) phase: Option<Phase>,
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
            self.placeholders(cut, false);
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
        let mut head = Head::default();
        let mut needs = Vec::new();
        let mut keeps_transaction = true;
        for cut in &cuts.statements {
            let pending = self.remarks(&cut.remarks, version, &mut steps, &mut head);
            if !self.admits(cut) {
                continue;
            }
            let statement = self.statement(cut);
            if !head.no_placeholders {
                let fixed =
                    matches!(pending, Some((_, Directive::Backfill { .. } | Directive::Online { .. })));
                self.placeholders(cut, fixed);
            }
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
            && let Some((line, _)) = self.remarks(&cuts.remarks, version, &mut steps, &mut head)
        {
            self.fault(line, FaultKind::Directive("has no statement below it".to_owned()));
        }
        let all_sql = steps.iter().all(|step| matches!(step, Step::Sql(_)));
        let transactional = match self.dialect {
            _ if head.no_transaction => false,
            Dialect::MySql => keeps_transaction && all_sql,
            Dialect::Postgres | Dialect::Sqlite => {
                for (line, kind) in needs {
                    self.fault(line, kind);
                }
                true
            }
        };
        self.end(cuts, steps.is_empty());
        Script { steps, transactional, timeouts: head.timeouts.unwrap_or_default(), phase: head.phase }
    }

    /// Takes the directives above a statement: `views` are steps by themselves, another one is given back.
    fn remarks(
        &mut self,
        remarks: &[Remark],
        version: &SchemaVersion,
        steps: &mut Vec<Step>,
        head: &mut Head,
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
                Directive::Head(setting) => {
                    if let Err(text) = head.take(setting) {
                        self.fault(remark.line, FaultKind::Directive(text));
                    }
                }
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
        head.over = true;
        pending
    }

    fn statement(&self, cut: &Cut) -> Statement {
        let sql = self.text.get(cut.range.clone()).unwrap_or_default().to_owned();
        Statement { sql, line: cut.line }
    }

    /// Tells placeholders that nobody has declared. `fixed`: the statement has a directive that has to know its exact text.
    fn placeholders(&mut self, cut: &Cut, fixed: bool) {
        let text = self.text.get(cut.range.clone()).unwrap_or_default();
        let places = placeholder::places(text);
        if places.is_empty() {
            return;
        }
        let (pieces, _) = super::pieces(text, self.dialect);
        let comments: Vec<_> = pieces.iter().filter(|piece| piece.comment().is_some()).collect();
        for (range, name) in places {
            let commented = comments.iter().any(|piece| piece.range.contains(&range.start));
            if commented || (placeholder::is_of_tenant(name) && !fixed) {
                continue;
            }
            let before = text.get(..range.start).unwrap_or_default().matches('\n').count();
            let line = cut.line.saturating_add(u32::try_from(before).unwrap_or(u32::MAX));
            let kind = if placeholder::is_of_tenant(name) {
                FaultKind::Directive("has no place above a statement with `${tenant}`".to_owned())
            } else {
                FaultKind::Placeholder(name.to_owned())
            };
            self.fault(line, kind);
        }
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
