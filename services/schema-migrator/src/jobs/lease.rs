//! Running upgrades under leases: taken, kept, lost, ended. The token of a lease is part of every write under it, so a
//! replica whose lease was taken over cannot write any more.

use super::database::{Error, column};
use super::observed::Seen;
use super::queue::{Queue, refused_flip};
use super::record::{Job, flip_word, json, read, state_word};
use grey_core::error::Reason;
use grey_proto::schema::{Provision, UpgradeState, UpgradeStep};
use sea_orm::{DbBackend, Value};
use std::time::Duration;

/// Lets one replica at a time choose what to run, so that limits hold across replicas. "gtak" in ASCII.
const CHOOSING: i64 = 1_735_680_363;

/// The right to run an upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The upgrade.
    pub id: String,
    token: i64,
}

/// An upgrade that was taken.
#[derive(Debug, Clone)]
pub struct Taken {
    /// The upgrade.
    pub job: Job,
    /// The right to run it.
    pub lease: Lease,
    /// Another replica had it before and did not end it.
    pub taken_over: bool,
}

/// How many upgrades all replicas together run at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// On all database servers.
    pub overall: u32,
    /// On one database server.
    pub per_server: u32,
}

/// How far a running upgrade is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// The schema before.
    pub from: String,
    /// The schema now, as far as known.
    pub schema: String,
    /// The steps.
    pub steps: Vec<UpgradeStep>,
    /// Where the backup is.
    pub backup: String,
}

/// How an upgrade ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// The state that it is in for good.
    pub state: UpgradeState,
    /// How far it came.
    pub progress: Progress,
    /// Why it did not succeed; empty if it did.
    pub error: String,
    /// The class of the error.
    pub reason: Option<Reason>,
    /// Where the database was seen; none: it is not known.
    pub seen: Option<Seen>,
}

