//! Where reads that take long, or come in great numbers, take their turns: however many there are, nothing else waits for
//! them.

use std::future::Future;
use std::time::Duration;

use grey_core::error::Reason;
use grey_proto::status::ApiError;
use grey_runtime::config::{Faults, Validate, duration};
use sea_orm::DbErr;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::unavailable;
use crate::database::{Database, Error};

/// What reads of one kind may take.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Connections to the database: so many are read at once.
    pub connections: u32,
    /// Requests that may wait for one of them.
    pub queue: u32,
    /// For one request, the time that it waits included.
    #[serde(with = "duration")]
    pub timeout: Duration,
}

impl Validate for Options {
    fn validate(&self, faults: &mut Faults) {
        faults.check((1..=100).contains(&self.connections), "connections", "must be between 1 and 100");
        faults.check(self.queue <= 100_000, "queue", "must be at most 100000");
        faults.check(!self.timeout.is_zero(), "timeout", "must be longer than nothing");
    }
}

/// What is read in a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What was.
    Past,
    /// Pages of what is.
    Lists,
}

impl Kind {
    /// The section that its settings are in.
    fn section(self) -> &'static str {
        match self {
            Self::Past => "history",
            Self::Lists => "lists",
        }
    }

    /// What is said of a read that took too long.
    fn late(self, limit: Duration) -> String {
        match self {
            Self::Past => {
                format!("reading the past took longer than {limit:?}; retry: what was worked out is kept")
            }
            Self::Lists => {
                format!("listing took longer than {limit:?}; retry later, or ask for a smaller page")
            }
        }
    }
}

/// Connections of its own, and the queue before them.
pub(crate) struct Lane {
    kind: Kind,
    database: Database,
    turns: Semaphore,
    /// For those that have their turn, and those that wait.
    places: Semaphore,
    options: Options,
}

impl Lane {
    /// A lane to the same database.
    pub(crate) async fn open(
        kind: Kind,
        database: &Database,
        reached: &grey_database::Options,
        options: &Options,
    ) -> Result<Self, Error> {
        let count = |number: u32| usize::try_from(number).unwrap_or(Semaphore::MAX_PERMITS);
        Ok(Self {
            kind,
            database: database.apart(reached, options.connections).await?,
            turns: Semaphore::new(count(options.connections)),
            places: Semaphore::new(count(options.connections.saturating_add(options.queue))),
            options: options.clone(),
        })
    }

    /// For whoever has a turn.
    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// Does `work` in its turn.
    pub(crate) async fn run<T>(
        &self,
        work: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        let _place = self.places.try_acquire().map_err(|_| self.full())?;
        let limit = self.options.timeout;
        let in_turn = async {
            let _turn = self.turn().await?;
            work.await
        };
        tokio::time::timeout(limit, in_turn).await.map_err(|_| unavailable(self.kind.late(limit)))?
    }

    /// Reads in its turn, with the statement deadline; what is read comes from [`Lane::database`].
    pub(crate) async fn read<T>(
        &self,
        attempted: &'static str,
        read: impl Future<Output = Result<T, DbErr>>,
    ) -> Result<T, ApiError> {
        self.run(async { Ok::<T, ApiError>(self.database.read(attempted, read).await?) }).await
    }

    /// A turn, for those whose number is limited elsewhere.
    pub(crate) async fn turn(&self) -> Result<SemaphorePermit<'_>, ApiError> {
        self.turns.acquire().await.map_err(|_| unavailable("shutting down"))
    }

    #[cold]
    fn full(&self) -> ApiError {
        let Options { connections, queue, .. } = self.options;
        let section = self.kind.section();
        let message = format!(
            "{connections} requests of this kind are read and {queue} wait already; retry later, or raise \
             {section}.queue or {section}.connections"
        );
        ApiError::new(Reason::RateLimited, message)
    }
}
