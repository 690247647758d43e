//! A strict move with a router that is cut off in the middle: two versions never serve the tenant at the same time.

use crate::membership::{World, pin};
use crate::server::{DEADLINE, stage};
use grey_core::change::{Epoch, Position, Revision};
use grey_proto::control::pin_service_client::PinServiceClient;
use grey_proto::control::{Pin, PutPinRequest, PutPinResponse, RouterStatus, WriteOptions};
use grey_proto::router::RouteRequest;
use grey_proto::router::router_service_client::RouterServiceClient;
use grey_proto::status::from_status;
use grey_state::heartbeats::Heartbeat;
use grey_testkit::{Proxy, Redis, eventually};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Channel;

/// One answer to a call of acme: the version, or the reason of its refusal.
#[derive(Clone, Debug)]
struct Answer {
    asked: Instant,
    answered: Instant,
    said: String,
}

/// Asks a router for acme's version without pause.
struct Poll {
    answers: Arc<Mutex<Vec<Answer>>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

async fn ask(client: &mut RouterServiceClient<Channel>, tenant: &str) -> String {
    let call = RouteRequest { tenant: tenant.into(), service: "payment".into(), ..RouteRequest::default() };
    match client.route(call).await {
        Ok(answer) => answer.into_inner().version,
        Err(status) => from_status(&status).reason.as_str().to_owned(),
    }
}

impl Poll {
    fn start(channel: Channel) -> Self {
        let answers: Arc<Mutex<Vec<Answer>>> = Arc::default();
        let stop = CancellationToken::new();
        let (kept, stopped) = (Arc::clone(&answers), stop.clone());
        let task = tokio::spawn(async move {
            let mut client = RouterServiceClient::new(channel);
            while !stopped.is_cancelled() {
                let asked = Instant::now();
                let said = ask(&mut client, "acme").await;
                kept.lock().unwrap().push(Answer { asked, answered: Instant::now(), said });
            }
        });
        Self { answers, stop, task }
    }

    /// Waits until an answer to a call that was made from now on says so.
    async fn says(&self, wanted: &str) {
        let from = Instant::now();
        eventually(DEADLINE, &format!("the router says {wanted}"), async || {
            self.answers.lock().unwrap().iter().rev().any(|it| it.asked >= from && it.said == wanted)
        })
        .await;
    }

    async fn finish(self) -> Vec<Answer> {
        self.stop.cancel();
        self.task.await.unwrap();
        std::mem::take(&mut *self.answers.lock().unwrap())
    }
}

fn move_acme(world: &World, wait: Duration) -> JoinHandle<Result<PutPinResponse, Status>> {
    let mut pins = PinServiceClient::new(world.control.channel());
    let pin = Pin { version: "v2.0".into(), ..pin("acme") };
    let write = WriteOptions { wait: Some(wait.into()), ..WriteOptions::default() };
    let request =
        PutPinRequest { pin: Some(pin), write: Some(write), strict: true, ..PutPinRequest::default() };
    tokio::spawn(async move { pins.put_pin(request).await.map(tonic::Response::into_inner) })
}

/// A member that acknowledges what the test says, which is how the move is kept between prepare and flip.
async fn acknowledge(world: &World, revision: u64) {
    let beat = Heartbeat {
        router: "held-back".into(),
        run: 1,
        address: "127.0.0.1:1".into(),
        region: String::new(),
        zone: String::new(),
        position: Position { epoch: Epoch(1), revision: Revision(revision) },
        digest: 0,
        stale: false,
        lease: DEADLINE * 10,
        level: grey_core::change::FormatLevel::CURRENT,
    };
    world.state.heartbeats.beat(&beat).await.unwrap();
}

/// Where the log is, as the routers have it.
async fn reached(world: &World) -> u64 {
    world.routers().await.iter().map(|router| router.revision).max().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_is_cut_off_in_between_refuses_only_the_moved_tenant() {
    let _stage = stage().await;
    let redis = Redis::start().await.unwrap();
    let link = Proxy::start(redis.addr()).await.unwrap();
    let world = World::with(redis, &format!("redis://{}", link.addr())).await;
    let before = reached(&world).await;
    acknowledge(&world, before).await;
    let (a, b) = (Poll::start(world.a.channel()), Poll::start(world.b.channel()));
    a.says("v1.0").await;
    b.says("v1.0").await;

    // Not acknowledged by everyone: taken back, and said who is missing.
    let refused = from_status(&move_acme(&world, Duration::from_secs(1)).await.unwrap().unwrap_err());
    assert_eq!(refused.reason.as_str(), "ROUTERS_BEHIND");
    assert!(refused.get("routers").unwrap().contains("held-back"), "{refused:?}");
    a.says("v1.0").await;
    b.says("v1.0").await;

    let before = reached(&world).await;
    acknowledge(&world, before).await;
    let moving = move_acme(&world, DEADLINE);
    a.says("TENANT_MOVING").await;
    b.says("TENANT_MOVING").await;
    world.until("b", RouterStatus::Applied).await;
    link.cut().await.unwrap();
    acknowledge(&world, before + 1).await;
    a.says("v2.0").await;
    acknowledge(&world, before + 2).await;

    // Cut off, and for longer than its lease: it serves everyone else, and says that it is not current.
    world.until("b", RouterStatus::Unreachable).await;
    let mut client = RouterServiceClient::new(world.b.channel());
    let call = RouteRequest { tenant: "beta".into(), service: "payment".into(), ..RouteRequest::default() };
    eventually(DEADLINE, "its answers are marked", async || {
        client.clone().route(call.clone()).await.unwrap().into_inner().stale
    })
    .await;
    assert_eq!(ask(&mut client, "acme").await, "TENANT_MOVING");
    assert_eq!(ask(&mut client, "beta").await, "v1.0");
    let ready = reqwest::get(format!("http://{}/health/ready", world.b.http)).await.unwrap();
    assert!(ready.status().is_success(), "it stays ready");

    link.heal().await.unwrap();
    b.says("v2.0").await;
    let moved = moving.await.unwrap().unwrap();
    assert_eq!(moved.pin.unwrap().version, "v2.0");

    let answers = [a.finish().await, b.finish().await].concat();
    let of = |version: &'static str| answers.iter().filter(move |answer| answer.said == version);
    let last_old = of("v1.0").map(|answer| answer.asked).max().unwrap();
    let first_new = of("v2.0").map(|answer| answer.answered).min().unwrap();
    assert!(last_old < first_new, "two versions served at the same time");
    let odd = answers.iter().find(|it| !["v1.0", "v2.0", "TENANT_MOVING"].contains(&it.said.as_str()));
    assert!(odd.is_none(), "{odd:?}");
}
