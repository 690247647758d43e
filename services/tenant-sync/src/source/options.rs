//! What an operator can set about reading the tenant API.

use std::collections::BTreeMap;
use std::time::Duration;

use grey_runtime::config::duration;
use grey_runtime::{Secret, tls};
use serde::{Deserialize, Serialize};

/// How the tenant API is read.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Where the API is, such as `https://tenants.example`; no credentials, no query.
    pub url: String,
    /// The list of tenants below it; may have a query.
    pub path: String,
    /// How the list is cut into pages.
    pub paging: Paging,
    /// How the service identifies itself.
    pub auth: Auth,
    /// Headers sent with every page, such as an API key. Their values are never shown.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Secret>,
    /// Whom to trust instead of the operating system's authorities, and a client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<tls::ClientOptions>,
    /// Sends credentials over unencrypted connections to hosts other than this one.
    pub allow_plain: bool,
    /// For a connection.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// For one attempt at one page, its body included.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// For all pages, with every attempt and wait.
    #[serde(with = "duration")]
    pub deadline: Duration,
    /// How often, and when, a page is tried again.
    pub retries: Retries,
    /// Most bytes of one page.
    pub max_page_bytes: usize,
    /// Most pages.
    pub max_pages: u64,
    /// Most entries of the list.
    pub max_tenants: usize,
}

/// How the list is cut into pages.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Paging {
    /// What leads from one page to the next.
    pub kind: PagingKind,
    /// The query parameter for the page's number.
    pub page_param: String,
    /// The query parameter for the entries wanted per page; empty: it is not sent.
    pub size_param: String,
    /// Entries wanted per page.
    pub size: u32,
    /// The first page's number.
    pub first_page: u64,
    /// The query parameter for the number of entries before the page.
    pub offset_param: String,
    /// What it says of the first page: 0, or 1 where entries are counted from 1, as SCIM's `startIndex` does.
    pub first_offset: u64,
    /// The query parameter for the cursor.
    pub cursor_param: String,
    /// Where a page tells the next one's cursor, as a JSON pointer; absent, `null` or empty there: it is the last.
    pub cursor: String,
    /// Where a page tells the next one's address, as a JSON pointer; empty: in its `Link` header.
    pub next: String,
    /// Where each page tells how many tenants there are, as a JSON pointer; then anything but that number is a failure.
    /// Empty: no page tells.
    pub total: String,
}

/// What leads from one page to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PagingKind {
    /// There is one page.
    #[default]
    None,
    /// Its number. The list ends with an empty page, or once `total` tenants were listed.
    Page,
    /// The number of entries before it; otherwise as by number.
    Offset,
    /// A cursor in its body.
    Cursor,
    /// An address in its `Link` header or body.
    Link,
}

/// How the service identifies itself to the tenant API.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// By what.
    pub kind: AuthKind,
    /// The token, for `bearer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// Where tokens are given out, for `oauth2`.
    pub token_url: String,
    /// Whom they are given to.
    pub client_id: String,
    /// The proof of being that client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<Secret>,
    /// How client and secret are sent.
    pub client_auth: ClientAuth,
    /// What the token shall allow.
    pub scopes: Vec<String>,
    /// For whom it shall be good, where the server wants to know; empty: not sent.
    pub audience: String,
}

/// By what the service identifies itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthKind {
    /// Nothing.
    #[default]
    None,
    /// A token that does not change.
    Bearer,
    /// Tokens by OAuth 2 client credentials.
    OAuth2,
}

/// How an OAuth 2 client proves itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// By HTTP basic authentication, which every server must take.
    #[default]
    Basic,
    /// In the form that is posted.
    Body,
}

/// How often, and when, a page is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retries {
    /// Attempts at one page, the first included.
    pub attempts: usize,
    /// The first wait; each one doubles, and varies at random.
    #[serde(with = "duration")]
    pub first: Duration,
    /// The longest wait. A server that asks for a longer one is not read again before it is over (at most an hour).
    #[serde(with = "duration")]
    pub max: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            url: String::new(),
            path: "/api/tenants".to_owned(),
            paging: Paging::default(),
            auth: Auth::default(),
            headers: BTreeMap::new(),
            tls: None,
            allow_plain: false,
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
            deadline: Duration::from_mins(5),
            retries: Retries::default(),
            max_page_bytes: 32 << 20,
            max_pages: 10_000,
            max_tenants: 1_000_000,
        }
    }
}

impl Default for Paging {
    fn default() -> Self {
        Self {
            kind: PagingKind::None,
            page_param: "page".to_owned(),
            size_param: "size".to_owned(),
            size: 1000,
            first_page: 1,
            offset_param: "offset".to_owned(),
            first_offset: 0,
            cursor_param: "cursor".to_owned(),
            cursor: "/next".to_owned(),
            next: String::new(),
            total: String::new(),
        }
    }
}

impl Default for Retries {
    fn default() -> Self {
        Self { attempts: 5, first: Duration::from_millis(500), max: Duration::from_secs(30) }
    }
}
