//! Services that register themselves with Nacos.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Result;
use grey_registry_sync::registry::nacos::Options;
use grey_runtime::tls;
use nacos_sdk::api::naming::{NamingService, NamingServiceBuilder, ServiceInstance};
use nacos_sdk::api::props::ClientProps;
use reqwest::Method;

use crate::following::SOON;

/// Options that follow `server` with little waiting.
pub(crate) fn options(server: SocketAddr) -> Options {
    let mut options = Options::new(vec![server.to_string()]);
    options.discover = Duration::from_millis(500);
    options
}

/// One client of a server, and with it one connection: what it registered vanishes with it.
pub(crate) struct Fleet {
    naming: NamingService,
    /// By service, what [`Fleet::register_all`] registered.
    registered: Mutex<BTreeMap<String, Vec<ServiceInstance>>>,
}

impl Fleet {
    pub(crate) async fn connect(server: SocketAddr, namespace: &str) -> Result<Self> {
        Self::build(props(server, namespace), false).await
    }

    pub(crate) async fn log_in(server: SocketAddr, username: &str, password: &str) -> Result<Self> {
        let props = props(server, "").auth_username(username).auth_password(password);
        Self::build(props, true).await
    }

    async fn build(props: ClientProps, login: bool) -> Result<Self> {
        let builder = NamingServiceBuilder::new(props);
        let builder = if login { builder.enable_auth_plugin_http() } else { builder };
        Ok(Self { naming: builder.build().await?, registered: Mutex::default() })
    }

    /// Registers one instance of `service`.
    pub(crate) async fn register(&self, service: &str, instance: ServiceInstance) -> Result<()> {
        self.register_in("DEFAULT_GROUP", service, instance).await
    }

    pub(crate) async fn register_in(
        &self,
        group: &str,
        service: &str,
        instance: ServiceInstance,
    ) -> Result<()> {
        Ok(self.naming.register_instance(service.to_owned(), Some(group.to_owned()), instance).await?)
    }

    pub(crate) async fn deregister(&self, service: &str, instance: ServiceInstance) -> Result<()> {
        let group = Some("DEFAULT_GROUP".to_owned());
        Ok(self.naming.deregister_instance(service.to_owned(), group, instance).await?)
    }

    /// Makes `instances` all that this client has of `service`.
    ///
    /// Servers differ: with r-nacos an instance stays until it is deregistered; with Alibaba's, deregistering one takes
    /// along what the same client registered with it. So those that are too many leave, then the others register.
    pub(crate) async fn register_all(&self, service: &str, instances: Vec<ServiceInstance>) -> Result<()> {
        let before = self.registered.lock().unwrap().insert(service.to_owned(), instances.clone());
        let is_kept =
            |known: &ServiceInstance| instances.iter().any(|i| i.ip_and_port() == known.ip_and_port());
        for known in before.into_iter().flatten().filter(|known| !is_kept(known)) {
            self.deregister(service, known).await?;
        }
        if !instances.is_empty() {
            self.naming.batch_register_instance(service.to_owned(), None, instances).await?;
        }
        Ok(())
    }
}

/// Registers an instance that stays without its client; r-nacos takes those by HTTP only.
pub(crate) async fn register_persistent(
    server: SocketAddr,
    service: &str,
    instance: ServiceInstance,
) -> Result<()> {
    state(Method::POST, server, service, instance, ("ephemeral", false)).await
}

/// Switches an instance on or off, as an operator does.
pub(crate) async fn switch(
    server: SocketAddr,
    service: &str,
    instance: ServiceInstance,
    enabled: bool,
) -> Result<()> {
    state(Method::PUT, server, service, instance, ("enabled", enabled)).await
}

/// States something about an instance by HTTP.
async fn state(
    method: Method,
    server: SocketAddr,
    service: &str,
    instance: ServiceInstance,
    (what, is_so): (&str, bool),
) -> Result<()> {
    tls::install_provider();
    let form = [
        ("serviceName", service.to_owned()),
        ("ip", instance.ip),
        ("port", instance.port.to_string()),
        (what, is_so.to_string()),
    ];
    let url = format!("http://{server}/nacos/v1/ns/instance");
    reqwest::Client::new().request(method, url).form(&form).timeout(SOON).send().await?.error_for_status()?;
    Ok(())
}

fn props(server: SocketAddr, namespace: &str) -> ClientProps {
    ClientProps::new()
        .server_addr(server.to_string())
        .namespace(namespace)
        .env_first(false)
        .cache_dir("/dev/null")
}

/// The instance `number` of any service, of `version`.
pub(crate) fn instance(number: usize, version: &str) -> ServiceInstance {
    ServiceInstance {
        ip: format!("10.0.{}.{}", number / 250, number % 250 + 1),
        port: 8080,
        metadata: [("version".to_owned(), version.to_owned())].into(),
        ..ServiceInstance::default()
    }
}

/// As many instances, from the first on.
pub(crate) fn instances(count: usize, version: &str) -> Vec<ServiceInstance> {
    (0..count).map(|number| instance(number, version)).collect()
}
