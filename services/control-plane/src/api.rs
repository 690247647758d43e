//! The operations behind both transports: a request message in, a response message out.

mod catalog;
mod databases;
mod events;
mod explain;
mod fleet;
mod history;
mod lane;
mod many;
mod pairs;
mod partial;
mod pins;
mod strict;
mod tenants;
mod upgrades;

use std::sync::Arc;
use std::time::Duration;

use grey_core::change::{Change, Epoch, Position};
use grey_core::error::Reason;
use grey_core::key::Fact;
use grey_edge::Caller;
use grey_proto::control::{WriteOptions, WriteResult};
use grey_proto::convert::InvalidMessage;
use grey_proto::status::ApiError;
use grey_runtime::config::{Faults, Validate, duration};
use grey_state::State;
use pbjson_types::Duration as WireDuration;
use prost::Message;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::command::{Applied, Command, Commands, Committed, Intent, Proposed};
use crate::database::Database;
use crate::fleet::Fleet;
use crate::migrator::Migrator;
use crate::registered::Registrar;

pub use lane::Options as LaneOptions;
pub(crate) use lane::{Kind, Lane};
pub use tenants::{EffectiveService, EffectiveServices};

/// Entries of a page if the request does not say.
const PAGE: usize = 100;
/// Most entries of a page.
const MAX_PAGE: usize = 1_000;
/// A page ends early rather than exceed what clients take by default (4 MiB).
const MAX_PAGE_BYTES: usize = 2 << 20;
/// Longest cause of a write, in bytes.
const MAX_CAUSE: usize = 200;
/// Longest wait for routers.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// What one caller may take.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Bytes of one request.
    pub max_request_bytes: usize,
    /// For one request as a whole, waits for routers included.
    #[serde(with = "duration")]
    pub request_timeout: Duration,
    /// Streams of events open at the same time.
    pub max_watchers: usize,
}

impl Validate for Limits {
    fn validate(&self, faults: &mut Faults) {
        let sane = (1_024..=64 << 20).contains(&self.max_request_bytes);
        faults.check(sane, "max_request_bytes", "must be between 1024 and 67108864");
        faults.check(
            self.request_timeout > MAX_WAIT,
            "request_timeout",
            "must be longer than 60s, the longest wait",
        );
        faults.check(
            (1..=100_000).contains(&self.max_watchers),
            "max_watchers",
            "must be between 1 and 100000",
        );
    }
}

/// The operations. Cheap to clone.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

/// Reads that nothing else waits for.
pub(crate) struct Lanes {
    pub(crate) explanations: Lane,
    pub(crate) events: Lane,
    pub(crate) lists: Lane,
}

struct Inner {
    database: Database,
    lanes: Lanes,
    commands: Commands,
    state: State,
    registrar: Registrar,
    migrator: Option<Migrator>,
    fleet: Arc<Fleet>,
    watchers: Arc<Semaphore>,
    draining: CancellationToken,
}

/// What an entity tag says: the history, and the revision in it at which a thing changed last.
pub(crate) type Tag = (u64, u64);

/// An entity tag, as clients send it back.
pub(crate) fn entity_tag((epoch, revision): Tag) -> String {
    format!("\"{epoch}-{revision}\"")
}

/// A write that was carried out.
struct Written {
    result: WriteResult,
    /// When the key changed last.
    revision: u64,
    /// What holds now, where the rules completed what was asked for.
    completed: Option<Fact>,
}

impl Api {
    /// Operations on `database`; without a `migrator` no upgrades started. Streams end once `draining` is cancelled.
    #[must_use]
    #[expect(clippy::too_many_arguments, reason = "each is a part that operations work with")]
    pub(crate) fn new(
        database: Database,
        lanes: Lanes,
        commands: Commands,
        state: State,
        fleet: Arc<Fleet>,
        registrar: Registrar,
        migrator: Option<Migrator>,
        max_watchers: usize,
        draining: CancellationToken,
    ) -> Self {
        let watchers = Arc::new(Semaphore::new(max_watchers));
        Self(Arc::new(Inner {
            database,
            lanes,
            commands,
            state,
            registrar,
            migrator,
            fleet,
            watchers,
            draining,
        }))
    }

    /// Writes one change, and waits for the routers if asked to.
    async fn write(
        &self,
        caller: &Caller,
        change: Change,
        options: Option<WriteOptions>,
    ) -> Result<Written, ApiError> {
        let options = options.unwrap_or_default();
        let changes = vec![Proposed { change, expected: options.expected_revision }];
        let executed = self.execute(caller, options, Intent::Changes(changes), None);
        let (mut committed, result) = Box::pin(executed).await?;
        let Applied { revision, completed } = committed.applied.pop().unwrap_or_default();
        // What a dry run would have left is at no revision.
        let revision = if result.dry_run { 0 } else { revision };
        Ok(Written { result, revision, completed })
    }

