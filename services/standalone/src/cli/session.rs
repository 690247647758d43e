//! One command's conversation with the services: connections, token, deadlines, output.

use std::future::Future;
use std::time::Duration;

use grey_core::error::Reason;
use grey_edge::client::{Bearer, Options, Transport, endpoint};
use grey_proto::control::catalog_service_client::CatalogServiceClient;
use grey_proto::control::database_service_client::DatabaseServiceClient;
use grey_proto::control::fleet_service_client::FleetServiceClient;
use grey_proto::control::history_service_client::HistoryServiceClient;
use grey_proto::control::pin_service_client::PinServiceClient;
use grey_proto::control::tenant_service_client::TenantServiceClient;
use grey_proto::router::router_service_client::RouterServiceClient;
use grey_proto::schema::schema_service_client::SchemaServiceClient;
use grey_proto::status::{ApiError, from_status};
use grey_proto::sync::sync_service_client::SyncServiceClient;
use grey_runtime::{Secret, tls};
use serde::Serialize;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status};

use super::sync::Mirror;
use super::{Failure, Target, output};

/// Largest message that is taken: a full page of the largest tenants fits.
const MAX_RESPONSE: usize = 64 << 20;
/// Most items asked for in one page.
const PAGE: u32 = 1_000;

/// A connection that sends the token.
pub(super) type Connection = Transport;

/// Where calls go and how their answers are shown.
pub(super) struct Session {
    target: Target,
}

impl Session {
    pub(super) fn new(target: Target) -> Self {
        Self { target }
    }

    pub(super) async fn tenants(&self) -> Result<TenantServiceClient<Connection>, Failure> {
        let connection = self.connect(&self.target.control).await?;
        Ok(TenantServiceClient::new(connection).max_decoding_message_size(MAX_RESPONSE))
    }

    pub(super) async fn catalog(&self) -> Result<CatalogServiceClient<Connection>, Failure> {
        let connection = self.connect(&self.target.control).await?;
        Ok(CatalogServiceClient::new(connection).max_decoding_message_size(MAX_RESPONSE))
    }

    pub(super) async fn pins(&self) -> Result<PinServiceClient<Connection>, Failure> {
        let connection = self.connect(&self.target.control).await?;
        Ok(PinServiceClient::new(connection).max_decoding_message_size(MAX_RESPONSE))
    }

    pub(super) async fn databases(&self) -> Result<DatabaseServiceClient<Connection>, Failure> {
        let connection = self.connect(&self.target.control).await?;
        Ok(DatabaseServiceClient::new(connection).max_decoding_message_size(MAX_RESPONSE))
    }

    pub(super) async fn history(&self) -> Result<HistoryServiceClient<Connection>, Failure> {
        let connection = self.connect(&self.target.control).await?;
        Ok(HistoryServiceClient::new(connection).max_decoding_message_size(MAX_RESPONSE))
    }

    pub(super) async fn fleet(&self) -> Result<FleetServiceClient<Connection>, Failure> {
        let connection = self.connect(&self.target.control).await?;
        Ok(FleetServiceClient::new(connection).max_decoding_message_size(MAX_RESPONSE))
    }

    pub(super) async fn router(&self) -> Result<RouterServiceClient<Connection>, Failure> {
        let connection = self.connect(&self.target.router).await?;
        Ok(RouterServiceClient::new(connection).max_decoding_message_size(MAX_RESPONSE))
    }

    pub(super) async fn sync(&self, mirror: Mirror) -> Result<SyncServiceClient<Connection>, Failure> {
        let url = match mirror {
            Mirror::Registry => &self.target.registry_sync,
            Mirror::Tenants => &self.target.tenant_sync,
        };
        let connection = self.connect(url).await?;
        Ok(SyncServiceClient::new(connection).max_decoding_message_size(MAX_RESPONSE))
    }

    pub(super) async fn schemas(&self) -> Result<SchemaServiceClient<Connection>, Failure> {
        let connection = self.connect(&self.target.migrator).await?;
        Ok(SchemaServiceClient::new(connection).max_decoding_message_size(MAX_RESPONSE))
    }

