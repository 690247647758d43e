//! Faults under load: no wrong answer, no lost command, no failed call where a router lives.

use crate::fleet::{Fleet, VERSIONS};
use crate::load::{Load, SERVICES, TENANTS, tenant};
use crate::model::{self, Answer};
use crate::server::{DEADLINE, stage};
use grey_proto::control::change::Change;
use grey_proto::control::fleet_service_client::FleetServiceClient;
use grey_proto::control::pin_service_client::PinServiceClient;
use grey_proto::control::{
    ApplyChangeSetRequest, Event, ListRoutersRequest, Pin, ProposedChange, PutPinRequest, WriteOptions,
};
use grey_testkit::eventually;
use rand::Rng as _;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// Connections to each router, and the pause between calls of one: 2,500 calls a second over both.
const CONNECTIONS: usize = 25;
const PAUSE: Duration = Duration::from_millis(20);

/// Pins tenants without pause, and remembers which commands were acknowledged.
struct Operator {
    acknowledged: Arc<Mutex<BTreeMap<u64, Vec<Pin>>>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Operator {
    fn start(channel: Channel) -> Self {
        let acknowledged: Arc<Mutex<BTreeMap<u64, Vec<Pin>>>> = Arc::default();
        let stop = CancellationToken::new();
        let (acked, stopped) = (acknowledged.clone(), stop.clone());
        let task = tokio::spawn(async move {
            let mut client = PinServiceClient::new(channel);
            let mut count = 0u64;
            while !stopped.is_cancelled() {
                count += 1;
                // Each command says something new, so that none is a repetition without an event.
                let reason = format!("command {count}");
                let write = Some(WriteOptions { reason, ..WriteOptions::default() });
                let (pins, answer) = if count.is_multiple_of(5) {
                    let pins: Vec<Pin> = SERVICES.iter().map(|s| random_pin(s)).collect();
                    let changes = pins.iter().map(|pin| ProposedChange {
                        change: Some(grey_proto::control::Change {
                            change: Some(Change::PinPut(pin.clone())),
                        }),
                        expected_revision: None,
                    });
                    let set = ApplyChangeSetRequest { changes: changes.collect(), write };
                    (pins, client.apply_change_set(set).await.map(|a| a.into_inner().result))
                } else {
                    let pin = random_pin(SERVICES[rand::rng().random_range(0..SERVICES.len())]);
                    let put = PutPinRequest { pin: Some(pin.clone()), write, ..PutPinRequest::default() };
                    (vec![pin], client.put_pin(put).await.map(|a| a.into_inner().result))
                };
                if let Ok(Some(result)) = answer {
                    acked.lock().unwrap().entry(result.revision).or_default().extend(pins);
                }
            }
        });
        Self { acknowledged, stop, task }
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    async fn until_more(&self, more: usize) {
        let enough = self.count() + more;
        eventually(DEADLINE, "commands are acknowledged", async || self.count() >= enough).await;
    }

    async fn finish(self) -> BTreeMap<u64, Vec<Pin>> {
        self.stop.cancel();
        self.task.await.unwrap();
        std::mem::take(&mut *self.acknowledged.lock().unwrap())
    }
}

fn random_pin(service: &str) -> Pin {
    let mut random = rand::rng();
    Pin {
        tenant: tenant(random.random_range(0..TENANTS)),
        service: service.to_owned(),
        version: VERSIONS[random.random_range(0..VERSIONS.len())].to_owned(),
        locked: random.random_range(0..2) == 0,
        revision: 0,
    }
}

/// Every acknowledged pin is in the log at the revision that was told, unless it said nothing new.
fn check_acknowledged(events: &[Event], acknowledged: &BTreeMap<u64, Vec<Pin>>) {
    let mut state: BTreeMap<(String, String), (String, bool)> = BTreeMap::new();
    let mut asked = acknowledged.iter().peekable();
    for event in events {
        for change in event.changes.iter().filter_map(|c| c.change.as_ref()) {
            if let Change::PinPut(pin) = change {
                state.insert((pin.tenant.clone(), pin.service.clone()), (pin.version.clone(), pin.locked));
            }
        }
        while let Some((_, pins)) = asked.next_if(|(revision, _)| **revision == event.revision) {
            for pin in pins {
                let held = state.get(&(pin.tenant.clone(), pin.service.clone()));
                assert_eq!(
                    held,
                    Some(&(pin.version.clone(), pin.locked)),
                    "lost at {}: {pin:?}",
                    event.revision
                );
            }
        }
    }
    assert!(asked.next().is_none(), "a command was acknowledged beyond the log");
}

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
