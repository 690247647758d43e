//! What a router has applied, as it tells its watchers.

use crate::hosts::{List, Truth};
use grey_proto::router::router_service_client::RouterServiceClient;
use grey_proto::router::watch_response::Frame;
use grey_proto::router::{ServiceInstances, WatchRequest};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::task::JoinSet;
use tonic::Streaming;
use tonic::transport::Endpoint;

/// Follows one router. Clones share what is seen.
#[derive(Clone)]
pub(crate) struct Watched {
    applied: Arc<Mutex<Applied>>,
    _task: Arc<JoinSet<()>>,
}

#[derive(Default)]
struct Applied {
    /// What can be routed to, by service.
    lists: BTreeMap<String, List>,
    /// A snapshot that has begun.
    snapshot: Option<BTreeMap<String, List>>,
    /// Instances that are dead, and since when this router is known to have applied a list without them.
    gone: BTreeMap<String, Instant>,
    /// How often an instance that runs was left out of a list.
    missed: u64,
    /// What should not have happened.
    faults: Vec<String>,
}

impl Watched {
    pub(crate) async fn start(address: &str, truth: &Truth) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let mut router = RouterServiceClient::new(endpoint.connect().await.unwrap());
        let mut frames = router.watch(WatchRequest::default()).await.unwrap().into_inner();
        let applied: Arc<Mutex<Applied>> = Arc::default();
        let (told, truth) = (applied.clone(), truth.clone());
        let mut task = JoinSet::new();
        task.spawn(async move {
            let end = follow(&mut frames, &told, &truth).await;
            told.lock().unwrap().faults.push(format!("the watch has ended: {end}"));
        });
        Self { applied, _task: Arc::new(task) }
    }

    /// What the router routes to.
    pub(crate) fn lists(&self) -> BTreeMap<String, List> {
        let lists = self.applied.lock().unwrap().lists.clone();
        lists.into_iter().filter(|(_, list)| !list.is_empty()).collect()
    }

    /// Since when the router does not route to `id` any more, which is dead.
    pub(crate) fn gone_since(&self, id: &str) -> Option<Instant> {
        self.applied.lock().unwrap().gone.get(id).copied()
    }

    pub(crate) fn missed(&self) -> u64 {
        self.applied.lock().unwrap().missed
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        self.applied.lock().unwrap().faults.clone()
    }
}

async fn follow(
    frames: &mut Streaming<grey_proto::router::WatchResponse>,
    told: &Mutex<Applied>,
    truth: &Truth,
) -> String {
    loop {
        let frame = match frames.message().await {
            Ok(Some(frame)) => frame.frame,
            Ok(None) => return "the router closed it".to_owned(),
            Err(status) => return status.to_string(),
        };
        told.lock().unwrap().take(frame, truth);
    }
}

impl Applied {
    fn take(&mut self, frame: Option<Frame>, truth: &Truth) {
        match frame {
            Some(Frame::Begin(_)) => self.snapshot = Some(BTreeMap::new()),
            Some(Frame::Instances(list)) => {
                let service = list.service.clone();
                match &mut self.snapshot {
                    Some(snapshot) => drop(snapshot.insert(service, routable(list))),
                    None => self.replace(&service, routable(list), truth),
                }
            }
            Some(Frame::End(_)) => {
                let mut snapshot = self.snapshot.take().unwrap_or_default();
                let services: BTreeSet<String> = self.lists.keys().chain(snapshot.keys()).cloned().collect();
                for service in services {
                    let list = snapshot.remove(&service).unwrap_or_default();
                    self.replace(&service, list, truth);
                }
            }
            _ => {}
        }
    }

    fn replace(&mut self, service: &str, list: List, truth: &Truth) {
        let is_dead = |id: &str| truth.get(id).is_some_and(|instance| !instance.alive);
        for id in self.lists.get(service).into_iter().flat_map(List::keys) {
            match list.contains_key(id) {
                true => {}
                false if is_dead(id) => drop(self.gone.insert(id.clone(), Instant::now())),
                false => self.missed += 1,
            }
        }
        for id in list.keys().filter(|id| self.gone.contains_key(*id)) {
            self.faults.push(format!("{service} {id} has come back from the dead"));
        }
        self.lists.insert(service.to_owned(), list);
    }
}

/// What of a list is routed to.
fn routable(list: ServiceInstances) -> List {
    let fits = list.instances.into_iter().filter(|one| !one.disabled && !one.unhealthy && one.weight > 0);
    fits.map(|one| (one.id, one.version)).collect()
}
