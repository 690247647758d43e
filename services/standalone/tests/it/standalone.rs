use crate::grey::{DEADLINE, FREE_PORTS, Grey, file, run};

#[tokio::test]
async fn both_planes_are_ready_and_end_cleanly() {
    let grey = Grey::start().await;
    grey_runtime::tls::install_provider();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for url in [&grey.rest, &grey.http] {
        grey_testkit::eventually(DEADLINE, "the service is ready", async || {
            let answer = client.get(format!("{url}/health/ready")).send().await;
            answer.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
    }
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

    let grey = Grey::start().await;
    let line = grey.process.wait_for_line("data           ", DEADLINE).await.unwrap();
    let temporary = std::path::PathBuf::from(line.split_whitespace().last().unwrap());
    assert!(temporary.join("control.db").exists(), "{}", temporary.display());
    grey.process.terminate(DEADLINE).await.unwrap();
    assert!(!temporary.exists(), "{}", temporary.display());
}

#[tokio::test]
async fn instances_come_from_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let instances = file(
        dir.path(),
        "instances.toml",
        r#"instances = [{ service = "payment", id = "p-1", version = "v1.0", address = "10.0.0.1:80", zone = "eu-a" }]"#,
    );
    let config =
        file(dir.path(), "grey.toml", &format!("[standalone]\ninstances = \"{}\"", instances.display()));
    let grey = Grey::start_with(&["--config", config.to_str().unwrap()], &[]).await;
    grey.declare().await;
    let decision = grey.json(&["route", "acme", "payment"]).await;
    assert_eq!((&decision["instance"]["id"], &decision["version"]), (&"p-1".into(), &"v1.0".into()));
    let text = grey.run(&["route", "acme", "payment", "--meta", "a=b", "--user", "ann"]).await.ok().out;
    assert!(text.contains("address   10.0.0.1:80") && text.contains("reason    default"), "{text}");
}

#[tokio::test]
async fn wrong_settings_are_refused_with_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let config = file(dir.path(), "grey.toml", "[router]\ngrcp = \"127.0.0.1:0\"\n");
    let args = ["standalone", "--config", config.to_str().unwrap()];
    run(&args, &FREE_PORTS, "").await.refused(1, "grcp");
    run(&["standalone", "--config", "/nonexistent.toml"], &FREE_PORTS, "").await.refused(1, "nonexistent");

    let instances = file(dir.path(), "instances.toml", "instances = [{ id = \"p\" }]");
    let variable = ("GREY__STANDALONE__INSTANCES", instances.to_str().unwrap());
    run(&["standalone"], &[FREE_PORTS.as_slice(), &[variable]].concat(), "").await.refused(1, "instances[0]");

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
