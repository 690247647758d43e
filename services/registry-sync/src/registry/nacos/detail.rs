//! Asks a server by HTTP what it knows of an instance that it does not list: those that are switched off are in no list.

use std::time::Duration;

use grey_runtime::tls;
use reqwest::{StatusCode, Url};
use serde::Deserialize;

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

/// One instance, as it is asked for.
pub(super) struct Asked<'a> {
    pub(super) namespace: &'a str,
    pub(super) group: &'a str,
    pub(super) service: &'a str,
    /// `host:port`.
    pub(super) address: &'a str,
    pub(super) token: String,
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

    /// Whether a server says so. One that says nothing says no.
    pub(super) async fn is_switched_off(&self, asked: &Asked<'_>) -> bool {
        for server in &self.servers {
            for (path, grouped) in PATHS {
                match self.ask(&format!("http://{server}{path}"), grouped, asked).await {
                    Ok(Some(known)) => return !known.enabled,
                    Ok(None) => {}
                    Err(_) => break,
                }
            }
        }
        false
    }

    async fn ask(&self, url: &str, grouped: bool, asked: &Asked<'_>) -> reqwest::Result<Option<Known>> {
        let Some((ip, port)) = asked.address.rsplit_once(':') else { return Ok(None) };
        let ip = ip.trim_start_matches('[').trim_end_matches(']');
        let full = format!("{}@@{}", asked.group, asked.service);
        let query = [
            ("namespaceId", asked.namespace),
            ("groupName", asked.group),
            ("serviceName", if grouped { full.as_str() } else { asked.service }),
            ("ip", ip),
            ("port", port),
            ("accessToken", asked.token.as_str()),
        ];
        let Ok(url) = Url::parse_with_params(url, query) else { return Ok(None) };
        let response = self.http.get(url).send().await?;
        if response.status() != StatusCode::OK {
            return Ok(None);
        }
        let body = response.bytes().await?;
        let known = serde_json::from_slice(&body)
            .or_else(|_| serde_json::from_slice::<Wrapped>(&body).map(|wrapped| wrapped.data));
        Ok(known.ok().filter(|known: &Known| known.ip == ip))
    }
}

/// A client for a cluster's HTTP port.
pub(super) fn http(timeout: Duration) -> Result<reqwest::Client, Fault> {
    // It wants to know how to encrypt, even where nothing is encrypted.
    tls::install_provider();
    let http = reqwest::Client::builder().timeout(timeout).no_proxy().build();
    http.map_err(|error| Fault::Login { cause: words(&error) })
}
