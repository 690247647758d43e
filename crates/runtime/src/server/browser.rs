//! Requests that a page of somebody else makes a browser send.
//!
//! Where callers need no token, a browser on the same machine is as good as its user: a page of any site may send
//! requests to loopback, and one whose name was made to resolve there may read the answers. Such requests tell by their
//! `Host`, or HTTP/2's `:authority`, and `Origin`, which a page cannot choose.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, Uri, header};

use super::Purpose;
use crate::access;

/// How a browser says whether the page is of the origin that it asks.
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RefusedPage {
    /// It is addressed to a name that is not of this machine.
    #[error(
        "without a token this service answers to localhost and IP addresses alone, not to the name in `host`"
    )]
    Host,
    /// It is addressed to several.
    #[error(
        "without a token a request must name one host: `host` at most once, and the same as `:authority`"
    )]
    Hosts,
    /// It is sent by a page of another origin.
    #[error("without a token this service does not answer to pages of other origins")]
    Origin,
}

impl RefusedPage {
    /// What of the request is to blame.
    #[must_use]
    pub fn field(self) -> &'static str {
        match self {
            Self::Host | Self::Hosts => "host",
            Self::Origin => "origin",
        }
    }

    /// What the client is told, in the form of every error of the API.
    pub(super) fn body(self) -> String {
        format!(
            r#"{{"error":{{"code":403,"status":"PERMISSION_DENIED","reason":"DENIED","message":"{self}","metadata":{{"field":"{}"}}}}}}"#,
            self.field()
        )
    }
}

/// A port on which browsers are not trusted to be their users.
#[derive(Debug, Clone, Copy)]
pub struct Pages {
    /// Whether it can be reached on this machine alone.
    is_local: bool,
}

impl Pages {
    /// For a port at `addr`; none if its callers need a token, which no page of others knows.
    #[must_use]
    pub fn of(access: &access::Options, addr: SocketAddr) -> Option<Self> {
        access.serves_anonymous(addr).then_some(Self { is_local: addr.ip().is_loopback() })
    }

    /// Looks at a request, of which only those without a token matter.
    ///
    /// # Errors
    /// A page of another origin may have sent it.
    pub fn check(self, uri: &Uri, headers: &HeaderMap) -> Result<(), RefusedPage> {
        self.check_name(uri, headers).inspect_err(|refused| {
            tracing::debug!(request.path = uri.path(), why = ?refused, "refused a request of a page of another origin");
        })
    }

    fn check_name(self, uri: &Uri, headers: &HeaderMap) -> Result<(), RefusedPage> {
        // Whether a service lives is no secret, and those who watch over it call it by any name.
        if headers.contains_key(header::AUTHORIZATION) || Purpose::of(uri.path()) == Purpose::Health {
            return Ok(());
        }
        let host = host(uri, headers)?;
        if !self.answers_to(host) {
            return Err(RefusedPage::Host);
        }
        check_origin(headers, host)
    }

    fn answers_to(self, host: &str) -> bool {
        !self.is_local || is_of_this_machine(host)
    }
}

/// The name that the requests of a connection came to last: most connections know one, which need not be read for each
/// request.
#[derive(Debug, Default)]
pub struct LastHost(Option<Box<str>>);

impl LastHost {
    /// As [`Pages::check`].
    ///
    /// # Errors
    /// As of [`Pages::check`].
    pub fn check(&mut self, pages: Pages, uri: &Uri, headers: &HeaderMap) -> Result<(), RefusedPage> {
        let authority = uri.authority().map(|authority| authority.as_str());
        let says_more = headers.contains_key(header::HOST)
            || headers.contains_key(header::ORIGIN)
            || headers.contains_key(SITE);
        if !says_more && authority.is_some() && authority == self.0.as_deref() {
            return Ok(());
        }
        pages.check(uri, headers)?;
        // Those with a token were let in under any name.
        self.0 = authority.filter(|authority| pages.answers_to(authority)).map(Box::from);
        Ok(())
    }
}

/// The one host that a request is addressed to; empty if it names none, as in HTTP/1.0, which no browser speaks.
fn host<'r>(uri: &'r Uri, headers: &'r HeaderMap) -> Result<&'r str, RefusedPage> {
    let mut stated = headers.get_all(header::HOST).iter().map(text);
    let (authority, host) = (uri.authority().map(|authority| authority.as_str()), stated.next());
    // Which of several counts is a matter of taste, and tastes differ on the way.
    if stated.next().is_some() {
        return Err(RefusedPage::Hosts);
    }
    match (authority, host) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => Err(RefusedPage::Hosts),
        (authority, host) => Ok(authority.or(host).unwrap_or_default()),
    }
}

/// Refuses what a page says that is not of `host`, in any of the headers that are there.
fn check_origin(headers: &HeaderMap, host: &str) -> Result<(), RefusedPage> {
    let is_own =
        |origin: &str| origin.split_once("://").is_some_and(|(_, from)| from.eq_ignore_ascii_case(host));
    let mut origins = headers.get_all(header::ORIGIN).iter().map(text);
    let is_of_one = origins.next().is_none_or(is_own) && origins.next().is_none();
    // A page of this machine that is served on another port is of the same site and of another origin.
    let mut sites = headers.get_all(SITE).iter().map(text);
    let is_of_it = sites.all(|site| matches!(site, "same-origin" | "none"));
    if is_of_one && is_of_it { Ok(()) } else { Err(RefusedPage::Origin) }
}

fn text(value: &http::HeaderValue) -> &str {
    // What is not text is no name either.
    value.to_str().unwrap_or("?")
}

