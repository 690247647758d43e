//! What an operator may set.

use grey_registry_sync::{Config, DEFAULTS, Kind};
use grey_runtime::config::{Error, Source, load, to_toml};

fn read(env: &[(&str, &str)]) -> Result<Config, Error> {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load::<Config>(Source { defaults: DEFAULTS, file: None, env })
}

fn faults(env: &[(&str, &str)]) -> String {
    read(env).unwrap_err().to_string()
}

const FILE: (&str, &str) =
    ("GREY__SOURCES", r#"[{ name = "files", kind = "file", path = "/etc/grey/instances.yaml" }]"#);

#[test]
fn without_a_registry_it_says_how_to_name_one() {
    let text = faults(&[]);
    assert!(text.contains("sources: must name at least one registry, such as [{ name = \"files\""), "{text}");
}

#[test]
fn defaults_are_valid_with_one_source() {
    let config = read(&[FILE]).unwrap();
    assert_eq!((config.grpc.listen.port(), config.http.listen.port()), (7430, 7431));
    let Kind::File(options) = &config.sources[0].kind else { panic!("{:?}", config.sources) };
    assert_eq!(options.path.to_str(), Some("/etc/grey/instances.yaml"));
    assert_eq!((config.sources[0].name.as_str(), config.sources[0].trusted), ("files", None));
}

#[test]
fn the_commented_examples_are_valid() {
    let begin = DEFAULTS.find("# [[sources]]").unwrap();
    let end = DEFAULTS.find("[grpc]").unwrap();
    let lines = DEFAULTS.get(begin..end).unwrap().lines().filter_map(|line| line.strip_prefix("# "));
    let text: Vec<&str> = lines.filter(|line| line.starts_with("[[") || line.contains(" = ")).collect();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    std::fs::write(&file, text.join("\n")).unwrap();
    let config: Config = load(Source { defaults: DEFAULTS, file: Some(&file), env: Vec::new() }).unwrap();
    assert_eq!(
        config.sources.iter().map(|source| source.kind.as_str()).collect::<Vec<_>>(),
        ["nacos", "file"]
    );
}

#[test]
fn secrets_are_not_printed() {
    let nacos = r#"[{ name = "dc-1", kind = "nacos", servers = ["nacos:8848"], username = "grey", password = "hunter2", region = "eu" }]"#;
    let config = read(&[("GREY__SOURCES", nacos)]).unwrap();
    let text = to_toml(&config).unwrap();
    assert!(!text.contains("hunter2") && text.contains("password = \"***\""), "{text}");
    assert!(text.contains("kind = \"nacos\"") && text.contains("region = \"eu\""), "{text}");
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn every_fault_of_a_source_names_it() {
    for (source, fault) in [
        (r#"{ name = "Files", kind = "file", path = "x" }"#, "sources.0.name: name `Files` does not match"),
        (r#"{ name = "former", kind = "file", path = "x" }"#, "sources.0.name: is what"),
        (r#"{ name = "a", kind = "file", path = "x", region = "E U" }"#, "sources.0.region: name `E U`"),
        (r#"{ name = "a", kind = "nacos", servers = [] }"#, "sources.0.servers: must name at least one"),
        (r#"{ name = "a", kind = "consul" }"#, "`a`: kind must be nacos or file"),
        (r#"{ name = "a", kind = "file" }"#, "`a`: missing field `path`"),
        (r#"{ name = "a", kind = "file", path = "x", servers = [] }"#, "`a`: unknown field `servers`"),
        (r#"{ name = "a", kind = "file", path = "x", trusted = "yes" }"#, "trusted: invalid type"),
        (r#"{ kind = "file", path = "x" }"#, "name"),
    ] {
        let text = faults(&[("GREY__SOURCES", &format!("[{source}]"))]);
        assert!(text.contains(fault), "{fault}: {text}");
    }
    let twice = r#"[{ name = "a", kind = "file", path = "x" }, { name = "a", kind = "file", path = "y" }]"#;
    assert!(faults(&[("GREY__SOURCES", twice)]).contains("sources.1.name: must be unique"));
}

#[test]
fn every_fault_is_reported_at_once() {
    let text = faults(&[
        FILE,
        ("GREY__MAX_REQUEST_BYTES", "1"),
        ("GREY__HOLD__DROP_SHARE", "1.5"),
        ("GREY__HOLD__FLIP_MIN", "0"),
        ("GREY__HOLD__WINDOW", "0s"),
        ("GREY__INSTANCES__VERSION_KEY", ""),
        ("GREY__INSTANCES__DEFAULT_VERSIONS", r#"{ payment = "latest", "No Service" = "1" }"#),
        ("GREY__INSTANCES__RENAMES", r#"{ Pay = "No Service" }"#),
        ("GREY__PROBE__INTERVAL", "0s"),
        ("GREY__SYNC__LEASE", "1ms"),
        ("GREY__SYNC__VERIFY", "0s"),
        ("GREY__HTTP__NONSENSE", "1"),
        (
            "GREY__ACCESS__TOKENS",
            &format!("[{{ name = \"x\", role = \"root\", sha256 = \"{}\" }}]", "0".repeat(64)),
        ),
    ]);
    for fault in [
        "max_request_bytes",
        "hold.drop_share",
        "hold.flip_min",
        "hold.window",
        "instances.version_key",
        "instances.default_versions.payment",
        "instances.default_versions.No Service",
        "instances.renames.Pay",
        "probe.interval",
        "sync.lease",
        "sync.verify",
        "http.nonsense",
        "viewer, operator or admin",
    ] {
        assert!(text.contains(fault), "{fault}: {text}");
    }
}
