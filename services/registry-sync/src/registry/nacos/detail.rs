//! Asks a server by HTTP what it knows of an instance that it does not list: those that are switched off are in no list.

use std::time::Duration;

use grey_runtime::tls;
use reqwest::{StatusCode, Url};
use serde::Deserialize;

use super::client::Pair;
use super::fault::Fault;
use super::login::words;
use super::options::Options;

/// Where servers tell of one instance, and whether the name of the service is written with its group: those of version 1
/// and 2, and those of version 3 that no longer do so there.
const PATHS: [(&str, bool); 2] = [("/nacos/v1/ns/instance", true), ("/nacos/v3/admin/ns/instance", false)];

/// Asks any server of one cluster.
#[derive(Debug)]
pub(super) struct Details {
    http: reqwest::Client,
    servers: Vec<String>,
}

/// What is said of an instance. Some servers leave out whether it is switched on: what they know and do not list is not.
#[derive(Deserialize)]
struct Known {
    ip: String,
    #[serde(default)]
    enabled: bool,
}

/// An answer of a server of version 3.
#[derive(Deserialize)]
struct Wrapped {
    data: Known,
}

impl Details {
    pub(super) fn new(options: &Options) -> Result<Self, Fault> {
        Ok(Self { http: http(options.call_timeout)?, servers: options.servers.clone() })
    }

    /// Whether a server says so of the instance at `address`, a `host:port`. One that says nothing says no.
    pub(super) async fn is_switched_off(
        &self,
        pair: &Pair,
        service: &str,
        address: &str,
        token: &str,
    ) -> bool {
        let Some((ip, port)) = address.rsplit_once(':') else { return false };
        let ip = ip.trim_start_matches('[').trim_end_matches(']');
        let full = format!("{}@@{service}", pair.group);
        for server in &self.servers {
            for (path, grouped) in PATHS {
                let query = [
                    ("namespaceId", pair.namespace.as_str()),
                    ("groupName", pair.group.as_str()),
                    ("serviceName", if grouped { full.as_str() } else { service }),
                    ("ip", ip),
                    ("port", port),
                    ("accessToken", token),
                ];
                match self.ask(&format!("http://{server}{path}"), &query).await {
                    Ok(Some(known)) if known.ip == ip => return !known.enabled,
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
        }
        false
    }

    async fn ask(&self, url: &str, query: &[(&str, &str)]) -> reqwest::Result<Option<Known>> {
        let Ok(url) = Url::parse_with_params(url, query) else { return Ok(None) };
        let response = self.http.get(url).send().await?;
        if response.status() != StatusCode::OK {
            return Ok(None);
        }
        let body = response.bytes().await?;
        let known = serde_json::from_slice(&body)
            .or_else(|_| serde_json::from_slice::<Wrapped>(&body).map(|wrapped| wrapped.data));
        Ok(known.ok())
    }
}

/// A client for a cluster's HTTP port.
pub(super) fn http(timeout: Duration) -> Result<reqwest::Client, Fault> {
    // It wants to know how to encrypt, even where nothing is encrypted.
    tls::install_provider();
    let http = reqwest::Client::builder().timeout(timeout).no_proxy().build();
    http.map_err(|error| Fault::Login { cause: words(&error) })
}
