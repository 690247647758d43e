//! The operations over gRPC.

use grey_proto::sync::sync_service_server::{SyncService, SyncServiceServer};
use grey_proto::sync::{
    AcceptRequest, AcceptResponse, GetStatusRequest, GetStatusResponse, TriggerRequest, TriggerResponse,
};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::{Desk, api};

/// The sync service, each request at most `max_bytes` long; to be served by [`grey_edge::Ports`] with a deadline of
/// [`REQUEST_TIMEOUT`](crate::REQUEST_TIMEOUT) at least.
#[must_use]
pub fn grpc(desk: &Desk, max_bytes: usize) -> Routes {
    Routes::new(SyncServiceServer::new(Grpc(desk.clone())).max_decoding_message_size(max_bytes))
}

struct Grpc(Desk);

#[tonic::async_trait]
impl SyncService for Grpc {
    async fn get_status(
        &self,
        request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        Ok(Response::new(api::get_status(&self.0, request.extensions()).await?))
    }

    async fn trigger(&self, request: Request<TriggerRequest>) -> Result<Response<TriggerResponse>, Status> {
        let (_, caller, asked) = request.into_parts();
        Ok(Response::new(api::trigger(&self.0, &caller, asked).await?))
    }

    async fn accept(&self, request: Request<AcceptRequest>) -> Result<Response<AcceptResponse>, Status> {
        let (_, caller, asked) = request.into_parts();
        Ok(Response::new(api::accept(&self.0, &caller, asked).await?))
    }
}
