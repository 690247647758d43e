//! How the service identifies itself, and to whom.

use std::collections::BTreeMap;

use grey_runtime::Secret;
use grey_tenant_sync::source::{Auth, AuthKind, ClientAuth};
use serde_json::{Value, json};

use super::*;
use crate::upstream::{Fault, Pages, tenants};

const TOKEN: &str = "long-lived-token";
const CLIENT_SECRET: &str = "client/secret+1";

fn bearer(upstream: &Upstream, token: &str) -> Options {
    let auth = Auth { kind: AuthKind::Bearer, token: Some(Secret::new(token)), ..Auth::default() };
    Options { auth, ..options(upstream) }
}

fn oauth2(upstream: &Upstream) -> Options {
    let auth = Auth {
        kind: AuthKind::OAuth2,
        token_url: format!("{}/token", upstream.url()),
        client_id: "grey".to_owned(),
        client_secret: Some(Secret::new(CLIENT_SECRET)),
        scopes: vec!["tenants.read".to_owned(), "more".to_owned()],
        ..Auth::default()
    };
    Options { auth, ..options(upstream) }
}

fn grant(token: &str, life: u64) -> (u16, Value) {
    (200, json!({"access_token": token, "token_type": "Bearer", "expires_in": life}))
}

fn sent(upstream: &Upstream) -> Vec<Option<String>> {
    upstream.seen().into_iter().map(|mut seen| seen.headers.remove("authorization")).collect()
}

#[tokio::test]
async fn a_token_and_headers_go_with_every_page() {
    let upstream = Upstream::start().await;
    upstream.require(TOKEN);
    upstream.pages(Pages::Links);
    upstream.list(&tenants(0..8));
    let mut options = bearer(&upstream, TOKEN);
    options.paging = Paging { kind: PagingKind::Link, size: 4, ..Paging::default() };
    options.headers = BTreeMap::from([("X-Api-Key".to_owned(), Secret::new("key-1"))]);
    assert_eq!(full(&mut source(&options)).await.tenants.len(), 8);
    let seen = upstream.seen();
    assert_eq!(seen.len(), 2);
    for seen in seen {
        assert_eq!(seen.headers["x-api-key"], "key-1");
        assert_eq!(seen.headers["accept"], "application/json");
    }
}

#[tokio::test]
async fn no_text_tells_a_secret() {
    let upstream = Upstream::start().await;
    upstream.require(TOKEN);
    // The server repeats the header that it does not like.
    let mut options = bearer(&upstream, "wrong-token");
    options.headers = BTreeMap::from([("x-api-key".to_owned(), Secret::new("key-1"))]);
    options.path = "/api/tenants?key=in-the-query".to_owned();
    let mut source = source(&options);
    let error = failure(&mut source).await;
    let address = format!("{}/api/tenants", upstream.url());
    assert_eq!(error.to_string(), format!("read page 1 of {address}: answered 401: not allowed: Bearer ***"));
    assert_eq!(upstream.statuses(), [401]);
    drop(upstream);
    let unreachable = failure(&mut source).await;
    for text in [told(&error), format!("{error:?}"), told(&unreachable), format!("{unreachable:?}")] {
        assert!(!text.contains("wrong-token") && !text.contains("in-the-query"), "{text}");
    }
    for text in [format!("{source:?}"), format!("{options:?}")] {
        assert!(!text.contains("wrong-token") && !text.contains("key-1"), "{text}");
    }
}

