//! What an operator can set about one Nacos cluster.

use std::time::Duration;

use grey_runtime::config::duration;
use grey_runtime::tls::ClientOptions;
use grey_runtime::{Faults, Secret, Validate};
use serde::{Deserialize, Serialize};

/// Most namespace and group pairs of one cluster: each costs a call per look at the list of services.
const MAX_PAIRS: usize = 256;

/// Which part of which Nacos cluster is followed, and how.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// The servers of *one* cluster as `host:port`, the port being that for HTTP; gRPC is expected 1000 above.
    pub servers: Vec<String>,
    /// Namespaces by their ids; the empty one is Nacos' `public`.
    pub namespaces: Vec<String>,
    /// Groups, followed in every namespace.
    pub groups: Vec<String>,
    /// Encrypts connections to both ports; none: they are plain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientOptions>,
    /// The user to log in as; empty: nobody.
    pub username: String,
    /// The user's password.
    pub password: Secret,
    /// How often the list of services is read. It is the sign of life, too: a silent server is noticed within this and
    /// `call_timeout`.
    #[serde(with = "duration")]
    pub discover: Duration,
    /// How often everything is read without a sign of change.
    #[serde(with = "duration")]
    pub reconcile: Duration,
    /// Longest wait for one answer.
    #[serde(with = "duration")]
    pub call_timeout: Duration,
    /// Longest time between two attempts while the cluster does not answer.
    #[serde(with = "duration")]
    pub retry: Duration,
    /// After failing for this long, attempts are made with new connections besides the old ones, which the library
    /// repairs ever more slowly.
    #[serde(with = "duration")]
    pub renew: Duration,
    /// Services per page of their list.
    pub page: u32,
    /// Most calls at once, for reading everything and for following changes each.
    pub calls: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            namespaces: vec![String::new()],
            groups: vec!["DEFAULT_GROUP".to_owned()],
            tls: None,
            username: String::new(),
            password: Secret::new(""),
            discover: Duration::from_secs(2),
            reconcile: Duration::from_secs(60),
            call_timeout: Duration::from_secs(3),
            retry: Duration::from_secs(10),
            renew: Duration::from_secs(30),
            page: 500,
            calls: 16,
        }
    }
}

impl Options {
    /// For the cluster of `servers`, with everything else as by default.
    #[must_use]
    pub fn new(servers: Vec<String>) -> Self {
        Self { servers, ..Self::default() }
    }
}

impl Validate for Options {
    fn validate(&self, faults: &mut Faults) {
        faults.check(!self.servers.is_empty(), "servers", "must name at least one server");
        for server in &self.servers {
            let fits = is_address(server);
            faults.check(fits, "servers", format!("`{server}` is not host:port, without a scheme or a path"));
        }
        faults.check(!self.namespaces.is_empty(), "namespaces", "must not be empty; \"\" is `public`");
        faults.check(!self.groups.is_empty(), "groups", "must not be empty");
        faults.check(!self.groups.iter().any(String::is_empty), "groups", "must not hold an empty name");
        for (key, names) in [("namespaces", &self.namespaces), ("groups", &self.groups)] {
            let twice =
                names.iter().enumerate().find(|(at, name)| names.iter().take(*at).any(|n| n == *name));
            faults.check(twice.is_none(), key, "must not name one twice");
        }
        let pairs = self.namespaces.len().saturating_mul(self.groups.len());
        faults.check(
            pairs <= MAX_PAIRS,
            "groups",
            format!("must make at most {MAX_PAIRS} pairs with namespaces"),
        );
        if let Some(tls) = &self.tls {
            faults.section("tls", tls);
        }
        let complete = self.username.is_empty() == self.password.expose().is_empty();
        faults.check(complete, "password", "username and password belong together");
        let spans = [
            ("discover", self.discover),
            ("reconcile", self.reconcile),
            ("call_timeout", self.call_timeout),
            ("retry", self.retry),
            ("renew", self.renew),
        ];
        for (key, span) in spans {
            faults.check(!span.is_zero(), key, "must be longer than nothing");
        }
        faults.check(self.reconcile >= self.discover, "reconcile", "must not be shorter than discover");
        faults.check((1..=10_000).contains(&self.page), "page", "must be between 1 and 10000");
        faults.check((1..=256).contains(&self.calls), "calls", "must be between 1 and 256");
    }
}

/// Whether `text` is `host:port`, with an IPv6 host in brackets; the library reads commas as separators.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let plain = host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    !host.is_empty()
        && (bracketed || plain)
        && port.parse::<u16>().is_ok_and(|port| port > 0 && port < 64_535)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "test code panics")]
mod tests {
    use super::*;

    fn faults(change: impl Fn(&mut Options)) -> Vec<String> {
        let mut options = Options::new(vec!["127.0.0.1:8848".to_owned()]);
        change(&mut options);
        let mut faults = Faults::default();
        options.validate(&mut faults);
        faults.found().iter().map(|fault| fault.path.clone()).collect()
    }

    #[test]
    fn defaults_are_in_order_and_every_rule_names_its_key() {
        assert!(faults(|_| {}).is_empty());
        assert!(
            faults(|o| o.servers = vec!["[::1]:8848".to_owned(), "nacos-0.nacos:8848".to_owned()]).is_empty()
        );
        assert_eq!(faults(|o| o.servers.clear()), ["servers"]);
        for wrong in
            ["nacos", "http://nacos:8848", "nacos:8848/nacos", "a:1,b:2", "nacos:0", "nacos:65000", ":1"]
        {
            assert_eq!(faults(|o| o.servers = vec![wrong.to_owned()]), ["servers"], "{wrong}");
        }
        assert_eq!(faults(|o| o.namespaces.clear()), ["namespaces"]);
        assert_eq!(faults(|o| o.namespaces.push(String::new())), ["namespaces"]);
        assert_eq!(faults(|o| o.groups.clear()), ["groups"]);
        assert_eq!(faults(|o| o.groups.push(String::new())), ["groups"]);
        assert_eq!(faults(|o| o.groups = (0..300).map(|n| n.to_string()).collect()), ["groups"]);
        assert_eq!(faults(|o| o.username = "grey".to_owned()), ["password"]);
        assert_eq!(faults(|o| o.call_timeout = Duration::ZERO), ["call_timeout"]);
        assert_eq!(faults(|o| o.reconcile = Duration::from_secs(1)), ["reconcile"]);
        assert_eq!(faults(|o| o.page = 0), ["page"]);
        assert_eq!(faults(|o| o.calls = 0), ["calls"]);
    }

    #[test]
    fn file_with_servers_alone_is_the_default_and_hides_the_password() {
        let text = r#"{"servers": ["127.0.0.1:8848"], "username": "grey", "password": "hidden99", "discover": "5s"}"#;
        let options: Options = serde_json::from_str(text).unwrap();
        assert_eq!(options.groups, ["DEFAULT_GROUP"]);
        assert_eq!(options.namespaces, [""]);
        assert_eq!(options.discover, Duration::from_secs(5));
        assert_eq!(options.reconcile, Duration::from_secs(60));
        assert!(!format!("{options:?}{}", serde_json::to_string(&options).unwrap()).contains("hidden99"));
        assert!(serde_json::from_str::<Options>(r#"{"servers": [], "server": "x"}"#).is_err());
    }
}
