//! The operations of `grey.schema.v1`, and who may ask for them.

mod baseline;
mod history;
mod provision;
mod repair;
mod schemas;
mod start;
mod upgrades;
mod views;

use crate::jobs::Queue;
use crate::prepare::{Grounds, invalid};
use futures::{Stream, StreamExt};
use grey_core::ids::{ServiceId, TenantId};
use grey_core::text::{NOT_PLAIN, is_plain};
use grey_edge::{Role, admit};
use grey_proto::schema::schema_service_server::{SchemaService, SchemaServiceServer};
use grey_proto::schema::{
    AcceptDriftRequest, AcceptDriftResponse, AcceptFileRequest, AcceptFileResponse, BaselineRequest,
    BaselineResponse, CancelUpgradeRequest, CancelUpgradeResponse, DropViewsRequest, DropViewsResponse,
    GetDriftRequest, GetDriftResponse, GetHistoryRequest, GetHistoryResponse, GetJournalRequest,
    GetJournalResponse, GetUpgradeRequest, GetUpgradeResponse, ListSchemasRequest, ListSchemasResponse,
    ListUpgradesRequest, ListUpgradesResponse, ListViewsRequest, ListViewsResponse, PlanRequest,
    PlanResponse, ProvisionRequest, ProvisionResponse, RepairRequest, RepairResponse, RollbackRequest,
    RollbackResponse, StartUpgradeRequest, StartUpgradeResponse, StartUpgradesRequest, StartUpgradesResponse,
    SwitchViewsRequest, SwitchViewsResponse, ValidateRequest, ValidateResponse, WatchUpgradeRequest,
    WatchUpgradeResponse,
};
use grey_proto::status::{ApiError, to_status};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

/// Most bytes of a reason.
const MAX_REASON: usize = 500;

/// Most tenants of one request.
const MAX_TENANTS: usize = 1_000;

/// What the operations work on. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    queue: Queue,
    grounds: Grounds,
    settings: Settings,
    watchers: Arc<Semaphore>,
    draining: CancellationToken,
}

/// What bounds the operations.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whether backups can be made.
    pub backups: bool,
    /// Connections to tenants' databases that one request opens at the same time.
    pub fleet_concurrency: usize,
    /// The longest time that an upgrade may be given.
    pub max_timeout: Duration,
    /// How often an upgrade that another replica runs is looked at.
    pub poll: Duration,
    /// Streams that are open at the same time.
    pub max_watchers: usize,
}

impl Api {
    /// Streams end when `draining` begins.
    #[must_use]
    pub fn new(queue: Queue, grounds: Grounds, settings: Settings, draining: CancellationToken) -> Self {
        let watchers = Arc::new(Semaphore::new(settings.max_watchers));
        Self { queue, grounds, settings, watchers, draining }
    }

    /// The service, each request at most `max_bytes` long.
    #[must_use]
    pub fn routes(&self, max_bytes: usize) -> Routes {
        Routes::new(SchemaServiceServer::new(self.clone()).max_decoding_message_size(max_bytes))
    }
}

fn tenant_id(text: &str) -> Result<TenantId, ApiError> {
    TenantId::new(text).map_err(|error| invalid("tenant", error))
}

fn service_id(text: &str) -> Result<ServiceId, ApiError> {
    ServiceId::new(text).map_err(|error| invalid("service", error))
}

fn page_size(asked: u32) -> Result<u32, ApiError> {
    match asked {
        0 => Ok(100),
        1..=1_000 => Ok(asked),
        _ => Err(invalid("page_size", "must be at most 1000")),
    }
}

fn reason(text: &str) -> Result<String, ApiError> {
    if text.len() > MAX_REASON {
        return Err(invalid("reason", format!("must have at most {MAX_REASON} bytes")));
    }
    if !is_plain(text) {
        return Err(invalid("reason", NOT_PLAIN));
    }
    Ok(text.to_owned())
}

type Changes = Pin<Box<dyn Stream<Item = Result<WatchUpgradeResponse, Status>> + Send>>;

/// Answers each method by the function of the same name.
macro_rules! answer {
    ($($method:ident: $role:ident, $what:literal, ($request:ident) -> $response:ident,)* ; $($more:tt)*) => {
        #[tonic::async_trait]
        impl SchemaService for Api {
            $(async fn $method(&self, request: Request<$request>) -> Result<Response<$response>, Status> {
                let asker = admit(request.extensions(), Role::$role, $what)?;
                let answer = Box::pin(self.$method(&asker, request.into_inner())).await?;
                Ok(Response::new(answer))
            })*
            $($more)*
        }
    };
}

answer! {
    plan: Viewer, "plan upgrades", (PlanRequest) -> PlanResponse,
    start_upgrade: Operator, "upgrade databases", (StartUpgradeRequest) -> StartUpgradeResponse,
    start_upgrades: Operator, "upgrade databases", (StartUpgradesRequest) -> StartUpgradesResponse,
    provision: Admin, "provision databases", (ProvisionRequest) -> ProvisionResponse,
    rollback: Operator, "undo migrations", (RollbackRequest) -> RollbackResponse,
    get_upgrade: Viewer, "read upgrades", (GetUpgradeRequest) -> GetUpgradeResponse,
    list_upgrades: Viewer, "list upgrades", (ListUpgradesRequest) -> ListUpgradesResponse,
    cancel_upgrade: Operator, "cancel upgrades", (CancelUpgradeRequest) -> CancelUpgradeResponse,
    list_schemas: Viewer, "list schemas", (ListSchemasRequest) -> ListSchemasResponse,
    validate: Viewer, "check migrations", (ValidateRequest) -> ValidateResponse,
    baseline: Operator, "declare baselines", (BaselineRequest) -> BaselineResponse,
    get_journal: Viewer, "read journals", (GetJournalRequest) -> GetJournalResponse,
    repair: Operator, "repair histories", (RepairRequest) -> RepairResponse,
    accept_file: Operator, "accept changed files", (AcceptFileRequest) -> AcceptFileResponse,
    get_history: Viewer, "read histories", (GetHistoryRequest) -> GetHistoryResponse,
    get_drift: Viewer, "compare databases", (GetDriftRequest) -> GetDriftResponse,
    accept_drift: Operator, "accept what databases are like", (AcceptDriftRequest) -> AcceptDriftResponse,
    list_views: Viewer, "list schemas of views", (ListViewsRequest) -> ListViewsResponse,
    switch_views: Operator, "switch views", (SwitchViewsRequest) -> SwitchViewsResponse,
    drop_views: Operator, "drop views", (DropViewsRequest) -> DropViewsResponse, ;

    type WatchUpgradeStream = Changes;

    async fn watch_upgrade(
        &self,
        request: Request<WatchUpgradeRequest>,
    ) -> Result<Response<Self::WatchUpgradeStream>, Status> {
        admit(request.extensions(), Role::Viewer, "follow upgrades")?;
        let changes = self.follow(request.into_inner()).await?;
        let told = |change: Result<_, ApiError>| {
            let upgrade = change.map_err(|error| to_status(&error))?;
            Ok(WatchUpgradeResponse { upgrade: Some(upgrade) })
        };
        Ok(Response::new(changes.map(told).boxed()))
    }
}
