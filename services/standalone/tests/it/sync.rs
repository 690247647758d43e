//! `grey sync` about a registry: the instances file of a standalone.

use std::path::Path;

use grey_testkit::eventually;
use serde_json::Value;

use crate::grey::{DEADLINE, Grey, file, run};

/// An instances file with these instances of payment, which nobody could probe.
fn payment(ids: &[&str]) -> String {
    let one = |id: &&str| format!("  - {{id: {id}, address: \"{id}.invalid:80\", version: v1.0}}\n");
    let list: String = ids.iter().map(one).collect();
    if ids.is_empty() { "services: {}\n".to_owned() } else { format!("services:\n payment:\n{list}") }
}

/// A standalone that follows a file whose drops wait for confirmation.
async fn doubting(dir: &Path, ids: &[&str]) -> Grey {
    let instances = file(dir, "instances.yaml", &payment(ids));
    let env = [
        ("GREY__STANDALONE__INSTANCES", instances.to_str().unwrap()),
        ("GREY__REGISTRY_SYNC__TRUSTED", "false"),
    ];
    let grey = Grey::start_with(&[], &env).await;
    grey.declare().await;
    until_routed(&grey, true).await;
    grey
}

async fn until_routed(grey: &Grey, routed: bool) {
    eventually(DEADLINE, "payment is routed, or not", async || {
        (grey.run(&["route", "acme", "payment"]).await.code == 0) == routed
    })
    .await;
}

async fn status(grey: &Grey) -> Value {
    grey.json(&["sync", "status", "registry"]).await["status"].clone()
}

#[tokio::test]
async fn a_mirror_that_answers_is_shown_also_where_the_other_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let grey = doubting(dir.path(), &["a"]).await;
    let done = grey.run(&["sync", "status"]).await;
    assert_eq!(done.code, 1, "{done}");
    assert!(done.out.contains("mirror  registry-sync") && done.out.contains("SOURCE"), "{done}");
    assert!(done.err.contains("UNAVAILABLE") && done.err.contains("--tenant-sync"), "{done}");
    let done = grey.run(&["sync", "status", "--json"]).await;
    assert_eq!(
        (done.code, &done.json()["registry"]["status"]["service"]),
        (1, &"registry-sync".into()),
        "{done}"
    );

    let nowhere = ["--registry-sync", "http://127.0.0.1:1", "--tenant-sync", "http://127.0.0.1:1"];
    let done = run(&[["sync", "status"].as_slice(), &nowhere].concat(), &[], "").await;
    assert_eq!((done.code, done.out.as_str(), done.err.lines().count()), (1, "", 2), "{done}");
}

#[tokio::test]
async fn a_file_that_errs_is_told_and_what_it_said_before_stays() {
    let dir = tempfile::tempdir().unwrap();
    let grey = doubting(dir.path(), &["a"]).await;
    file(dir.path(), "instances.yaml", "services: [");
    eventually(DEADLINE, "the source fails", async || {
        status(&grey).await["sources"][0]["state"] == "SOURCE_STATE_FAILING"
    })
    .await;
    assert!(grey.run(&["sync", "status", "registry"]).await.ok().out.contains("FAILING"));
    let done = grey.run(&["sync", "run", "registry", "--wait", "20s"]).await;
    assert_eq!(done.code, 1, "{done}");
    grey.run(&["route", "acme", "payment"]).await.ok();

    file(dir.path(), "instances.yaml", &payment(&["a", "b"]));
    eventually(DEADLINE, "the source is in order again", async || {
        status(&grey).await["sources"][0]["state"] == "SOURCE_STATE_OK"
    })
    .await;
    let done = grey.run(&["sync", "run", "registry", "--wait", "20s"]).await.ok();
    assert_eq!(done.out, "synced instances\n");
    assert!(
        grey.run(&["sync", "run", "registry"])
            .await
            .ok()
            .out
            .starts_with("asked to sync instances, request ")
    );
}

#[tokio::test]
async fn a_loss_of_all_instances_is_held_until_it_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let grey = doubting(dir.path(), &["a", "b", "c"]).await;
    grey.run(&["sync", "accept", "registry", "nothing"]).await.refused(1, "UNKNOWN_CHANGE");
    file(dir.path(), "instances.yaml", &payment(&[]));
    eventually(DEADLINE, "the loss is held", async || !status(&grey).await["held"][0].is_null()).await;
    let held = status(&grey).await["held"][0].clone();
    assert_eq!((&held["reason"], &held["affected"]), (&"HOLD_REASON_INSTANCE_DROP".into(), &"3".into()));
    let text = grey.run(&["sync", "status", "registry"]).await.ok().out;
    assert!(text.contains("HELD CHANGE") && text.contains("instance drop  payment@"), "{text}");
    grey.run(&["route", "acme", "payment"]).await.ok();

    let id = held["id"].as_str().unwrap();
    let done = grey.run(&["sync", "accept", "registry", id, "--wait", "20s"]).await.ok();
    assert_eq!(done.out, format!("accepted held change {id}\n"));
    until_routed(&grey, false).await;
    grey.run(&["sync", "accept", "registry", id]).await.refused(1, "UNKNOWN_CHANGE");
}
