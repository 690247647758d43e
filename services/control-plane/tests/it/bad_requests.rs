//! Bad input to every route: the right refusal in our own words, nothing changed, still alive.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::access::ROUTES;
use crate::databases::URL;
use crate::fixture::{Plane, on_both};

on_both! {
    malformed_and_oversized_bodies_are_refused_by_every_route
    malformed_ids_are_refused_by_every_route
    unknown_places_methods_and_parameters_are_refused
    malformed_conditions_are_refused_by_every_write
    bodies_must_fit_their_path
}

/// The refusal's code, its reason, and that body and status line agree.
async fn refusal(request: reqwest::RequestBuilder) -> (u16, String) {
    let response = request.send().await.unwrap();
    let status = response.status();
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["code"].as_u64(), Some(u64::from(status.as_u16())), "{body}");
    let message = body["error"]["message"].as_str().unwrap();
    assert!(!message.is_empty());
    for inner in ["struct ", "enum ", "::", "control.v1", " u32", " u64", "Content"] {
        assert!(!message.contains(inner), "`{message}` names what callers do not know");
    }
    (status.as_u16(), body["error"]["reason"].as_str().unwrap().to_owned())
}

fn invalid(code: u16) -> (u16, String) {
    (code, "INVALID_ARGUMENT".to_owned())
}

/// Whether all that there is to say may be in the path.
fn needs_no_body(path: &str) -> bool {
    path.contains("/upgrade-schema/") || path.ends_with("/cancel") || path.ends_with("/promotion")
}

fn takes_a_body(method: &Method) -> bool {
    *method == Method::PUT || *method == Method::POST
}

async fn malformed_and_oversized_bodies_are_refused_by_every_route(plane: Plane) {
    plane.acme().await;
    let before = plane.revision().await;
    for (method, path, _) in ROUTES.into_iter().filter(|(method, _, _)| takes_a_body(method)) {
        let request = || plane.http.request(method.clone(), format!("{}{path}", plane.base));
        let json = |body: &str| request().header("content-type", "application/json").body(body.to_owned());
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        for body in ["", "{", "[]", "null", "7", "{\"nonsense\": 1}", "\u{0}", "{\"id\": 5}", &deep] {
            if body.is_empty() && needs_no_body(path) {
                continue;
            }
            let (code, reason) = refusal(json(body)).await;
            assert_eq!((code, reason), invalid(400), "{method} {path} {body:.20}");
        }
        let latin = request().header("content-type", "application/json").body(vec![b'"', 0xff, b'"']);
        assert_eq!(refusal(latin).await, invalid(400), "{method} {path}");
        assert_eq!(refusal(request().body("{}")).await, invalid(415), "{method} {path}");
        let text = request().header("content-type", "text/plain").body("{}");
        assert_eq!(refusal(text).await, invalid(415), "{method} {path}");
        let large = json(&"x".repeat((1 << 20) + 1));
        assert_eq!(refusal(large).await, (413, "TOO_LARGE".to_owned()), "{method} {path}");
    }
    assert_eq!(plane.revision().await, before);
    assert_eq!(plane.call(Method::PUT, "/api/tenants/new", json!({})).await.0, StatusCode::OK);
}

async fn malformed_ids_are_refused_by_every_route(plane: Plane) {
    plane.acme().await;
    let before = plane.revision().await;
    let long = "x".repeat(64);
    for bad in ["A", "a%20b", "%7Ba%7D", "a:b", "%2e%2e%2fetc", "%00", "%ff", "%C3%A4", &long] {
        for (method, path, _) in ROUTES {
            for part in ["acme", "payment", "versions/1.0"] {
                let replaced =
                    if part == "versions/1.0" { format!("versions/{bad}") } else { bad.to_owned() };
                let changed = path.replacen(part, &replaced, 1);
                if changed == path || method == Method::HEAD {
                    continue;
                }
                let body = match path {
                    _ if path.ends_with("/version") => json!({"version": "1.0"}),
                    "/api/services/payment" => json!({"defaultVersion": "1.0"}),
                    _ if path.ends_with("/schema-upgrade") => json!({"service": "payment"}),
                    _ if path.ends_with("/database") => json!({"url": URL}),
                    _ => json!({}),
                };
                let request = plane.http.request(method.clone(), format!("{}{changed}", plane.base));
                let request = if takes_a_body(&method) { request.json(&body) } else { request };
                assert_eq!(refusal(request).await, invalid(400), "{method} {changed}");
            }
        }
    }
    assert_eq!(plane.revision().await, before);
}

