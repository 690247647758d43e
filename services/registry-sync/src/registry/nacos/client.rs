//! Calls to one Nacos cluster, each with a deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use grey_core::service::MAX_SERVICES;
use nacos_sdk::api::naming::{
    NamingChangeEvent, NamingEventListener, NamingService, NamingServiceBuilder, ServiceInstance,
};
use nacos_sdk::api::props::ClientProps;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::catalog::{Hints, Key};
use super::detail::Details;
use super::fault::Fault;
use super::login::Login;
use super::options::Options;
use crate::registry::Registered;

/// How often a list is read again whose pages did not fit together.
const LIST_TRIES: u32 = 3;

/// What the servers see of this client.
const APP: &str = "grey-registry-sync";

/// What servers call the namespace without a name.
const PUBLIC: &str = "public";

/// A path below which nothing can be written.
const NO_DIRECTORY: &str = "/dev/null";

/// The library finds the port for gRPC this much above the one for HTTP.
pub(super) const GRPC_OFFSET: u16 = 1000;

/// Between the group and the name, where a server sends both.
const GROUP_SEPARATOR: &str = "@@";

/// Connections to one cluster: the library makes one per namespace.
pub(super) struct Client {
    pairs: Vec<Pair>,
    login: Option<Arc<Login>>,
    details: Details,
    /// The library knows a listener by its place in memory.
    listeners: Mutex<BTreeMap<Key, Arc<Listener>>>,
    call_timeout: Duration,
    page: i32,
}

/// One group in one namespace.
pub(super) struct Pair {
    /// By its id.
    pub(super) namespace: String,
    pub(super) group: String,
    naming: NamingService,
}

/// Tells that a service was pushed. What was pushed is left aside: servers push healthy instances only, and the library
/// may hand two pushes over in the wrong order. Reading the service takes a call and is always right.
#[derive(Debug)]
struct Listener {
    key: Key,
    hints: Arc<Hints>,
}

impl NamingEventListener for Listener {
    fn event(&self, _: Arc<NamingChangeEvent>) {
        self.hints.add(self.key.clone());
    }
}

impl Client {
    /// Connects to every namespace.
    ///
    /// # Errors
    /// Says what the cluster did not do.
    pub(super) async fn connect(options: &Options, login: Option<Arc<Login>>) -> Result<Self, Fault> {
        let mut pairs = Vec::new();
        for namespace in &options.namespaces {
            let naming = connect(options, namespace, login.as_ref()).await?;
            pairs.extend(options.groups.iter().map(|group| Pair {
                namespace: namespace.clone(),
                group: group.clone(),
                naming: naming.clone(),
            }));
        }
        Ok(Self {
            pairs,
            login,
            details: Details::new(options)?,
            listeners: Mutex::new(BTreeMap::new()),
            call_timeout: options.call_timeout,
            page: i32::try_from(options.page).unwrap_or(i32::MAX),
        })
    }

    /// Reads the names of all services of one pair.
    ///
    /// # Errors
    /// Also fails when they keep changing between two pages, so that one may have been missed.
    pub(super) async fn list(&self, pair: usize) -> Result<BTreeSet<String>, Fault> {
        let Pair { namespace, group, naming } = self.pair(pair);
        let namespace = Some(namespace.as_str()).filter(|name| !name.is_empty()).unwrap_or(PUBLIC);
        let what = format!("list the services of group `{group}` in namespace `{namespace}`");
        for _ in 0..LIST_TRIES {
            let page = |number| {
                let list = move || naming.get_service_list(number, self.page, Some(group.clone()));
                self.call(&what, list)
            };
            if let Some(names) = whole(&what, usize::try_from(self.page).unwrap_or(usize::MAX), page).await? {
                return Ok(names);
            }
        }
        Err(Fault::Moving { what, tries: LIST_TRIES })
    }

    /// Reads the instances of one service, from the server and not from what was pushed before.
    pub(super) async fn read(&self, key: &Key) -> Result<Vec<ServiceInstance>, Fault> {
        let Pair { group, naming, .. } = self.pair(key.pair);
        let what = format!("read service `{}`", key.service);
        let read = || {
            let (service, group) = (key.service.clone(), Some(group.clone()));
            naming.get_all_instances(service, group, Vec::new(), false)
        };
        self.call(&what, read).await
    }

