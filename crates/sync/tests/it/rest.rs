//! The operations over HTTP.

use std::time::Duration;

use grey_proto::sync::{AcceptResponse, GetStatusRequest, GetStatusResponse, TriggerResponse};
use grey_runtime::access::Options;
use grey_state::State;
use grey_testkit::eventually;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::DEADLINE;
use crate::replica::{Replica, TOKEN, holding, lead, tokens};

impl Replica {
    fn send(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).timeout(DEADLINE)
    }

    fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.send(Method::POST, path).json(body)
    }
}

/// The code and the reason of a refusal.
async fn refusal(request: RequestBuilder) -> (StatusCode, String) {
    let response = request.send().await.unwrap();
    let code = response.status();
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["code"], code.as_u16(), "{body}");
    (code, body["error"]["reason"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn http_tells_the_same_message_as_grpc() {
    let replica = Replica::start(&State::memory(), "a", Options::default()).await;
    replica.desk.publish(TOKEN, holding("c1")).await.unwrap();
    let text = replica.send(Method::GET, "/api/sync").send().await.unwrap().text().await.unwrap();
    let read: GetStatusResponse = serde_json::from_str(&text).unwrap();
    assert_eq!(read, replica.grpc().get_status(GetStatusRequest {}).await.unwrap().into_inner());
    let json: Value = serde_json::from_str(&text).unwrap();
    let status = &json["status"];
    assert_eq!((&status["leader"], &status["answeredBy"]), (&json!("a"), &json!("a")));
    assert_eq!((&status["heldTotal"], &status["counts"]), (&json!("1"), &json!({"routed": "8"})));
    assert_eq!(status["held"][0]["reason"], "HOLD_REASON_INSTANCE_DROP");
    assert!(status["reportedAt"].as_str().unwrap().contains('T'), "{status}");
}

#[tokio::test]
async fn requests_are_carried_out_over_http() {
    let replica = Replica::start(&State::memory(), "a", Options::default()).await;
    let change = "payment@dc-1/7 é";
    let _leading = tokio::spawn(lead(replica.desk.clone(), holding(change)));
    eventually(DEADLINE, "a leads", async || replica.desk.status().await.unwrap().leader == "a").await;

    let run = replica.post("/api/sync/run", &json!({"wait": "60s"})).send().await.unwrap();
    let run: TriggerResponse = run.json().await.unwrap();
    assert_eq!(run.handled.unwrap().request, run.request);
    let at_once = replica.post("/api/sync/run", &json!({})).send().await.unwrap();
    assert_eq!(at_once.status(), StatusCode::OK);

    let path = "/api/sync/changes/payment@dc-1%2F7%20%C3%A9/accept";
    for body in [json!({"wait": "60s"}), json!({"wait": "60s", "change": change})] {
        let accepted = replica.post(path, &body).send().await.unwrap();
        let accepted: AcceptResponse = accepted.json().await.unwrap();
        assert_eq!(accepted.handled.unwrap().error, "");
    }
}

#[tokio::test]
async fn roles_hold_over_http() {
    let replica = Replica::start(&State::memory(), "a", tokens()).await;
    replica.desk.publish(TOKEN, holding("c1")).await.unwrap();
    let acts = || {
        [replica.post("/api/sync/run", &json!({})), replica.post("/api/sync/changes/c1/accept", &json!({}))]
    };
    assert_eq!(refusal(replica.send(Method::GET, "/api/sync")).await.0, StatusCode::UNAUTHORIZED);
    let read = replica.send(Method::GET, "/api/sync").bearer_auth("viewer").send().await.unwrap();
    assert_eq!(read.status(), StatusCode::OK);
    for act in acts() {
        assert_eq!(refusal(act.bearer_auth("viewer")).await, (StatusCode::FORBIDDEN, "DENIED".to_owned()));
    }
    assert_eq!(replica.desk.take(Duration::ZERO).await.unwrap(), []);
    for act in acts() {
        assert_eq!(act.bearer_auth("operator").send().await.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(replica.desk.take(Duration::ZERO).await.unwrap().len(), 2);
}

#[tokio::test]
async fn bad_requests_are_refused_in_our_own_words() {
    let replica = Replica::start(&State::memory(), "a", Options::default()).await;
    replica.desk.publish(TOKEN, holding("c1")).await.unwrap();
    let (run, accept) = ("/api/sync/run", "/api/sync/changes/c1/accept");
    let refused = [
        replica.post(run, &json!({"wait": "601s"})),
        replica.post(run, &json!({"wait": "-1s"})),
        replica.post(run, &json!({"wait": "soon"})),
        replica.post(run, &json!({"patience": "1s"})),
        replica.post("/api/sync/run?wait=1s", &json!({})),
        replica.post(accept, &json!({"wait": "-0.5s"})),
        replica.post(accept, &json!({"change": "c2"})),
        replica.send(Method::GET, "/api/sync?verbose=1"),
    ];
    for request in refused {
        assert_eq!(refusal(request).await, (StatusCode::BAD_REQUEST, "INVALID_ARGUMENT".to_owned()));
    }
    let unknown = replica.post("/api/sync/changes/c2/accept", &json!({}));
    assert_eq!(refusal(unknown).await, (StatusCode::NOT_FOUND, "UNKNOWN_CHANGE".to_owned()));
    for untyped in [replica.send(Method::POST, run), replica.send(Method::POST, run).body("{}")] {
        assert_eq!(refusal(untyped).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let large = replica.post(run, &json!({"wait": "1".repeat(100_000)}));
    assert_eq!(refusal(large).await, (StatusCode::PAYLOAD_TOO_LARGE, "TOO_LARGE".to_owned()));
    assert_eq!(refusal(replica.send(Method::GET, run)).await.0, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(refusal(replica.send(Method::GET, "/api/other")).await.0, StatusCode::NOT_FOUND);
    assert_eq!(replica.desk.take(Duration::ZERO).await.unwrap(), [], "nothing refused is asked");
}
