//! Asking for upgrades, and reading, cancelling and forgetting them.

use super::database::{Database, Error, column};
use super::record::{Changed, Job, flip_word, json, read, state_word};
use grey_core::change::Principal;
use grey_core::error::Reason;
use grey_core::ids::{ServiceId, TenantId};
use grey_proto::schema::{
    Flip, Provision, Target, Upgrade, UpgradeDirection, UpgradeOptions, UpgradeState, UpgradeStep,
};
use grey_proto::status::ApiError;
use sea_orm::{DatabaseTransaction, DbBackend, Value};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, broadcast};

/// Changes that a slow follower may be behind before it reads the row anew instead.
const FOLLOWED: usize = 1_024;

/// Lets one request at a time queue many upgrades. "gque" in ASCII.
const QUEUEING: i64 = 1_735_488_869;

/// Ended upgrades that are forgotten at once at most.
const FORGOTTEN: u32 = 1_000;

/// The upgrades of every replica. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Queue {
    pub(super) database: Database,
    changes: broadcast::Sender<Changed>,
    wake: Arc<Notify>,
    follow_up: Arc<Notify>,
}

/// An upgrade that is asked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The tenant.
    pub tenant: TenantId,
    /// The service.
    pub service: ServiceId,
    /// Up or down.
    pub direction: UpgradeDirection,
    /// Where to.
    pub target: Target,
    /// What is allowed.
    pub options: UpgradeOptions,
    /// Who asks.
    pub asker: Principal,
    /// Why.
    pub reason: String,
    /// The schema when it was planned; empty: none.
    pub from: String,
    /// What the plan would do.
    pub steps: Vec<UpgradeStep>,
    /// The database server.
    pub server: String,
    /// What to pin afterwards.
    pub flip: Option<Flip>,
    /// The database that is made first; none: it is one that is registered.
    pub provision: Option<Provision>,
    /// A key of the caller's; empty: none.
    pub idempotency_key: String,
}

impl Wanted {
    /// Tells requests with the same key apart.
    fn hash(&self) -> String {
        let parts = (
            self.direction.as_str_name(),
            json(&self.target),
            json(&self.options),
            self.flip.as_ref().map(json).unwrap_or_default(),
        );
        Sha256::digest(format!("{parts:?}")).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Why an upgrade is not queued.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Another one of the same database is queued or runs.
    #[error("upgrade {upgrade} of this tenant and service is queued or runs")]
    Busy {
        /// The other one.
        upgrade: String,
    },
    /// The key was used for another request.
    #[error("the idempotency key belongs to upgrade {upgrade}, which was another request")]
    KeyReused {
        /// The other one.
        upgrade: String,
    },
    /// There is no such upgrade.
    #[error("upgrade `{0}` does not exist")]
    Unknown(String),
    /// It has ended already.
    #[error("upgrade {upgrade} has ended: {state}")]
    Ended {
        /// The upgrade.
        upgrade: String,
        /// How.
        state: &'static str,
    },
    /// The migrator's own database did not answer.
    #[error(transparent)]
    Store(#[from] Error),
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match error {
            Error::Corrupt { .. } => Self::new(Reason::Internal, error.to_string()),
            Error::Failed { .. } | Error::Timeout { .. } => {
                tracing::warn!(error = ?error, "the migrator's database did not answer");
                Self::new(Reason::Unavailable, format!("{error}: the migrator's database did not answer"))
            }
        }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        let text = refused.to_string();
        match refused {
            Refused::Busy { upgrade } => Self::new(Reason::UpgradeRunning, text).with("upgrade", upgrade),
            Refused::KeyReused { upgrade } => {
                Self::new(Reason::InvalidArgument, text).with("upgrade", upgrade)
            }
            Refused::Unknown(id) => Self::new(Reason::UnknownUpgrade, text).with("upgrade", id),
            Refused::Ended { upgrade, state } => {
                Self::new(Reason::InvalidArgument, text).with("upgrade", upgrade).with("state", state)
            }
            Refused::Store(error) => error.into(),
        }
    }
}

/// Which upgrades are listed.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only of this tenant; empty: any.
    pub tenant: String,
    /// Only of this service; empty: any.
    pub service: String,
    /// Only in this state.
    pub state: Option<UpgradeState>,
    /// Only older than this one; empty: from the newest.
    pub before: String,
    /// At most this many.
    pub limit: u32,
}

