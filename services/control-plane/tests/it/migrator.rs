//! A schema migrator that answers what a test tells it to, and keeps what it was asked.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};

use futures::{Stream, StreamExt};
use grey_proto::schema::schema_service_server::{SchemaService, SchemaServiceServer};
use grey_proto::schema::{
    AcceptDriftRequest, AcceptDriftResponse, AcceptFileRequest, AcceptFileResponse, BaselineRequest,
    BaselineResponse, CancelUpgradeRequest, CancelUpgradeResponse, DriftDifference, DropViewsRequest,
    DropViewsResponse, GetDriftRequest, GetDriftResponse, GetHistoryRequest, GetHistoryResponse,
    GetJournalRequest, GetJournalResponse, GetUpgradeRequest, GetUpgradeResponse, HistoryEntry,
    HistoryOutcome, ListSchemasRequest, ListSchemasResponse, ListUpgradesRequest, ListUpgradesResponse,
    ListViewsRequest, ListViewsResponse, PlanRequest, PlanResponse, Provision, ProvisionRequest,
    ProvisionResponse, RepairRequest, RepairResponse, RollbackRequest, RollbackResponse, StartUpgradeRequest,
    StartUpgradeResponse, StartUpgradesRequest, StartUpgradesResponse, SwitchViewsRequest,
    SwitchViewsResponse, Upgrade, UpgradeState, ValidateRequest, ValidateResponse, WatchUpgradeRequest,
    WatchUpgradeResponse,
};
use grey_proto::status::ApiError;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// Where nothing listens.
const NOWHERE: &str = "http://127.0.0.1:1";

/// What it was asked and by whom, and what it will answer.
#[derive(Default)]
pub(crate) struct Script {
    /// Every upgrade that was asked for.
    pub started: Vec<StartUpgradeRequest>,
    /// Every database that was asked for.
    pub provisioned: Vec<ProvisionRequest>,
    /// Every listing that was asked for.
    pub listed: Vec<ListUpgradesRequest>,
    /// Whom it heard of, in which role, and with which token, call by call.
    pub callers: Vec<[String; 3]>,
    /// What the next calls are refused with.
    pub refusals: VecDeque<ApiError>,
    /// It never answers.
    pub hangs: bool,
    /// What the next watcher is told.
    pub watched: Option<mpsc::Receiver<Result<Upgrade, ApiError>>>,
}

/// The migrator.
pub(crate) struct Migrator {
    pub url: String,
    script: Arc<Mutex<Script>>,
    _serving: DropGuard,
}

#[derive(Clone)]
struct Answers(Arc<Mutex<Script>>);

/// The upgrade of acme's payment database.
pub(crate) fn upgrade(id: &str, state: UpgradeState) -> Upgrade {
    let (tenant, service) = ("acme".to_owned(), "payment".to_owned());
    Upgrade { id: id.to_owned(), tenant, service, state: state.into(), ..Upgrade::default() }
}

impl Migrator {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let script = Arc::new(Mutex::new(Script::default()));
        let stop = CancellationToken::new();
        let server = Server::builder().add_service(SchemaServiceServer::new(Answers(Arc::clone(&script))));
        let stopped = stop.clone().cancelled_owned();
        tokio::spawn(async move {
            tokio::select! {
                served = server.serve_with_incoming(TcpIncoming::from(listener)) => served.unwrap(),
                () = stopped => {}
            }
        });
        Self { url, script, _serving: stop.drop_guard() }
    }

    /// The same where nobody answers.
    pub(crate) fn gone(self) -> Self {
        Self { url: NOWHERE.to_owned(), ..self }
    }

    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    /// Refuses the next call.
    pub(crate) fn refuse(&self, refusal: ApiError) {
        self.script().refusals.push_back(refusal);
    }

    /// Tells the next watcher what is sent.
    pub(crate) fn watched(&self) -> mpsc::Sender<Result<Upgrade, ApiError>> {
        let (sender, receiver) = mpsc::channel(16);
        self.script().watched = Some(receiver);
        sender
    }
}

impl Answers {
    /// Notes the call, and refuses it if a test wants so.
    async fn take<T>(&self, request: Request<T>, note: impl FnOnce(&mut Script, &T)) -> Result<T, Status> {
        let header = |name| request.metadata().get(name).map(|value| value.to_str().unwrap().to_owned());
        let caller = ["x-grey-principal", "x-grey-principal-role", "authorization"]
            .map(|name| header(name).unwrap_or_default());
        let message = request.into_inner();
        let (hangs, refusal) = {
            let mut script = self.0.lock().unwrap();
            script.callers.push(caller);
            note(&mut script, &message);
            (script.hangs, script.refusals.pop_front())
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        refusal.map_or(Ok(message), |refusal| Err(refusal.into()))
    }
}

type Upgrades = Pin<Box<dyn Stream<Item = Result<WatchUpgradeResponse, Status>> + Send>>;

#[tonic::async_trait]
impl SchemaService for Answers {
    type WatchUpgradeStream = Upgrades;

    async fn start_upgrade(
        &self,
        request: Request<StartUpgradeRequest>,
    ) -> Result<Response<StartUpgradeResponse>, Status> {
        self.take(request, |script, asked| script.started.push(asked.clone())).await?;
        let upgrade = Some(upgrade("up-1", UpgradeState::Queued));
        Ok(Response::new(StartUpgradeResponse { upgrade }))
    }

