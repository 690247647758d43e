//! What an operator may set.

use grey_control_plane::{Config, DEFAULTS};
use grey_runtime::config::{Source, load};

fn faults(env: &[(&str, &str)]) -> String {
    let env: Vec<_> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    load::<Config>(Source { defaults: DEFAULTS, file: None, env }).unwrap_err().to_string()
}

#[test]
fn defaults_are_valid_and_complete() {
    let config: Config = load(Source { defaults: DEFAULTS, file: None, env: Vec::new() }).unwrap();
    assert_eq!((config.grpc.listen.port(), config.http.listen.port()), (7410, 7411));
    assert!(!grey_runtime::config::to_toml(&config).unwrap().contains("grey-control.db"));
}

#[test]
fn every_fault_is_reported_at_once() {
    let text = faults(&[
        ("GREY__DATABASE__URL", "mysql://db/control"),
        ("GREY__DATABASE__CONNECTIONS", "0"),
        ("GREY__COMMANDS__QUEUE", "0"),
        ("GREY__VAULT__ACTIVE", "gone"),
        ("GREY__LIMITS__REQUEST_TIMEOUT", "60s"),
        ("GREY__LIMITS__MAX_REQUEST_BYTES", "1"),
        ("GREY__HISTORY__CONNECTIONS", "0"),
        ("GREY__HISTORY__TIMEOUT", "0s"),
        ("GREY__PUBLISHER__LEASE", "1ms"),
        ("GREY__HTTP__NONSENSE", "1"),
        ("GREY__MIGRATOR__URL", "https://migrator:7440"),
        ("GREY__MIGRATOR__TIMEOUT", "0s"),
        ("GREY__ACCESS__TOKENS", "[{ name = \"x\", role = \"root\", sha256 = \"00\" }]"),
    ]);
    for fault in [
        "database.url",
        "database.connections",
        "commands.queue",
        "vault.active",
        "limits.request_timeout",
        "limits.max_request_bytes",
        "history.connections",
        "history.timeout",
        "publisher.lease",
        "http.nonsense",
        "migrator.tls",
        "migrator.timeout",
        "sha256",
    ] {
        assert!(text.contains(fault), "{fault}: {text}");
    }
    // Without a migrator there is nobody to trust.
    assert!(faults(&[("GREY__MIGRATOR__TLS__CA_FILE", "/ca.crt")]).contains("migrator.tls"));
    let role = format!("[{{ name = \"x\", role = \"root\", sha256 = \"{}\" }}]", "0".repeat(64));
    assert!(faults(&[("GREY__ACCESS__TOKENS", &role)]).contains("viewer, operator or admin"));
}
