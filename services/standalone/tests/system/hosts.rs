//! Hosts that register what runs on them with Nacos, and die.

use crate::server::DEADLINE;
use grey_testkit::{Nacos, Proxy, ReservedPort};
use nacos_sdk::api::naming::{NamingService, NamingServiceBuilder, ServiceInstance};
use nacos_sdk::api::props::ClientProps;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Clients of Nacos expect gRPC this much above the port that they are given.
const GRPC_OFFSET: u16 = 1000;

/// Instances by id, with their versions.
pub(crate) type List = BTreeMap<String, String>;

/// What really runs where. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Truth(Arc<Mutex<BTreeMap<String, Instance>>>);

/// An instance that runs, or did.
#[derive(Clone)]
pub(crate) struct Instance {
    pub(crate) service: String,
    pub(crate) version: String,
    pub(crate) alive: bool,
}

impl Truth {
    pub(crate) fn get(&self, id: &str) -> Option<Instance> {
        self.0.lock().unwrap().get(id).cloned()
    }

    /// Those that run, by service.
    pub(crate) fn alive(&self) -> BTreeMap<String, List> {
        let mut lists: BTreeMap<String, List> = BTreeMap::new();
        for (id, instance) in self.0.lock().unwrap().iter().filter(|(_, instance)| instance.alive) {
            let list = lists.entry(instance.service.clone()).or_default();
            list.insert(id.clone(), instance.version.clone());
        }
        lists
    }

    /// Those that ran.
    pub(crate) fn dead(&self) -> Vec<String> {
        let truth = self.0.lock().unwrap();
        truth.iter().filter(|(_, instance)| !instance.alive).map(|(id, _)| id.clone()).collect()
    }
}

/// A machine with one instance of each of several versions: real sockets, and a client of Nacos that registers them.
pub(crate) struct Host {
    naming: NamingService,
    /// Between the client and Nacos: the client library has no end of its own.
    link: Proxy,
    running: BTreeMap<String, Vec<ServiceInstance>>,
    sockets: JoinSet<()>,
    /// Kept so that nobody else listens where an instance died.
    _ports: Vec<ReservedPort>,
    truth: Truth,
}

impl Host {
    /// Runs an instance of every pair of a service and a version, which are registered when this returns.
    pub(crate) async fn start(nacos: &Nacos, pools: &[(&str, &str)], truth: &Truth) -> Self {
        let link = Proxy::start(nacos.grpc_addr()).await.unwrap();
        let server = SocketAddr::new(link.addr().ip(), link.addr().port() - GRPC_OFFSET);
        let props = ClientProps::new().server_addr(server.to_string()).env_first(false);
        let naming = timeout(DEADLINE, NamingServiceBuilder::new(props).build()).await.unwrap().unwrap();
        let (mut sockets, mut ports) = (JoinSet::new(), Vec::new());
        let mut running: BTreeMap<String, Vec<ServiceInstance>> = BTreeMap::new();
        for (service, version) in pools {
            let port = ReservedPort::any().unwrap();
            let socket = TcpListener::bind(port.addr()).await.unwrap();
            sockets.spawn(serve(socket));
            let instance = ServiceInstance {
                ip: Ipv4Addr::LOCALHOST.to_string(),
                port: port.number().into(),
                metadata: [("version".to_owned(), (*version).to_owned())].into(),
                ..ServiceInstance::default()
            };
            let alive =
                Instance { service: (*service).to_owned(), version: (*version).to_owned(), alive: true };
            truth.0.lock().unwrap().insert(port.addr().to_string(), alive);
            running.entry((*service).to_owned()).or_default().push(instance);
            ports.push(port);
        }
        let host = Self { naming, link, running, sockets, _ports: ports, truth: truth.clone() };
        for service in host.running.keys() {
            host.register(service).await;
        }
        host
    }

    async fn register(&self, service: &str) {
        let instances = self.running[service].clone();
        let registered = self.naming.batch_register_instance(service.to_owned(), None, instances);
        timeout(DEADLINE, registered).await.unwrap().unwrap();
    }

    /// Its instances of `service` say that they are of `version` from now on.
    pub(crate) async fn relabel(&mut self, service: &str, version: &str) {
        for instance in self.running.get_mut(service).unwrap() {
            instance.metadata.insert("version".to_owned(), version.to_owned());
            let mut truth = self.truth.0.lock().unwrap();
            truth.get_mut(&instance.ip_and_port()).unwrap().version = version.to_owned();
        }
        self.register(service).await;
    }

    /// It runs on, and does not reach Nacos.
    pub(crate) async fn cut_off(&self) {
        self.link.cut().await.unwrap();
    }

    /// It reaches Nacos again.
    pub(crate) async fn rejoin(&self) {
        self.link.heal().await.unwrap();
    }

    /// Nothing of it answers any more, nor does it say goodbye.
    pub(crate) async fn die(&mut self) {
        for instance in self.running.values().flatten() {
            self.truth.0.lock().unwrap().get_mut(&instance.ip_and_port()).unwrap().alive = false;
        }
        self.sockets.shutdown().await;
        self.cut_off().await;
    }
}

/// Takes connections and closes them.
async fn serve(socket: TcpListener) {
    loop {
        drop(socket.accept().await);
    }
}
