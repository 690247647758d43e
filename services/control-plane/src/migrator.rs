//! The schema migrator, as the control plane asks it on behalf of its callers.

use std::time::Duration;

use futures::{Stream, StreamExt};
use grey_core::error::Reason;
use grey_edge::Caller;
use grey_proto::convert::InvalidMessage;
use grey_proto::schema::schema_service_client::SchemaServiceClient;
use grey_proto::schema::{
    CancelUpgradeRequest, GetUpgradeRequest, ListUpgradesRequest, ListUpgradesResponse, StartUpgradeRequest,
    Upgrade, WatchUpgradeRequest,
};
use grey_proto::status::{ApiError, from_status};
use grey_runtime::config::duration;
use grey_runtime::{Faults, Secret, Validate, tls};
use serde::{Deserialize, Serialize};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// Names the caller on whose behalf a call is made. The migrator believes it of this control plane's token only.
const ACTOR: &str = "x-grey-actor";
/// Largest answer that is read: a page of upgrades, or one upgrade with every step.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// Unanswered pings end a connection after this long.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// How the schema migrator is reached.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Where its gRPC is; empty: there is none.
    pub url: String,
    /// A bearer token of the role operator; empty: none is sent.
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
}

impl Default for Options {
    fn default() -> Self {
        Self {
            url: String::new(),
            token: Secret::new(""),
            tls: None,
            connect_timeout: Duration::from_secs(2),
            timeout: Duration::from_secs(10),
        }
    }
}

impl Validate for Options {
    fn validate(&self, faults: &mut Faults) {
        let scheme = ["", "http://", "https://"].into_iter().any(|scheme| match scheme {
            "" => self.url.is_empty(),
            scheme => self.url.starts_with(scheme),
        });
        faults.check(scheme, "url", "must be empty or begin with http:// or https://");
        let fits = self.tls.is_none() || self.url.starts_with("https://");
        faults.check(fits, "tls", "needs an https:// url");
        let ascii = self.token.expose().bytes().all(|byte| byte.is_ascii_graphic());
        faults.check(ascii, "token", "must be visible ASCII");
        for (key, value) in [("connect_timeout", self.connect_timeout), ("timeout", self.timeout)] {
            faults.check(!value.is_zero(), key, "must be longer than nothing");
        }
        if let Some(tls) = &self.tls {
            faults.section("tls", tls);
        }
    }
}

