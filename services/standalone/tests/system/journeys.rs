//! Faults under load: no wrong answer, no lost command, no failed call where a router lives.

use crate::fleet::Fleet;
use crate::load::Load;
use crate::model::{self, Answer};
use crate::operator::{Operator, check_acknowledged};
use crate::server::{DEADLINE, stage};
use grey_proto::control::ListRoutersRequest;
use grey_proto::control::fleet_service_client::FleetServiceClient;
use grey_testkit::eventually;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

/// Connections to each router, and the pause between calls of one: 2,500 calls a second over both.
const CONNECTIONS: usize = 25;
const PAUSE: Duration = Duration::from_millis(20);

async fn until_routers_caught_up(fleet: &Fleet) {
    let mut client = FleetServiceClient::new(fleet.control.channel());
    let events = model::read_log(fleet.control.channel()).await;
    let head = events.last().unwrap().revision;
    let client = Mutex::new(&mut client);
    eventually(DEADLINE, "both routers have applied the log", async || {
        let mut asking = client.lock().unwrap().clone();
        let Ok(answer) = asking.list_routers(ListRoutersRequest::default()).await else { return false };
        let routers = answer.into_inner().routers;
        routers.len() >= 2 && routers.iter().all(|r| r.revision >= head)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_under_load_cause_no_wrong_answer_and_lose_no_command() {
    let _stage = stage().await;
    let mut fleet = Fleet::start().await;
    let a = Load::start(&fleet.routers[0].grpc, CONNECTIONS, PAUSE);
    let b = Load::start(&fleet.routers[1].grpc, CONNECTIONS, PAUSE);
    let operator = Operator::start(fleet.control.channel());
    operator.until_more(50).await;

    eprintln!("kill -9 of Redis, restarted empty");
    fleet.redis.kill9().unwrap();
    operator.until_more(20).await;
    fleet.redis.restart_empty().await.unwrap();
    fleet.until_mirrored().await;
    operator.until_more(20).await;
    until_routers_caught_up(&fleet).await;

    eprintln!("kill -9 of Redis, restarted from an older dump");
    let dump = fleet.redis.save_dump().await.unwrap();
    operator.until_more(50).await;
    fleet.redis.kill9().unwrap();
    fleet.redis.restart_from_dump(&dump).await.unwrap();
    operator.until_more(20).await;
    until_routers_caught_up(&fleet).await;

    eprintln!("kill -9 of the registry mirror, and of Redis while it is gone");
    fleet.mirror.kill9();
    operator.until_more(20).await;
    fleet.redis.kill9().unwrap();
    fleet.redis.restart_empty().await.unwrap();
    fleet.mirror.start();
    fleet.until_mirrored().await;
    until_routers_caught_up(&fleet).await;

    for round in 0..3 {
        eprintln!("kill -9 of the control plane in the middle of commands, round {round}");
        operator.until_more(20).await;
        fleet.control.kill9();
        fleet.control.start();
        fleet.control.until_ready().await;
        operator.until_more(20).await;
    }
    until_routers_caught_up(&fleet).await;
    assert_eq!(a.failures(), Vec::<String>::new(), "no call fails while Redis or the control plane is away");
    assert_eq!(b.failures(), Vec::<String>::new(), "no call fails while Redis or the control plane is away");

    eprintln!("kill -9 of a router");
    fleet.routers[1].kill9();
    let before = a.calls();
    operator.until_more(50).await;
    eventually(DEADLINE, "the other router goes on", async || a.calls() > before + 500).await;
    fleet.routers[1].start();
    fleet.routers[1].until_ready().await;
    until_routers_caught_up(&fleet).await;

    let acknowledged = operator.finish().await;
    assert_eq!(a.failures(), Vec::<String>::new(), "no call fails on the surviving router");
    let (mut answers, rate_a) = a.finish().await;
    let (answers_b, rate_b) = b.finish().await;
    answers.extend(answers_b);
    let events = model::read_log(fleet.control.channel()).await;
    check_acknowledged(&events, &acknowledged);
    model::check(&events, &answers);
    let revisions: BTreeSet<u64> = answers.iter().map(|a: &Answer| a.revision).collect();
    eprintln!(
        "{} distinct answers at {} revisions of {}, {} commands acknowledged, {:.0} calls a second",
        answers.len(),
        revisions.len(),
        events.len(),
        acknowledged.len(),
        rate_a + rate_b
    );
    assert!(revisions.len() > 100, "answers were checked at {} revisions only", revisions.len());
}
