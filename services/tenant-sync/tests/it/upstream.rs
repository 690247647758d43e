//! A tenant API that lists what a test wants, and fails the way a test wants.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, LINK, LOCATION, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// How the list is cut into pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pages {
    /// Not at all.
    Whole,
    /// By `page` (from 1) and `size`.
    Numbered,
    /// By `offset`, counted from `first`, and `size`, of which at most so many are given.
    Offsets { first: u64, most: usize },
    /// By `cursor` and `size`; the next one stands at `/next`.
    Cursors,
    /// By the `Link` header and `size`.
    Links,
    /// By the address at `/links/next` and `size`.
    Addresses,
}

/// What happens to a request instead of a proper answer.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// An answer with this status and text.
    Status(u16, &'static str),
    /// A status with `Retry-After`.
    Later(u16, &'static str),
    /// The proper answer, after a while.
    Slow(Duration),
    /// Half of the promised bytes, then the connection ends.
    CutOff,
    /// The same, in chunks without a promise.
    CutChunks,
    /// Half of the document, sent as if it were all of it.
    Half,
    /// Something else.
    Body(String),
    /// Something else that is no text.
    Bytes(Vec<u8>),
    /// A redirection.
    Redirect(String),
    /// Something else, compressed.
    Gzip(String),
    /// A `Link` header of the test's own with the proper document.
    Link(String),
}

/// What a request was like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) query: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) status: u16,
}

#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) addr: SocketAddr,
    api: Arc<Mutex<Api>>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Api {
    entries: Vec<String>,
    pages: Pages,
    total: Option<u64>,
    token: Option<String>,
    script: VecDeque<Option<Fault>>,
    always: Option<Fault>,
    seen: Vec<Seen>,
    tokens: VecDeque<(u16, Value)>,
    grants: Vec<(BTreeMap<String, String>, String)>,
}

type Shared = State<Arc<Mutex<Api>>>;

impl Upstream {
    /// Lists nothing, at once and without pages.
    pub(crate) async fn start() -> Self {
        let api = Arc::new(Mutex::new(Api {
            entries: Vec::new(),
            pages: Pages::Whole,
            total: None,
            token: None,
            script: VecDeque::new(),
            always: None,
            seen: Vec::new(),
            tokens: VecDeque::new(),
            grants: Vec::new(),
        }));
        let app = Router::new()
            .route("/api/tenants", get(list))
            .route("/moved/tenants", get(list))
            .route("/token", post(token))
            .with_state(Arc::clone(&api));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { addr, api, server }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What it lists from now on.
    pub(crate) fn list(&self, tenants: &[Value]) {
        self.api().entries = tenants.iter().map(Value::to_string).collect();
    }

    pub(crate) fn pages(&self, pages: Pages) {
        self.api().pages = pages;
    }

    /// The number of tenants that pages tell at `/total`.
    pub(crate) fn total(&self, total: u64) {
        self.api().total = Some(total);
    }

    /// The only token that is good from now on.
    pub(crate) fn require(&self, token: &str) {
        self.api().token = Some(token.to_owned());
    }

    /// What happens to the next requests, one by one; `None`: a proper answer.
    pub(crate) fn script(&self, faults: impl IntoIterator<Item = Option<Fault>>) {
        self.api().script.extend(faults);
    }

    /// What happens to every request after those of the script; `None`: a proper answer.
    pub(crate) fn always(&self, fault: Option<Fault>) {
        self.api().always = fault;
    }

    /// What the next requests for a token are answered; the last answer is given again and again.
    pub(crate) fn tokens(&self, answers: impl IntoIterator<Item = (u16, Value)>) {
        self.api().tokens.extend(answers);
    }

    /// The requests for pages so far, which are forgotten.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.api().seen)
    }

    /// Their statuses.
    pub(crate) fn statuses(&self) -> Vec<u16> {
        self.seen().iter().map(|seen| seen.status).collect()
    }

    /// The forms posted for tokens so far, and with which authorization; they are forgotten.
    pub(crate) fn grants(&self) -> Vec<(BTreeMap<String, String>, String)> {
        std::mem::take(&mut self.api().grants)
    }

