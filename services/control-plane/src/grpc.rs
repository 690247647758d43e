//! The operations over gRPC.

use std::pin::Pin;

use futures::{Stream, StreamExt};
use grey_proto::control::catalog_service_server::{CatalogService, CatalogServiceServer};
use grey_proto::control::database_service_server::{DatabaseService, DatabaseServiceServer};
use grey_proto::control::fleet_service_server::{FleetService, FleetServiceServer};
use grey_proto::control::history_service_server::{HistoryService, HistoryServiceServer};
use grey_proto::control::pin_service_server::{PinService, PinServiceServer};
use grey_proto::control::tenant_service_server::{TenantService, TenantServiceServer};
use grey_proto::control::{
    ApplyChangeSetRequest, ApplyChangeSetResponse, DeleteDatabaseRequest, DeleteDatabaseResponse,
    DeleteOverlayRequest, DeleteOverlayResponse, DeletePinRequest, DeletePinResponse, DeleteServiceRequest,
    DeleteServiceResponse, DeleteTenantRequest, DeleteTenantResponse, DeleteVersionRequest,
    DeleteVersionResponse, DismissRouterRequest, DismissRouterResponse, ExplainAtRequest, ExplainAtResponse,
    GetServiceRequest, GetServiceResponse, GetTenantRequest, GetTenantResponse, ListDatabasesRequest,
    ListDatabasesResponse, ListEventsRequest, ListEventsResponse, ListPinsRequest, ListPinsResponse,
    ListRoutersRequest, ListRoutersResponse, ListSealedDatabasesRequest, ListSealedDatabasesResponse,
    ListServicesRequest, ListServicesResponse, ListTenantsRequest, ListTenantsResponse, ObserveSchemaRequest,
    ObserveSchemaResponse, PromoteOverlayRequest, PromoteOverlayResponse, PutDatabaseRequest,
    PutDatabaseResponse, PutOverlayRequest, PutOverlayResponse, PutPinRequest, PutPinResponse,
    PutPinsRequest, PutPinsResponse, PutPolicyRequest, PutPolicyResponse, PutServiceRequest,
    PutServiceResponse, PutTenantRequest, PutTenantResponse, PutVersionRequest, PutVersionResponse,
    RotateKeysRequest, RotateKeysResponse, VerifyEventsRequest, VerifyEventsResponse, WaitForRoutersRequest,
    WaitForRoutersResponse, WatchEventsRequest, WatchEventsResponse,
};
use grey_proto::status::to_status;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::access::{Operation, admit};
use crate::api::Api;

/// Every service of the contract, each request at most `max_bytes` long.
pub(crate) fn routes(api: &Api, max_bytes: usize) -> Routes {
    let grpc = Grpc { api: api.clone() };
    Routes::new(TenantServiceServer::new(grpc.clone()).max_decoding_message_size(max_bytes))
        .add_service(CatalogServiceServer::new(grpc.clone()).max_decoding_message_size(max_bytes))
        .add_service(PinServiceServer::new(grpc.clone()).max_decoding_message_size(max_bytes))
        .add_service(DatabaseServiceServer::new(grpc.clone()).max_decoding_message_size(max_bytes))
        .add_service(HistoryServiceServer::new(grpc.clone()).max_decoding_message_size(max_bytes))
        .add_service(FleetServiceServer::new(grpc).max_decoding_message_size(max_bytes))
}

#[derive(Clone)]
struct Grpc {
    api: Api,
}

/// Answers each method by the operation and the function of the same name.
macro_rules! answer {
    ($service:ident { $($method:ident: $operation:ident($request:ident) -> $response:ident,)* } $($more:tt)*) => {
        #[tonic::async_trait]
        impl $service for Grpc {
            $(async fn $method(&self, request: Request<$request>) -> Result<Response<$response>, Status> {
                let caller = admit(request.extensions(), Operation::$operation)?;
                Ok(Response::new(self.api.$method(&caller, request.into_inner()).await?))
            })*
            $($more)*
        }
    };
}

answer! { TenantService {
    get_tenant: GetTenant(GetTenantRequest) -> GetTenantResponse,
    list_tenants: ListTenants(ListTenantsRequest) -> ListTenantsResponse,
    put_tenant: PutTenant(PutTenantRequest) -> PutTenantResponse,
    delete_tenant: DeleteTenant(DeleteTenantRequest) -> DeleteTenantResponse,
    observe_schema: ObserveSchema(ObserveSchemaRequest) -> ObserveSchemaResponse,
} }

answer! { CatalogService {
    get_service: GetService(GetServiceRequest) -> GetServiceResponse,
    list_services: ListServices(ListServicesRequest) -> ListServicesResponse,
    put_service: PutService(PutServiceRequest) -> PutServiceResponse,
    delete_service: DeleteService(DeleteServiceRequest) -> DeleteServiceResponse,
    put_version: PutVersion(PutVersionRequest) -> PutVersionResponse,
    delete_version: DeleteVersion(DeleteVersionRequest) -> DeleteVersionResponse,
    put_policy: PutPolicy(PutPolicyRequest) -> PutPolicyResponse,
    put_overlay: PutOverlay(PutOverlayRequest) -> PutOverlayResponse,
    delete_overlay: DeleteOverlay(DeleteOverlayRequest) -> DeleteOverlayResponse,
    promote_overlay: PromoteOverlay(PromoteOverlayRequest) -> PromoteOverlayResponse,
} }

answer! { PinService {
    list_pins: ListPins(ListPinsRequest) -> ListPinsResponse,
    put_pin: PutPin(PutPinRequest) -> PutPinResponse,
    delete_pin: DeletePin(DeletePinRequest) -> DeletePinResponse,
    put_pins: PutPins(PutPinsRequest) -> PutPinsResponse,
    apply_change_set: ApplyChangeSet(ApplyChangeSetRequest) -> ApplyChangeSetResponse,
} }

answer! { DatabaseService {
    put_database: PutDatabase(PutDatabaseRequest) -> PutDatabaseResponse,
    list_databases: ListDatabases(ListDatabasesRequest) -> ListDatabasesResponse,
    delete_database: DeleteDatabase(DeleteDatabaseRequest) -> DeleteDatabaseResponse,
    list_sealed_databases: ListSealedDatabases(ListSealedDatabasesRequest) -> ListSealedDatabasesResponse,
    rotate_keys: RotateKeys(RotateKeysRequest) -> RotateKeysResponse,
} }

answer! { FleetService {
    list_routers: ListRouters(ListRoutersRequest) -> ListRoutersResponse,
    wait_for_routers: WaitForRouters(WaitForRoutersRequest) -> WaitForRoutersResponse,
    dismiss_router: DismissRouter(DismissRouterRequest) -> DismissRouterResponse,
} }

type Events = Pin<Box<dyn Stream<Item = Result<WatchEventsResponse, Status>> + Send>>;

answer! { HistoryService {
    list_events: ListEvents(ListEventsRequest) -> ListEventsResponse,
    verify_events: VerifyEvents(VerifyEventsRequest) -> VerifyEventsResponse,
    explain_at: ExplainAt(ExplainAtRequest) -> ExplainAtResponse,
}
    type WatchEventsStream = Events;

    async fn watch_events(
        &self,
        request: Request<WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let caller = admit(request.extensions(), Operation::WatchEvents)?;
        let events = self.api.watch_events(&caller, request.into_inner()).await?;
        Ok(Response::new(events.map(|event| event.map_err(|error| to_status(&error))).boxed()))
    }
}
