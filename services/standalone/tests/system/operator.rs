//! Who changes pins all the time.

use crate::fleet::VERSIONS;
use crate::load::{SERVICES, TENANTS, tenant};
use crate::server::DEADLINE;
use grey_proto::control::change::Change;
use grey_proto::control::pin_service_client::PinServiceClient;
use grey_proto::control::{ApplyChangeSetRequest, Event, Pin, ProposedChange, PutPinRequest, WriteOptions};
use grey_testkit::eventually;
use rand::Rng as _;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// Pins tenants without pause, and remembers which commands were acknowledged.
pub(crate) struct Operator {
    acknowledged: Arc<Mutex<BTreeMap<u64, Vec<Pin>>>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Operator {
    pub(crate) fn start(channel: Channel) -> Self {
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

    pub(crate) async fn until_more(&self, more: usize) {
        let enough = self.count() + more;
        eventually(DEADLINE, "commands are acknowledged", async || self.count() >= enough).await;
    }

    pub(crate) async fn finish(self) -> BTreeMap<u64, Vec<Pin>> {
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
pub(crate) fn check_acknowledged(events: &[Event], acknowledged: &BTreeMap<u64, Vec<Pin>>) {
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
