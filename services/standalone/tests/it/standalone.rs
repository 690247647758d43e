use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use grey_testkit::eventually;

use crate::grey::{DEADLINE, FREE_PORTS, Grey, file, run};

/// An instances file with one instance of payment.
fn payment(version: &str) -> String {
    format!("services: {{payment: [{{id: p-1, address: \"10.0.0.1:80\", version: {version}, zone: eu-a}}]}}")
}

async fn ready(port: &str) -> bool {
    let script =
        Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../deploy/docker/ready.sh");
    tokio::process::Command::new(script).arg(port).output().await.unwrap().status.success()
}

#[tokio::test]
async fn every_service_is_ready_and_ends_cleanly() {
    let dir = tempfile::tempdir().unwrap();
    let tenants = file(dir.path(), "tenant-sync.toml", "[source]\nurl = \"http://127.0.0.1:1\"\n");
    let instances = file(dir.path(), "instances.yaml", &payment("v1.0"));
    let env = [
        ("GREY__STANDALONE__INSTANCES", instances.to_str().unwrap()),
        ("GREY__STANDALONE__TENANT_SYNC", tenants.to_str().unwrap()),
    ];
    let grey = Grey::start_with(&[], &env).await;
    grey_runtime::tls::install_provider();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    assert_eq!(grey.http.len(), 5, "{:?}", grey.http);
    for url in &grey.http {
        eventually(DEADLINE, "the service is ready", async || {
            let answer = client.get(format!("{url}/health/ready")).send().await;
            answer.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
        // As the container's health check asks.
        let port = url.rsplit_once(':').unwrap().1;
        assert!(ready(port).await, "{url}");
    }
    assert!(!ready(&grey_testkit::free_port().unwrap().to_string()).await);
    let status = grey.process.terminate(DEADLINE).await.unwrap();
    assert!(status.success(), "{}", grey.process.output());
}

#[tokio::test]
async fn a_data_directory_outlives_the_process_and_a_temporary_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let args = ["--data-dir", data_dir.to_str().unwrap()];
    let grey = Grey::start_with(&args, &[]).await;
    grey.run(&["tenant", "put", "acme"]).await.ok();
    grey.process.terminate(DEADLINE).await.unwrap();
    let grey = Grey::start_with(&args, &[]).await;
    grey.run(&["tenant", "get", "acme"]).await.ok();
    let mode = std::fs::metadata(&data_dir).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "it is its owner's alone");

    let grey = Grey::start().await;
    let line = grey.process.wait_for_line("data           ", DEADLINE).await.unwrap();
    let temporary = std::path::PathBuf::from(line.split_whitespace().last().unwrap());
    assert!(temporary.join("control.db").exists(), "{}", temporary.display());
    grey.process.terminate(DEADLINE).await.unwrap();
    assert!(!temporary.exists(), "{}", temporary.display());
}

#[tokio::test]
async fn instances_come_from_the_file_and_follow_it() {
    let dir = tempfile::tempdir().unwrap();
    let instances = file(dir.path(), "instances.yaml", &payment("v1.0"));
    let config =
        file(dir.path(), "grey.toml", &format!("[standalone]\ninstances = \"{}\"", instances.display()));
    let grey = Grey::start_with(&["--config", config.to_str().unwrap()], &[]).await;
    grey.declare().await;
    let routed = async |version: &str| {
        eventually(DEADLINE, "the instance is routed to", async || {
            let done = grey.run(&["route", "acme", "payment", "--json"]).await;
            done.code == 0 && done.json()["version"] == version
        })
        .await;
    };
    routed("v1.0").await;
    let decision = grey.json(&["route", "acme", "payment"]).await;
    assert_eq!((&decision["instance"]["id"], &decision["version"]), (&"p-1".into(), &"v1.0".into()));
    let text = grey.run(&["route", "acme", "payment", "--meta", "a=b", "--user", "ann"]).await.ok().out;
    assert!(text.contains("address   10.0.0.1:80") && text.contains("reason    default"), "{text}");

    grey.run(&["pin", "set", "acme", "payment", "v2.1", "--wait", "20s"]).await.ok();
    file(dir.path(), "instances.yaml", &payment("v2.1"));
    routed("v2.1").await;
}

#[tokio::test]
async fn wrong_settings_are_refused_with_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let config = file(dir.path(), "grey.toml", "[router]\ngrcp = \"127.0.0.1:0\"\n");
    let args = ["standalone", "--config", config.to_str().unwrap()];
    run(&args, &FREE_PORTS, "").await.refused(1, "grcp");
    run(&["standalone", "--config", "/nonexistent.toml"], &FREE_PORTS, "").await.refused(1, "nonexistent");

    let instances = file(dir.path(), "instances.yaml", "services: {payment: [{adress: \"a:1\"}]}");
    let variable = ("GREY__STANDALONE__INSTANCES", instances.to_str().unwrap());
    run(&["standalone"], &[FREE_PORTS.as_slice(), &[variable]].concat(), "")
        .await
        .refused(1, "services.payment[0]");
    let variable = ("GREY__STANDALONE__INSTANCES", "/nonexistent.yaml");
    run(&["standalone"], &[FREE_PORTS.as_slice(), &[variable]].concat(), "").await.refused(1, "nonexistent");
    let tenants = file(dir.path(), "tenant-sync.toml", "[source]\nurl = \"tenants\"\nadress = \"\"\n");
    let variable = ("GREY__STANDALONE__TENANT_SYNC", tenants.to_str().unwrap());
    run(&["standalone"], &[FREE_PORTS.as_slice(), &[variable]].concat(), "").await.refused(1, "adress");

    // Everybody in the network would be an administrator.
    let open = [("GREY__ROUTER__GRPC", "0.0.0.0:0")];
    run(&["standalone"], &[&FREE_PORTS[1..], open.as_slice()].concat(), "").await.refused(1, "0.0.0.0");
}

#[tokio::test]
async fn the_defaults_are_a_valid_configuration() {
    let defaults = run(&["standalone", "--print-defaults"], &[], "").await.ok().out;
    let dir = tempfile::tempdir().unwrap();
    let config = file(dir.path(), "grey.toml", &defaults);
    let args = ["standalone", "--print-config", "--config", config.to_str().unwrap()];
    let effective = run(&args, &[("GREY__ROUTER__ZONE", "eu-a")], "").await.ok().out;
    assert!(
        effective.contains("zone = \"eu-a\"") && effective.contains("grpc = \"127.0.0.1:7400\""),
        "{effective}"
    );
}