    /// Whether the server knows the instance, which it does not list, as one that is switched off.
    pub(super) async fn is_switched_off(&self, key: &Key, instance: &Registered) -> bool {
        let token = self.login.as_ref().map(|login| login.token()).unwrap_or_default();
        let pair = self.pair(key.pair);
        self.details.is_switched_off(pair, &key.service, &instance.address, &token).await
    }

    /// Has changes of one service pushed, as hints. Doing so again renews it.
    pub(super) async fn subscribe(&self, key: &Key, hints: &Arc<Hints>) -> Result<(), Fault> {
        let Pair { group, naming, .. } = self.pair(key.pair);
        let what = format!("subscribe to service `{}`", key.service);
        let new = || Arc::new(Listener { key: key.clone(), hints: Arc::clone(hints) });
        let listener = Arc::clone(self.listeners().entry(key.clone()).or_insert_with(new));
        let subscribe = || {
            let (service, group) = (key.service.clone(), Some(group.clone()));
            naming.subscribe(service, group, Vec::new(), Arc::clone(&listener) as Arc<_>)
        };
        self.call(&what, subscribe).await
    }

    /// Ends the pushes for services.
    pub(super) async fn unsubscribe(&self, keys: &[Key]) {
        let mut ended = Vec::new();
        for key in keys {
            ended.extend(self.listeners().remove_entry(key));
        }
        self.end(ended).await;
    }

    /// Ends all pushes. The library cannot close its connection; without subscriptions it has no work left to do.
    pub(super) async fn retire(&self) {
        let ended = std::mem::take(&mut *self.listeners());
        self.end(ended.into_iter().collect()).await;
    }

    /// The library ends its own work for a service first, then tells the server, which may not answer: so all at once,
    /// with one deadline.
    async fn end(&self, listeners: Vec<(Key, Arc<Listener>)>) {
        let calls = listeners.into_iter().map(|(key, listener)| {
            let Pair { group, naming, .. } = self.pair(key.pair);
            naming.unsubscribe(key.service, Some(group.clone()), Vec::new(), listener)
        });
        if timeout(self.call_timeout, join_all(calls)).await.is_err() {
            tracing::debug!("nacos did not confirm the end of subscriptions");
        }
    }

    /// Logs in again if it is time.
    pub(super) async fn log_in(&self) -> Result<(), Fault> {
        match &self.login {
            Some(login) => login.ensure().await,
            None => Ok(()),
        }
    }

    /// Makes a call within the deadline; once more after a new login where the server no longer knows the token.
    async fn call<T, F>(&self, what: &str, call: impl Fn() -> F) -> Result<T, Fault>
    where
        F: Future<Output = nacos_sdk::api::error::Result<T>>,
    {
        let token = self.login.as_ref().map(|login| login.token());
        match (within(self.call_timeout, what, call()).await, self.login.as_ref().zip(token)) {
            (Err(Fault::Denied { .. }), Some((login, refused))) => {
                login.renew(&refused).await?;
                within(self.call_timeout, what, call()).await
            }
            (outcome, _) => outcome,
        }
    }