async fn unknown_places_methods_and_parameters_are_refused(plane: Plane) {
    plane.acme().await;
    let before = plane.revision().await;
    let get = |path: &str| plane.http.get(format!("{}{path}", plane.base));
    for path in ["/", "/api", "/api/tenant", "/api/tenants/acme/nothing", "/api/tenants/a/b/c", "/x?y=z"] {
        assert_eq!(refusal(get(path)).await, invalid(404), "{path}");
    }
    for (method, path, _) in ROUTES {
        let path = path.split('?').next().unwrap();
        let request = plane.http.request(Method::PATCH, format!("{}{path}", plane.base));
        assert_eq!(refusal(request).await, invalid(405), "{path}");
        if method == Method::HEAD {
            continue;
        }
        for query in ["nonsense=1", "wait=soon", "reason=a&reason=b", "pageSize=-1", "a=%ff"] {
            let request = plane.http.request(method.clone(), format!("{}{path}?{query}", plane.base));
            let request = if takes_a_body(&method) { request.json(&filler(path)) } else { request };
            assert_eq!(refusal(request).await, invalid(400), "{method} {path}?{query}");
        }
    }
    for path in [
        "/api/tenants?pageSize=1001",
        "/api/tenants?status=asleep",
        "/api/tenants?pageToken=%27",
        "/api/events?after=x",
        "/api/events?newestFirst=maybe",
        "/api/events?limit=99999999999",
        "/api/pins",
        "/api/databases?pageSize=1001",
        "/api/databases?pageToken=acme",
    ] {
        assert_eq!(refusal(get(path)).await, invalid(400), "{path}");
    }
    let wait = plane.http.put(format!("{}/api/tenants/acme?wait=61s", plane.base)).json(&json!({}));
    assert_eq!(refusal(wait).await, invalid(400));
    assert_eq!(plane.revision().await, before);
}

/// A body that the route would take.
fn filler(path: &str) -> Value {
    match path {
        _ if path.ends_with("/version") => json!({"version": "1.0"}),
        "/api/services/payment" => json!({"defaultVersion": "1.0"}),
        _ if path.ends_with("/database") => json!({"url": URL}),
        _ if path.ends_with("/schema-upgrade") => json!({"service": "payment"}),
        "/api/explain" => json!({"call": {"tenant": "acme", "service": "payment"}}),
        _ => json!({}),
    }
}

async fn malformed_conditions_are_refused_by_every_write(plane: Plane) {
    plane.acme().await;
    let before = plane.revision().await;
    let writes = ROUTES.into_iter().filter(|(method, path, _)| {
        *method == Method::DELETE || (*method == Method::PUT && !path.contains("change-sets"))
    });
    for (method, path, _) in writes {
        let conditions = [
            vec![("if-match", "1-3")],
            vec![("if-match", "\"3\"")],
            vec![("if-match", "\"0-3\"")],
            vec![("if-match", "\"1-03\"")],
            vec![("if-match", "W/\"1-3\"")],
            vec![("if-match", "\"1-0\"")],
            vec![("if-match", "\"1-+3\"")],
            vec![("if-match", "\"1-99999999999999999999\"")],
            vec![("if-match", "*")],
            vec![("if-none-match", "\"1-3\"")],
            vec![("if-match", "\"1-3\""), ("if-none-match", "*")],
            vec![("if-match", "\"1-3\""), ("if-match", "\"1-4\"")],
        ];
        for headers in conditions {
            let mut request = plane.http.request(method.clone(), format!("{}{path}", plane.base));
            if method == Method::PUT {
                request = request.json(&filler(path));
            }
            for (name, value) in &headers {
                request = request.header(*name, *value);
            }
            assert_eq!(refusal(request).await, invalid(400), "{method} {path} {headers:?}");
        }
    }
    assert_eq!(plane.revision().await, before);
}

async fn bodies_must_fit_their_path(plane: Plane) {
    plane.acme().await;
    let before = plane.revision().await;
    for (path, body) in [
        ("/api/tenants/acme", json!({"id": "other"})),
        ("/api/services/payment", json!({"id": "other", "defaultVersion": "1.0"})),
        ("/api/services/payment/versions/1.0", json!({"service": "other"})),
        ("/api/services/payment/versions/1.0", json!({"version": "2.0"})),
        ("/api/services/payment/policy", json!({"service": "other"})),
        ("/api/tenants/acme/services/payment/schema", json!({"tenant": "other", "schema": "1"})),
        // Not shown, wherever a text is stated.
        ("/api/tenants/acme", json!({"name": "a\u{3164}b"})),
        ("/api/tenants/acme", json!({"labels": {"k": "a\u{2800}b"}})),
    ] {
        let request = plane.http.put(format!("{}{path}", plane.base)).json(&body);
        assert_eq!(refusal(request).await, invalid(400), "{path} {body}");
    }
    assert_eq!(plane.revision().await, before);
}
