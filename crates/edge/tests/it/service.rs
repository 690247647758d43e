//! A service behind the two ports that tells who calls.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use grey_core::error::Reason;
use grey_edge::client::{self, Client, Peer};
use grey_edge::{Port, Ports, Role, Serving, admit};
use grey_proto::control::fleet_service_client::FleetServiceClient;
use grey_proto::control::fleet_service_server::{FleetService, FleetServiceServer};
use grey_proto::control::{
    DismissRouterRequest, DismissRouterResponse, ListRoutersRequest, ListRoutersResponse, RouterState,
    WaitForRoutersRequest, WaitForRoutersResponse,
};
use grey_proto::status::ApiError;
use grey_runtime::access::{self, Token, TokenHash};
use grey_runtime::server::http::Limits;
use grey_runtime::{Health, Secret, Shutdown, Telemetry, telemetry, tls};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

/// Longer than anything here takes on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// The token that is known.
pub(crate) const TOKEN: &str = "open-sesame";

/// Tells who calls; never answers those who wait for a revision, and refuses those who wait for none.
struct Who;

#[tonic::async_trait]
impl FleetService for Who {
    async fn list_routers(
        &self,
        request: Request<ListRoutersRequest>,
    ) -> Result<Response<ListRoutersResponse>, Status> {
        let caller = admit(request.extensions(), Role::Admin, "ask")?;
        let router = RouterState { id: caller.to_string(), ..RouterState::default() };
        Ok(Response::new(ListRoutersResponse { routers: vec![router], fault: String::new() }))
    }

    async fn wait_for_routers(
        &self,
        request: Request<WaitForRoutersRequest>,
    ) -> Result<Response<WaitForRoutersResponse>, Status> {
        if request.get_ref().revision > 0 {
            std::future::pending::<()>().await;
        }
        Err(ApiError::new(Reason::InUse, "not now").with("by", "someone").into())
    }

    async fn dismiss_router(
        &self,
        _: Request<DismissRouterRequest>,
    ) -> Result<Response<DismissRouterResponse>, Status> {
        Err(Status::unimplemented("nobody asks for it here"))
    }
}

/// Serves it until the test ends; callers need a token.
pub(crate) async fn start(tls: Option<&tls::ServerOptions>) -> SocketAddr {
    start_with(tls, Limits::default()).await
}

/// The same with these limits.
pub(crate) async fn start_with(tls: Option<&tls::ServerOptions>, limits: Limits) -> SocketAddr {
    tls::install_provider();
    let port = Port { listen: "127.0.0.1:0".parse().unwrap(), limits };
    let (name, role) = ("ann".to_owned(), "admin".to_owned());
    let access = access::Options {
        tokens: vec![Token { name, role, sha256: TokenHash::of(TOKEN) }],
        ..access::Options::default()
    };
    let ports = Ports::bind(&port, &port, &access, tls).await.unwrap();
    let addr = ports.grpc_addr();
    let options = telemetry::Options { log_filter: "error".to_owned(), ..telemetry::Options::default() };
    let serving = Serving {
        grpc: Routes::new(FleetServiceServer::new(Who)),
        rest: Router::new(),
        health: Health::new(),
        telemetry: Telemetry::start("grey-edge", &options).unwrap(),
        deadline: SOON,
        grace: Duration::ZERO,
    };
    tokio::spawn(async move { ports.serve(serving, &Shutdown::new()).await });
    addr
}

/// How it is called.
pub(crate) fn options(url: &str, token: &str, tls: Option<tls::ClientOptions>) -> client::Options {
    let (url, token) = (url.to_owned(), Secret::new(token));
    client::Options { url, token, tls, connect_timeout: SOON, timeout: SOON }
}

pub(crate) fn client(options: &client::Options) -> Client {
    Client::new(Peer { name: "fleet", section: "peer" }, options).unwrap()
}

/// Asks it who calls.
pub(crate) async fn ask(options: &client::Options) -> Result<String, ApiError> {
    let client = client(options);
    let mut fleet = FleetServiceClient::new(client.transport());
    let answer = client.call(fleet.list_routers(ListRoutersRequest::default())).await?;
    Ok(answer.routers.into_iter().next().unwrap().id)
}
