//! Replicas of the program itself, on a real Redis.

use std::time::Duration;

use grey_proto::control::TenantStatus::Suspended;
use grey_proto::sync::sync_service_client::SyncServiceClient;
use grey_proto::sync::{GetStatusRequest, SyncStatus, TriggerRequest};
use grey_testkit::{Redis, Spawned, eventually};
use tonic::transport::{Channel, Endpoint};

use crate::upstream::{Upstream, tenants};
use crate::world::{Plane, SOON};

struct Program {
    process: Spawned,
    name: &'static str,
    grpc: SyncServiceClient<Channel>,
}

impl Program {
    /// It syncs by itself every `interval`.
    async fn start(
        name: &'static str,
        interval: &str,
        redis: &Redis,
        (upstream, plane): (&Upstream, &Plane),
    ) -> Self {
        let process = Spawned::builder(env!("CARGO_BIN_EXE_grey-tenant-sync"))
            .env("GREY__REPLICA", name)
            .env("GREY__REDIS__URLS", format!("[\"{}\"]", redis.url()))
            .env("GREY__GRPC__LISTEN", "127.0.0.1:0")
            .env("GREY__HTTP__LISTEN", "127.0.0.1:0")
            .env("GREY__SOURCE__URL", upstream.url())
            .env("GREY__CONTROL__URL", plane.url())
            .env("GREY__APPLY__BATCH", "20")
            .env("GREY__LEASE__TTL", "4s")
            .env("GREY__TOMBSTONE__RECHECK", "1s")
            .env("GREY__SYNC__INTERVAL", interval)
            .env("GREY__SYNC__RETRY", "100ms")
            .env("GREY__SYNC__MIN_GAP", "100ms")
            .start()
            .unwrap();
        let line = process.wait_for_line("grpc.address", SOON).await.unwrap();
        let address = line.split("grpc.address=").nth(1).unwrap().split(' ').next().unwrap();
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
        Self { process, name, grpc: SyncServiceClient::new(channel) }
    }

    async fn status(&self) -> SyncStatus {
        self.grpc.clone().get_status(GetStatusRequest {}).await.unwrap().into_inner().status.unwrap()
    }

    async fn trigger(&self) -> String {
        let request = TriggerRequest { wait: Some(SOON.into()) };
        self.grpc.clone().trigger(request).await.unwrap().into_inner().handled.unwrap().error
    }
}

/// Who leads, as both see it, once one does that is not `gone`.
async fn leader(programs: [&Program; 2], gone: &str) -> (usize, usize) {
    let mut found = None;
    eventually(SOON, "a replica leads", async || {
        let status = programs[0].status().await;
        found = programs.iter().position(|program| program.name == status.leader && program.name != gone);
        found.is_some()
    })
    .await;
    let leader = found.unwrap();
    (leader, 1 - leader)
}

#[tokio::test]
async fn another_replica_goes_on_where_a_killed_leader_was() {
    let (redis, upstream, plane) =
        (Redis::start().await.unwrap(), Upstream::start().await, Plane::start().await);
    upstream.list(&tenants(0..2_000));
    let one = Program::start("one", "10m", &redis, (&upstream, &plane)).await;
    let two = Program::start("two", "10m", &redis, (&upstream, &plane)).await;
    let programs = [&one, &two];
    let (first, second) = leader(programs, "").await;
    eventually(SOON, "some batches are applied", async || plane.revision().await >= 5).await;
    programs[first].process.kill9().unwrap();
    let cut = plane.all().await.len();
    assert!(cut < 2_000 && cut % 20 == 0, "{cut} tenants");

    let survivor = programs[second];
    eventually(SOON, "the rest is brought over", async || plane.all().await.len() == 2_000).await;
    assert_eq!(plane.revision().await, 100, "nothing was written twice");
    leader([survivor, survivor], programs[first].name).await;

    // And everything else goes on: a tenant that is gone is missed, looked for again, and suspended.
    eventually(SOON, "the sync has ended", async || !survivor.status().await.runs.is_empty()).await;
    upstream.list(&tenants(1..2_000));
    assert_eq!(survivor.trigger().await, "");
    eventually(SOON, "the tenant is suspended", async || plane.status("t000000").await == Suspended).await;
    let ended = survivor.process.terminate(SOON).await.unwrap();
    assert!(ended.success(), "{}", survivor.process.output());
    plane.stop().await;
}

#[tokio::test]
async fn a_leader_that_cannot_reach_redis_stops_until_it_can() {
    let (redis, upstream, plane) =
        (Redis::start().await.unwrap(), Upstream::start().await, Plane::start().await);
    let program = Program::start("one", "100ms", &redis, (&upstream, &plane)).await;
    let mut readings = 0;
    eventually(SOON, "it reads again and again", async || {
        readings += upstream.statuses().len();
        readings > 3
    })
    .await;
    redis.pause().unwrap();
    program.process.wait_for_line("no longer leading", SOON).await.unwrap();
    upstream.statuses();
    // Time for many a reading; one may have been under way.
    let quiet = tokio::time::timeout(Duration::from_secs(2), std::future::pending::<()>()).await;
    assert!(quiet.is_err() && upstream.statuses().len() <= 1, "it went on without leading");
    upstream.list(&tenants(0..10));
    redis.resume().unwrap();
    eventually(SOON, "it leads again", async || plane.all().await.len() == 10).await;
    program.process.terminate(SOON).await.unwrap();
    plane.stop().await;
}
