//! The compose file's settings are settings that the services take.

use grey_testkit::process::cargo_binary;
use std::path::Path;
use std::process::Command;

/// `GREY__…: value` lines of one service of the compose file.
fn settings(compose: &str, service: &str) -> Vec<(String, String)> {
    let (_, rest) =
        compose.split_once(&format!("\n  {service}:\n")).unwrap_or_else(|| panic!("no {service}"));
    let lines = rest.lines().take_while(|line| line.starts_with("    ") || line.is_empty());
    let pairs =
        lines.filter_map(|line| line.trim().split_once(": ").filter(|(key, _)| key.starts_with("GREY__")));
    pairs.map(|(key, value)| (key.to_owned(), value.trim_matches(['"', '\'']).to_owned())).collect()
}

#[test]
fn the_compose_file_configures_each_service() {
    let file = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../docker-compose.yml");
    let compose = std::fs::read_to_string(file).unwrap();
    for (service, binary) in [("router", "grey-router"), ("control-plane", "grey-control-plane")] {
        let settings = settings(&compose, service);
        assert!(settings.len() >= 4, "{service}: {settings:?}");
        let program = cargo_binary(binary).unwrap();
        let printed = Command::new(program).arg("--print-config").envs(settings).output().unwrap();
        assert!(printed.status.success(), "{service}: {}", String::from_utf8_lossy(&printed.stderr));
        let printed = String::from_utf8(printed.stdout).unwrap();
        assert!(printed.contains("redis://redis:6379"), "{printed}");
        assert!(!printed.contains("only-for-trying-out"), "a password is printed: {printed}");
    }
}
