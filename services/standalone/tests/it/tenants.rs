//! `grey sync` about tenants: a standalone that mirrors a tenant API.

use std::sync::{Arc, Mutex};

use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::grey::{Grey, file};

/// A tenant API that lists what it is told to.
struct Upstream {
    tenants: Arc<Mutex<Vec<String>>>,
    url: String,
}

impl Upstream {
    async fn start(tenants: &[&str]) -> Self {
        let tenants = Arc::new(Mutex::new(tenants.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>()));
        let listed = Arc::clone(&tenants);
        let list = async move || {
            let tenants = listed.lock().unwrap().clone();
            let tenant = |id: String| json!({ "id": id, "name": id.to_uppercase(), "status": "active" });
            Json(json!({ "tenants": tenants.into_iter().map(tenant).collect::<Vec<Value>>() }))
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = Router::new().route("/api/tenants", get(list));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { tenants, url }
    }

    /// A standalone that mirrors it.
    async fn mirrored(&self, settings: &str) -> Grey {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("[source]\nurl = \"{}\"\n{settings}", self.url);
        let config = file(dir.path(), "tenant-sync.toml", &text);
        let env = [("GREY__STANDALONE__TENANT_SYNC", config.to_str().unwrap())];
        Grey::start_with(&[], &env).await
    }
}

#[tokio::test]
async fn tenants_of_the_api_are_served_by_the_control_plane_of_the_same_process() {
    let upstream = Upstream::start(&["acme", "globex"]).await;
    let grey = upstream.mirrored("").await;
    grey.run(&["sync", "run", "tenants", "--wait", "20s"]).await.ok();
    let acme = grey.json(&["tenant", "get", "acme"]).await;
    assert_eq!(acme["tenant"]["name"], "ACME", "{acme}");
    let text = grey.run(&["sync", "status", "tenants"]).await.ok().out;
    assert!(text.contains("mirror  tenant-sync") && text.contains("active=2"), "{text}");

    upstream.tenants.lock().unwrap().push("hooli".to_owned());
    grey.run(&["sync", "run", "tenants", "--wait", "20s"]).await.ok();
    grey.run(&["tenant", "get", "hooli"]).await.ok();
}

#[tokio::test]
async fn a_shrink_is_held_until_it_is_accepted() {
    let upstream = Upstream::start(&["a", "b", "c", "d"]).await;
    let grey = upstream.mirrored("[tombstone]\nmissing_pulls = 1\n").await;
    grey.run(&["sync", "run", "tenants", "--wait", "20s"]).await.ok();
    upstream.tenants.lock().unwrap().truncate(2);
    grey.run(&["sync", "run", "tenants", "--wait", "20s"]).await.ok();
    let suspended = async || {
        let list = grey.json(&["tenant", "list", "--status", "suspended"]).await;
        list["tenants"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(suspended().await, 0);
    let status = grey.json(&["sync", "status", "tenants"]).await["status"].clone();
    let held = &status["held"][0];
    assert_eq!(
        (&held["reason"], &held["affected"]),
        (&"HOLD_REASON_TENANT_SHRINK".into(), &"2".into()),
        "{status}"
    );
    grey.run(&["sync", "accept", "tenants", held["id"].as_str().unwrap(), "--wait", "20s"]).await.ok();
    assert_eq!(suspended().await, 2);
}