impl Queue {
    /// Takes the oldest upgrade that the limits allow: queued, or left behind by a replica that renews no more.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn take(&self, worker: &str, ttl: Duration, limits: Limits) -> Result<Option<Taken>, Error> {
        let attempted = "take an upgrade";
        let (database, now) = (&self.database, self.database.now());
        let transaction = database.begin().await?;
        let mut skip = "";
        if database.backend() == DbBackend::Postgres {
            let lock = format!("SELECT pg_advisory_xact_lock({CHOOSING})");
            database.run_in(&transaction, attempted, &lock, []).await?;
            skip = "FOR UPDATE OF u SKIP LOCKED";
        }
        // A lease that ran out still counts for its server until it is taken over: its statement may still run.
        let sql = format!(
            "SELECT u.id AS id, u.state AS state FROM upgrades u WHERE \
             (u.state = 'running' AND u.lease_until_ms < {now}) OR (u.state = 'queued' AND \
             (SELECT count(*) FROM upgrades r WHERE r.state = 'running') < $1 AND \
             (SELECT count(*) FROM upgrades r WHERE r.state = 'running' AND r.server = u.server) < $2) \
             ORDER BY u.id LIMIT 1 {skip}"
        );
        let values = [i64::from(limits.overall).into(), i64::from(limits.per_server).into()];
        let rows = database.rows_in(&transaction, attempted, &sql, values).await?;
        let Some(row) = rows.first() else {
            database.commit(transaction).await?;
            return Ok(None);
        };
        let id: String = column(row, "upgrades", "id")?;
        let taken_over = column::<String>(row, "upgrades", "state")? == "running";
        let sql = format!(
            "UPDATE upgrades SET state = 'running', worker = $2, lease_until_ms = {now} + $3, \
             lease_token = lease_token + 1, attempts = attempts + 1, \
             started_ms = COALESCE(started_ms, {now}), change = change + 1 WHERE id = $1 RETURNING *"
        );
        let values = [id.as_str().into(), worker.into(), millis(ttl).into()];
        let rows = database.rows_in(&transaction, attempted, &sql, values).await?;
        let taken = match rows.first() {
            None => None,
            Some(row) => {
                let lease = Lease { id, token: column(row, "upgrades", "lease_token")? };
                Some(Taken { job: read(row)?, lease, taken_over })
            }
        };
        database.commit(transaction).await?;
        if let Some(taken) = &taken {
            self.tell(&taken.job);
        }
        Ok(taken)
    }

    /// Keeps a lease; tells whether someone has asked to stop. None: it is lost.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<Option<bool>, Error> {
        let sql = format!(
            "UPDATE upgrades SET lease_until_ms = {} + $3 WHERE id = $1 AND lease_token = $2 \
             AND state = 'running' RETURNING cancelling",
            self.database.now()
        );
        let values = [lease.id.as_str().into(), lease.token.into(), millis(ttl).into()];
        let rows = self.database.rows("renew a lease", &sql, values).await?;
        rows.first().map(|row| column(row, "upgrades", "cancelling")).transpose()
    }

    /// Writes how far it is; false: the lease is lost.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn save(&self, lease: &Lease, progress: &Progress) -> Result<bool, Error> {
        let sql = "UPDATE upgrades SET from_schema = $3, schema_now = $4, steps = $5, backup = $6, \
                   change = change + 1 WHERE id = $1 AND lease_token = $2 AND state = 'running' RETURNING *";
        let values: [Value; 6] = [
            lease.id.as_str().into(),
            lease.token.into(),
            progress.from.as_str().into(),
            progress.schema.as_str().into(),
            json(&progress.steps).into(),
            progress.backup.as_str().into(),
        ];
        let rows = self.database.rows("save how far an upgrade is", sql, values).await?;
        let Some(row) = rows.first() else { return Ok(false) };
        self.tell(&read(row)?);
        Ok(true)
    }

    /// Writes how far the database is that is made for it; false: the lease is lost.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn save_provision(&self, lease: &Lease, provision: &Provision) -> Result<bool, Error> {
        let sql = "UPDATE upgrades SET provision = $3, change = change + 1 \
                   WHERE id = $1 AND lease_token = $2 AND state = 'running' RETURNING *";
        let values: [Value; 3] = [lease.id.as_str().into(), lease.token.into(), json(provision).into()];
        let rows = self.database.rows("save how far a database is", sql, values).await?;
        let Some(row) = rows.first() else { return Ok(false) };
        self.tell(&read(row)?);
        Ok(true)
    }

    /// Ends it, and notes where the database was seen, at once; false: the lease is lost.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn end(&self, job: &Job, lease: &Lease, ended: &Ended) -> Result<bool, Error> {
        let attempted = "end an upgrade";
        let flip = match ended.state {
            UpgradeState::Succeeded => job.upgrade.flip.clone(),
            _ => refused_flip(job.upgrade.flip.clone(), "the upgrade did not succeed"),
        };
        let now = self.database.now();
        let sql = format!(
            "UPDATE upgrades SET state = $3, from_schema = $4, schema_now = $5, steps = $6, backup = $7, \
             error = $8, reason_code = $9, flip = $10, flip_state = $11, ended_ms = {now}, change = change + 1 \
             WHERE id = $1 AND lease_token = $2 AND state = 'running' RETURNING *"
        );
        let values: [Value; 11] = [
            lease.id.as_str().into(),
            lease.token.into(),
            state_word(ended.state).into(),
            ended.progress.from.as_str().into(),
            ended.progress.schema.as_str().into(),
            json(&ended.progress.steps).into(),
            ended.progress.backup.as_str().into(),
            ended.error.as_str().into(),
            ended.reason.map(Reason::as_str).unwrap_or_default().into(),
            flip.as_ref().map(json).into(),
            flip_word(flip.as_ref()).into(),
        ];
        let transaction = self.database.begin().await?;
        let rows = self.database.rows_in(&transaction, attempted, &sql, values).await?;
        let Some(row) = rows.first() else { return Ok(false) };
        let job = read(row)?;
        if let Some(seen) = &ended.seen {
            self.note(&transaction, &job.upgrade.tenant, &job.upgrade.service, seen).await?;
        }
        self.database.commit(transaction).await?;
        self.tell(&job);
        // Its server may have room for another one now.
        self.wake();
        self.follow_up();
        Ok(true)
    }

    /// Gives it back to the queue; false: the lease is lost.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn put_back(&self, lease: &Lease) -> Result<bool, Error> {
        let sql = "UPDATE upgrades SET state = 'queued', lease_token = lease_token + 1, change = change + 1 \
                   WHERE id = $1 AND lease_token = $2 AND state = 'running' RETURNING *";
        let values = [lease.id.as_str().into(), lease.token.into()];
        let rows = self.database.rows("put an upgrade back", sql, values).await?;
        let Some(row) = rows.first() else { return Ok(false) };
        self.tell(&read(row)?);
        Ok(true)
    }
}

pub(super) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
