use grey_testkit::free_port;
use serde_json::Value;

use crate::grey::{Grey, run};

#[tokio::test]
async fn refusals_are_one_line_with_the_reason_and_exit_code_1() {
    let grey = Grey::start().await;
    grey.declare().await;
    let cases: [(&[&str], &str); 8] = [
        (&["tenant", "get", "nobody"], "UNKNOWN_TENANT"),
        (&["service", "get", "nothing"], "UNKNOWN_SERVICE"),
        (&["pin", "set", "acme", "payment", "v9.9"], "UNKNOWN_VERSION"),
        (&["pin", "delete", "acme", "payment"], "UNKNOWN_PIN"),
        (&["tenant", "put", "Not An Id"], "INVALID_ARGUMENT"),
        (&["route", "nobody", "payment"], "UNKNOWN_TENANT"),
        (&["route", "acme", "payment", "--min-revision", "999999"], "STALE"),
        (&["version", "put", "payment", "one.two"], "INVALID_ARGUMENT"),
    ];
    for (args, reason) in cases {
        let done = grey.run(args).await.refused(1, reason);
        assert_eq!(done.err.lines().count(), 1, "{args:?}: {done}");
        assert!(done.err.starts_with("error: "), "{args:?}: {done}");
        let body: Value = serde_json::from_str(&grey.run(&[args, &["--json"]].concat()).await.err).unwrap();
        assert_eq!(body["error"]["reason"], reason, "{args:?}: {body}");
    }
}

#[tokio::test]
async fn a_stale_expectation_is_refused_and_tells_the_present_revision() {
    let grey = Grey::start().await;
    grey.declare().await;
    grey.run(&["pin", "set", "acme", "payment", "v2.1", "--expect", "0"]).await.ok();
    let done = grey.run(&["pin", "set", "acme", "payment", "v1.0", "--expect", "0"]).await;
    let done = done.refused(1, "REVISION_MISMATCH");
    assert!(done.err.contains("--expect 1-6"), "{done}");
    grey.run(&["pin", "set", "acme", "payment", "v1.0", "--expect", "1-6"]).await.ok();
}

#[tokio::test]
async fn a_wrong_command_line_is_exit_code_2() {
    let cases: [&[&str]; 12] = [
        &[],
        &["tenant"],
        &["tenant", "put"],
        &["pin", "list"],
        &["pin", "set", "acme"],
        &["pin", "set", "acme", "payment"],
        &["pin", "set", "acme", "payment", "v1", "--wait", "5"],
        &["tenant", "put", "acme", "--label", "novalue"],
        &["tenant", "list", "--limit", "0"],
        &["routers", "--timeout", "0s"],
        &["events", "--follow", "--limit", "3"],
        &["completions", "tcl"],
    ];
    for args in cases {
        let done = run(args, &[], "").await;
        assert_eq!(done.code, 2, "{args:?}: {done}");
        assert!(done.out.is_empty() && !done.err.is_empty(), "{args:?}: {done}");
    }
}

#[tokio::test]
async fn a_service_that_is_not_there_is_told_with_its_address() {
    let url = format!("http://127.0.0.1:{}", free_port().unwrap());
    let done = run(&["tenant", "list", "--control", &url], &[], "").await.refused(1, "UNAVAILABLE");
    assert!(done.err.contains(&url) && done.err.contains("--control"), "{done}");
    run(&["route", "a", "b"], &[("GREY_ROUTER_URL", &url)], "").await.refused(1, &url);
    run(&["routers", "--control", "not a url"], &[], "").await.refused(1, "not a url");
    run(&["routers", "--control", "https://127.0.0.1:1"], &[], "").await.refused(1, "--ca");
}

#[tokio::test]
async fn a_service_that_does_not_answer_is_given_up() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    run(&["routers", "--control", &url, "--timeout", "200ms"], &[], "").await.refused(1, "UNAVAILABLE");
}
