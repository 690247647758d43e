//! What an operator may and may not set.

use grey_runtime::config::{Source, load, to_toml};
use grey_tenant_sync::{Config, DEFAULTS};

fn configured(env: &[(&str, &str)]) -> Result<Config, String> {
    let env = env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<Vec<_>>();
    load(Source { defaults: DEFAULTS, file: None, env }).map_err(|error| error.to_string())
}

const URL: (&str, &str) = ("GREY__SOURCE__URL", "https://tenants.example");

#[test]
fn only_the_tenant_apis_address_must_be_set() {
    let faults = configured(&[]).unwrap_err();
    assert!(faults.contains("1 fault") && faults.contains("source.url"), "{faults}");
    let config = configured(&[URL]).unwrap();
    assert_eq!(config.source.url, "https://tenants.example");
}

#[test]
fn every_fault_is_told_at_once() {
    let faults = configured(&[
        URL,
        ("GREY__CONTROL__URL", "control:7410"),
        ("GREY__APPLY__BATCH", "50000"),
        ("GREY__APPLY__ATTEMPTS", "0"),
        ("GREY__SYNC__RETRY", "2h"),
        ("GREY__SYNC__MANAGED_BY", ""),
        ("GREY__TOMBSTONE__MISSING_PULLS", "0"),
        ("GREY__SHRINK__SHARE", "1.5"),
        ("GREY__WEBHOOK__SECRETS", "[\"open sesame\"]"),
        ("GREY__WEBHOOK__TOLERANCE", "2h"),
        ("GREY__LEASE__TTL", "10ms"),
        ("GREY__LIMITS__REQUEST_TIMEOUT", "10s"),
        ("GREY__MAPPING__ID", "id"),
        ("GREY__MAPPING__LABELS__MANAGED-BY", "/owner"),
        ("GREY__ACCESS__TOKENS", "[{name=\"a\", role=\"king\", sha256=\"aa\"}]"),
    ])
    .unwrap_err();
    for key in [
        "control.url",
        "apply.batch",
        "apply.attempts",
        "sync.retry",
        "sync.managed_by",
        "tombstone.missing_pulls",
        "shrink.share",
        "webhook.secrets.0",
        "webhook.tolerance",
        "lease.ttl",
        "limits.request_timeout",
        "mapping.id",
        "mapping.labels.managed-by",
        "access.tokens",
    ] {
        assert!(faults.contains(key), "{key}: {faults}");
    }
    assert!(!faults.contains("sesame"), "{faults}");
}

#[test]
fn secrets_are_not_printed() {
    let config = configured(&[
        URL,
        ("GREY__CONTROL__TOKEN", "open-sesame"),
        ("GREY__WEBHOOK__SECRETS", "[\"whsec_c2VzYW1lc2VzYW1lc2VzYW1l\"]"),
    ])
    .unwrap();
    let printed = format!("{config:?}{}", to_toml(&config).unwrap());
    assert!(!printed.contains("sesame") && !printed.contains("whsec_"), "{printed}");
}
