use crate::grey::{Grey, file};

#[tokio::test]
async fn a_pin_takes_effect_and_goes_back() {
    let grey = Grey::start().await;
    grey.declare().await;
    let done = grey
        .run(&[
            "pin", "set", "acme", "payment", "2.1", "--lock", "--wait", "20s", "--expect", "0", "--reason",
            "try",
        ])
        .await
        .ok();
    assert!(done.out.starts_with("pinned acme's payment to 2.1 at revision "), "{done}");
    assert!(done.out.contains("applied by 1 of 1 routers in "), "{done}");

    let pins = grey.json(&["pin", "list", "--tenant", "acme"]).await;
    let pin = &pins["pins"][0];
    assert_eq!((&pin["version"], &pin["locked"]), (&"v2.1".into(), &true.into()), "{pins}");
    assert!(
        grey.run(&["pin", "list", "--service", "payment"]).await.ok().out.contains("acme    payment  v2.1")
    );
    let explained = grey.json(&["explain", "acme", "payment"]).await;
    assert!(explained["explanation"]["steps"].to_string().contains("v2.1 by the locked pin"), "{explained}");

    let revision = pin["revision"].as_str().unwrap().to_owned();
    let response =
        grey.json(&["pin", "delete", "acme", "payment", "--expect", &revision, "--wait", "20s"]).await;
    assert_eq!(response["result"]["routers"]["applied"], 1, "{response}");
    assert!(
        grey.json(&["pin", "list", "--tenant", "acme"]).await["pins"].as_array().is_none_or(Vec::is_empty)
    );
}

#[tokio::test]
async fn several_pins_are_set_and_removed_at_one_revision_or_not_at_all() {
    let grey = Grey::start().await;
    grey.declare().await;
    grey.run(&["pin", "set", "acme", "payment=v2.1", "orders=v9"]).await.refused(1, "UNKNOWN_VERSION");
    let pins = grey.json(&["pin", "list", "--tenant", "acme"]).await;
    assert!(pins["pins"].as_array().is_none_or(Vec::is_empty), "{pins}");

    let written = grey.json(&["pin", "set", "acme", "payment=v2.1", "orders=v2.1"]).await;
    let pins = grey.json(&["pin", "list", "--tenant", "acme"]).await;
    let revisions: Vec<_> = pins["pins"].as_array().unwrap().iter().map(|pin| &pin["revision"]).collect();
    assert_eq!(revisions, [&written["result"]["revision"]; 2], "{pins}");

    grey.run(&["pin", "delete", "acme", "payment", "orders"]).await.ok();
    let events = grey.json(&["events", "--limit", "1"]).await;
    assert_eq!(events["events"][0]["changes"].as_array().unwrap().len(), 2, "{events}");
}

#[tokio::test]
async fn tenants_are_put_suspended_activated_observed_and_deleted() {
    let grey = Grey::start().await;
    grey.declare().await;
    let put = ["tenant", "put", "acme", "--name", "Acme", "--tier", "gold", "--label", "plan=yearly"];
    grey.run(&[put.as_slice(), &["--residency", "eu,us"]].concat()).await.ok();
    let tenant = grey.json(&["tenant", "get", "acme"]).await["tenant"].clone();
    assert_eq!(tenant["labels"]["plan"], "yearly", "{tenant}");
    assert_eq!(tenant["residency"], serde_json::json!(["eu", "us"]), "{tenant}");

    grey.run(&["tenant", "suspend", "acme", "--reason", "unpaid", "--wait", "20s"]).await.ok();
    grey.run(&["route", "acme", "payment"]).await.refused(1, "TENANT_SUSPENDED");
    let after = grey.json(&["tenant", "get", "acme"]).await["tenant"].clone();
    assert_eq!(
        (&after["name"], &after["labels"]),
        (&tenant["name"], &tenant["labels"]),
        "suspending lost attributes"
    );
    let list = grey.run(&["tenant", "list", "--status", "suspended"]).await.ok();
    assert!(list.out.contains("acme") && list.out.contains("suspended"), "{list}");
    grey.run(&["tenant", "activate", "acme", "--wait", "20s"]).await.ok();
    grey.run(&["route", "acme", "payment"]).await.refused(1, "NO_INSTANCE");

    grey.run(&["tenant", "observe", "acme", "payment", "1.1"]).await.ok();
    let text = grey.run(&["tenant", "get", "acme"]).await.ok().out;
    assert!(text.contains("schema    payment 1.1"), "{text}");
    grey.run(&["tenant", "delete", "acme"]).await.ok();
    grey.run(&["tenant", "get", "acme"]).await.refused(1, "UNKNOWN_TENANT");
}

