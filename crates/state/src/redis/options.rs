//! How Redis is reached.

use crate::Error;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;

/// What the addresses stand for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// One server.
    #[default]
    Standalone,
    /// Sentinels that know the master.
    Sentinel,
    /// Nodes of a cluster.
    Cluster,
}

/// A password: read from configuration, never printed or written.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Password(SecretString);

impl Password {
    /// Takes a text as a password; the empty one means none.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(SecretString::from(text))
    }

    fn get(&self) -> Option<&str> {
        Some(self.0.expose_secret()).filter(|text| !text.is_empty())
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.get().is_some() { "\"***\"" } else { "\"\"" })
    }
}

impl Serialize for Password {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.get().is_some() { "***" } else { "" })
    }
}

/// How Redis is reached, and how much is kept there.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// What `urls` are the addresses of.
    pub mode: Mode,
    /// `redis://host:port`, or `rediss://host:port` for TLS; several for Sentinel and cluster.
    #[serde(serialize_with = "masked")]
    pub urls: Vec<String>,
    /// The name under which the sentinels know the master.
    pub master_name: String,
    /// User of the data servers; empty: the one in the URL, or the default user.
    pub username: String,
    /// Password of the data servers; empty: the one in the URL, or none. Sentinels take theirs from the URL.
    pub password: Password,
    /// Longest wait for an answer, in milliseconds.
    pub response_timeout_ms: u64,
    /// Longest wait for a connection, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Longest wait for a turn of a fleet-wide round robin, in milliseconds: it is waited for by a call.
    pub turn_timeout_ms: u64,
    /// Events kept for routers that fall behind, about.
    pub feed_length: u64,
    /// Replaced instance lists kept for routers that fall behind, about.
    pub instances_length: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mode: Mode::Standalone,
            urls: vec!["redis://127.0.0.1:6379".to_owned()],
            master_name: String::new(),
            username: String::new(),
            password: Password::default(),
            response_timeout_ms: 2_000,
            connect_timeout_ms: 1_000,
            turn_timeout_ms: 20,
            feed_length: 100_000,
            instances_length: 1_000,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<String> = self.urls.iter().map(|url| without_credentials(url)).collect();
        f.debug_struct("Options")
            .field("mode", &self.mode)
            .field("urls", &urls)
            .field("master_name", &self.master_name)
            .field("username", &self.username)
            .field("password", &self.password)
            .field("response_timeout_ms", &self.response_timeout_ms)
            .field("connect_timeout_ms", &self.connect_timeout_ms)
            .field("turn_timeout_ms", &self.turn_timeout_ms)
            .field("feed_length", &self.feed_length)
            .field("instances_length", &self.instances_length)
            .finish()
    }
}

impl Options {
    /// Checks what types cannot hold, all faults at once.
    ///
    /// # Errors
    /// [`Error::Config`] with every fault.
    pub fn validate(&self) -> Result<(), Error> {
        let mut faults = Vec::new();
        let mut positive = |name: &str, value: u64, most: u64| {
            if value == 0 || value > most {
                faults.push(format!("`{name}` is {value}, not between 1 and {most}"));
            }
        };
        positive("response_timeout_ms", self.response_timeout_ms, 60_000);
        positive("connect_timeout_ms", self.connect_timeout_ms, 60_000);
        positive("turn_timeout_ms", self.turn_timeout_ms, 60_000);
        positive("feed_length", self.feed_length, 10_000_000);
        positive("instances_length", self.instances_length, 100_000);
        match (self.mode, self.urls.len()) {
            (_, 0) => faults.push("`urls` is empty".to_owned()),
            (Mode::Standalone, 2..) => {
                faults.push("`urls` has several entries, standalone takes one".to_owned());
            }
            _ => {}
        }
        if self.mode == Mode::Sentinel && self.master_name.is_empty() {
            faults.push("`master_name` is empty, sentinel needs it".to_owned());
        }
        if self.password.get().is_none() && !self.username.is_empty() {
            faults.push("`username` is given without `password`".to_owned());
        }
        faults.extend(self.urls.iter().filter_map(|url| parse(url).err()));
        if faults.is_empty() { Ok(()) } else { Err(Error::Config(faults.join("; "))) }
    }

    /// The addresses, as the client takes them; the options' credentials are in those of data servers.
    pub(super) fn nodes(&self) -> Result<Vec<ConnectionInfo>, Error> {
        let nodes = self.urls.iter().map(|url| parse(url).map_err(Error::Config));
        let own = |node| if self.mode == Mode::Sentinel { node } else { self.with_credentials(node) };
        nodes.map(|node| node.map(own)).collect()
    }

    /// The address with the options' credentials instead of its own, if there are any.
    pub(super) fn with_credentials(&self, node: ConnectionInfo) -> ConnectionInfo {
        let mut settings = node.redis_settings().clone();
        if !self.username.is_empty() {
            settings = settings.set_username(&self.username);
        }
        if let Some(password) = self.password.get() {
            settings = settings.set_password(password);
        }
        node.set_redis_settings(settings)
    }
}

fn parse(url: &str) -> Result<ConnectionInfo, String> {
    let shown = without_credentials(url);
    let info = url.into_connection_info().map_err(|why| format!("`{shown}` is no redis address: {why}"))?;
    match info.addr() {
        ConnectionAddr::Tcp(..) | ConnectionAddr::TcpTls { .. } => Ok(info),
        _ => Err(format!("`{shown}` is no network address")),
    }
}

fn without_credentials(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://***@{host}"),
        _ => url.to_owned(),
    }
}

fn masked<S: Serializer>(urls: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(urls.iter().map(|url| without_credentials(url)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;

    #[test]
    fn every_fault_is_reported_at_once() {
        let options = Options {
            mode: Mode::Sentinel,
            urls: vec!["http://x".to_owned(), "redis://a:1".to_owned()],
            response_timeout_ms: 0,
            feed_length: 0,
            username: "u".to_owned(),
            ..Options::default()
        };
        let text = options.validate().unwrap_err().to_string();
        for fault in ["response_timeout_ms", "feed_length", "master_name", "http://x", "username"] {
            assert!(text.contains(fault), "{fault}: {text}");
        }
        assert!(Options::default().validate().is_ok());
        assert!(Options { urls: Vec::new(), ..Options::default() }.validate().is_err());
    }

    #[test]
    fn secrets_are_neither_printed_nor_written() {
        let options = Options {
            urls: vec!["redis://user:hunter1@host:1/".to_owned()],
            password: Password::new("hunter2"),
            ..Options::default()
        };
        let shown = format!("{options:?} {}", serde_json::to_string(&options).unwrap());
        assert!(!shown.contains("hunter"), "{shown}");
        assert!(shown.contains("host:1"), "{shown}");
    }

    #[test]
    fn unknown_keys_are_refused() {
        assert!(serde_json::from_str::<Options>(r#"{"mode":"cluster","url":"redis://x"}"#).is_err());
        let read: Options = serde_json::from_str(r#"{"mode":"cluster","password":"p"}"#).unwrap();
        assert_eq!((read.mode, read.password.get()), (Mode::Cluster, Some("p")));
    }
}
