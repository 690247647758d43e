//! The control plane, as this service reads and changes it.

mod known;

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use grey_core::change::{Epoch, Position, Revision};
use grey_core::error::Reason;
use grey_edge::client::{self, Client, MAX_ANSWER_BYTES, Peer, Transport, is_transient};
use grey_proto::control::history_service_client::HistoryServiceClient;
use grey_proto::control::pin_service_client::PinServiceClient;
use grey_proto::control::tenant_service_client::TenantServiceClient;
use grey_proto::control::{
    self, ApplyChangeSetRequest, ListEventsRequest, ListEventsResponse, ListTenantsRequest,
    ListTenantsResponse, ProposedChange, WriteOptions,
};
use grey_proto::convert::InvalidMessage;
use grey_proto::status::ApiError;
use grey_runtime::config::duration;
use grey_runtime::{Faults, Validate};
use serde::{Deserialize, Serialize};

pub use known::{Entry, Known};

use crate::apply::chain;

/// Entries of one page: the most that the control plane gives.
const PAGE: u32 = 1_000;
/// Whom this service writes to.
const PEER: Peer = Peer { name: "control plane", section: "control" };

/// How the control plane is followed and written to.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Attempts at one call before the sync fails; the control plane may restart meanwhile.
    pub attempts: usize,
    /// The pause before the second attempt; each further one is twice as long.
    #[serde(with = "duration")]
    pub first_pause: Duration,
    /// The longest pause.
    #[serde(with = "duration")]
    pub max_pause: Duration,
    /// Changes of one batch, applied at one revision.
    pub batch: usize,
    /// Events read to catch up with the log; beyond them all tenants are listed anew.
    pub max_events: u64,
}

impl Validate for Options {
    fn validate(&self, faults: &mut Faults) {
        faults.check(!self.first_pause.is_zero(), "first_pause", "must be longer than nothing");
        faults.check(self.max_pause >= self.first_pause, "max_pause", "must be at least first_pause");
        faults.check((1..=100).contains(&self.attempts), "attempts", "must be between 1 and 100");
        faults.check((1..=5_000).contains(&self.batch), "batch", "must be between 1 and 5000");
        faults.check(self.max_events > 0, "max_events", "must be at least 1");
    }
}

/// Why the control plane was not read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It refused, or did not answer.
    #[error("{attempted} at the control plane")]
    Call {
        /// What was attempted, as a verb phrase.
        attempted: &'static str,
        /// What it said.
        source: ApiError,
    },
    /// It answered something that is not of the contract.
    #[error("read what the control plane answers")]
    Answer(#[from] InvalidMessage),
}

impl Error {
    /// The reason that the control plane gave, if it gave one.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Call { source, .. } => Some(source.reason),
            _ => None,
        }
    }

    /// Whether the same call may succeed later. A write may have been carried out all the same.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Call { source, .. } if is_transient(source))
    }
}

/// A client of the control plane. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    client: Client,
    tenants: TenantServiceClient<Transport>,
    pins: PinServiceClient<Transport>,
    history: HistoryServiceClient<Transport>,
    options: Options,
}

impl Control {
    /// A client that connects when it is first used.
    ///
    /// # Errors
    /// The address, the token or the certificates cannot be used.
    pub fn new(reached: &client::Options, options: &Options) -> Result<Self, client::Error> {
        let client = Client::new(PEER, reached)?;
        let (transport, limit) = (client.transport(), MAX_ANSWER_BYTES);
        Ok(Self {
            client,
            tenants: TenantServiceClient::new(transport.clone()).max_decoding_message_size(limit),
            pins: PinServiceClient::new(transport.clone()).max_decoding_message_size(limit),
            history: HistoryServiceClient::new(transport).max_decoding_message_size(limit),
            options: options.clone(),
        })
    }

    /// The pauses between attempts at one call.
    pub(crate) fn pauses(&self) -> Pauses {
        let pauses = ExponentialBuilder::new()
            .with_min_delay(self.options.first_pause)
            .with_max_delay(self.options.max_pause)
            .with_max_times(self.options.attempts - 1)
            .with_jitter();
        Pauses(pauses.build())
    }

    /// Changes of one batch.
    pub(crate) fn batch(&self) -> usize {
        self.options.batch
    }

    /// Where the log is.
    async fn head(&self) -> Result<Position, Error> {
        let request = ListEventsRequest { limit: 1, newest_first: true, ..ListEventsRequest::default() };
        Ok(position(&self.events("find the end of the log", request).await?))
    }

    /// The tenants behind `after`, by id.
    async fn page(&self, after: String) -> Result<ListTenantsResponse, Error> {
        let request = ListTenantsRequest { page_size: PAGE, page_token: after, ..Default::default() };
        let mut pauses = self.pauses();
        loop {
            let answered = self.client.call(self.tenants.clone().list_tenants(request.clone())).await;
            match answered.map_err(failed("list tenants")) {
                Ok(answer) => return Ok(answer),
                Err(error) => pauses.take(error).await?,
            }
        }
    }

    /// The events after `after`.
    async fn events_after(&self, after: Revision) -> Result<ListEventsResponse, Error> {
        let request = ListEventsRequest { after: after.0, limit: PAGE, ..ListEventsRequest::default() };
        self.events("list events", request).await
    }

    async fn events(
        &self,
        attempted: &'static str,
        request: ListEventsRequest,
    ) -> Result<ListEventsResponse, Error> {
        let mut pauses = self.pauses();
        loop {
            let answered = self.client.call(self.history.clone().list_events(request.clone())).await;
            match answered.map_err(failed(attempted)) {
                Ok(answer) => return Ok(answer),
                Err(error) => pauses.take(error).await?,
            }
        }
    }

    /// Applies changes as one event, and tells where the log was then. It is tried once: whether a write that was not
    /// answered has been carried out only the log tells.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub async fn apply(&self, changes: Vec<ProposedChange>, reason: &str) -> Result<Position, Error> {
        // What the source says is doubted by guards of this mirror's own, and what passed them is the truth.
        let max_moves = Some(u64::MAX);
        let write = WriteOptions { reason: reason.to_owned(), max_moves, ..WriteOptions::default() };
        let request = ApplyChangeSetRequest { changes, write: Some(write) };
        let answered = self.client.call(self.pins.clone().apply_change_set(request)).await;
        let answer = answered.map_err(failed("apply changes"))?;
        let result = answer.result.ok_or_else(|| InvalidMessage::missing("result"))?;
        Ok(Position { epoch: Epoch(result.epoch), revision: Revision(result.revision) })
    }
}

/// The pauses between attempts. Loops of our own take them: the futures of backon's, with closures that borrow, are not
/// known to be `Send`.
pub(crate) struct Pauses(ExponentialBackoff);

impl Pauses {
    /// Pauses, if another attempt may help.
    pub(crate) async fn take(&mut self, error: Error) -> Result<(), Error> {
        let pause = self.0.next().filter(|_| error.is_transient());
        let Some(pause) = pause else { return Err(error) };
        let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(error = %chain(&error), pause_ms, "control plane did not answer, trying again");
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

fn failed(attempted: &'static str) -> impl FnOnce(ApiError) -> Error {
    move |source| Error::Call { attempted, source }
}

fn position(answer: &control::ListEventsResponse) -> Position {
    Position { epoch: Epoch(answer.epoch), revision: Revision(answer.revision) }
}