    fn listeners(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<Listener>>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pair(&self, pair: usize) -> &Pair {
        self.pairs.get(pair).expect("pairs are numbered by namespace and group")
    }
}

/// Reads the pages of a list; none if they do not make a whole.
///
/// The number that a server tells may be that of the page alone, so a full page is followed by another one.
async fn whole<F>(what: &str, size: usize, page: impl Fn(i32) -> F) -> Result<Option<BTreeSet<String>>, Fault>
where
    F: Future<Output = Result<(Vec<String>, i32), Fault>>,
{
    let (mut names, mut told) = (BTreeSet::new(), 0);
    for number in 1.. {
        let (listed, total) = page(number).await?;
        told = told.max(usize::try_from(total).unwrap_or(0));
        let (is_full, before) = (listed.len() >= size, names.len());
        names.extend(listed.into_iter().map(|name| match name.split_once(GROUP_SEPARATOR) {
            Some((_, name)) => name.to_owned(),
            None => name,
        }));
        if names.len() as u64 > MAX_SERVICES {
            return Err(Fault::TooMany { what: what.to_owned(), most: MAX_SERVICES });
        }
        if names.len() == before || (!is_full && names.len() >= told) {
            break;
        }
    }
    Ok((names.len() >= told).then_some(names))
}

/// The host and the port of a server.
pub(super) fn split(server: &str) -> Option<(&str, u16)> {
    let (host, port) = server.rsplit_once(':')?;
    Some((host.trim_start_matches('[').trim_end_matches(']'), port.parse().ok()?))
}

/// Whether a server of the cluster listens for gRPC.
///
/// # Errors
/// Says what the last one did not do.
pub(super) async fn reach(options: &Options) -> Result<(), Fault> {
    let mut fault = None;
    for (host, port) in options.servers.iter().filter_map(|server| split(server)) {
        let port = port.saturating_add(GRPC_OFFSET);
        let server = format!("{host}:{port}");
        fault = match timeout(options.call_timeout, TcpStream::connect((host, port))).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => Some(Fault::Unreachable { server, cause: error.to_string() }),
            Err(_) => {
                Some(Fault::Silent { what: format!("connect to {server}"), after: options.call_timeout })
            }
        };
    }
    fault.map_or(Ok(()), Err)
}

async fn connect(
    options: &Options,
    namespace: &str,
    login: Option<&Arc<Login>>,
) -> Result<NamingService, Fault> {
    let props = ClientProps::new()
        .server_addr(options.servers.join(","))
        .namespace(namespace)
        .app_name(APP)
        // The environment of the process is not where this is configured.
        .env_first(false)
        .naming_load_cache_at_start(false)
        // The library writes every change to a file below the user's home, unless it cannot: nobody reads it.
        .cache_dir(NO_DIRECTORY)
        // Whoever takes what is read here guards against losing everything at once.
        .naming_push_empty_protection(false);
    let mut builder = NamingServiceBuilder::new(props);
    if let Some(login) = login {
        builder = builder.with_auth_plugin(Arc::clone(login) as Arc<_>);
    }
    within(options.call_timeout, "connect", builder.build()).await
}

async fn within<T>(
    deadline: Duration,
    what: &str,
    call: impl Future<Output = nacos_sdk::api::error::Result<T>>,
) -> Result<T, Fault> {
    match timeout(deadline, call).await {
        Ok(outcome) => outcome.map_err(|error| Fault::of(what, error)),
        Err(_) => Err(Fault::Silent { what: what.to_owned(), after: deadline }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "test code panics")]
mod tests {
    use super::*;

    /// Lists `services` in pages of at most `cap`, and tells `total` of each page.
    async fn listed(services: usize, cap: usize, total: impl Fn(usize) -> usize) -> Option<usize> {
        let page = |number: i32| {
            let start = (usize::try_from(number).unwrap() - 1) * cap;
            let names: Vec<_> = (start..services.min(start + cap)).map(|n| format!("g@@s{n}")).collect();
            let total = i32::try_from(total(names.len())).unwrap();
            async move { Ok((names, total)) }
        };
        Some(whole("list", 10, page).await.unwrap()?.len())
    }

    #[tokio::test]
    async fn a_list_without_an_end_is_refused() {
        let page = |number: i32| async move { Ok((vec![format!("g@@s{number}")], i32::MAX)) };
        let fault = whole("list", 1, page).await.unwrap_err();
        assert_eq!(fault, Fault::TooMany { what: "list".to_owned(), most: MAX_SERVICES });
    }

    #[tokio::test]
    async fn a_list_is_read_to_its_end_whatever_number_it_tells() {
        for services in [0, 1, 9, 10, 11, 30, 35] {
            assert_eq!(listed(services, 10, |_| services).await, Some(services));
            assert_eq!(listed(services, 10, |page| page).await, Some(services), "that of the page");
            assert_eq!(
                listed(services, 5, |_| services).await,
                Some(services),
                "smaller pages than asked for"
            );
            assert_eq!(listed(services, 10, |_| services + 1).await, None, "one was missed");
        }
    }
}
