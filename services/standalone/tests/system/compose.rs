//! The compose file's settings are settings that the services take.

use grey_testkit::process::cargo_binary;
use std::path::Path;
use std::process::Command;

/// Our services in the compose file: name, HTTP port, and something that only its settings say.
const SERVICES: [(&str, u16, &str); 5] = [
    ("control-plane", 7411, "http://schema-migrator:7440"),
    ("router", 7401, "router:7400"),
    ("registry-sync", 7431, "nacos:8848"),
    ("tenant-sync", 7421, "http://host.docker.internal:8080"),
    ("schema-migrator", 7441, "/migrations"),
];

/// The lines of one service of the compose file.
fn lines<'a>(compose: &'a str, service: &str) -> Vec<&'a str> {
    let (_, rest) =
        compose.split_once(&format!("\n  {service}:\n")).unwrap_or_else(|| panic!("no {service}"));
    let lines = rest.lines().take_while(|line| line.starts_with("    ") || line.is_empty());
    lines.map(str::trim).collect()
}

/// Its `GREY__…: value` lines, as they are without any variable.
fn settings(lines: &[&str]) -> Vec<(String, String)> {
    let pairs = lines.iter().filter_map(|line| line.split_once(": "));
    let pairs = pairs.filter(|(key, _)| key.starts_with("GREY__"));
    pairs.map(|(key, value)| (key.to_owned(), resolved(value.trim_matches(['"', '\''])))).collect()
}

/// The default of `${NAME:-default}`, or the value itself.
fn resolved(value: &str) -> String {
    let variable = value.strip_prefix("${").and_then(|value| value.strip_suffix('}'));
    variable.and_then(|variable| variable.split_once(":-")).map_or(value, |(_, default)| default).to_owned()
}

#[test]
fn the_compose_file_configures_each_service() {
    let file = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../docker-compose.yml");
    let compose = std::fs::read_to_string(file).unwrap();
    assert_eq!(compose.matches("dockerfile:").count(), SERVICES.len(), "a service is not checked here");
    for (service, port, said) in SERVICES {
        let lines = lines(&compose, service);
        let settings = settings(&lines);
        assert!(settings.len() >= 4, "{service}: {settings:?}");
        let binary = format!("grey-{service}");
        assert!(lines.iter().any(|line| line.contains(&format!("BINARY: {binary}}}"))), "{service}");
        let program = cargo_binary(&binary).unwrap();
        let printed = Command::new(program).arg("--print-config").envs(settings).output().unwrap();
        assert!(printed.status.success(), "{service}: {}", String::from_utf8_lossy(&printed.stderr));
        let printed = String::from_utf8(printed.stdout).unwrap();
        // The migrator shares nothing by Redis.
        assert!(service == "schema-migrator" || printed.contains("redis://redis:6379"), "{printed}");
        assert!(printed.contains(said), "{service}: {printed}");
        assert!(printed.contains(&format!("listen = \"0.0.0.0:{port}\"")), "{service}: {printed}");
        let probe = format!("\"grey-ready\", \"{port}\"");
        assert!(lines.iter().any(|line| line.contains(&probe)), "{service}: no health check of {port}");
        for secret in ["only-for-trying-out", "password = \"nacos\"", "b25seS1mb3I"] {
            assert!(!printed.contains(secret), "a password is printed: {printed}");
        }
    }
}