/// Why the migrator cannot be asked at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address or the token cannot be used.
    #[error("use schema migrator {url}: {why}")]
    Configuration {
        /// As configured.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// The certificates cannot be used.
    #[error("use the certificates for schema migrator {url}")]
    Tls {
        /// As configured.
        url: String,
        /// What is wrong.
        source: tls::Error,
    },
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

/// A client of the migrator. Cheap to clone.
#[derive(Clone)]
pub struct Migrator {
    client: SchemaServiceClient<InterceptedService<Channel, Bearer>>,
    timeout: Duration,
}

impl Migrator {
    /// A client that connects when it is first used; none if no migrator is configured.
    ///
    /// # Errors
    /// The address, the token or the certificates cannot be used.
    pub fn new(options: &Options) -> Result<Option<Self>, Error> {
        if options.url.is_empty() {
            return Ok(None);
        }
        let url = options.url.clone();
        let unusable = |why: String| Error::Configuration { url: options.url.clone(), why };
        let mut endpoint = Endpoint::from_shared(url.clone())
            .map_err(|error| unusable(error.to_string()))?
            .connect_timeout(options.connect_timeout)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .tcp_nodelay(true);
        if let Some(tls) = &options.tls {
            let config = tls.tonic().map_err(|source| Error::Tls { url, source })?;
            endpoint = endpoint.tls_config(config).map_err(|error| unusable(error.to_string()))?;
        }
        let bearer = match options.token.expose() {
            "" => None,
            token => {
                let value = MetadataValue::try_from(format!("Bearer {token}"));
                let mut value = value.map_err(|_| unusable("the token is not ASCII".to_owned()))?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let transport = InterceptedService::new(endpoint.connect_lazy(), Bearer(bearer));
        let client = SchemaServiceClient::new(transport).max_decoding_message_size(MAX_ANSWER_BYTES);
        Ok(Some(Self { client, timeout: options.timeout }))
    }

    /// Queues an upgrade.
    pub(crate) async fn start(
        &self,
        caller: &Caller,
        request: StartUpgradeRequest,
    ) -> Result<Upgrade, ApiError> {
        let mut client = self.client.clone();
        let answer = self.within(client.start_upgrade(on_behalf(caller, request))).await?;
        upgrade(answer.into_inner().upgrade)
    }

    /// Reads one upgrade.
    pub(crate) async fn get(&self, caller: &Caller, id: String) -> Result<Upgrade, ApiError> {
        let mut client = self.client.clone();
        let answer = self.within(client.get_upgrade(on_behalf(caller, GetUpgradeRequest { id }))).await?;
        upgrade(answer.into_inner().upgrade)
    }

    /// Lists upgrades.
    pub(crate) async fn list(
        &self,
        caller: &Caller,
        request: ListUpgradesRequest,
    ) -> Result<ListUpgradesResponse, ApiError> {
        let mut client = self.client.clone();
        Ok(self.within(client.list_upgrades(on_behalf(caller, request))).await?.into_inner())
    }

    /// Stops an upgrade.
    pub(crate) async fn cancel(&self, caller: &Caller, id: String) -> Result<Upgrade, ApiError> {
        let mut client = self.client.clone();
        let answer =
            self.within(client.cancel_upgrade(on_behalf(caller, CancelUpgradeRequest { id }))).await?;
        upgrade(answer.into_inner().upgrade)
    }

    /// Follows an upgrade: whenever it changes, until it has ended.
    pub(crate) async fn watch(
        &self,
        caller: &Caller,
        id: String,
    ) -> Result<impl Stream<Item = Result<Upgrade, ApiError>> + Send + use<>, ApiError> {
        let mut client = self.client.clone();
        let answer = self.within(client.watch_upgrade(on_behalf(caller, WatchUpgradeRequest { id }))).await?;
        Ok(answer.into_inner().map(|message| match message {
            Ok(message) => upgrade(message.upgrade),
            Err(status) => Err(told(&status)),
        }))
    }

    async fn within<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Result<T, ApiError> {
        match tokio::time::timeout(self.timeout, call).await {
            Ok(answered) => answered.map_err(|status| told(&status)),
            Err(_) => Err(away(&format!("no answer within {:?}", self.timeout))),
        }
    }
}

fn on_behalf<T>(caller: &Caller, message: T) -> Request<T> {
    let mut request = Request::new(message);
    // Names that no header may have are left out; the migrator then records this control plane.
    if let Ok(name) = MetadataValue::try_from(caller.name()) {
        request.metadata_mut().insert(ACTOR, name);
    }
    request
}

/// What the migrator refused, as it refused it; but what it holds against this control plane is not the caller's doing.
fn told(status: &Status) -> ApiError {
    if let Some(error) = std::error::Error::source(status) {
        return away(&crate::command::chain(error));
    }
    let error = from_status(status);
    match error.reason {
        Reason::Unauthenticated | Reason::Denied => {
            tracing::error!(error = %error, "schema migrator refuses this control plane; check [migrator] token");
            let message =
                "the schema migrator refuses this control plane's token; the service's log has the details";
            ApiError::new(Reason::Unavailable, message)
        }
        _ => error,
    }
}

fn away(why: &str) -> ApiError {
    tracing::warn!(error = why, "schema migrator did not answer");
    let message = "the schema migrator does not answer; an upgrade that was asked for may have been queued";
    ApiError::new(Reason::Unavailable, message)
}

fn upgrade(message: Option<Upgrade>) -> Result<Upgrade, ApiError> {
    message.filter(|upgrade| !upgrade.id.is_empty()).ok_or_else(|| {
        tracing::error!(error = %InvalidMessage::missing("upgrade"), "schema migrator answered something else");
        ApiError::new(Reason::Internal, "the schema migrator answered without an upgrade")
    })
}