#[tokio::test]
async fn an_oauth2_token_is_asked_for_once_and_used_while_it_is_good() {
    for (client_auth, authorization, secret) in [
        (ClientAuth::Basic, "Basic Z3JleTpjbGllbnQlMkZzZWNyZXQlMkIx", None),
        (ClientAuth::Body, "", Some(CLIENT_SECRET)),
    ] {
        let upstream = Upstream::start().await;
        upstream.require("one");
        upstream.tokens([grant("one", 3600)]);
        upstream.list(&tenants(0..3));
        let mut options = oauth2(&upstream);
        options.auth.client_auth = client_auth;
        options.auth.audience = "https://tenants.example".to_owned();
        let mut source = source(&options);
        full(&mut source).await;
        full(&mut source).await;
        let grants = upstream.grants();
        assert_eq!(grants.len(), 1);
        let (form, header) = &grants[0];
        assert_eq!(header, authorization);
        assert_eq!(form["grant_type"], "client_credentials");
        assert_eq!(form["scope"], "tenants.read more");
        assert_eq!(form["audience"], "https://tenants.example");
        assert_eq!(form.get("client_secret").map(String::as_str), secret);
        assert!(!format!("{source:?}").contains("secret+1"));
    }
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced_once() {
    let upstream = Upstream::start().await;
    upstream.list(&tenants(0..3));
    upstream.require("two");
    upstream.tokens([grant("one", 3600), grant("two", 3600)]);
    let mut source = source(&oauth2(&upstream));
    assert_eq!(full(&mut source).await.tenants.len(), 3);
    let [one, two] = ["Bearer one", "Bearer two"].map(|text| Some(text.to_owned()));
    assert_eq!(sent(&upstream), [one, two]);
    upstream.require("never given out");
    let error = failure(&mut source).await;
    assert!(matches!(error, Error::Status { status: 401, .. }), "{error:?}");
    assert!(!told(&error).contains("two"), "{error}");
    assert_eq!((upstream.statuses().len(), upstream.grants().len()), (2, 3));
}

#[tokio::test]
async fn an_expired_token_is_replaced_without_being_refused() {
    let upstream = Upstream::start().await;
    upstream.list(&tenants(0..3));
    upstream.tokens([grant("one", 0), grant("two", 0)]);
    let mut source = source(&oauth2(&upstream));
    full(&mut source).await;
    full(&mut source).await;
    let [one, two] = ["Bearer one", "Bearer two"].map(|text| Some(text.to_owned()));
    assert_eq!(sent(&upstream), [one, two]);
}

#[tokio::test]
async fn a_refused_client_is_told_in_the_words_of_the_server() {
    let upstream = Upstream::start().await;
    let said = format!("bad secret {CLIENT_SECRET}");
    upstream.tokens([(401, json!({"error": "invalid_client", "error_description": said}))]);
    let mut source = source(&oauth2(&upstream));
    let error = failure(&mut source).await;
    let expected = format!("get a token from {}/token: invalid_client: bad secret ***", upstream.url());
    assert_eq!((error.to_string(), error.kind()), (expected, "credentials"));
    assert_eq!((upstream.grants().len(), upstream.statuses().len()), (1, 0));
}

#[tokio::test]
async fn a_token_server_in_trouble_is_asked_again() {
    let upstream = Upstream::start().await;
    upstream.list(&tenants(0..3));
    upstream.tokens([(503, json!({})), grant("one", 3600)]);
    assert_eq!(full(&mut source(&oauth2(&upstream))).await.tenants.len(), 3);
    for answer in [json!({"access_token": "x"}), json!([]), json!({"access_token": "x", "token_type": "mac"})]
    {
        let upstream = Upstream::start().await;
        upstream.tokens([(200, answer)]);
        let error = failure(&mut source(&oauth2(&upstream))).await;
        assert!(matches!(error, Error::Token { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_redirection_is_followed_within_the_origin_only() {
    let upstream = Upstream::start().await;
    let other = Upstream::start().await;
    upstream.list(&tenants(0..3));
    upstream.require(TOKEN);
    let mut source = source(&bearer(&upstream, TOKEN));
    upstream.script([Some(Fault::Redirect("/moved/tenants".to_owned()))]);
    assert_eq!(full(&mut source).await.tenants.len(), 3);
    assert_eq!(upstream.statuses(), [302, 200]);
    let away = format!("{}/api/tenants", other.url());
    upstream.script([Some(Fault::Redirect(away))]);
    let error = failure(&mut source).await;
    assert!(matches!(error, Error::Redirect { .. }), "{error:?}");
    upstream.always(Some(Fault::Redirect("/api/tenants".to_owned())));
    assert!(matches!(failure(&mut source).await, Error::Redirect { .. }));
    assert_eq!(other.seen(), []);
}

#[tokio::test]
async fn a_link_to_another_origin_is_not_followed() {
    let upstream = Upstream::start().await;
    let other = Upstream::start().await;
    upstream.list(&tenants(0..3));
    let host = upstream.addr;
    for target in [other.url(), format!("http://user:word@{host}/api/tenants"), "https:///".to_owned()] {
        upstream.script([Some(Fault::Link(format!("<{target}>; rel=next")))]);
        let error = failure(&mut source(&paged(&upstream, PagingKind::Link, 2))).await;
        assert!(matches!(error, Error::Link { .. }), "{error:?}");
    }
    assert_eq!(other.seen(), []);
}

#[test]
fn every_fault_of_the_options_is_told_at_once() {
    let token = "nöt\na header";
    let mut options = Options {
        url: "http://tenants.example/?x=1".to_owned(),
        path: "tenants".to_owned(),
        timeout: Duration::ZERO,
        max_pages: 0,
        ..Options::default()
    };
    options.paging = Paging { kind: PagingKind::Cursor, cursor: String::new(), size: 0, ..Paging::default() };
    options.auth = Auth { kind: AuthKind::Bearer, token: Some(Secret::new(token)), ..Auth::default() };
    options.headers =
        BTreeMap::from([("host".to_owned(), Secret::new("x")), ("a b".to_owned(), Secret::new("y"))]);
    options.retries.attempts = 0;
    let mapping = mapping::Options { id: "id".to_owned(), ..mapping::Options::default() };
    let Err(Error::Options(faults)) = Source::new(&options, &mapping) else {
        panic!("the options were taken")
    };
    for key in [
        "source.url",
        "source.path",
        "source.timeout",
        "source.max_pages",
        "source.paging.cursor",
        "source.paging.size",
        "source.auth.token",
        "source.headers.host",
        "source.headers.a b",
        "source.retries.attempts",
        "mapping.id",
    ] {
        assert!(
            faults.iter().any(|fault| fault.starts_with(&format!("{key}: "))),
            "{key} is not in {faults:#?}"
        );
    }
    assert!(!format!("{faults:?}").contains("nöt"));
}

#[test]
fn credentials_travel_encrypted_unless_the_operator_says_otherwise() {
    let auth = Auth { kind: AuthKind::Bearer, token: Some(Secret::new(TOKEN)), ..Auth::default() };
    let taken = |url: &str, allow_plain, auth: Auth| {
        let options = Options { url: url.to_owned(), allow_plain, auth, ..Options::default() };
        Source::new(&options, &mapping::Options::default()).is_ok()
    };
    assert!(!taken("http://tenants.example", false, auth.clone()));
    assert!(taken("http://tenants.example", true, auth.clone()));
    assert!(taken("http://tenants.example", false, Auth::default()));
    for local in ["http://localhost:1", "http://127.0.0.9", "http://[::1]:80"] {
        assert!(taken(local, false, auth.clone()), "{local}");
    }
    let unused = Auth { kind: AuthKind::None, ..auth.clone() };
    for (url, auth) in [("http://localhost", unused), ("http://me:word@localhost", auth.clone()), ("", auth)]
    {
        assert!(!taken(url, false, auth), "{url}");
    }
}
