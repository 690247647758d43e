//! The schema migrator, as the control plane asks it on behalf of its callers.

use futures::{Stream, StreamExt};
use grey_core::error::Reason;
use grey_edge::client::{Client, Error, MAX_ANSWER_BYTES, Options, Peer, Transport};
use grey_edge::{Caller, on_behalf_of};
use grey_proto::convert::InvalidMessage;
use grey_proto::schema::schema_service_client::SchemaServiceClient;
use grey_proto::schema::{
    CancelUpgradeRequest, GetDriftRequest, GetDriftResponse, GetHistoryRequest, GetHistoryResponse,
    GetUpgradeRequest, ListUpgradesRequest, ListUpgradesResponse, ProvisionRequest, ProvisionResponse,
    StartUpgradeRequest, Upgrade, WatchUpgradeRequest,
};
use grey_proto::status::ApiError;
use tonic::{Request, Response, Status};

/// Whom this service asks.
const PEER: Peer = Peer { name: "schema migrator", section: "migrator" };

/// A client of the migrator. Cheap to clone.
#[derive(Clone)]
pub struct Migrator {
    client: Client,
    schemas: SchemaServiceClient<Transport>,
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
        let client = Client::new(PEER, options)?;
        let schemas =
            SchemaServiceClient::new(client.transport()).max_decoding_message_size(MAX_ANSWER_BYTES);
        Ok(Some(Self { client, schemas }))
    }

    /// Queues an upgrade.
    pub(crate) async fn start(
        &self,
        caller: &Caller,
        request: StartUpgradeRequest,
    ) -> Result<Upgrade, ApiError> {
        let mut schemas = self.schemas.clone();
        let answer = self.ask(schemas.start_upgrade(on_behalf(caller, request))).await?;
        upgrade(answer.upgrade)
    }

    /// Queues the making of a tenant's database; or tells what would be made.
    pub(crate) async fn provision(
        &self,
        caller: &Caller,
        request: ProvisionRequest,
    ) -> Result<ProvisionResponse, ApiError> {
        let dry_run = request.dry_run;
        let mut schemas = self.schemas.clone();
        let answer = self.ask(schemas.provision(on_behalf(caller, request))).await?;
        if dry_run {
            return Ok(answer);
        }
        Ok(ProvisionResponse { upgrade: Some(upgrade(answer.upgrade)?), ..answer })
    }

    /// Reads one upgrade.
    pub(crate) async fn get(&self, caller: &Caller, id: String) -> Result<Upgrade, ApiError> {
        let mut schemas = self.schemas.clone();
        let answer = self.ask(schemas.get_upgrade(on_behalf(caller, GetUpgradeRequest { id }))).await?;
        upgrade(answer.upgrade)
    }

    /// Lists upgrades.
    pub(crate) async fn list(
        &self,
        caller: &Caller,
        request: ListUpgradesRequest,
    ) -> Result<ListUpgradesResponse, ApiError> {
        let mut schemas = self.schemas.clone();
        self.ask(schemas.list_upgrades(on_behalf(caller, request))).await
    }

    /// Stops an upgrade.
    pub(crate) async fn cancel(&self, caller: &Caller, id: String) -> Result<Upgrade, ApiError> {
        let mut schemas = self.schemas.clone();
        let answer = self.ask(schemas.cancel_upgrade(on_behalf(caller, CancelUpgradeRequest { id }))).await?;
        upgrade(answer.upgrade)
    }

    /// Reads what was done to a tenant's database.
    pub(crate) async fn history(
        &self,
        caller: &Caller,
        request: GetHistoryRequest,
    ) -> Result<GetHistoryResponse, ApiError> {
        let mut schemas = self.schemas.clone();
        self.ask(schemas.get_history(on_behalf(caller, request))).await
    }

    /// Compares a tenant's database with what its last upgrade has left.
    pub(crate) async fn drift(
        &self,
        caller: &Caller,
        request: GetDriftRequest,
    ) -> Result<GetDriftResponse, ApiError> {
        let mut schemas = self.schemas.clone();
        self.ask(schemas.get_drift(on_behalf(caller, request))).await
    }

    /// Follows an upgrade: whenever it changes, until it has ended.
    pub(crate) async fn watch(
        &self,
        caller: &Caller,
        id: String,
    ) -> Result<impl Stream<Item = Result<Upgrade, ApiError>> + Send + use<>, ApiError> {
        let mut schemas = self.schemas.clone();
        let answer = self.ask(schemas.watch_upgrade(on_behalf(caller, WatchUpgradeRequest { id }))).await?;
        let client = self.client.clone();
        Ok(answer.map(move |message| match message {
            Ok(message) => upgrade(message.upgrade),
            Err(status) => Err(told(&client, client.failure(&status))),
        }))
    }

    async fn ask<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, ApiError> {
        self.client.call(call).await.map_err(|error| told(&self.client, error))
    }
}

fn on_behalf<T>(caller: &Caller, message: T) -> Request<T> {
    on_behalf_of(&caller.principal(), message)
}

/// What the migrator refused, as callers may see it.
fn told(client: &Client, error: ApiError) -> ApiError {
    if error.reason == Reason::Unavailable {
        tracing::warn!(error = %error, "schema migrator did not answer");
    }
    client.for_callers(error)
}

fn upgrade(message: Option<Upgrade>) -> Result<Upgrade, ApiError> {
    message.filter(|upgrade| !upgrade.id.is_empty()).ok_or_else(|| {
        tracing::error!(error = %InvalidMessage::missing("upgrade"), "schema migrator answered something else");
        ApiError::new(Reason::Internal, "the schema migrator answered without an upgrade")
    })
}
