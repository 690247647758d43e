//! The same operations over HTTP.

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::fixture::{Plane, on_both};

on_both! {
    a_story_over_http
    entity_tags_guard_every_write
    a_write_may_wait_and_give_its_reason
}

impl Plane {
    pub(crate) async fn call(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        self.call_if(method, path, body, &[]).await
    }

    pub(crate) async fn call_if(
        &self,
        method: Method,
        path: &str,
        body: Value,
        headers: &[(&str, &str)],
    ) -> (StatusCode, Value) {
        let response = self.send(method, path, body, headers).await;
        (response.status(), response.json().await.unwrap())
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Value,
        headers: &[(&str, &str)],
    ) -> Response {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if !body.is_null() {
            request = request.json(&body);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }
}

async fn ok(plane: &Plane, method: Method, path: &str, body: Value) -> Value {
    let (status, answer) = plane.call(method.clone(), path, body).await;
    assert_eq!(status, StatusCode::OK, "{method} {path}: {answer}");
    answer
}

async fn a_story_over_http(plane: Plane) {
    let put = Method::PUT;
    ok(&plane, put.clone(), "/api/services/payment", json!({"defaultVersion": "1.0"})).await;
    let window = json!({"schema": {"min": "1.1"}});
    ok(&plane, put.clone(), "/api/services/payment/versions/2.0", window).await;
    let tenant = json!({"id": "acme", "tier": "gold", "status": "TENANT_STATUS_ACTIVE"});
    let written = ok(&plane, put.clone(), "/api/tenants/acme", tenant).await;
    assert_eq!(written["result"]["revision"], "3");
    assert_eq!(written["tenant"]["tier"], "gold");

    let version = "/api/tenants/acme/services/payment/version";
    let (status, refused) = plane.call(put.clone(), version, json!({"version": "2.0"})).await;
    assert_eq!(
        (status, refused["error"]["reason"].as_str()),
        (StatusCode::CONFLICT, Some("NO_LEGAL_VERSION"))
    );
    let schema = "/api/tenants/acme/services/payment/schema";
    ok(&plane, put.clone(), schema, json!({"schema": "1.1"})).await;
    let pinned = ok(&plane, put.clone(), version, json!({"targetVersion": "2.0", "locked": true})).await;
    assert_eq!(pinned["pin"]["version"], "v2.0");

    ok(&plane, put.clone(), "/api/services/basket", json!({"defaultVersion": "3"})).await;
    let effective = ok(&plane, Method::GET, "/api/tenants/acme/services", Value::Null).await;
    let services = json!([
        {"service": "basket", "version": "v3.0", "source": "default", "locked": false, "schema": "", "etag": null},
        {"service": "payment", "version": "v2.0", "source": "pin", "locked": true, "schema": "1.1", "etag": "\"1-5\""},
    ]);
    assert_eq!(effective, json!({"tenant": "acme", "services": services, "nextPageToken": ""}));
    let page =
        ok(&plane, Method::GET, "/api/tenants/acme/services?pageSize=1&pageToken=basket", Value::Null).await;
    assert_eq!(page["services"][0]["service"], "payment");

    let pins = ok(&plane, Method::GET, "/api/pins?service=payment", Value::Null).await;
    assert_eq!(pins["pins"][0]["tenant"], "acme");
    let policy = json!({"balancing": {"strategy": "STRATEGY_RANDOM"}});
    ok(&plane, put, "/api/services/payment/policy", policy).await;
    let policy = ok(&plane, Method::GET, "/api/services/payment/policy", Value::Null).await;
    assert_eq!(policy["balancing"]["strategy"], "STRATEGY_RANDOM");
    let set = json!({"changes": [{"change": {"pinRemoved": {"tenant": "acme", "service": "payment"}}}]});
    ok(&plane, Method::POST, "/api/change-sets", set).await;
    let events = ok(&plane, Method::GET, "/api/events?newestFirst=true&limit=1", Value::Null).await;
    assert_eq!(events["events"][0]["changes"][0]["pinRemoved"]["tenant"], "acme");
    let call = json!({"call": {"tenant": "acme", "service": "payment"}, "revision": 5});
    let explained = ok(&plane, Method::POST, "/api/explain", call).await;
    assert_eq!(explained["explanation"]["revision"], "5");
    let gold = ok(&plane, Method::GET, "/api/tenants?tier=gold&status=active", Value::Null).await;
    assert_eq!(gold["tenants"][0]["id"], "acme");
    let services = ok(&plane, Method::GET, "/api/services", Value::Null).await;
    assert_eq!(services["services"].as_array().unwrap().len(), 2);
    ok(&plane, Method::GET, "/api/routers", Value::Null).await;
    ok(&plane, Method::POST, "/api/routers/wait", json!({"timeout": "1s"})).await;
    ok(&plane, Method::DELETE, "/api/services/payment/versions/2.0", Value::Null).await;
    ok(&plane, Method::DELETE, "/api/services/payment", Value::Null).await;
    ok(&plane, Method::DELETE, "/api/tenants/acme", Value::Null).await;
    assert_eq!(plane.call(Method::GET, "/api/tenants/acme", Value::Null).await.0, StatusCode::NOT_FOUND);
}

async fn entity_tags_guard_every_write(plane: Plane) {
    plane.acme().await;
    plane.put_version("payment", "1.5", None).await;
    let canary = |weight| json!({"canary": {"baseline": "1.0", "canary": "2.0", "weight": weight}});
    let paths = [
        ("/api/tenants/acme", json!({"name": "A"}), json!({"name": "B"})),
        ("/api/services/payment", json!({"defaultVersion": "1.5"}), json!({"defaultVersion": "1.0"})),
        ("/api/services/payment/versions/7", json!({}), json!({"schema": {"min": "1"}})),
        ("/api/services/payment/policy", json!({"stateless": true}), json!({})),
        ("/api/services/payment/overlays/c", canary(100), canary(200)),
        ("/api/tenants/acme/services/payment/version", json!({"version": "1.0"}), json!({"version": "1.5"})),
    ];
    for (path, one, other) in paths {
        let written = plane.send(Method::PUT, path, one.clone(), &[]).await;
        let tag = written.headers()["etag"].to_str().unwrap().to_owned();
        // The same again keeps its tag; a read has it, too.
        let again = plane.send(Method::PUT, path, one.clone(), &[("if-match", &tag)]).await;
        assert_eq!(
            (again.status(), again.headers()["etag"].to_str().unwrap()),
            (StatusCode::OK, tag.as_str())
        );
        if !path.contains("version") && !path.contains("overlay") {
            let read = plane.send(Method::GET, path, Value::Null, &[]).await;
            assert_eq!(read.headers()["etag"], tag.as_str(), "{path}");
        }
        let changed = plane.send(Method::PUT, path, other.clone(), &[("if-match", &tag)]).await;
        assert_eq!(changed.status(), StatusCode::OK, "{path}");
        let new_tag = changed.headers()["etag"].to_str().unwrap().to_owned();
        assert_ne!(new_tag, tag, "{path}");
        let before = plane.revision().await;
        for condition in [("if-match", tag.as_str()), ("if-none-match", "*")] {
            let (status, refused) = plane.call_if(Method::PUT, path, one.clone(), &[condition]).await;
            assert_eq!(status, StatusCode::PRECONDITION_FAILED, "{path} {condition:?}");
            assert_eq!(refused["error"]["reason"], "REVISION_MISMATCH");
            assert_eq!(
                format!("\"1-{}\"", refused["error"]["metadata"]["present"].as_str().unwrap()),
                new_tag
            );
        }
        assert_eq!(plane.revision().await, before);
    }
    let created = plane.send(Method::PUT, "/api/tenants/new", json!({}), &[("if-none-match", "*")]).await;
    assert_eq!(created.status(), StatusCode::OK);
    let stale = plane.send(Method::DELETE, "/api/tenants/new", Value::Null, &[("if-match", "\"1-1\"")]).await;
    assert_eq!(stale.status(), StatusCode::PRECONDITION_FAILED);
}

async fn a_write_may_wait_and_give_its_reason(plane: Plane) {
    let path = "/api/tenants/acme?wait=1s500ms&reason=onboarding%20%237";
    let written = ok(&plane, Method::PUT, path, json!({})).await;
    assert_eq!(written["result"]["routers"]["total"].as_u64().unwrap_or_default(), 0);
    assert!(written["result"]["routers"]["elapsed"].is_string());
    assert_eq!(plane.events().await.first().unwrap().reason, "onboarding #7");
}