#[tokio::test]
async fn services_and_versions_are_put_and_deleted() {
    let grey = Grey::start().await;
    grey.declare().await;
    grey.run(&["version", "put", "orders", "v3.0", "--schema-min", "2", "--schema-max", "3"]).await.ok();
    let text = grey.run(&["service", "get", "orders"]).await.ok().out;
    assert!(text.contains("default   v1.0") && text.contains("version   v3.0, schema 2 to 3"), "{text}");
    let services = grey.json(&["service", "list"]).await;
    assert_eq!(services["services"].as_array().unwrap().len(), 2, "{services}");

    grey.run(&["version", "delete", "orders", "v1.0"]).await.refused(1, "IN_USE");
    grey.run(&["service", "put", "orders", "--default", "v3.0"]).await.ok();
    grey.run(&["version", "delete", "orders", "v1.0"]).await.ok();
    grey.run(&["service", "delete", "orders"]).await.ok();
    assert!(!grey.run(&["service", "list"]).await.ok().out.contains("orders"));
}

#[tokio::test]
async fn an_overlay_that_was_read_can_be_edited_and_put() {
    let grey = Grey::start().await;
    grey.declare().await;
    let dir = tempfile::tempdir().unwrap();
    let half = r#"{"id":"half","canary":{"baseline":"v1.0","canary":"v2.1","weight":5000}}"#;
    let path = file(dir.path(), "half.json", half);
    let path = path.to_str().unwrap();
    grey.run(&["overlay", "put", "payment", "-f", path, "--wait", "20s"]).await.ok();
    assert!(grey.run(&["service", "get", "payment"]).await.ok().out.contains("overlays  half"));
    let mut document = grey.run(&["overlay", "get", "payment", "half"]).await.ok().json();
    assert_eq!(document["canary"]["buckets"][0]["end"], 5000, "{document}");
    document["canary"]["weight"] = 6000.into();
    let path = file(dir.path(), "more.json", &document.to_string());
    grey.run(&["overlay", "put", "payment", "-f", path.to_str().unwrap()]).await.ok();
    let again = grey.run(&["overlay", "get", "payment", "half"]).await.ok().json();
    assert_eq!(again["canary"]["weight"], 6000, "{again}");
    assert_eq!(again["salt"], document["salt"], "{again}");
    let revision = again["revision"].as_str().unwrap();
    let remove = ["overlay", "delete", "payment", "half", "--expect"];
    let of_another_epoch = format!("9-{revision}");
    grey.run(&[&remove[..], &[&of_another_epoch]].concat()).await.refused(1, "REVISION_MISMATCH");

    grey.run(&["overlay", "put", "orders", "-f", path.to_str().unwrap()]).await.refused(2, "is of `payment`");
    let wrong = file(dir.path(), "wrong.json", "[]");
    let told =
        grey.run(&["overlay", "put", "payment", "-f", wrong.to_str().unwrap()]).await.refused(2, "object");
    assert!(!told.err.contains("struct"), "{}", told.err);
    let wrong = file(dir.path(), "wrong.json", r#"{"weight":1}"#);
    grey.run(&["overlay", "put", "payment", "-f", wrong.to_str().unwrap()]).await.refused(2, "weight");
    let of_this_epoch = format!("1-{revision}");
    grey.run(&[&remove[..], &[&of_this_epoch]].concat()).await.ok();
    let verified = grey.run(&["events", "--verify"]).await.ok().out;
    assert!(verified.starts_with("events 1 to ") && verified.contains("as they were written"), "{verified}");
    assert_eq!(grey.json(&["events", "--verify"]).await["complete"], true);
    grey.run(&["overlay", "delete", "payment", "half"]).await.refused(1, "UNKNOWN_OVERLAY");
}

#[tokio::test]
async fn set_changes_what_is_given_and_put_replaces() {
    let grey = Grey::start().await;
    grey.declare().await;
    let put = ["tenant", "put", "acme", "--tier", "gold", "--label", "plan=yearly", "--status", "suspended"];
    grey.run(&put).await.ok();
    grey.run(&["tenant", "set", "acme", "--name", "Acme", "--label", "team=red"]).await.ok();
    let tenant = grey.json(&["tenant", "get", "acme"]).await["tenant"].clone();
    assert_eq!((&tenant["name"], &tenant["tier"]), (&"Acme".into(), &"gold".into()), "{tenant}");
    assert_eq!(tenant["labels"], serde_json::json!({"plan": "yearly", "team": "red"}), "{tenant}");
    assert_eq!(tenant["status"], "TENANT_STATUS_SUSPENDED", "{tenant}");
    grey.run(&["tenant", "set", "acme", "--label", "plan=", "--tier", ""]).await.ok();
    let tenant = grey.json(&["tenant", "get", "acme"]).await["tenant"].clone();
    assert_eq!(tenant["labels"], serde_json::json!({"team": "red"}), "{tenant}");
    assert!(tenant["tier"].is_null(), "{tenant}");
    grey.run(&["tenant", "set", "acme"]).await.refused(2, "nothing to set");
    grey.run(&["tenant", "set", "nobody", "--name", "x"]).await.refused(1, "UNKNOWN_TENANT");

    grey.run(&["version", "put", "orders", "v3.0", "--schema-min", "2", "--schema-max", "3"]).await.ok();
    grey.run(&["version", "set", "orders", "v3.0", "--schema-max", "4"]).await.ok();
    assert!(grey.run(&["service", "get", "orders"]).await.ok().out.contains("v3.0, schema 2 to 4"));
    grey.run(&["version", "set", "orders", "v3.0", "--schema-min", ""]).await.ok();
    assert!(grey.run(&["service", "get", "orders"]).await.ok().out.contains("v3.0, schema up to 4"));
}

#[tokio::test]
async fn a_policy_that_was_read_can_be_edited_and_set() {
    let grey = Grey::start().await;
    grey.declare().await;
    let policy = grey.run(&["policy", "get", "payment"]).await.ok();
    let mut document = policy.json();
    document["failover"] = serde_json::json!({ "toNearest": true });
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "policy.json", &document.to_string());
    let path = path.to_str().unwrap();
    grey.run(&["policy", "set", "payment", "-f", path, "--wait", "20s"]).await.ok();
    let again = grey.run(&["policy", "get", "payment"]).await.ok().json();
    assert_eq!(again["failover"]["toNearest"], true, "{again}");

    grey.run(&["policy", "set", "orders", "-f", path]).await.refused(2, "is of `payment`");
    let wrong = file(dir.path(), "wrong.json", r#"{"overlay":[]}"#);
    grey.run(&["policy", "set", "payment", "-f", wrong.to_str().unwrap()]).await.refused(2, "overlay");
    grey.run(&["policy", "set", "payment", "-f", "/nonexistent"]).await.refused(1, "/nonexistent");
}

#[tokio::test]
async fn a_strict_move_takes_effect_and_routers_are_listed_and_not_dismissed_while_they_live() {
    let grey = Grey::start().await;
    grey.declare().await;
    let done = grey.run(&["pin", "set", "acme", "payment", "2.1", "--strict", "--wait", "20s"]).await.ok();
    assert!(done.out.contains("applied by 1 of 1 routers in "), "{done}");
    let several = ["pin", "set", "acme", "payment=v1.0", "orders=v1.0", "--strict"];
    grey.run(&several).await.refused(2, "--strict");

    let routers = grey.json(&["routers", "list"]).await;
    assert_eq!(routers["routers"][0]["status"], "ROUTER_STATUS_APPLIED", "{routers}");
    let id = routers["routers"][0]["id"].as_str().unwrap().to_owned();
    grey.run(&["routers", "dismiss", &id, "--reason", "sold"]).await.refused(1, "IN_USE");
    grey.run(&["routers", "dismiss", "nobody", "--reason", "sold"]).await.refused(1, "UNKNOWN_ROUTER");
}

#[tokio::test]
async fn a_write_tells_whom_it_moves_and_a_dry_run_changes_nothing() {
    let grey = Grey::start().await;
    grey.declare().await;
    let before = grey.json(&["events", "--limit", "1"]).await;
    let dry = grey.run(&["service", "put", "payment", "--default", "v2.1", "--dry-run"]).await.ok();
    assert!(dry.out.starts_with("dry run at revision "), "{dry}");
    assert!(dry.out.contains("payment  1        v1.0  v2.1") && dry.out.contains("acme"), "{dry}");
    assert_eq!(grey.json(&["events", "--limit", "1"]).await, before);
    let refused = ["service", "put", "payment", "--default", "v2.1", "--moves", "0"];
    grey.run(&refused).await.refused(1, "MOVES_OVER_BUDGET");
    let done = grey.run(&["service", "put", "payment", "--default", "v2.1", "--moves", "1"]).await.ok();
    assert!(done.out.contains("payment  1        v1.0  v2.1"), "{done}");
    let gained = grey.run(&["tenant", "put", "beta"]).await.ok();
    let gains = "served from now on: 1 tenant of orders to v1.0, 1 tenant of payment to v2.1";
    assert_eq!(gained.out.lines().nth(1), Some(gains), "{gained}");
}

#[tokio::test]
async fn many_tenants_are_pinned_by_what_they_have_in_common() {
    let grey = Grey::start().await;
    grey.declare().await;
    for tenant in ["beta", "gamma"] {
        grey.run(&["tenant", "put", tenant, "--tier", "free", "--label", "wave=2"]).await.ok();
    }
    let done = grey.run(&["pin", "set", "--tier", "free", "payment", "v2.1"]).await.ok();
    assert!(done.out.starts_with("2 of 2 tenants pinned to payment v2.1 at revision "), "{done}");
    let dir = tempfile::tempdir().unwrap();
    let list = file(dir.path(), "list", "beta\n\nacme\n");
    let path = list.to_str().unwrap();
    let done = grey.run(&["pin", "set", "--list", path, "--label", "wave=2", "payment=v1.0"]).await.ok();
    assert!(done.out.starts_with("1 of 1 tenants pinned"), "{done}");
    let done = grey.run(&["pin", "delete", "--on-version", "payment=v2.1", "payment"]).await.ok();
    assert!(done.out.starts_with("1 of 1 tenants pins of payment removed"), "{done}");
    let pins = grey.json(&["pin", "list", "--service", "payment"]).await;
    assert_eq!(pins["pins"].as_array().map(Vec::len), Some(1), "{pins}");
    assert_eq!(pins["pins"][0]["tenant"], "beta");
    grey.run(&["pin", "set", "--all", "payment", "v2.1", "--dry-run"]).await.ok();
    grey.run(&["pin", "set", "payment"]).await.refused(2, "");
    grey.run(&["pin", "set", "--all", "payment=v1.0", "orders=v1.0"]).await.refused(2, "");
    let both = ["pin", "set", "--all", "--tier", "free", "payment", "v1.0"];
    grey.run(&both).await.refused(1, "INVALID_ARGUMENT");
}

#[tokio::test]
async fn a_canary_is_promoted_and_nobody_moves() {
    let grey = Grey::start().await;
    grey.declare().await;
    grey.run(&["pin", "set", "acme", "payment", "v1.0"]).await.ok();
    let canary =
        r#"{"id": "c", "layer": "c", "canary": {"baseline": "v1.0", "canary": "v2.1", "weight": 10000}}"#;
    let dir = tempfile::tempdir().unwrap();
    let canary = file(dir.path(), "canary.json", canary);
    grey.run(&["overlay", "put", "payment", "--file", canary.to_str().unwrap()]).await.ok();
    let done = grey.run(&["overlay", "promote", "payment", "c", "--moves", "0"]).await.ok();
    assert!(done.out.starts_with("promoted overlay c of payment, 1 tenants pinned where they are"), "{done}");
    let service = grey.json(&["service", "get", "payment"]).await;
    assert_eq!(service["service"]["defaultVersion"], "v2.1", "{service}");
    let pins = grey.json(&["pin", "list", "--tenant", "acme"]).await;
    assert_eq!(pins["pins"][0]["version"], "v2.1", "{pins}");
}