    async fn connect(&self, url: &str) -> Result<Connection, Failure> {
        let (ca, timeout) = (&self.target.ca, self.target.timeout);
        let unusable = |source: anyhow::Error| Failure::Target { what: url.to_owned(), source };
        if url.starts_with("https:") && ca.is_none() {
            return Err(unusable(anyhow::anyhow!("https needs --ca with the authorities to trust")));
        }
        let trusting =
            |ca_file| tls::ClientOptions { ca_file, cert_file: None, key_file: None, domain: None };
        let options = Options {
            url: url.to_owned(),
            token: self.target.token.clone().unwrap_or_else(|| Secret::new("")),
            tls: ca.clone().map(trusting),
            connect_timeout: timeout,
            timeout,
        };
        let endpoint = endpoint(&options).map_err(|error| unusable(error.into()))?;
        let bearer = Bearer::new(&options).map_err(|error| Failure::Input(error.to_string()))?;
        let channel = endpoint.connect().await.map_err(|error| Failure::Refused {
            attempted: format!("connect to {url}"),
            error: ApiError::new(Reason::Unavailable, cause(&error)),
        })?;
        Ok(InterceptedService::new(channel, bearer))
    }

    /// A request with the deadline of the command line.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        self.request_waiting(message, Duration::ZERO)
    }

    /// A request that the service itself may hold back for up to `wait`.
    pub(super) fn request_waiting<T>(&self, message: T, wait: Duration) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.target.timeout + wait);
        request
    }

    /// Makes a call; `attempted` says in a verb phrase what it is for.
    pub(super) async fn call<T>(
        &self,
        attempted: &str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        self.call_waiting(attempted, Duration::ZERO, call).await
    }

    /// As [`Self::call`], for a call that the service itself may hold back for up to `wait`.
    pub(super) async fn call_waiting<T>(
        &self,
        attempted: &str,
        wait: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        let refused = |error| Failure::Refused { attempted: attempted.to_owned(), error };
        let deadline = self.target.timeout + wait;
        match tokio::time::timeout(deadline, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(refused(failure_of(&status))),
            Err(_) => {
                let text = format!("no answer within {deadline:?}; a write may have been applied");
                Err(refused(ApiError::new(Reason::Unavailable, text)))
            }
        }
    }

    /// Prints the response: as JSON if that was asked for, else as the text.
    pub(super) fn show(
        &self,
        response: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        if self.target.json {
            let document = serde_json::to_string_pretty(response).map_err(|error| {
                Failure::Server(anyhow::Error::new(error).context("write the response as JSON"))
            })?;
            output::print(&(document + "\n"))
        } else {
            output::print(&text())
        }
    }

    /// Whether programs read the output.
    pub(super) fn json(&self) -> bool {
        self.target.json
    }

    /// Longest wait for shared state that a command writes by itself.
    pub(super) fn timeout(&self) -> Duration {
        self.target.timeout
    }
}

/// Collects pages until `limit` items are there; returns the items and the token of the next page.
pub(super) async fn pages<T>(
    limit: usize,
    mut page: impl AsyncFnMut(u32, String) -> Result<(Vec<T>, String), Failure>,
) -> Result<(Vec<T>, String), Failure> {
    let (mut items, mut token) = (Vec::new(), String::new());
    loop {
        let missing = u32::try_from(limit - items.len()).unwrap_or(PAGE).min(PAGE);
        let (more, next) = page(missing, std::mem::take(&mut token)).await?;
        items.extend(more);
        if next.is_empty() || items.len() >= limit {
            return Ok((items, next));
        }
        token = next;
    }
}

/// What the service said; or that nothing could be heard, where the connection itself failed.
pub(super) fn failure_of(status: &Status) -> ApiError {
    match std::error::Error::source(status) {
        Some(source) => ApiError::new(Reason::Unavailable, format!("connection failed: {}", cause(source))),
        None => from_status(status),
    }
}

/// The innermost cause: what the operating system or the TLS library said.
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(next) = innermost.source() {
        innermost = next;
    }
    innermost.to_string()
}
