//! The design that decides in Redis: one script per call, keys as an operator would name them.

use super::only_route::{OnlyRoute, Route};
use super::{announce, loopback};
use crate::world::{self, World};
use anyhow::{Context as _, Result};
use grey_proto::router::router_service_server::RouterServiceServer;
use grey_proto::router::{DecisionReason, Instance, RouteRequest, RouteResponse};
use redis::aio::MultiplexedConnection;
use redis::{Client, Pipeline, Script};
use tonic::Status;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

const SCRIPT: &str = include_str!("route.lua");

struct Lua {
    redis: MultiplexedConnection,
    script: Script,
}

impl Route for Lua {
    async fn route(&self, request: RouteRequest) -> Result<RouteResponse, Status> {
        let mut call = self.script.arg(&request.tenant);
        call.arg(&request.service).arg("round_robin");
        let (id, version, _time): (String, String, String) = call
            .invoke_async(&mut self.redis.clone())
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let address = id.clone();
        Ok(RouteResponse {
            version,
            instance: Some(Instance { id, address, ..Instance::default() }),
            reason: DecisionReason::Pin.into(),
            ..RouteResponse::default()
        })
    }
}

/// Serves on the server of tonic's first example.
pub(super) async fn serve(redis: &str) -> Result<()> {
    let redis = Client::open(redis)?.get_multiplexed_async_connection().await.context("connect to redis")?;
    let service = RouterServiceServer::new(OnlyRoute(Lua { redis, script: Script::new(SCRIPT) }));
    let incoming = TcpIncoming::bind(loopback())?.with_nodelay(Some(true));
    announce(incoming.local_addr()?);
    Ok(Server::builder().add_service(service).serve_with_incoming(incoming).await?)
}

/// Writes a world under the keys that the script reads.
pub(crate) async fn fill(redis: &mut MultiplexedConnection, world: &World) -> Result<()> {
    let mut pipeline = Pipeline::new();
    for tenant in 0..world.tenants {
        let pins: Vec<_> =
            (0..world.services).map(|at| (World::service(at), world.pinned(tenant, at))).collect();
        pipeline.hset_multiple(format!("tenant:{}:services", World::tenant(tenant)), &pins).ignore();
    }
    for service in 0..world.services {
        for version in 0..world.versions {
            let name = World::service(service);
            let key = format!("service:{name}:version:{}:instances", world::version(version));
            for at in 0..world.instances {
                pipeline.sadd(&key, world::instance(service, version, at)?.id.as_str()).ignore();
            }
        }
    }
    pipeline.exec_async(redis).await.context("fill redis for the script")
}
