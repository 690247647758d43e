//! Taking back what an upgrade has done.

use super::script::Script;
use super::{Ended, Failure, Outcome, Progress, Worker};
use crate::files::Step;
use crate::plan::{self, Direction};
use crate::tenant::{Error, Mark, Record};

/// What became of half a migration.
enum Half {
    /// Nothing of it is left.
    Gone,
    /// It could not be taken back.
    Left(Vec<Record>),
}

impl Worker<'_> {
    /// Takes back what is left of `script`, then whatever else the upgrade has done, newest first.
    ///
    /// # Errors
    /// With [`Error::Unreachable`] when the connection is lost: something is half done, or the upgrade's earlier
    /// migrations still stand.
    pub(super) async fn back_out(&mut self, script: &Script<'_>, error: Error) -> Result<Ended, Error> {
        if error.ends_connection() {
            return Err(error);
        }
        let version = script.migration.schema.clone();
        self.tell(Progress::Failed { version: version.clone(), error: error.clone() });
        self.take_time();
        let failed = |left| Failure { version, file: script.file.to_owned(), error: error.clone(), left };
        match Box::pin(self.half_back(script, &error)).await? {
            Half::Gone => {}
            Half::Left(records) => {
                let parts = [left(&records), self.invalid_indexes(script, &records).await?];
                let parts = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
                return self.ended(Outcome::NeedsRepair(failed(parts.join("; ")))).await;
            }
        }
        Box::pin(self.take_back(failed(String::new()))).await
    }

    /// Takes back the whole migrations of the upgrade, after one of which nothing is left has failed.
    pub(super) async fn take_back(&mut self, mut failure: Failure) -> Result<Ended, Error> {
        let stays = match Box::pin(self.others_back()).await {
            Ok(stays) => stays,
            Err(other) if other.ends_connection() => return Err(other),
            Err(other) => {
                failure.left = format!("and what came before it could not be taken back: {other}");
                return self.ended(Outcome::NeedsRepair(failure)).await;
            }
        };
        let cancelled = failure.error == Error::Cancelled && stays.is_empty();
        let parts = [std::mem::take(&mut failure.left), stays].into_iter().filter(|part| !part.is_empty());
        failure.left = parts.collect::<Vec<_>>().join("; ");
        self.ended(if cancelled { Outcome::Cancelled } else { Outcome::Failed(failure) }).await
    }

    /// Takes back what a file that failed has done before, if anything, and tells the history.
    async fn half_back(&mut self, script: &Script<'_>, error: &Error) -> Result<Half, Error> {
        self.connection.renew().await?;
        let records = self.connection.unfinished().await?;
        let version = &script.migration.schema;
        let mut records: Vec<Record> = records.into_iter().filter(|it| it.version == *version).collect();
        if records.is_empty() {
            // Stopping is no fault of the migration.
            if *error != Error::Cancelled {
                self.connection.record(self.connection.db(), &self.entry(script)).await?;
            }
            return Ok(Half::Gone);
        }
        if matches!(error, Error::Undecided { .. }) {
            return Ok(Half::Left(records));
        }
        match self.settle(script, &mut records).await {
            Ok(()) => {}
            Err(other) if other.ends_connection() => return Err(other),
            // Nothing tells whether a statement took effect, or what it has left does not go yet.
            Err(_) => return Ok(Half::Left(records)),
        }
        let has_steps = |direction| records.iter().any(|it| it.direction == direction && it.step > 0);
        let begun_back = records.iter().any(|it| it.direction == Direction::Down);
        if script.direction == Direction::Up && (has_steps(Direction::Up) || begun_back) {
            let Some(undo) = Script::of(script.migration, Direction::Down) else {
                return Ok(Half::Left(records));
            };
            match Box::pin(self.one_by_one(&undo, &records, true)).await {
                Ok(()) => {}
                Err(other) if other.ends_connection() => return Err(other),
                Err(_) => return Ok(Half::Left(self.records_of(script).await?)),
            }
            let begun = records.iter().find(|it| it.direction == Direction::Up && it.step == 0);
            let before = begun.and_then(|record| record.fingerprint.clone());
            if before != Some(self.connection.catalog().await?.fingerprint()) {
                return Ok(Half::Left(self.records_of(script).await?));
            }
        } else if script.direction == Direction::Down && has_steps(Direction::Down) {
            // Applying a migration over what is left of it is not what its file was written for.
            return Ok(Half::Left(records));
        }
        let transaction = self.connection.begin().await?;
        let both = async {
            self.connection.record(&transaction, &self.entry(script)).await?;
            self.connection.finish(&transaction, version).await
        };
        match Box::pin(both).await {
            Ok(()) => self.connection.commit(transaction).await?,
            Err(other) => {
                self.connection.roll_back(transaction).await;
                return Err(other);
            }
        }
        Ok(Half::Gone)
    }

    /// Indexes that a failed build of `script` has left, in words.
    async fn invalid_indexes(&self, script: &Script<'_>, records: &[Record]) -> Result<String, Error> {
        let mut names = Vec::new();
        for (step, number) in script.steps.iter().zip(1..) {
            let Step::Sql(statement) = step else { continue };
            let record = records.iter().find(|it| it.direction == script.direction && it.step == number);
            let left = self.invalid_of(&statement.sql, record).await?;
            names.extend(left.into_iter().map(|(place, name)| format!("{place}.{name}")));
        }
        names.dedup();
        Ok(match names.as_slice() {
            [] => String::new(),
            names => format!(
                "the index {} is left invalid, since another transaction did not let it be dropped: the next upgrade \
                 drops and builds it again",
                names.join(" and ")
            ),
        })
    }

    async fn records_of(&self, script: &Script<'_>) -> Result<Vec<Record>, Error> {
        let records = self.connection.unfinished().await?;
        Ok(records.into_iter().filter(|record| record.version == script.migration.schema).collect())
    }

    /// Finds out of every step that was begun whether it is done; the others lose their records.
    async fn settle(&self, script: &Script<'_>, records: &mut Vec<Record>) -> Result<(), Error> {
        let mut settled = Vec::new();
        let mut waiting = std::mem::take(records).into_iter();
        while let Some(mut record) = waiting.next() {
            let index = usize::try_from(record.step).unwrap_or(usize::MAX).wrapping_sub(1);
            let step = script.steps.get(index).filter(|_| record.direction == script.direction);
            let begun = step.filter(|_| record.mark == Mark::Started);
            if let Some(step @ (Step::Sql(_) | Step::External(_))) = begun {
                let done = match step {
                    Step::Sql(statement) => self.took_effect(statement, &record).await,
                    Step::External(external) => self.was_changed(external, &record).await,
                    Step::Backfill(_) | Step::Views(_) => Ok(true),
                };
                match done {
                    Ok(true) => record.mark = Mark::Done,
                    Ok(false) => {
                        self.connection.forget(&record).await?;
                        continue;
                    }
                    Err(other) => {
                        settled.push(record);
                        settled.extend(waiting);
                        *records = settled;
                        return Err(other);
                    }
                }
                self.connection.journal(self.connection.db(), &record).await?;
            }
            settled.push(record);
        }
        *records = settled;
        Ok(())
    }

    /// Takes back the whole migrations of the upgrade, newest first, as far as that goes. Returns what stays, in words.
    ///
    /// # Errors
    /// When one of them is half done now.
    async fn others_back(&mut self) -> Result<String, Error> {
        let changed = self.connection.changed_by(&self.upgrade).await?;
        for (version, outcome) in changed.into_iter().rev() {
            let direction = match outcome {
                plan::Outcome::Undone => Direction::Up,
                _ => Direction::Down,
            };
            let migration = self.job.scripts.get(&version).cloned();
            let script = migration.as_deref().and_then(|migration| Script::of(migration, direction));
            let Some(script) = script else {
                return Ok(match direction {
                    Direction::Down => format!("{version} stays applied: it has no undo file"),
                    Direction::Up => format!("{version} stays undone: its file is gone"),
                });
            };
            self.connection.verify_lock().await?;
            if let Err(error) = Box::pin(self.apply(&script, &[])).await {
                if error.ends_connection() || !self.connection.unfinished().await?.is_empty() {
                    return Err(error);
                }
                let state = if direction == Direction::Down { "applied" } else { "undone" };
                return Ok(format!("{version} stays {state}: {} failed: {error}", script.file));
            }
        }
        Ok(String::new())
    }
}

/// What the journal says is left, in words.
pub(super) fn left(records: &[Record]) -> String {
    let lines = |direction: Direction| {
        let steps = records.iter().filter(|record| record.direction == direction && record.step > 0);
        steps
            .map(|record| match record.mark {
                Mark::Done | Mark::Begun => record.line.to_string(),
                Mark::Started => format!("{} (not known whether it took effect)", record.line),
            })
            .collect::<Vec<_>>()
            .join(", ")
    };
    let (up, down) = (lines(Direction::Up), lines(Direction::Down));
    match (up.is_empty(), down.is_empty()) {
        (true, true) => String::new(),
        (false, true) => format!("applied and not undone: the steps on lines {up}"),
        (true, false) => format!("undone: the steps of the undo file on lines {down}"),
        (false, false) => {
            format!("applied: the steps on lines {up}; of the undo file were run: those on lines {down}")
        }
    }
}
