//! What the control database says, followed as it grows: what routers must come to.

use crate::fleet::REPLICAS;
use crate::load::{SERVICES, TENANTS, tenant};
use crate::model::{Answer, Model, read_page};
use grey_core::change::Event;
use grey_core::table::Table;
use grey_proto::router::route_outcome::Outcome;
use grey_proto::router::router_service_client::RouterServiceClient;
use grey_proto::router::{RouteBatchRequest, RouteRequest};
use grey_state::heartbeats::Heartbeat;
use tonic::transport::Channel;

/// The log so far: a model of its answers, and the digest of the table at each revision.
pub(crate) struct Truth {
    channel: Channel,
    model: Model,
    table: Table,
    /// That of revision 1 first.
    digests: Vec<u64>,
    /// The number of the first instance that the registry lists of each version.
    pub(crate) first_instance: usize,
}

impl Truth {
    pub(crate) fn new(channel: Channel) -> Self {
        Self {
            channel,
            model: Model::default(),
            table: Table::default(),
            digests: Vec::new(),
            first_instance: 0,
        }
    }

    /// Reads on to the end of the log, which it tells; none if the control plane does not answer.
    pub(crate) async fn head(&mut self) -> Option<u64> {
        loop {
            let page = read_page(&self.channel, self.model.reached).await.ok()?;
            if page.is_empty() {
                return Some(self.model.reached);
            }
            for event in page {
                self.model.fold(&event);
                self.table.apply(&Event::try_from(event).unwrap()).unwrap();
                self.digests.push(self.table.digest());
            }
        }
    }

    /// Whether a router answers every call rightly, by a table that is current and not older than `head`.
    ///
    /// # Panics
    /// When an answer that is not marked stale is wrong for its revision.
    pub(crate) async fn is_served_by(&mut self, router: &Channel, head: u64) -> bool {
        let pairs = (0..TENANTS).flat_map(|i| SERVICES.map(|service| (tenant(i), service.to_owned())));
        let calls =
            pairs.map(|(tenant, service)| RouteRequest { tenant, service, ..RouteRequest::default() });
        let calls: Vec<RouteRequest> = calls.collect();
        let batch = RouteBatchRequest { calls: calls.clone() };
        let Ok(answer) = RouterServiceClient::new(router.clone()).route_batch(batch).await else {
            return false;
        };
        let mut answers = Vec::with_capacity(calls.len());
        for (call, outcome) in calls.into_iter().zip(answer.into_inner().outcomes) {
            let Some(Outcome::Decision(decided)) = outcome.outcome else { return false };
            answers.push(Answer {
                revision: decided.revision,
                tenant: call.tenant,
                service: call.service,
                version: decided.version,
                instance: decided.instance.unwrap_or_default().id,
                stale: decided.stale,
            });
        }
        let newest = answers.iter().map(|answer| answer.revision).max().unwrap_or_default();
        if newest > self.model.reached && self.head().await.is_none() {
            return false;
        }
        let fresh = answers.iter().filter(|answer| !answer.stale);
        let wrong: Vec<String> = fresh.filter_map(|answer| self.model.objection(answer)).collect();
        assert!(wrong.is_empty(), "marked fresh: {wrong:#?}");
        answers
            .iter()
            .all(|answer| !answer.stale && answer.revision >= head && self.is_listed(&answer.instance))
    }

    fn is_listed(&self, instance: &str) -> bool {
        let number = instance.rsplit('-').next().and_then(|number| number.parse().ok());
        number.is_some_and(|number| (self.first_instance..self.first_instance + REPLICAS).contains(&number))
    }

    /// Whether a router has told of a table that is current, not older than `head`, and the log's.
    pub(crate) fn is_told_by(&self, beat: &Heartbeat, head: u64) -> bool {
        let revision = beat.position.revision.0;
        let index = usize::try_from(revision).ok().and_then(|revision| revision.checked_sub(1));
        let digest = index.and_then(|index| self.digests.get(index));
        !beat.stale && revision >= head && digest == Some(&beat.digest)
    }
}
