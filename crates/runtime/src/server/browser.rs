//! Requests that a page of somebody else makes a browser send.
//!
//! Where callers need no token, a browser on the same machine is as good as its user: a page of any site may send
//! requests to loopback, and one whose name was made to resolve there may read the answers. Such requests tell by their
//! `Host` and `Origin`, which a page cannot choose.

use std::net::IpAddr;

use http::{HeaderMap, Uri, header};

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is addressed to a name that is not of this machine.
    Host,
    /// It is sent by a page of another origin.
    Origin,
}

impl Refused {
    /// What the client is told, in the form of every error of the API.
    pub(super) fn body(self) -> &'static str {
        match self {
            Self::Host => {
                r#"{"error":{"code":403,"status":"PERMISSION_DENIED","reason":"DENIED","message":"without a token this service answers to localhost and IP addresses alone, not to the name in `host`","metadata":{"field":"host"}}}"#
            }
            Self::Origin => {
                r#"{"error":{"code":403,"status":"PERMISSION_DENIED","reason":"DENIED","message":"without a token this service does not answer to pages of other origins","metadata":{"field":"origin"}}}"#
            }
        }
    }
}

/// Looks at a request without a token; `is_local`: the service can be reached on this machine alone.
pub(super) fn check(uri: &Uri, headers: &HeaderMap, is_local: bool) -> Result<(), Refused> {
    // Whether a service lives is no secret, and those who watch over it call it by any name.
    if headers.contains_key(header::AUTHORIZATION) || uri.path().starts_with("/health/") {
        return Ok(());
    }
    if headers.get_all(header::HOST).iter().nth(1).is_some() {
        // Which one counts is a matter of taste, and tastes differ on the way.
        return Err(Refused::Host);
    }
    let host = uri.authority().map(|authority| authority.as_str()).or_else(|| text(headers, "host"));
    let host = host.unwrap_or_default();
    if is_local && !is_of_this_machine(host) {
        return Err(Refused::Host);
    }
    let cross_site = text(headers, "sec-fetch-site").is_some_and(|site| site == "cross-site");
    let same_origin = match headers.get(header::ORIGIN) {
        None => true,
        Some(origin) => origin.to_str().is_ok_and(|origin| {
            origin.split_once("://").is_some_and(|(_, from)| from.eq_ignore_ascii_case(host))
        }),
    };
    if cross_site || !same_origin { Err(Refused::Origin) } else { Ok(()) }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    // What is not text is no name either.
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

fn is_of_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let lower = name.to_ascii_lowercase();
    // HTTP/1.0 has no `host`, and no browser speaks it.
    host.is_empty()
        || lower == "localhost"
        || lower.ends_with(".localhost")
        || lower.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use http::HeaderValue;

    use super::*;

    fn checked(uri: &str, headers: &[(&'static str, &str)], is_local: bool) -> Result<(), Refused> {
        let headers = headers.iter().map(|(name, value)| {
            (header::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        });
        check(&uri.parse().unwrap(), &headers.collect(), is_local)
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
        }
        for host in
            ["evil.example", "localhost.evil.example:7411", "127.0.0.1.evil.example", "a:b:c", "[evil]"]
        {
            assert_eq!(checked("/", &[("host", host)], true), Err(Refused::Host), "{host}");
            assert_eq!(checked("/", &[("host", host)], false), Ok(()), "{host}");
        }
        assert_eq!(checked("/", &[], true), Ok(()));
        let twice = [("host", "localhost"), ("host", "localhost")];
        assert_eq!(checked("/", &twice, false), Err(Refused::Host), "two are one too many");
        assert_eq!(checked("/health/live", &[("host", "probe.example")], true), Ok(()));
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let own = ("host", "localhost:7411");
        let of = |headers: &[(&'static str, &str)]| checked("/", &[&[own], headers].concat(), true);
        assert_eq!(of(&[("origin", "http://localhost:7411"), ("sec-fetch-site", "same-origin")]), Ok(()));
        assert_eq!(of(&[("sec-fetch-site", "none")]), Ok(()));
        for origin in ["http://evil.example", "http://localhost:7400", "null", "localhost:7411", ""] {
            assert_eq!(of(&[("origin", origin)]), Err(Refused::Origin), "{origin}");
        }
        assert_eq!(of(&[("sec-fetch-site", "cross-site")]), Err(Refused::Origin));
        let token = ("authorization", "Bearer x");
        assert_eq!(of(&[("origin", "http://evil.example"), token]), Ok(()), "a page cannot know a token");
    }

    #[test]
    fn refusals_are_errors_as_the_api_has_them() {
        for refused in [Refused::Host, Refused::Origin] {
            let body: serde_json::Value = serde_json::from_str(refused.body()).unwrap();
            assert_eq!(body["error"]["reason"], "DENIED");
        }
    }
}