    /// Carries out what is meant, and waits for the routers if asked to.
    async fn execute(
        &self,
        caller: &Caller,
        options: WriteOptions,
        intent: Intent,
        expected_log: Option<u64>,
    ) -> Result<(Committed, WriteResult), ApiError> {
        let wait = wait(options.wait, "write.wait")?;
        let command = Command { expected_log, ..command(caller, options, intent)? };
        self.run(command, wait).await
    }

    /// Carries a command out, and waits for the routers if asked to.
    async fn run(
        &self,
        command: Command,
        wait: Option<Duration>,
    ) -> Result<(Committed, WriteResult), ApiError> {
        let dry_run = command.dry_run;
        let committed = self.0.commands.execute(command).await?;
        let result = self.result(&committed.position, wait.filter(|_| !dry_run)).await;
        let moves = Some((&committed.moves).into());
        Ok((committed, WriteResult { moves, dry_run, ..result }))
    }

    /// What a write returns; the write itself stands, however the routers fare.
    async fn result(&self, position: &Position, wait: Option<Duration>) -> WriteResult {
        let routers = match wait {
            None => None,
            Some(limit) => Some(self.0.fleet.wait(position, limit).await),
        };
        WriteResult {
            revision: position.revision.0,
            epoch: position.epoch.0,
            routers,
            ..WriteResult::default()
        }
    }
}

/// A command, with what its caller says about it.
fn command(caller: &Caller, options: WriteOptions, intent: Intent) -> Result<Command, ApiError> {
    let WriteOptions { reason, cause, expected_epoch, max_moves, dry_run, .. } = options;
    if cause.len() > MAX_CAUSE {
        return Err(invalid("write.cause", format!("must have at most {MAX_CAUSE} bytes")));
    }
    if !cause.is_empty() && !caller.is_on_behalf() {
        let why = "is stated by services that write on somebody's behalf; say why in write.reason";
        return Err(invalid("write.cause", why));
    }
    let expected_epoch = Some(Epoch(expected_epoch)).filter(|epoch| epoch.0 > 0);
    let principal = caller.principal();
    Ok(Command { principal, reason, cause, intent, expected_epoch, max_moves, dry_run, ..Command::default() })
}

/// Reads how long to wait; none and zero: not at all.
fn wait(wait: Option<WireDuration>, field: &str) -> Result<Option<Duration>, ApiError> {
    let Some(wait) = wait else { return Ok(None) };
    let seconds = u64::try_from(wait.seconds).ok();
    let nanos = u32::try_from(wait.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    let read = seconds.zip(nanos).map(|(seconds, nanos)| Duration::new(seconds, nanos));
    let read = read.filter(|wait| *wait <= MAX_WAIT);
    let invalid = || InvalidMessage::new(field, "must be a duration from 0s to 60s");
    Ok(Some(read.ok_or_else(invalid)?).filter(|wait| !wait.is_zero()))
}

/// Reads a message that must be there.
fn required<M, T>(field: &'static str, message: Option<M>) -> Result<T, ApiError>
where
    T: TryFrom<M, Error = InvalidMessage>,
{
    let message = message.ok_or_else(|| InvalidMessage::missing(field))?;
    Ok(T::try_from(message).map_err(|invalid| invalid.under(field))?)
}

/// Reads an id.
fn id<T>(field: &str, text: &str) -> Result<T, ApiError>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let invalid = |why: T::Err| ApiError::from(InvalidMessage::new(field, why.to_string()));
    text.parse().map_err(invalid)
}

/// Reads an id that may be left out.
fn optional_id<T>(field: &str, text: &str) -> Result<Option<T>, ApiError>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    if text.is_empty() { Ok(None) } else { id(field, text).map(Some) }
}

/// Reads how many entries are wanted; 0: the usual number.
fn page_size(field: &str, size: u32) -> Result<usize, ApiError> {
    match usize::try_from(size) {
        Ok(0) => Ok(PAGE),
        Ok(size) if size <= MAX_PAGE => Ok(size),
        _ => Err(InvalidMessage::new(field, format!("must be at most {MAX_PAGE}")).into()),
    }
}

/// One more than a page, to know whether another follows.
fn one_more(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX).saturating_add(1)
}

/// Cuts what was found to a page; tells whether there is more.
fn cut<M: Message>(found: &mut Vec<M>, size: usize) -> bool {
    let mut bytes = 0;
    let fit = found.iter().take(size).take_while(|message| {
        bytes += message.encoded_len();
        bytes <= MAX_PAGE_BYTES
    });
    // A page of nothing would never end.
    let fit = fit.count().max(1);
    let more = found.len() > fit;
    found.truncate(fit);
    more
}

fn invalid(field: &str, why: impl Into<String>) -> ApiError {
    InvalidMessage::new(field, why).into()
}

fn unavailable(message: impl Into<String>) -> ApiError {
    ApiError::new(Reason::Unavailable, message)
}