impl Queue {
    /// The upgrades in `database`.
    #[must_use]
    pub fn new(database: Database) -> Self {
        let (changes, _) = broadcast::channel(FOLLOWED);
        Self { database, changes, wake: Arc::default(), follow_up: Arc::default() }
    }

    /// Queues an upgrade. A request that was made before under the same key gets what it got then.
    ///
    /// # Errors
    /// Another upgrade of the database is queued or runs, or the key was used for another request.
    pub async fn enqueue(&self, wanted: &Wanted) -> Result<Job, Refused> {
        if let Some(job) = self.repeated(wanted).await? {
            return Ok(job);
        }
        let transaction = self.database.begin().await?;
        match self.insert(&transaction, wanted, UpgradeState::Queued).await {
            Ok(job) => {
                self.database.commit(transaction).await?;
                self.tell(&job);
                self.wake.notify_one();
                Ok(job)
            }
            Err(error) if error.is_duplicate() => {
                drop(transaction);
                if let Some(job) = self.repeated(wanted).await? {
                    return Ok(job);
                }
                match self.busy(&wanted.tenant, &wanted.service).await? {
                    Some(upgrade) => Err(Refused::Busy { upgrade }),
                    // It has ended in this very moment.
                    None => Err(error.into()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Queues upgrades that were not asked for under keys; each by itself may be refused.
    ///
    /// # Errors
    /// When the database is away; none is queued then.
    pub async fn enqueue_all(&self, wanted: &[Wanted]) -> Result<Vec<Result<Job, Refused>>, Error> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let transaction = self.database.begin().await?;
        if self.database.backend() == DbBackend::Postgres {
            // Two that ask for the same tenants in different orders would wait for each other.
            let lock = format!("SELECT pg_advisory_xact_lock({QUEUEING})");
            self.database.run_in(&transaction, "queue upgrades", &lock, []).await?;
        }
        let mut queued = Vec::with_capacity(wanted.len());
        for wanted in wanted {
            queued.push(self.insert_unless_busy(&transaction, wanted).await?);
        }
        self.database.commit(transaction).await?;
        self.wake.notify_one();
        let mut results = Vec::with_capacity(wanted.len());
        for (wanted, job) in wanted.iter().zip(queued) {
            results.push(match job {
                Some(job) => Ok(self.announced(job)),
                None => Err(match self.busy(&wanted.tenant, &wanted.service).await {
                    // Empty: it has ended in this very moment.
                    Ok(upgrade) => Refused::Busy { upgrade: upgrade.unwrap_or_default() },
                    Err(error) => error.into(),
                }),
            });
        }
        Ok(results)
    }

    /// Notes upgrades that have nothing to do, as done: nobody needs to run them.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn record_done(&self, wanted: &[Wanted]) -> Result<Vec<Job>, Error> {
        let transaction = self.database.begin().await?;
        let mut jobs = Vec::with_capacity(wanted.len());
        for wanted in wanted {
            jobs.push(self.insert(&transaction, wanted, UpgradeState::Succeeded).await?);
        }
        self.database.commit(transaction).await?;
        Ok(jobs)
    }

    async fn insert(
        &self,
        transaction: &DatabaseTransaction,
        wanted: &Wanted,
        state: UpgradeState,
    ) -> Result<Job, Error> {
        let inserted = self.insert_or(transaction, wanted, state, "").await?;
        inserted.ok_or_else(|| missing("a row that was written is not there"))
    }

    async fn insert_unless_busy(
        &self,
        transaction: &DatabaseTransaction,
        wanted: &Wanted,
    ) -> Result<Option<Job>, Error> {
        self.insert_or(transaction, wanted, UpgradeState::Queued, "ON CONFLICT DO NOTHING").await
    }

    async fn insert_or(
        &self,
        transaction: &DatabaseTransaction,
        wanted: &Wanted,
        state: UpgradeState,
        on_conflict: &str,
    ) -> Result<Option<Job>, Error> {
        let now = self.database.now();
        let done = state == UpgradeState::Succeeded;
        let (started, ended) = if done { (now, now) } else { ("NULL", "NULL") };
        let sql = format!(
            "INSERT INTO upgrades (id, tenant, service, direction, target_schema, target_version, options, state, \
             from_schema, schema_now, steps, error, reason_code, asker, asker_role, asker_via, reason, server, created_ms, \
             started_ms, ended_ms, attempts, worker, lease_until_ms, lease_token, flip, flip_state, flip_claim_ms, backup, \
             cancelling, idempotency_key, request_hash, change, provision) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10, '', '', $11, $12, $13, $14, $15, {now}, {started}, \
             {ended}, 0, '', 0, 0, $16, $17, 0, '', false, $18, $19, 1, $20) {on_conflict} RETURNING *"
        );
        let direction = if wanted.direction == UpgradeDirection::Down { "down" } else { "up" };
        let key = (!wanted.idempotency_key.is_empty()).then(|| wanted.idempotency_key.clone());
        let values: [Value; 20] = [
            uuid::Uuid::now_v7().to_string().into(),
            wanted.tenant.to_string().into(),
            wanted.service.to_string().into(),
            direction.into(),
            wanted.target.schema.as_str().into(),
            wanted.target.service_version.as_str().into(),
            json(&wanted.options).into(),
            state_word(state).into(),
            wanted.from.as_str().into(),
            json(&wanted.steps).into(),
            wanted.asker.id.as_str().into(),
            wanted.asker.role.as_str().into(),
            wanted.asker.via.as_str().into(),
            wanted.reason.as_str().into(),
            wanted.server.as_str().into(),
            wanted.flip.as_ref().map(json).into(),
            flip_word(wanted.flip.as_ref()).into(),
            key.into(),
            wanted.hash().into(),
            wanted.provision.as_ref().map(json).into(),
        ];
        let rows = self.database.rows_in(transaction, "queue an upgrade", &sql, values).await?;
        rows.first().map(read).transpose()
    }

    /// The upgrade that the same request has got before.
    ///
    /// # Errors
    /// The key was used for another request.
    pub async fn repeated(&self, wanted: &Wanted) -> Result<Option<Job>, Refused> {
        if wanted.idempotency_key.is_empty() {
            return Ok(None);
        }
        let sql = "SELECT * FROM upgrades WHERE tenant = $1 AND service = $2 AND idempotency_key = $3";
        let values = [
            wanted.tenant.to_string().into(),
            wanted.service.to_string().into(),
            wanted.idempotency_key.as_str().into(),
        ];
        let rows = self.database.rows("look for a repeated request", sql, values).await?;
        let Some(job) = rows.first().map(read).transpose()? else { return Ok(None) };
        if job.request_hash == wanted.hash() {
            Ok(Some(job))
        } else {
            Err(Refused::KeyReused { upgrade: job.upgrade.id })
        }
    }

    /// The upgrade of this database that is queued or runs.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn busy(&self, tenant: &TenantId, service: &ServiceId) -> Result<Option<String>, Error> {
        let sql =
            "SELECT id FROM upgrades WHERE tenant = $1 AND service = $2 AND state IN ('queued', 'running')";
        let values = [tenant.to_string().into(), service.to_string().into()];
        let rows = self.database.rows("look for a running upgrade", sql, values).await?;
        rows.first().map(|row| column(row, "upgrades", "id")).transpose()
    }

    /// Reads one.
    ///
    /// # Errors
    /// There is none.
    pub async fn get(&self, id: &str) -> Result<Job, Refused> {
        let sql = "SELECT * FROM upgrades WHERE id = $1";
        let rows = self.database.rows("read an upgrade", sql, [id.into()]).await?;
        let row = rows.first().ok_or_else(|| Refused::Unknown(id.chars().take(64).collect()))?;
        Ok(read(row)?)
    }

    /// Lists them, newest first.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn list(&self, filter: &Filter) -> Result<Vec<Upgrade>, Error> {
        let mut sql = "SELECT * FROM upgrades WHERE 1 = 1".to_owned();
        let mut values: Vec<Value> = Vec::new();
        let state = filter.state.map(state_word).unwrap_or_default();
        for (condition, value) in [
            ("tenant =", filter.tenant.as_str()),
            ("service =", filter.service.as_str()),
            ("state =", state),
            ("id <", filter.before.as_str()),
        ] {
            if !value.is_empty() {
                values.push(value.into());
                sql.push_str(&format!(" AND {condition} ${}", values.len()));
            }
        }
        sql.push_str(&format!(" ORDER BY id DESC LIMIT {}", filter.limit));
        let rows = self.database.rows("list upgrades", &sql, values).await?;
        let read = |row| read(row).map(|job| Upgrade { steps: Vec::new(), ..job.upgrade });
        rows.iter().map(read).collect()
    }

    /// Asks to stop one: one that is queued is cancelled at once.
    ///
    /// # Errors
    /// There is none, or it has ended.
    pub async fn cancel(&self, id: &str) -> Result<Job, Refused> {
        let before = self.get(id).await?;
        let now = self.database.now();
        let flip = refused_flip(before.upgrade.flip.clone(), "the upgrade was cancelled");
        let sql = format!(
            "UPDATE upgrades SET state = 'cancelled', ended_ms = {now}, error = 'cancelled before it began', \
             flip = $2, flip_state = $3, change = change + 1 \
             WHERE id = $1 AND state = 'queued' AND attempts = 0 RETURNING *"
        );
        let values = [id.into(), flip.as_ref().map(json).into(), flip_word(flip.as_ref()).into()];
        let rows = self.database.rows("cancel an upgrade", &sql, values).await?;
        if let Some(row) = rows.first() {
            return Ok(self.announced(read(row)?));
        }
        // One that was begun before may have left something half done: whoever takes it next finds out.
        let sql = "UPDATE upgrades SET cancelling = true, change = change + 1 \
                   WHERE id = $1 AND state IN ('queued', 'running') RETURNING *";
        let rows = self.database.rows("cancel an upgrade", sql, [id.into()]).await?;
        if let Some(row) = rows.first() {
            return Ok(self.announced(read(row)?));
        }
        let job = self.get(id).await?;
        Err(Refused::Ended { upgrade: job.upgrade.id.clone(), state: state_word(job.upgrade.state()) })
    }

    /// Forgets upgrades that ended longer ago than `age`; returns how many.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn forget(&self, age: Duration) -> Result<u64, Error> {
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let now = self.database.now();
        let sql = format!(
            "DELETE FROM upgrades WHERE id IN (SELECT id FROM upgrades WHERE ended_ms < {now} - $1 \
             AND flip_state <> 'pending' LIMIT {FORGOTTEN})"
        );
        self.database.run("forget old upgrades", &sql, [age.into()]).await
    }

