//! An independent model of the answers: it replays the event log and shares no code with the product.

use grey_proto::control::change::Change;
use grey_proto::control::history_service_client::HistoryServiceClient;
use grey_proto::control::{Event, ListEventsRequest};
use std::collections::{BTreeMap, BTreeSet};
use tonic::transport::Channel;

/// What a router said, and as of which revision.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Answer {
    pub(crate) revision: u64,
    pub(crate) tenant: String,
    pub(crate) service: String,
    pub(crate) version: String,
    pub(crate) instance: String,
}

/// The whole event log, in order.
pub(crate) async fn read_log(channel: Channel) -> Vec<Event> {
    let mut history = HistoryServiceClient::new(channel);
    let mut events: Vec<Event> = Vec::new();
    loop {
        let after = events.last().map_or(0, |e| e.revision);
        let page = ListEventsRequest { after, limit: 1_000, newest_first: false };
        let page = history.list_events(page).await.unwrap().into_inner().events;
        if page.is_empty() {
            break;
        }
        events.extend(page);
    }
    for (event, expected) in events.iter().zip(1..) {
        assert_eq!(event.revision, expected, "the log has a gap");
    }
    events
}

/// Checks each answer against the log as of its revision.
pub(crate) fn check(events: &[Event], answers: &BTreeSet<Answer>) {
    let mut defaults: BTreeMap<String, String> = BTreeMap::new();
    let mut pins: BTreeMap<(String, String), String> = BTreeMap::new();
    let mut answers = answers.iter().peekable();
    for event in events {
        // Answers are sorted by revision: those before this event belong to the state so far.
        while let Some(answer) = answers.next_if(|a| a.revision < event.revision) {
            check_one(answer, &defaults, &pins);
        }
        for change in event.changes.iter().filter_map(|c| c.change.as_ref()) {
            match change {
                Change::ServicePut(service) => {
                    defaults.insert(service.id.clone(), service.default_version.clone());
                }
                Change::PinPut(pin) => {
                    pins.insert((pin.tenant.clone(), pin.service.clone()), pin.version.clone());
                }
                Change::PinRemoved(pin) => {
                    pins.remove(&(pin.tenant.clone(), pin.service.clone()));
                }
                Change::TenantPut(_) | Change::VersionPut(_) => {}
                other => panic!("the model does not know {other:?}"),
            }
        }
    }
    for answer in answers {
        assert!(answer.revision <= events.len() as u64, "no such revision: {answer:?}");
        check_one(answer, &defaults, &pins);
    }
}

fn check_one(
    answer: &Answer,
    defaults: &BTreeMap<String, String>,
    pins: &BTreeMap<(String, String), String>,
) {
    let pin = pins.get(&(answer.tenant.clone(), answer.service.clone()));
    let expected = pin.or_else(|| defaults.get(&answer.service));
    assert_eq!(Some(&answer.version), expected, "wrong for its revision: {answer:?}");
    let home = format!("{}-{}-", answer.service, answer.version);
    assert!(answer.instance.starts_with(&home), "an instance of another version: {answer:?}");
}