    async fn provision(
        &self,
        request: Request<ProvisionRequest>,
    ) -> Result<Response<ProvisionResponse>, Status> {
        let asked = self.take(request, |script, asked| script.provisioned.push(asked.clone())).await?;
        let provision = Some(Provision { site: asked.site, ..Provision::default() });
        let upgrade = (!asked.dry_run).then(|| upgrade("up-1", UpgradeState::Queued));
        Ok(Response::new(ProvisionResponse { provision, plan: None, upgrade }))
    }

    async fn get_upgrade(
        &self,
        request: Request<GetUpgradeRequest>,
    ) -> Result<Response<GetUpgradeResponse>, Status> {
        let asked = self.take(request, |_, _| {}).await?;
        let upgrade = Some(upgrade(&asked.id, UpgradeState::Running));
        Ok(Response::new(GetUpgradeResponse { upgrade }))
    }

    async fn list_upgrades(
        &self,
        request: Request<ListUpgradesRequest>,
    ) -> Result<Response<ListUpgradesResponse>, Status> {
        self.take(request, |script, asked| script.listed.push(asked.clone())).await?;
        let upgrades = vec![upgrade("up-2", UpgradeState::Failed), upgrade("up-1", UpgradeState::Succeeded)];
        Ok(Response::new(ListUpgradesResponse { upgrades, next_page_token: "more".to_owned() }))
    }

    async fn watch_upgrade(
        &self,
        request: Request<WatchUpgradeRequest>,
    ) -> Result<Response<Upgrades>, Status> {
        self.take(request, |_, _| {}).await?;
        let watched = self.0.lock().unwrap().watched.take().unwrap();
        let upgrades = futures::stream::unfold(watched, async |mut watched| {
            let told = watched.recv().await?;
            let told = told.map(|upgrade| WatchUpgradeResponse { upgrade: Some(upgrade) });
            Some((told.map_err(Status::from), watched))
        });
        Ok(Response::new(upgrades.boxed()))
    }

    async fn cancel_upgrade(
        &self,
        request: Request<CancelUpgradeRequest>,
    ) -> Result<Response<CancelUpgradeResponse>, Status> {
        let asked = self.take(request, |_, _| {}).await?;
        let upgrade = Upgrade { cancelling: true, ..upgrade(&asked.id, UpgradeState::Running) };
        Ok(Response::new(CancelUpgradeResponse { upgrade: Some(upgrade) }))
    }

    async fn plan(&self, _: Request<PlanRequest>) -> Result<Response<PlanResponse>, Status> {
        Err(unasked())
    }

    async fn start_upgrades(
        &self,
        _: Request<StartUpgradesRequest>,
    ) -> Result<Response<StartUpgradesResponse>, Status> {
        Err(unasked())
    }

    async fn rollback(&self, _: Request<RollbackRequest>) -> Result<Response<RollbackResponse>, Status> {
        Err(unasked())
    }

    async fn list_schemas(
        &self,
        _: Request<ListSchemasRequest>,
    ) -> Result<Response<ListSchemasResponse>, Status> {
        Err(unasked())
    }

    async fn validate(&self, _: Request<ValidateRequest>) -> Result<Response<ValidateResponse>, Status> {
        Err(unasked())
    }

    async fn baseline(&self, _: Request<BaselineRequest>) -> Result<Response<BaselineResponse>, Status> {
        Err(unasked())
    }

    async fn get_journal(
        &self,
        _: Request<GetJournalRequest>,
    ) -> Result<Response<GetJournalResponse>, Status> {
        Err(unasked())
    }

    async fn repair(&self, _: Request<RepairRequest>) -> Result<Response<RepairResponse>, Status> {
        Err(unasked())
    }

    async fn accept_file(
        &self,
        _: Request<AcceptFileRequest>,
    ) -> Result<Response<AcceptFileResponse>, Status> {
        Err(unasked())
    }

    async fn get_history(
        &self,
        request: Request<GetHistoryRequest>,
    ) -> Result<Response<GetHistoryResponse>, Status> {
        let GetHistoryRequest { tenant, service } = self.take(request, |_, _| {}).await?;
        let outcome = HistoryOutcome::Applied.into();
        let entries = vec![HistoryEntry { outcome, ..HistoryEntry::default() }];
        Ok(Response::new(GetHistoryResponse { tenant, service, entries, ..GetHistoryResponse::default() }))
    }

    async fn get_drift(
        &self,
        request: Request<GetDriftRequest>,
    ) -> Result<Response<GetDriftResponse>, Status> {
        let GetDriftRequest { tenant, service } = self.take(request, |_, _| {}).await?;
        let differences = vec![DriftDifference { object: "notes".to_owned(), ..DriftDifference::default() }];
        Ok(Response::new(GetDriftResponse { tenant, service, differences, ..GetDriftResponse::default() }))
    }

    async fn accept_drift(
        &self,
        _: Request<AcceptDriftRequest>,
    ) -> Result<Response<AcceptDriftResponse>, Status> {
        Err(unasked())
    }

    async fn list_views(&self, _: Request<ListViewsRequest>) -> Result<Response<ListViewsResponse>, Status> {
        Err(unasked())
    }

    async fn switch_views(
        &self,
        _: Request<SwitchViewsRequest>,
    ) -> Result<Response<SwitchViewsResponse>, Status> {
        Err(unasked())
    }

    async fn drop_views(&self, _: Request<DropViewsRequest>) -> Result<Response<DropViewsResponse>, Status> {
        Err(unasked())
    }
}

fn unasked() -> Status {
    Status::unimplemented("the control plane does not ask this")
}