    /// Upgrades that are queued, and those that run, on all replicas.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn depth(&self) -> Result<(u64, u64), Error> {
        let sql =
            "SELECT state, count(*) AS n FROM upgrades WHERE state IN ('queued', 'running') GROUP BY state";
        let rows = self.database.rows("count upgrades", sql, []).await?;
        let (mut queued, mut running) = (0, 0);
        for row in &rows {
            let n = u64::try_from(column::<i64>(row, "upgrades", "n")?).unwrap_or(0);
            match column::<String>(row, "upgrades", "state")?.as_str() {
                "queued" => queued = n,
                _ => running = n,
            }
        }
        Ok((queued, running))
    }

    /// Changes of upgrades that this process makes.
    pub(super) fn changes(&self) -> broadcast::Receiver<Changed> {
        self.changes.subscribe()
    }

    /// Resolves once something may be there to run.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Lets whoever runs upgrades look again.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Resolves once something may be there to report or to pin.
    pub(super) async fn followed_up(&self) {
        self.follow_up.notified().await;
    }

    /// Lets whoever reports and pins look again.
    pub(super) fn follow_up(&self) {
        self.follow_up.notify_one();
    }

    pub(super) fn tell(&self, job: &Job) {
        // Nobody may be following.
        drop(self.changes.send(Arc::new(job.clone())));
    }

    pub(super) fn announced(&self, job: Job) -> Job {
        self.tell(&job);
        job
    }
}

pub(super) fn missing(why: &str) -> Error {
    Error::Corrupt { table: "upgrades", why: why.to_owned() }
}

/// The flip of an upgrade that did not succeed.
pub(super) fn refused_flip(flip: Option<Flip>, why: &str) -> Option<Flip> {
    flip.map(|flip| Flip {
        state: grey_proto::schema::FlipState::Refused.into(),
        error: why.to_owned(),
        ..flip
    })
}
