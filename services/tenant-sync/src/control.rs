//! The control plane, as this service reads and changes it.

mod known;

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use grey_core::change::{Generation, Position, Revision};
use grey_core::error::Reason;
use grey_proto::control::history_service_client::HistoryServiceClient;
use grey_proto::control::pin_service_client::PinServiceClient;
use grey_proto::control::tenant_service_client::TenantServiceClient;
use grey_proto::control::{
    self, ApplyChangeSetRequest, ListEventsRequest, ListEventsResponse, ListTenantsRequest,
    ListTenantsResponse, ProposedChange, WriteOptions,
};
use grey_proto::convert::InvalidMessage;
use grey_proto::status::{ApiError, from_status};
use grey_runtime::config::duration;
use grey_runtime::{Faults, Secret, Validate, tls};
use serde::{Deserialize, Serialize};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

pub use known::{Entry, Known};

use crate::apply::chain;

/// Entries of one page: the most that the control plane gives.
const PAGE: u32 = 1_000;
/// Largest answer that is read; the control plane ends pages well before, but a page has at least one event.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// Unanswered pings end a connection after this long.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// How the control plane is reached.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Where its gRPC is.
    pub url: String,
    /// A bearer token of the role admin; empty: none is sent.
    pub token: Secret,
    /// Whom to trust, for an `https` URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<tls::ClientOptions>,
    /// For a connection.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// For one call.
    #[serde(with = "duration")]
    pub timeout: Duration,
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
        let scheme = self.url.starts_with("http://") || self.url.starts_with("https://");
        faults.check(scheme, "url", "must begin with http:// or https://");
        let fits = self.tls.is_none() || self.url.starts_with("https://");
        faults.check(fits, "tls", "needs an https:// url");
        let ascii = self.token.expose().bytes().all(|byte| byte.is_ascii_graphic());
        faults.check(ascii, "token", "must be visible ASCII");
        for (key, value) in [
            ("connect_timeout", self.connect_timeout),
            ("timeout", self.timeout),
            ("first_pause", self.first_pause),
        ] {
            faults.check(!value.is_zero(), key, "must be longer than nothing");
        }
        faults.check(self.max_pause >= self.first_pause, "max_pause", "must be at least first_pause");
        faults.check((1..=100).contains(&self.attempts), "attempts", "must be between 1 and 100");
        faults.check((1..=1_000).contains(&self.batch), "batch", "must be between 1 and 1000");
        faults.check(self.max_events > 0, "max_events", "must be at least 1");
        if let Some(tls) = &self.tls {
            faults.section("tls", tls);
        }
    }
}

/// Why the control plane was not read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address or the token cannot be used.
    #[error("use control plane {url}: {why}")]
    Configuration {
        /// As configured.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// The certificates cannot be used.
    #[error("use the certificates for control plane {url}")]
    Tls {
        /// As configured.
        url: String,
        /// What is wrong.
        source: tls::Error,
    },
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
        // Internal is what a broken connection in the middle of an answer looks like.
        let transient = [Reason::Unavailable, Reason::RateLimited, Reason::Internal];
        self.reason().is_some_and(|reason| transient.contains(&reason))
    }
}

/// Sends the token with every call.
#[derive(Clone)]
struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

type Transport = InterceptedService<Channel, Bearer>;

/// A client of the control plane. Cheap to clone.
#[derive(Clone)]
pub struct Control {
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
    pub fn new(options: &Options) -> Result<Self, Error> {
        let url = options.url.clone();
        let unusable = |why: String| Error::Configuration { url: options.url.clone(), why };
        let mut endpoint = Endpoint::from_shared(url.clone())
            .map_err(|error| unusable(error.to_string()))?
            .connect_timeout(options.connect_timeout)
            .timeout(options.timeout)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .tcp_nodelay(true);
        if let Some(tls) = &options.tls {
            let config = tls.tonic().map_err(|source| Error::Tls { url, source })?;
            endpoint = endpoint.tls_config(config).map_err(|error| unusable(error.to_string()))?;
        }
        let transport = InterceptedService::new(endpoint.connect_lazy(), Bearer(bearer(options)?));
        let limit = MAX_ANSWER_BYTES;
        Ok(Self {
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
        let request = ListEventsRequest { after: 0, limit: 1, newest_first: true };
        Ok(position(&self.events("find the end of the log", request).await?))
    }

    /// The tenants behind `after`, by id.
    async fn page(&self, after: String) -> Result<ListTenantsResponse, Error> {
        let request = ListTenantsRequest { page_size: PAGE, page_token: after, ..Default::default() };
        let mut pauses = self.pauses();
        loop {
            let answered = self.tenants.clone().list_tenants(request.clone()).await;
            match answered.map_err(failed("list tenants")) {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(error) => pauses.take(error).await?,
            }
        }
    }

    /// The events after `after`.
    async fn events_after(&self, after: Revision) -> Result<ListEventsResponse, Error> {
        let request = ListEventsRequest { after: after.0, limit: PAGE, newest_first: false };
        self.events("list events", request).await
    }

    async fn events(
        &self,
        attempted: &'static str,
        request: ListEventsRequest,
    ) -> Result<ListEventsResponse, Error> {
        let mut pauses = self.pauses();
        loop {
            match self.history.clone().list_events(request).await.map_err(failed(attempted)) {
                Ok(answer) => return Ok(answer.into_inner()),
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
        let write = WriteOptions { reason: reason.to_owned(), ..WriteOptions::default() };
        let request = ApplyChangeSetRequest { changes, write: Some(write) };
        let answered = self.pins.clone().apply_change_set(request).await;
        let answer = answered.map_err(failed("apply changes"))?.into_inner();
        let result = answer.result.ok_or_else(|| InvalidMessage::missing("result"))?;
        Ok(Position { generation: Generation(result.generation.into()), revision: Revision(result.revision) })
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

fn bearer(options: &Options) -> Result<Option<MetadataValue<Ascii>>, Error> {
    let token = options.token.expose();
    if token.is_empty() {
        return Ok(None);
    }
    let unusable =
        |_| Error::Configuration { url: options.url.clone(), why: "the token is not ASCII".into() };
    let mut value = MetadataValue::try_from(format!("Bearer {token}")).map_err(unusable)?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn failed(attempted: &'static str) -> impl FnOnce(Status) -> Error {
    move |status| Error::Call { attempted, source: from_status(&status) }
}

fn position(answer: &control::ListEventsResponse) -> Position {
    let generation = Generation(answer.generation.as_str().into());
    Position { generation, revision: Revision(answer.revision) }
}