    fn api(&self) -> MutexGuard<'_, Api> {
        self.api.lock().unwrap()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// `count` tenants called `t000000` and so on.
pub(crate) fn tenants(range: Range<usize>) -> Vec<Value> {
    range
        .map(|i| json!({"id": format!("t{i:06}"), "name": format!("Tenant {i}"), "status": "active"}))
        .collect()
}

async fn list(
    State(api): Shared,
    query: Query<BTreeMap<String, String>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let fault = {
        let mut api = api.lock().unwrap();
        let always = api.always.clone();
        api.script.pop_front().unwrap_or(always)
    };
    if let Some(Fault::Slow(wait)) = &fault {
        tokio::time::sleep(*wait).await;
    }
    let mut api = api.lock().unwrap();
    let response = api.answer(fault, &query, &headers);
    let texts = headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    let seen = Seen {
        query: uri.query().unwrap_or_default().to_owned(),
        headers: texts.collect(),
        status: response.status().as_u16(),
    };
    api.seen.push(seen);
    response
}

async fn token(State(api): Shared, headers: HeaderMap, body: String) -> Response {
    let mut api = api.lock().unwrap();
    let form = reqwest::Url::parse(&format!("http://form/?{body}")).unwrap();
    let form = form.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    let authorization = headers.get(AUTHORIZATION).map_or("", |value| value.to_str().unwrap()).to_owned();
    api.grants.push((form, authorization));
    let answers = &mut api.tokens;
    let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
    let (status, body) = answer.unwrap_or((500, Value::Null));
    (StatusCode::from_u16(status).unwrap(), axum::Json(body)).into_response()
}

impl Api {
    fn answer(
        &self,
        fault: Option<Fault>,
        query: &BTreeMap<String, String>,
        headers: &HeaderMap,
    ) -> Response {
        let status = |code: u16| StatusCode::from_u16(code).unwrap();
        let authorization = headers.get(AUTHORIZATION).map_or("", |value| value.to_str().unwrap());
        if self.token.as_ref().is_some_and(|token| authorization != format!("Bearer {token}")) {
            return (StatusCode::UNAUTHORIZED, format!("not allowed: {authorization}")).into_response();
        }
        let half = |document: &str| document.get(..document.len() / 2).unwrap().to_owned();
        let (document, link) = self.document(query);
        match fault {
            None | Some(Fault::Slow(_)) => proper(document, link),
            Some(Fault::Link(link)) => proper(document, Some(link)),
            Some(Fault::Status(code, text)) => (status(code), text).into_response(),
            Some(Fault::Later(code, wait)) => (status(code), [(RETRY_AFTER, wait)]).into_response(),
            Some(Fault::Redirect(to)) => (StatusCode::FOUND, [(LOCATION, to)]).into_response(),
            Some(Fault::Gzip(text)) => ([(CONTENT_ENCODING, "gzip")], gzip(&text)).into_response(),
            Some(Fault::Body(text)) => text.into_response(),
            Some(Fault::Bytes(bytes)) => bytes.into_response(),
            Some(Fault::Half) => half(&document).into_response(),
            Some(Fault::CutChunks) => cut(half(&document)).into_response(),
            Some(Fault::CutOff) => {
                ([(CONTENT_LENGTH, document.len().to_string())], cut(half(&document))).into_response()
            }
        }
    }

    /// A page, and the `Link` header that goes with it.
    fn document(&self, query: &BTreeMap<String, String>) -> (String, Option<String>) {
        let number = |name: &str| query.get(name).and_then(|text| text.parse::<usize>().ok());
        let size = number("size").unwrap_or(100);
        let size = if let Pages::Offsets { most, .. } = self.pages { size.min(most) } else { size };
        let count = self.entries.len();
        let start = match self.pages {
            Pages::Whole => 0,
            Pages::Numbered => (number("page").unwrap_or(1) - 1) * size,
            Pages::Offsets { first, .. } => number("offset").unwrap() - usize::try_from(first).unwrap(),
            Pages::Cursors | Pages::Links | Pages::Addresses => number("cursor").unwrap_or(0),
        };
        let start = start.min(count);
        let end = if self.pages == Pages::Whole { count } else { (start + size).min(count) };
        let next = (end < count).then_some(end);
        let address = next.map(|next| format!("/api/tenants?size={size}&cursor={next}"));
        let mut document = format!("{{\"tenants\":[{}]", self.entries[start..end].join(","));
        if let Some(total) = self.total {
            document += &format!(",\"total\":{total}");
        }
        match self.pages {
            Pages::Cursors => document += &format!(",\"next\":{}", json!(next.map(|next| next.to_string()))),
            Pages::Addresses => document += &format!(",\"links\":{}", json!({"next": address})),
            Pages::Whole | Pages::Numbered | Pages::Offsets { .. } | Pages::Links => {}
        }
        document.push('}');
        let link = address.filter(|_| self.pages == Pages::Links);
        (document, link.map(|link| format!("<{link}>; rel=\"next\"")))
    }
}

fn proper(document: String, link: Option<String>) -> Response {
    let link = link.map(|link| (LINK, link.parse::<HeaderValue>().unwrap()));
    (HeaderMap::from_iter(link), document).into_response()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// A body that breaks off after `text`, once that has been sent.
fn cut(text: String) -> Body {
    let end = io::Error::other("cut off");
    Body::from_stream(stream::iter([Ok(Bytes::from(text)), Err(end)]).then(async |part| {
        if part.is_err() {
            tokio::task::yield_now().await;
        }
        part
    }))
}
