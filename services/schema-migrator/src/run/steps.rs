//! Applying one file: as one transaction, or step by step with a journal.

use super::commit_mode::{CommitMode, Holdings, Probe, Setting, commit_mode, setting};
use super::invalid::{self, Leaves};
use super::script::Script;
use super::{Progress, Worker};
use crate::files::{Dialect, External, Statement, Step};
use crate::plan::{Direction, Outcome};
use crate::tenant::{Error, Mark, NewEntry, Record, Verified, is_missing_object, now_ms};
use crate::{backfill, external, views};
use sea_orm::{ConnectionTrait, DatabaseTransaction};

impl Worker<'_> {
    /// Runs a file; `records`: what an earlier run of it has left in the journal.
    ///
    /// # Errors
    /// With [`Error::Unreachable`] the journal or the history tells what was done. With any other, a file that is one
    /// transaction has had no effect, and of another one the journal tells which steps are done.
    pub(super) async fn apply(&mut self, script: &Script<'_>, records: &[Record]) -> Result<(), Error> {
        let version = script.migration.schema.clone();
        self.tell(Progress::Begun { version, direction: script.direction, steps: script.len() });
        self.connection.renew().await?;
        self.connection.limit(script.timeouts).await?;
        let together = script.transactional && records.is_empty();
        // In a table without transactions a statement could neither be rolled back nor done again.
        if together && self.rolls_back(script.steps).await? {
            Box::pin(self.at_once(script)).await
        } else {
            Box::pin(self.one_by_one(script, records, false)).await?;
            Box::pin(self.check(self.connection.db(), script.checks)).await?;
            self.conclude(script).await
        }
    }

    pub(super) async fn rolls_back(&self, steps: &[Step]) -> Result<bool, Error> {
        let holdings = self.holdings().await?;
        let together = |step: &Step| match step {
            Step::Sql(statement) => {
                commit_mode(self.dialect(), &statement.sql, &holdings) == CommitMode::Transactional
            }
            _ => false,
        };
        Ok(holdings.tables.is_empty() || steps.iter().all(together))
    }

    /// All steps, the checks and the history's row in one transaction.
    async fn at_once(&mut self, script: &Script<'_>) -> Result<(), Error> {
        let started_at_ms = now_ms();
        self.stop.check()?;
        let dangling = self.dangling(self.connection.db()).await?;
        let transaction = self.connection.begin().await?;
        let (version, direction) = (script.migration.schema.clone(), script.direction);
        match Box::pin(self.inside(&transaction, script, started_at_ms, dangling)).await {
            Ok(verified) => {
                self.tell(Progress::Recording { version: version.clone(), direction });
                self.connection.commit_verified(transaction, verified).await?;
                self.tell(Progress::Ended { version, direction });
                Ok(())
            }
            Err(error) => {
                self.connection.roll_back(transaction).await;
                Err(error)
            }
        }
    }

    async fn inside(
        &mut self,
        transaction: &DatabaseTransaction,
        script: &Script<'_>,
        started_at_ms: i64,
        dangling: usize,
    ) -> Result<Verified, Error> {
        let (version, direction) = (script.migration.schema.clone(), script.direction);
        for (step, number) in script.steps.iter().zip(1..) {
            self.tell(Progress::Step { version: version.clone(), direction, step: number });
            match step {
                Step::Sql(Statement { sql, line }) => {
                    self.connection.execute(transaction, sql, *line, &self.stop).await?;
                }
                Step::Views(views) => {
                    Box::pin(views::apply(self.connection, transaction, views, &self.stop)).await?;
                }
                other @ (Step::Backfill(_) | Step::External(_)) => {
                    let text = format!("the step on line {} cannot run in a transaction", other.line());
                    return Err(Error::Conflict(text));
                }
            }
            self.tell(Progress::StepDone { version: version.clone(), direction, step: number });
        }
        self.check(transaction, script.checks).await?;
        if self.dangling(transaction).await? > dangling {
            let text = "it would leave rows whose foreign keys lead nowhere";
            return Err(Error::Conflict(text.to_owned()));
        }
        self.stop.check()?;
        let verified = Box::pin(self.connection.verified(transaction)).await?;
        self.tell_history(transaction, script, started_at_ms).await?;
        Ok(verified)
    }

    /// Step by step, each with its record. `lenient`: what a step drops or changes need not be there.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub(super) async fn one_by_one(
        &mut self,
        script: &Script<'_>,
        records: &[Record],
        lenient: bool,
    ) -> Result<(), Error> {
        let found = |number: u32| {
            records.iter().find(|record| record.direction == script.direction && record.step == number)
        };
        if found(0).is_none() {
            self.stop.check()?;
            let mut begun = self.new_record(script, 0, 0, Mark::Begun);
            begun.checksum = Some(script.checksum.clone());
            begun.fingerprint = Some(self.connection.catalog().await?.fingerprint());
            self.connection.journal(self.connection.db(), &begun).await?;
        }
        let holdings = self.holdings().await?;
        let (version, direction) = (script.migration.schema.clone(), script.direction);
        for (step, number) in script.steps.iter().zip(1..) {
            let record = found(number);
            if self.is_done(script, step, record, &holdings).await? {
                continue;
            }
            self.stop.check()?;
            self.connection.verify_lock().await?;
            self.tell(Progress::Step { version: version.clone(), direction, step: number });
            let mut new = self.new_record(script, number, step.line(), Mark::Started);
            new.reached = record.and_then(|record| record.reached.clone());
            match Box::pin(self.step(step, new.clone(), &holdings)).await {
                Err(error) if lenient && is_missing_object(&error) => {
                    new.mark = Mark::Done;
                    self.connection.journal(self.connection.db(), &new).await?;
                }
                result => result?,
            }
            self.tell(Progress::StepDone { version: version.clone(), direction, step: number });
        }
        Ok(())
    }

    /// Whether an earlier run has done a step; what it is not known of is found out.
    async fn is_done(
        &mut self,
        script: &Script<'_>,
        step: &Step,
        record: Option<&Record>,
        holdings: &Holdings,
    ) -> Result<bool, Error> {
        match (record, step) {
            (None, _) => Ok(false),
            (Some(record), _) if record.mark == Mark::Done => {
                if let Step::Sql(Statement { sql, line }) = step
                    && script.direction == record.direction
                {
                    match setting(self.dialect(), sql, holdings) {
                        Setting::No => {}
                        Setting::Repeatable => {
                            self.connection.execute(self.connection.db(), sql, *line, &self.stop).await?;
                        }
                        Setting::Once => return Err(Error::Undecided { line: *line }),
                    }
                }
                Ok(true)
            }
            (Some(record), Step::Sql(statement)) => {
                let done = self.took_effect(statement, record).await?;
                if done {
                    let record = Record { mark: Mark::Done, ..record.clone() };
                    self.connection.journal(self.connection.db(), &record).await?;
                }
                Ok(done)
            }
            (Some(record), Step::External(external)) => {
                let done = self.was_changed(external, record).await?;
                if done {
                    let record = Record { mark: Mark::Done, ..record.clone() };
                    self.connection.journal(self.connection.db(), &record).await?;
                }
                Ok(done)
            }
            // A backfill knows by itself how far it came.
            (Some(_), Step::Backfill(_) | Step::Views(_)) => Ok(false),
        }
    }

    /// Whether a statement that was begun before a crash took effect.
    ///
    /// # Errors
    /// With [`Error::Undecided`] when nothing tells.
    pub(super) async fn took_effect(&self, statement: &Statement, record: &Record) -> Result<bool, Error> {
        let holdings = self.holdings().await?;
        match commit_mode(self.dialect(), &statement.sql, &holdings) {
            CommitMode::Transactional | CommitMode::Autocommit(Probe::Repeat) => Ok(false),
            CommitMode::Autocommit(Probe::Nothing) => Err(Error::Undecided { line: statement.line }),
            CommitMode::Autocommit(Probe::Catalog) => {
                self.drop_invalid_indexes(&statement.sql, record).await?;
                let now = self.connection.catalog().await?.fingerprint_of(&statement.sql, self.dialect());
                Ok(record.fingerprint.as_ref() != Some(&now))
            }
        }
    }

    async fn step(&mut self, step: &Step, record: Record, holdings: &Holdings) -> Result<(), Error> {
        match step {
            Step::Sql(statement) => match commit_mode(self.dialect(), &statement.sql, holdings) {
                CommitMode::Transactional => self.with_record(statement, record).await,
                CommitMode::Autocommit(probe) => self.alone(statement, record, probe).await,
            },
            Step::Backfill(backfill) => {
                let (stop, pacing) = (self.stop.clone(), self.job.tooling.pacing);
                let (version, number) = (record.version.clone(), record.step);
                let connection = self.connection;
                let listener = self.listener();
                let mut rows = |it: backfill::Progress| {
                    let version = version.clone();
                    listener(Progress::Rows { version, step: number, done: it.done, total: it.total });
                };
                Box::pin(backfill::run(connection, backfill, record, &pacing, &mut rows, &stop)).await
            }
            Step::External(external) => Box::pin(self.by_tool(external, record)).await,
            Step::Views(views) => Box::pin(views::run(self.connection, views, record, &self.stop)).await,
        }
    }

    /// A tool changes a table. It leaves the table as it was or changes it, which the catalog tells.
    async fn by_tool(&mut self, external: &External, mut record: Record) -> Result<(), Error> {
        let db = self.connection.db();
        let sql = &external.statement.sql;
        let catalog = self.connection.catalog().await?;
        record.fingerprint = Some(catalog.fingerprint_of(sql, self.dialect()));
        self.connection.journal(db, &record).await?;
        let (stop, job) = (self.stop.clone(), self.job);
        let (version, number) = (record.version.clone(), record.step);
        let connection = self.connection;
        let listener = self.listener();
        let mut rows = |it: external::Progress| {
            let version = version.clone();
            let (done, total) = it.rows.unwrap_or((it.percent.into(), 100));
            listener(Progress::Rows { version, step: number, done, total });
        };
        let done = Box::pin(external::run(connection, external, &job.tooling.tools, &mut rows, &stop)).await;
        match done.map_err(Error::from) {
            Ok(()) => {
                record.mark = Mark::Done;
                self.connection.journal(db, &record).await
            }
            Err(error) if error.ends_connection() => Err(error),
            Err(error) => {
                if !self.was_changed(external, &record).await? {
                    self.connection.forget(&record).await?;
                }
                Err(error)
            }
        }
    }

    /// Whether a tool that was begun has changed its table; what it left beside it is removed.
    pub(super) async fn was_changed(&self, external: &External, record: &Record) -> Result<bool, Error> {
        Box::pin(external::clean_up(self.connection, external)).await?;
        let catalog = self.connection.catalog().await?;
        let now = catalog.fingerprint_of(&external.statement.sql, self.dialect());
        Ok(record.fingerprint.as_ref() != Some(&now))
    }

    /// A statement and its record in one transaction.
    async fn with_record(&self, statement: &Statement, mut record: Record) -> Result<(), Error> {
        let transaction = self.connection.begin().await?;
        record.mark = Mark::Done;
        let both = async {
            self.connection.execute(&transaction, &statement.sql, statement.line, &self.stop).await?;
            let verified = self.connection.verified(&transaction).await?;
            self.connection.journal(&transaction, &record).await?;
            Ok(verified)
        };
        match Box::pin(both).await {
            Ok(verified) => self.connection.commit_verified(transaction, verified).await,
            Err(error) => {
                self.connection.roll_back(transaction).await;
                Err(error)
            }
        }
    }

    /// A statement between two states of its record.
    async fn alone(&self, statement: &Statement, mut record: Record, probe: Probe) -> Result<(), Error> {
        let Statement { sql, line } = statement;
        let db = self.connection.db();
        if probe == Probe::Catalog {
            let catalog = self.connection.catalog().await?;
            record.fingerprint = Some(catalog.fingerprint_of(sql, self.dialect()));
            if self.dialect() == Dialect::Postgres && matches!(Leaves::of(sql), Leaves::Unnamed(_)) {
                record.reached = Some(invalid::before(&self.connection.invalid_indexes().await?));
            }
        }
        self.connection.journal(db, &record).await?;
        match self.connection.execute(db, sql, *line, &self.stop).await {
            Ok(_) => {
                record.mark = Mark::Done;
                self.connection.journal(db, &record).await
            }
            Err(error) if error.ends_connection() => Err(error),
            Err(error) => {
                // Refused, yet it may have done a part of what it names; then the record stays.
                match self.took_effect(statement, &record).await {
                    Ok(false) => self.connection.forget(&record).await?,
                    Err(other) if other.ends_connection() => return Err(other),
                    // What it has left behind does not go yet: the record stays, and it is this error that counts.
                    Ok(true) | Err(_) => {}
                }
                Err(error)
            }
        }
    }

    /// Drops indexes that `sql`, a concurrent build, has left behind.
    async fn drop_invalid_indexes(&self, sql: &str, record: &Record) -> Result<(), Error> {
        let own = self.connection.sql();
        for (place, name) in self.invalid_of(sql, Some(record)).await? {
            let drop = format!("DROP INDEX CONCURRENTLY {}.{}", own.quoted(&place), own.quoted(&name));
            self.connection.execute(self.connection.db(), &drop, 0, &self.stop).await?;
        }
        Ok(())
    }

    /// Invalid indexes that `sql` has left behind; `record`: the one of its step.
    pub(super) async fn invalid_of(
        &self,
        sql: &str,
        record: Option<&Record>,
    ) -> Result<Vec<(String, String)>, Error> {
        let leaves = Leaves::of(sql);
        if self.dialect() != Dialect::Postgres || leaves == Leaves::Nothing {
            return Ok(Vec::new());
        }
        let before = record.and_then(|record| record.reached.as_deref());
        let all = self.connection.invalid_indexes().await?;
        let left = all.into_iter().filter(|(place, name, table)| leaves.has(place, name, table, before));
        Ok(left.map(|(place, name, _)| (place, name)).collect())
    }

    /// Tells the history and finishes the journal, in one transaction.
    async fn conclude(&mut self, script: &Script<'_>) -> Result<(), Error> {
        let (version, direction) = (script.migration.schema.clone(), script.direction);
        self.tell(Progress::Recording { version: version.clone(), direction });
        let transaction = self.connection.begin().await?;
        let both = async {
            let verified = self.connection.verified(&transaction).await?;
            self.tell_history(&transaction, script, now_ms()).await?;
            self.connection.finish(&transaction, &version).await?;
            Ok(verified)
        };
        match Box::pin(both).await {
            Ok(verified) => self.connection.commit_verified(transaction, verified).await?,
            Err(error) => {
                self.connection.roll_back(transaction).await;
                return Err(error);
            }
        }
        self.tell(Progress::Ended { version, direction });
        Ok(())
    }

    async fn tell_history(
        &self,
        on: &impl ConnectionTrait,
        script: &Script<'_>,
        started_at_ms: i64,
    ) -> Result<(), Error> {
        let outcome = match script.direction {
            Direction::Up => Outcome::Applied,
            Direction::Down => Outcome::Undone,
        };
        let entry = NewEntry { started_at_ms, outcome, ..self.entry(script) };
        self.connection.record(on, &entry).await
    }

    /// A row for the history, of a migration that failed unless that is changed.
    pub(super) fn entry<'b>(&'b self, script: &'b Script<'_>) -> NewEntry<'b> {
        let migration = script.migration;
        NewEntry {
            version: &migration.schema,
            description: &migration.description,
            checksum: Some(&migration.checksum),
            undo_checksum: migration.undo.as_ref().map(|undo| &undo.checksum),
            actor: &self.actor,
            upgrade: &self.upgrade,
            started_at_ms: now_ms(),
            outcome: Outcome::Failed,
        }
    }

    fn new_record(&self, script: &Script<'_>, step: u32, line: u32, mark: Mark) -> Record {
        Record {
            upgrade: self.upgrade.clone(),
            actor: self.actor.clone(),
            version: script.migration.schema.clone(),
            direction: script.direction,
            step,
            mark,
            line,
            checksum: None,
            fingerprint: None,
            reached: None,
            started_at_ms: now_ms(),
        }
    }
}
