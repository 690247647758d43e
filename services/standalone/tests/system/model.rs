//! An independent model of the answers: it replays the event log and shares no code with the product.

use grey_proto::control::change::Change;
use grey_proto::control::history_service_client::HistoryServiceClient;
use grey_proto::control::{Event, ListEventsRequest};
use std::collections::{BTreeMap, BTreeSet};
use tonic::Status;
use tonic::transport::Channel;

/// What a router said, and as of which revision.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Answer {
    pub(crate) revision: u64,
    pub(crate) tenant: String,
    pub(crate) service: String,
    pub(crate) version: String,
    pub(crate) instance: String,
    pub(crate) stale: bool,
}

/// The events after a revision, in order; at most a page of them.
pub(crate) async fn read_page(channel: &Channel, after: u64) -> Result<Vec<Event>, Status> {
    let page = ListEventsRequest { after, limit: 1_000, ..ListEventsRequest::default() };
    Ok(HistoryServiceClient::new(channel.clone()).list_events(page).await?.into_inner().events)
}

/// The whole event log, in order.
pub(crate) async fn read_log(channel: Channel) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    loop {
        let page = read_page(&channel, events.last().map_or(0, |e| e.revision)).await.unwrap();
        if page.is_empty() {
            return events;
        }
        events.extend(page);
    }
}

/// Since when which version, or none.
type Pinned = Vec<(u64, Option<String>)>;

/// Which version serves whom, at every revision so far.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) reached: u64,
    /// By service: since when which.
    defaults: BTreeMap<String, Vec<(u64, String)>>,
    /// By tenant and service.
    pins: BTreeMap<(String, String), Pinned>,
}

impl Model {
    pub(crate) fn fold(&mut self, event: &Event) {
        let at = event.revision;
        assert_eq!(at, self.reached + 1, "the log has a gap");
        for change in event.changes.iter().filter_map(|c| c.change.clone()) {
            match change {
                Change::ServicePut(service) => {
                    self.defaults.entry(service.id).or_default().push((at, service.default_version));
                }
                Change::PinPut(pin) => {
                    self.pins.entry((pin.tenant, pin.service)).or_default().push((at, Some(pin.version)));
                }
                Change::PinRemoved(pin) => {
                    self.pins.entry((pin.tenant, pin.service)).or_default().push((at, None));
                }
                // No version of these tests has a schema window.
                Change::TenantPut(_)
                | Change::VersionPut(_)
                | Change::SchemaObserved(_)
                | Change::PolicyPut(_) => {}
                other => panic!("the model does not know {other:?}"),
            }
        }
        self.reached = at;
    }

    /// What is wrong with an answer as of its revision.
    pub(crate) fn objection(&self, answer: &Answer) -> Option<String> {
        if answer.revision > self.reached {
            return Some(format!("no such revision: {answer:?}"));
        }
        let key = (answer.tenant.clone(), answer.service.clone());
        let pin = self.pins.get(&key).and_then(|pins| at(pins, answer.revision)).and_then(Option::as_ref);
        let default = || self.defaults.get(&answer.service).and_then(|all| at(all, answer.revision));
        let expected = pin.or_else(default);
        if Some(&answer.version) != expected {
            return Some(format!("wrong for its revision, not {expected:?}: {answer:?}"));
        }
        let home = format!("{}-{}-", answer.service, answer.version);
        let is_at_home = answer.instance.starts_with(&home);
        (!is_at_home).then(|| format!("an instance of another version: {answer:?}"))
    }
}

/// What has been so at `revision`.
fn at<T>(history: &[(u64, T)], revision: u64) -> Option<&T> {
    let later = history.partition_point(|(since, _)| *since <= revision);
    history[..later].last().map(|(_, held)| held)
}

/// Checks each answer against the log as of its revision.
pub(crate) fn check<'a>(events: &[Event], answers: impl IntoIterator<Item = &'a Answer>) {
    let mut model = Model::default();
    events.iter().for_each(|event| model.fold(event));
    let wrong: BTreeSet<String> = answers.into_iter().filter_map(|answer| model.objection(answer)).collect();
    assert!(
        wrong.is_empty(),
        "{} wrong answers: {:#?}",
        wrong.len(),
        wrong.iter().take(10).collect::<Vec<_>>()
    );
}
