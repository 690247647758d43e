//! The program as it is started in production.

use std::time::Duration;

use grey_core::error::Reason;
use grey_proto::router::router_service_client::RouterServiceClient;
use grey_state::State;
use grey_state::redis::Options;
use grey_testkit::{Redis, Spawned};
use tonic::transport::Channel;

use crate::world::{DEADLINE, World, call, connect, eventually, told, within};

const PROGRAM: &str = env!("CARGO_BIN_EXE_grey-router");

fn program(redis: &str, snapshot: &str) -> Spawned {
    Spawned::builder(PROGRAM)
        .env("GREY__GRPC__LISTEN", "127.0.0.1:0")
        .env("GREY__HTTP__LISTEN", "127.0.0.1:0")
        .env("GREY__REDIS__URLS", format!("[\"{redis}\"]"))
        .env("GREY__SNAPSHOT__FILE", snapshot)
        .env("GREY__SNAPSHOT__INTERVAL", "20ms")
        .start()
        .unwrap()
}

/// Connects to the gRPC port that the program logs.
async fn client(program: &Spawned) -> RouterServiceClient<Channel> {
    let line = program.wait_for_line("server.grpc=", DEADLINE).await.unwrap();
    let addr = line.split("server.grpc=").nth(1).unwrap().split(' ').next().unwrap();
    connect(addr.parse().unwrap()).await
}

async fn serves(client: &mut RouterServiceClient<Channel>) {
    eventually("the program serves", async || client.route(call("beta", "payment")).await.is_ok()).await;
}

#[tokio::test]
async fn program_serves_survives_kill_9_and_ends_on_sigterm() {
    let redis = Redis::start().await.unwrap();
    let state = State::redis(&Options { urls: vec![redis.url()], ..Options::default() }).await.unwrap();
    let world = World::on(state, 1).await.with_payment().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("router.snapshot");
    let first = program(&redis.url(), file.to_str().unwrap());
    serves(&mut client(&first).await).await;
    eventually("the snapshot is written", async || file.exists()).await;
    first.kill9().unwrap();

    redis.kill9().unwrap();
    let second = program(&redis.url(), file.to_str().unwrap());
    let mut client = client(&second).await;
    let answer = within(client.route(call("beta", "payment"))).await.unwrap().into_inner();
    assert_eq!((answer.version.as_str(), answer.stale), ("v2.0", true));
    assert_eq!(answer.revision, world.table.position().revision.0);
    let status = second.terminate(DEADLINE).await.unwrap();
    assert!(status.success(), "{status}: {}", second.output());
    assert_eq!(told(within(client.route(call("beta", "payment"))).await).reason, Reason::Unavailable);
}

#[tokio::test]
async fn faulty_configuration_is_refused_with_every_fault() {
    let program = Spawned::builder(PROGRAM)
        .env("GREY__GRPC__LISTN", "127.0.0.1:0")
        .env("GREY__FEED__HISTORY", "0")
        .env("GREY__HEARTBEAT__TTL", "1ms")
        .env("GREY__GRPC__SERVER__BODY_BUDGET_BYTES", "16777216")
        .env("GREY__HTTP__LIMITS__CONNECTION_WINDOW_BYTES", "1000")
        .env("GREY__REDIS__TURN_TIMEOUT_MS", "0")
        .env("GREY__ROUTER__ID", "no spaces")
        .start()
        .unwrap();
    let status = program.wait(DEADLINE).await.unwrap();
    assert!(!status.success());
    let output = program.output();
    for fault in [
        "listn",
        "feed.history",
        "heartbeat.ttl",
        "turn_timeout_ms",
        "router.id",
        "body_budget_bytes",
        "connection_window",
    ] {
        assert!(output.contains(fault), "{fault} is missing in {output}");
    }
}

#[tokio::test]
async fn every_setting_is_in_the_printed_reference() {
    let print = async |option: &str| {
        let program = Spawned::builder(PROGRAM)
            .arg(option)
            .env("GREY__SNAPSHOT__FILE", "/tmp/x")
            .env("GREY__TELEMETRY__OTLP_ENDPOINT", "http://x")
            .env("GREY__TELEMETRY__INSTANCE_ID", "x")
            .env("GREY__ACCESS__ALLOW_ANONYMOUS", "true")
            .start()
            .unwrap();
        assert!(program.wait(DEADLINE).await.unwrap().success());
        program.output()
    };
    let reference = print("--print-defaults").await;
    let config = print("--print-config").await;
    let keys: Vec<_> = config.lines().filter_map(|line| line.split_once(" = ")).map(|(key, _)| key).collect();
    assert!(keys.len() > 40, "{config}");
    for key in keys {
        let told =
            reference.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{key} = ")));
        assert!(told, "{key} is missing in the reference");
    }
}

#[tokio::test]
async fn port_beyond_this_machine_needs_tokens_or_a_clear_word() {
    let open = Spawned::builder(PROGRAM)
        .env("GREY__GRPC__LISTEN", "0.0.0.0:0")
        .env("GREY__HTTP__LISTEN", "127.0.0.1:0")
        .start()
        .unwrap();
    assert!(!open.wait(DEADLINE).await.unwrap().success());
    assert!(open.output().contains("allow_anonymous"), "{}", open.output());
    let stated = Spawned::builder(PROGRAM)
        .env("GREY__GRPC__LISTEN", "0.0.0.0:0")
        .env("GREY__HTTP__LISTEN", "127.0.0.1:0")
        .env("GREY__ACCESS__ALLOW_ANONYMOUS", "true")
        .start()
        .unwrap();
    stated.wait_for_line("server.grpc=", DEADLINE).await.unwrap();
    assert!(stated.terminate(DEADLINE + Duration::from_secs(1)).await.unwrap().success());
}
