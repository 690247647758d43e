//! What a person at a terminal sees of upgrades while they run.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::process::{ChildStdout, Command};
use tokio::time::timeout;

use crate::grey::{DEADLINE, PROGRAM};
use crate::migrate_stage::Stage;

/// The second one never ends by itself.
const FILES: [(&str, &str); 3] = [
    ("V1.1__notes.sql", "CREATE TABLE notes (id INT PRIMARY KEY);"),
    ("U1.1__notes.sql", "DROP TABLE notes;"),
    (
        "V1.2__wait.sql",
        "INSERT INTO notes WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c \
         WHERE n < 100000000000) SELECT n FROM c WHERE n < 0;",
    ),
];

#[tokio::test]
async fn every_tenant_has_a_bar_while_its_upgrade_runs() {
    let stage = Stage::start(&FILES).await;
    let tenants = ["acme", "bluth"];
    for tenant in tenants {
        stage.sqlite(tenant).await;
    }
    let (control, migrator) = (&stage.grey.control, stage.grey.migrator.as_ref().unwrap());
    let line = format!(
        "'{PROGRAM}' migrate up shop --tenants all --yes --control '{control}' --migrator '{migrator}'"
    );
    // `script` of util-linux runs a command in a terminal of its own.
    let mut person = Command::new("script")
        .args(["--quiet", "--flush", "--return", "--command", &line, "/dev/null"])
        .env("SHELL", "/bin/sh")
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut screen = person.stdout.take().unwrap();
    let mut shown = String::new();
    // Both bars tell what runs, and below them is how many have ended.
    let bars = tenants.map(|tenant| format!("{tenant}  run 1.2 wait"));
    read_until(&mut screen, &mut shown, |shown| {
        bars.iter().all(|bar| shown.contains(bar)) && shown.contains("0 of 2 ended")
    })
    .await;
    grey_runtime::tls::install_provider();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let upgrades = client.get(format!("{}/api/upgrades", stage.grey.http[0])).send().await.unwrap();
    let upgrades: Value = serde_json::from_str(&upgrades.text().await.unwrap()).unwrap();
    for upgrade in upgrades["upgrades"].as_array().unwrap() {
        stage.migrate(&["cancel", upgrade["id"].as_str().unwrap()]).await.ok();
    }
    // The bars go, and what stays is a line for each.
    let lines = tenants.map(|tenant| format!("{tenant:24} cancelled"));
    read_until(&mut screen, &mut shown, |shown| lines.iter().all(|line| shown.contains(line))).await;
    let status = timeout(DEADLINE, person.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(1), "{shown}");
}

/// Reads on until what was shown is as it should be. Bars are drawn without ends of lines.
async fn read_until(screen: &mut ChildStdout, shown: &mut String, done: impl Fn(&str) -> bool) {
    let reading = async {
        let mut bytes = [0; 4096];
        while !done(shown) {
            let length = screen.read(&mut bytes).await.unwrap();
            assert!(length > 0, "it has ended: {shown}");
            shown.push_str(&String::from_utf8_lossy(&bytes[..length]));
        }
    };
    let read = timeout(DEADLINE, reading).await;
    assert!(read.is_ok(), "not shown: {shown}");
}
