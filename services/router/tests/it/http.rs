//! The HTTP twin.

use grey_core::error::Reason;
use grey_proto::router::{
    ExplainResponse, ReportResponse, RouteBatchResponse, RouteResponse, route_outcome::Outcome,
};
use grey_proto::status::{ApiError, ErrorBody};
use grey_runtime::access::{Token, TokenHash};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tonic::Request;

use crate::world::{Router, World, call, told, within};

async fn send(router: &Router, method: Method, path: &str, kind: &str, body: String) -> (StatusCode, String) {
    let url = format!("http://{}{path}", router.http);
    let request = reqwest::Client::new().request(method, url).header("content-type", kind).body(body);
    let answer = within(request.send()).await.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

async fn post(router: &Router, what: &str, body: Value) -> (StatusCode, String) {
    let path = format!("/api/grey-router/{what}");
    send(router, Method::POST, &path, "application/json", body.to_string()).await
}

fn error(answer: &(StatusCode, String)) -> (u16, Reason) {
    let body: ErrorBody = serde_json::from_str(&answer.1).unwrap_or_else(|e| panic!("{e}: {}", answer.1));
    assert_eq!(body.error.code, answer.0.as_u16());
    (body.error.code, ApiError::from(body).reason)
}

#[tokio::test]
async fn every_route_answers_as_its_rpc() {
    let world = World::memory().await.with_payment().await;
    let router = world.start().await;
    router.follows(&world).await;
    let beta = json!({"tenant": "beta", "service": "payment", "metadata": {"a": "b"}});

    let (code, body) = post(&router, "route", beta.clone()).await;
    assert_eq!(code, 200, "{body}");
    let json: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&json["version"], &json["reason"], &json["revision"]),
        (&json!("v2.0"), &json!("DECISION_REASON_PIN"), &json!("1"))
    );
    let route: RouteResponse = serde_json::from_str(&body).unwrap();

    let (code, body) =
        post(&router, "route-batch", json!({"calls": [beta, {"tenant": "nobody", "service": "payment"}]}))
            .await;
    assert_eq!(code, 200, "{body}");
    let batch: RouteBatchResponse = serde_json::from_str(&body).unwrap();
    let outcomes: Vec<_> = batch.outcomes.into_iter().map(|o| o.outcome.unwrap()).collect();
    assert!(matches!(&outcomes[0], Outcome::Decision(d) if d.version == route.version));
    assert!(matches!(&outcomes[1], Outcome::Error(e) if e.reason == "UNKNOWN_TENANT" && e.code == 5));

    let (code, body) = post(&router, "explain", json!({"call": beta})).await;
    assert_eq!(code, 200, "{body}");
    let explained: ExplainResponse = serde_json::from_str(&body).unwrap();
    assert!(
        explained.explanation.unwrap().steps.iter().any(|s| s.name == "base" && s.outcome.contains("v2.0"))
    );

    let instance = route.instance.unwrap().id;
    let outcome = json!({"tenant": "beta", "service": "payment", "version": "v2", "instance": instance, "success": true, "latency": "0.005s"});
    let (code, body) = post(&router, "report", json!({"outcomes": [outcome]})).await;
    assert_eq!(code, 200, "{body}");
    assert_eq!(serde_json::from_str::<ReportResponse>(&body).unwrap().counted, 1);
    router.stop().await;
}

#[tokio::test]
async fn every_failure_is_an_error_body() {
    let world = World::memory().await.with_payment().await;
    let router = world.start().await;
    router.follows(&world).await;
    let ask = async |method: Method, path: &str, kind: &str, body: &str| {
        error(&send(&router, method, path, kind, body.to_owned()).await)
    };
    let (json, route) = ("application/json", "/api/grey-router/route");
    let invalid = (400, Reason::InvalidArgument);
    assert_eq!(
        error(&post(&router, "route", json!({"tenant": "nobody", "service": "payment"})).await),
        (404, Reason::UnknownTenant)
    );
    assert_eq!(ask(Method::POST, route, json, "{").await, invalid);
    assert_eq!(ask(Method::POST, route, json, "\u{fffd}").await, invalid);
    assert_eq!(ask(Method::POST, route, json, "[]").await, invalid);
    assert_eq!(
        ask(Method::POST, route, json, r#"{"tenant":"acme","service":"payment","typo":1}"#).await,
        invalid
    );
    assert_eq!(ask(Method::POST, route, json, r#"{"tenant":7}"#).await, invalid);
    assert_eq!(
        ask(Method::POST, route, json, r#"{"tenant":"acme","service":"payment","minRevision":-1}"#).await,
        invalid
    );
    assert_eq!(ask(Method::POST, route, json, "{}").await, invalid);
    assert_eq!(ask(Method::POST, route, "text/plain", "{}").await.0, 415);
    assert_eq!(ask(Method::GET, route, json, "").await.0, 405);
    assert_eq!(ask(Method::POST, "/api/grey-router/nothing", json, "{}").await.0, 404);
    assert_eq!(ask(Method::GET, "/", json, "").await.0, 404);
    let long = format!(r#"{{"tenant":"{}"}}"#, "x".repeat(70_000));
    assert_eq!(ask(Method::POST, route, json, &long).await, (413, Reason::TooLarge));
    let nested = "[".repeat(10_000);
    assert_eq!(ask(Method::POST, "/api/grey-router/route-batch", json, &nested).await, invalid);
    assert_eq!(
        post(&router, "route", json!({"tenant": "acme", "service": "payment"})).await.0,
        200,
        "alive afterwards"
    );
    router.stop().await;
}

#[tokio::test]
async fn callers_without_a_known_token_are_refused_and_operators_are_not() {
    let world = World::memory().await.with_payment().await;
    let router = Router::start(world.state.clone(), |c| {
        c.access.tokens =
            vec![Token { name: "one".into(), role: "gateway".into(), sha256: TokenHash::of("one") }];
    })
    .await;
    router.follows(&world).await;
    for what in ["route", "route-batch", "explain", "report"] {
        assert_eq!(error(&post(&router, what, json!({})).await), (401, Reason::Unauthenticated), "{what}");
    }
    let url = format!("http://{}/api/grey-router/route", router.http);
    let body = json!({"tenant": "acme", "service": "payment"}).to_string();
    let request = reqwest::Client::new().post(url).bearer_auth("one");
    let answer = within(request.header("content-type", "application/json").body(body).send()).await.unwrap();
    assert_eq!(answer.status(), 200);
    for path in ["/health/live", "/health/ready", "/metrics"] {
        assert_eq!(router.get(path).await.0, 200, "{path}");
    }
    let mut call = Request::new(call("acme", "payment"));
    call.metadata_mut().insert("authorization", "Bearer two".parse().unwrap());
    assert_eq!(told(within(router.client.clone().route(call)).await).reason, Reason::Unauthenticated);
    let (_, metrics) = router.get("/metrics").await;
    for (port, reason, count) in [("http", "missing", 4), ("grpc", "unknown", 1)] {
        let is_it = |line: &&str| {
            line.starts_with("grey_auth_failures_total")
                && line.contains(&format!("port=\"{port}\""))
                && line.contains(&format!("reason=\"{reason}\""))
        };
        let line = metrics.lines().find(is_it).unwrap_or_else(|| panic!("{port} {reason} in {metrics}"));
        assert!(line.ends_with(&format!(" {count}")), "{line}");
    }
    router.stop().await;
}
