//! Every rule about the options, all at once.

use std::net::IpAddr;

use grey_runtime::{Faults, Validate};
use reqwest::Url;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::options::{Auth, AuthKind, Options, Paging, PagingKind, Retries};
use crate::mapping::Pointer;

/// Headers that the service or its HTTP client sets.
const OWN_HEADERS: [HeaderName; 7] = [
    header::ACCEPT,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::HOST,
    header::IF_NONE_MATCH,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
/// Most entries per page that can be asked for.
const MAX_SIZE: u32 = 1_000_000;
/// Longest document that can be allowed.
const MAX_BYTES: usize = 1 << 30;

/// Reads an address that requests go to.
pub(super) fn address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|fault| format!("is not a URL: {fault}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err("must start with https:// or http:// and name a host".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold credentials: they belong under auth".to_owned());
    }
    if url.fragment().is_some() {
        return Err("must not have a fragment".to_owned());
    }
    Ok(url)
}

/// The address of the list.
pub(super) fn list(options: &Options) -> Result<Url, String> {
    address(&format!("{}{}", options.url.trim_end_matches('/'), options.path))
}

/// The configured headers, marked as secrets.
pub(super) fn headers(options: &Options, faults: &mut Faults) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, secret) in &options.headers {
        let key = format!("headers.{name}");
        let value = secret_value(secret.expose());
        match (HeaderName::try_from(name), value) {
            (Ok(name), _) if OWN_HEADERS.contains(&name) => faults.add(&key, "is set by the service itself"),
            (Ok(header::AUTHORIZATION), _) if options.auth.kind != AuthKind::None => {
                faults.add(&key, "is set by auth");
            }
            (Ok(name), Some(value)) => {
                headers.insert(name, value);
            }
            (Err(_), _) => faults.add(&key, "is not the name of a header"),
            (_, None) => faults.add(&key, "has a value that no header can have"),
        }
    }
    headers
}

/// A value that is not shown; none if no header can have it.
pub(super) fn secret_value(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl Validate for Options {
    fn validate(&self, faults: &mut Faults) {
        self.check_addresses(faults);
        headers(self, faults);
        faults.section("paging", &self.paging);
        faults.section("auth", &self.auth);
        faults.section("retries", &self.retries);
        if let Some(tls) = &self.tls {
            faults.section("tls", tls);
            let unused = tls.domain.is_none();
            faults.check(
                unused,
                "tls.domain",
                "is not supported here: name the host of the certificate in url",
            );
        }
        for (key, value) in [("connect_timeout", self.connect_timeout), ("timeout", self.timeout)] {
            faults.check(!value.is_zero(), key, "must be longer than nothing");
        }
        faults.check(self.deadline >= self.timeout, "deadline", "must be at least as long as timeout");
        let fits = (1..=MAX_BYTES).contains(&self.max_page_bytes);
        faults.check(fits, "max_page_bytes", format!("must be between 1 and {MAX_BYTES}"));
        faults.check(self.max_pages > 0, "max_pages", "must be at least 1");
        faults.check(self.max_tenants > 0, "max_tenants", "must be at least 1");
    }
}

impl Options {
    fn check_addresses(&self, faults: &mut Faults) {
        let secret = self.auth.kind != AuthKind::None || !self.headers.is_empty();
        if self.url.is_empty() {
            faults.add("url", "is empty: it must say where the tenant API is");
        } else {
            match address(&self.url) {
                Ok(url) if url.query().is_some() => {
                    faults.add("url", "must not have a query: it belongs to path");
                }
                Ok(url) => {
                    if secret {
                        self.check_encrypted(&url, "url", faults);
                    }
                    if let Err(fault) = list(self) {
                        faults.add("path", fault);
                    }
                }
                Err(fault) => faults.add("url", fault),
            }
        }
        faults.check(self.path.starts_with('/'), "path", "must start with a slash");
        if self.auth.kind == AuthKind::OAuth2 {
            match address(&self.auth.token_url) {
                Ok(url) => self.check_encrypted(&url, "auth.token_url", faults),
                Err(fault) => faults.add("auth.token_url", fault),
            }
        }
    }

    fn check_encrypted(&self, url: &Url, key: &str, faults: &mut Faults) {
        let host = url.host_str().unwrap_or_default();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse();
        let loopback = host == "localhost" || address.is_ok_and(|address: IpAddr| address.is_loopback());
        let safe = url.scheme() == "https" || loopback || self.allow_plain;
        faults.check(safe, key, "would carry credentials unencrypted: use https, or set allow_plain");
    }
}

impl Validate for Paging {
    fn validate(&self, faults: &mut Faults) {
        let pointers = [("cursor", &self.cursor), ("next", &self.next), ("total", &self.total)];
        for (key, text) in pointers {
            if let Err(fault) = Pointer::parse(text) {
                faults.add(key, fault.to_string());
            }
        }
        let wanted: &[(&str, &String)] = match self.kind {
            PagingKind::None | PagingKind::Link => &[],
            PagingKind::Page => &[("page_param", &self.page_param)],
            PagingKind::Offset => &[("offset_param", &self.offset_param)],
            PagingKind::Cursor => &[("cursor_param", &self.cursor_param), ("cursor", &self.cursor)],
        };
        for (key, text) in wanted {
            faults.check(!text.is_empty(), key, "is empty, but this kind of paging needs it");
        }
        faults.check(
            (1..=MAX_SIZE).contains(&self.size),
            "size",
            format!("must be between 1 and {MAX_SIZE}"),
        );
    }
}

impl Validate for Auth {
    fn validate(&self, faults: &mut Faults) {
        let token = self.token.as_ref().map_or("", |token| token.expose());
        let secret = self.client_secret.as_ref().map_or("", |secret| secret.expose());
        match self.kind {
            AuthKind::None => {
                let unused = token.is_empty() && secret.is_empty();
                faults.check(unused, "kind", "is none, but there are credentials");
            }
            AuthKind::Bearer => {
                faults.check(!token.is_empty(), "token", "is empty");
                let fits = secret_value(token).is_some();
                faults.check(fits, "token", "has characters that no header can have");
            }
            AuthKind::OAuth2 => {
                faults.check(!self.client_id.is_empty(), "client_id", "is empty");
                faults.check(!secret.is_empty(), "client_secret", "is empty");
            }
        }
    }
}

impl Validate for Retries {
    fn validate(&self, faults: &mut Faults) {
        faults.check((1..=100).contains(&self.attempts), "attempts", "must be between 1 and 100");
        faults.check(!self.first.is_zero(), "first", "must be longer than nothing");
        faults.check(self.max >= self.first, "max", "must be at least as long as first");
    }
}