fn is_of_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let lower = name.to_ascii_lowercase();
    let is_named = lower == "localhost" || lower.ends_with(".localhost") || lower.parse::<IpAddr>().is_ok();
    // What stands before an `@` is no part of the name.
    (host.is_empty() || is_named) && !host.contains('@')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use http::HeaderValue;

    use super::*;

    fn headers(headers: &[(&'static str, &str)]) -> HeaderMap {
        let headers = headers.iter().map(|(name, value)| {
            (header::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        });
        // Collected, the last of each name would be left.
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            all.append(name, value);
        }
        all
    }

    fn checked(uri: &str, given: &[(&'static str, &str)], is_local: bool) -> Result<(), RefusedPage> {
        Pages { is_local }.check(&uri.parse().unwrap(), &headers(given))
    }

    #[test]
    fn only_names_of_this_machine_are_answered_to_on_loopback() {
        for host in [
            "localhost",
            "localhost:7411",
            "LOCALHOST:1",
            "a.localhost",
            "127.0.0.1:7411",
            "[::1]:7411",
            "[::1]",
        ] {
            assert_eq!(checked("/", &[("host", host)], true), Ok(()), "{host}");
            assert_eq!(checked(&format!("http://{host}/"), &[], true), Ok(()), "{host}");
            assert_eq!(checked(&format!("http://{host}/"), &[("host", host)], true), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example:7411",
            "127.0.0.1.evil.example",
            "a:b:c",
            "[evil]",
            "localhost:1@evil.example",
        ] {
            assert_eq!(checked("/", &[("host", host)], true), Err(RefusedPage::Host), "{host}");
            assert_eq!(checked("/", &[("host", host)], false), Ok(()), "{host}");
        }
        assert_eq!(checked("/", &[], true), Ok(()));
        for health in ["/health/live", "/grpc.health.v1.Health/Check"] {
            assert_eq!(checked(health, &[("host", "probe.example")], true), Ok(()), "{health}");
        }
    }

    #[test]
    fn a_request_has_one_host() {
        let twice = [("host", "localhost"), ("host", "localhost")];
        assert_eq!(checked("/", &twice, false), Err(RefusedPage::Hosts), "two are one too many");
        for (authority, host) in [("localhost", "evil.example"), ("evil.example", "localhost")] {
            let refused = checked(&format!("http://{authority}/"), &[("host", host)], false);
            assert_eq!(refused, Err(RefusedPage::Hosts), "{authority} and {host}");
        }
        assert_eq!(checked("http://localhost:1/", &[("host", "LocalHost:1")], true), Ok(()));
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let own = ("host", "localhost:7411");
        let of = |headers: &[(&'static str, &str)]| checked("/", &[&[own], headers].concat(), true);
        let (here, evil) = (("origin", "http://localhost:7411"), ("origin", "http://evil.example"));
        assert_eq!(of(&[here, ("sec-fetch-site", "same-origin")]), Ok(()));
        assert_eq!(of(&[("sec-fetch-site", "none")]), Ok(()));
        for origin in ["http://evil.example", "http://localhost:7400", "null", "localhost:7411", ""] {
            assert_eq!(of(&[("origin", origin)]), Err(RefusedPage::Origin), "{origin}");
        }
        for several in [[here, evil], [evil, here], [here, here]] {
            assert_eq!(of(&several), Err(RefusedPage::Origin), "{several:?}");
        }
        for site in ["cross-site", "same-site"] {
            assert_eq!(of(&[("sec-fetch-site", site)]), Err(RefusedPage::Origin), "{site}");
            let both = [("sec-fetch-site", "same-origin"), ("sec-fetch-site", site)];
            assert_eq!(of(&both), Err(RefusedPage::Origin), "{site}");
        }
        let token = ("authorization", "Bearer x");
        assert_eq!(of(&[evil, token]), Ok(()), "a page cannot know a token");
    }

    #[test]
    fn what_a_connection_said_last_lets_nobody_in() {
        let mut last = LastHost::default();
        let mut check = |uri: &str, given: &[(&'static str, &str)]| {
            last.check(Pages { is_local: true }, &uri.parse().unwrap(), &headers(given))
        };
        let (evil, token) = ("http://evil.example/", ("authorization", "Bearer x"));
        for _ in 0..2 {
            assert_eq!(check("http://localhost/", &[]), Ok(()));
            assert_eq!(
                check("http://localhost/", &[("origin", "http://evil.example")]),
                Err(RefusedPage::Origin)
            );
            assert_eq!(check("http://localhost/", &[("host", "evil.example")]), Err(RefusedPage::Hosts));
            assert_eq!(
                check("http://localhost/", &[("sec-fetch-site", "same-site")]),
                Err(RefusedPage::Origin)
            );
            assert_eq!(check(evil, &[token]), Ok(()));
            assert_eq!(check(evil, &[]), Err(RefusedPage::Host));
            assert_eq!(check("http://evil.example/grpc.health.v1.Health/Check", &[]), Ok(()));
            assert_eq!(check(evil, &[]), Err(RefusedPage::Host));
            assert_eq!(check("/", &[("host", "evil.example")]), Err(RefusedPage::Host));
        }
    }

    #[test]
    fn refusals_are_errors_as_the_api_has_them() {
        for refused in [RefusedPage::Host, RefusedPage::Hosts, RefusedPage::Origin] {
            let body: serde_json::Value = serde_json::from_str(&refused.body()).unwrap();
            assert_eq!(body["error"]["reason"], "DENIED");
            assert_eq!(body["error"]["message"], refused.to_string());
        }
    }
}
