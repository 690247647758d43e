use grey_testkit::Spawned;
use serde_json::Value;

use crate::grey::{DEADLINE, Grey, PROGRAM, run};

#[tokio::test]
async fn decisions_are_explained_for_now_and_for_any_revision() {
    let grey = Grey::start().await;
    grey.declare().await;
    let pinned = grey.json(&["pin", "set", "acme", "payment", "v2.1", "--wait", "20s"]).await;
    let pinned: u64 = pinned["result"]["revision"].as_str().unwrap().parse().unwrap();
    let now = grey.run(&["explain", "acme", "payment"]).await.ok().out;
    assert!(now.starts_with(&format!("acme calls payment, revision {pinned}\n")), "{now}");
    assert!(now.contains("v2.1 by the pin") && now.contains("└─ refused"), "{now}");
    let then = grey.run(&["explain", "acme", "payment", "--at", &(pinned - 1).to_string()]).await.ok().out;
    assert!(then.contains("v1.0 by default"), "{then}");
    grey.run(&["explain", "acme", "payment", "--at", "999999"]).await.refused(1, "REVISION_UNAVAILABLE");
}

#[tokio::test]
async fn events_are_listed_from_either_end_and_followed() {
    let grey = Grey::start().await;
    grey.declare().await;
    let revisions = |document: &Value| -> Vec<String> {
        let events = document["events"].as_array().unwrap();
        events.iter().map(|event| event["revision"].as_str().unwrap().to_owned()).collect()
    };
    let newest = grey.json(&["events", "--limit", "2"]).await;
    assert_eq!(revisions(&newest), ["4", "5"], "{newest}");
    let oldest = grey.json(&["events", "--after", "1", "--limit", "2"]).await;
    assert_eq!(revisions(&oldest), ["2", "3"], "{oldest}");
    let text = grey.run(&["events"]).await.ok().out;
    assert!(text.contains("anonymous  service payment default v1.0"), "{text}");

    let args = ["events", "--follow", "--json", "--after", "4", "--control", &grey.control];
    let follow =
        args.iter().fold(Spawned::builder(PROGRAM), |builder, arg| builder.arg(arg)).start().unwrap();
    let old = follow.wait_for_line("\"revision\":\"5\"", DEADLINE).await.unwrap();
    assert!(serde_json::from_str::<Value>(&old).is_ok(), "{old}");
    grey.run(&["tenant", "put", "globex", "--reason", "new customer"]).await.ok();
    let new = follow.wait_for_line("\"revision\":\"6\"", DEADLINE).await.unwrap();
    assert!(new.contains("new customer"), "{new}");
}

#[tokio::test]
async fn the_router_is_listed_with_what_it_has_applied() {
    let grey = Grey::start().await;
    grey.declare().await;
    let routers = grey.json(&["routers"]).await;
    let router = &routers["routers"][0];
    assert_eq!(router["revision"], "5", "{routers}");
    assert_eq!(format!("http://{}", router["address"].as_str().unwrap()), grey.router);
    assert!(grey.run(&["routers"]).await.ok().out.starts_with("ROUTER"));
}

#[tokio::test]
async fn lists_are_complete_and_say_when_they_are_not() {
    let grey = Grey::start().await;
    for tenant in ["a", "b", "c"] {
        grey.run(&["tenant", "put", tenant, "--tier", if tenant == "c" { "gold" } else { "free" }])
            .await
            .ok();
    }
    let all = grey.run(&["tenant", "list"]).await.ok().out;
    assert_eq!(all.lines().count(), 4, "{all}");
    let some = grey.run(&["tenant", "list", "--limit", "2"]).await.ok().out;
    assert!(some.contains("there are more; raise --limit"), "{some}");
    let gold = grey.json(&["tenant", "list", "--tier", "gold"]).await;
    assert_eq!(gold["tenants"].as_array().unwrap().len(), 1, "{gold}");
}

#[tokio::test]
async fn completions_know_every_noun() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell], &[], "").await.ok().out;
        for noun in ["tenant", "pin", "explain", "standalone"] {
            assert!(script.contains(noun), "{shell}: {noun}");
        }
    }
}
