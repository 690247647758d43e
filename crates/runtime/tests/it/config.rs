//! Layers, types and every way in which a configuration is refused.

use std::{fs, path::Path, time::Duration};

use grey_runtime::{
    Faults, Secret, Validate, access,
    config::{self, Source},
};
use serde::{Deserialize, Serialize};

pub(crate) const DEFAULTS: &str = r#"
[server]
# Where to listen.
addr = "127.0.0.1:7400"
threads = 0
timeout = "10s"

[store]
url = "memory:"

[access]
tokens = []
"#;

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) server: Server,
    pub(crate) store: Store,
    access: access::Options,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Server {
    addr: std::net::SocketAddr,
    pub(crate) threads: u16,
    #[serde(with = "config::duration")]
    timeout: Duration,
    #[serde(default, with = "config::duration::option")]
    idle: Option<Duration>,
    #[serde(default)]
    zones: Vec<String>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Store {
    url: Secret,
    #[serde(default)]
    password: Option<Secret>,
}

impl Validate for Config {
    fn validate(&self, faults: &mut Faults) {
        faults.section("server", &self.server);
        faults.section("access", &self.access);
    }
}

impl Validate for Server {
    fn validate(&self, faults: &mut Faults) {
        faults.check(self.threads <= 1024, "threads", "must be at most 1024");
        faults.check(!self.timeout.is_zero(), "timeout", "must be longer than nothing");
    }
}

fn env(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn load(file: Option<&Path>, variables: &[(&str, &str)]) -> Result<Config, config::Error> {
    config::load(Source { defaults: DEFAULTS, file, env: env(variables) })
}

fn refusal(file: &str, variables: &[(&str, &str)]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("grey.toml");
    fs::write(&path, file).unwrap();
    let error = load(Some(&path), variables).unwrap_err();
    error.to_string().replace(&dir.path().display().to_string(), "DIR")
}

#[test]
fn later_layers_override_earlier_ones_key_by_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("grey.toml");
    fs::write(&path, "[server]\nthreads = 3\ntimeout = \"250ms\"\nzones = [\"a\", \"b\"]\n").unwrap();
    let config =
        load(Some(&path), &[("GREY__SERVER__THREADS", "5"), ("GREY__SERVER__IDLE", "1m30s")]).unwrap();
    assert_eq!(config.server.addr.port(), 7400, "from the defaults");
    assert_eq!(config.server.timeout, Duration::from_millis(250), "from the file");
    assert_eq!(config.server.zones, ["a", "b"], "from the file");
    assert_eq!(config.server.threads, 5, "from the environment");
    assert_eq!(config.server.idle, Some(Duration::from_secs(90)), "from the environment");
}

#[test]
fn variables_with_a_single_underscore_are_ignored() {
    let injected =
        [("GREY_ROUTER_PORT", "tcp://10.0.0.1:7400"), ("GREY_SERVER_THREADS", "9"), ("PATH", "/bin")];
    assert_eq!(load(None, &injected).unwrap().server.threads, 0);
}

#[test]
fn variables_take_the_type_of_their_setting() {
    let config = load(
        None,
        &[
            ("GREY__SERVER__ZONES", r#"["a", "b"]"#),
            ("GREY__STORE__PASSWORD", "123456"),
            ("GREY__STORE__URL", "2024-01-01"),
            ("GREY__ACCESS__ALLOW_ANONYMOUS", "true"),
        ],
    )
    .unwrap();
    assert_eq!(config.server.zones, ["a", "b"]);
    assert_eq!(config.store.password.unwrap().expose(), "123456");
    assert_eq!(config.store.url.expose(), "2024-01-01");
    assert_eq!(config.access.allow_anonymous, Some(true));
    let leading_zero = load(None, &[("GREY__STORE__PASSWORD", "007\nx = 1")]).unwrap();
    assert_eq!(leading_zero.store.password.unwrap().expose(), "007\nx = 1");
}

#[test]
fn all_faults_of_all_layers_are_reported_at_once() {
    let file = r#"
top = 1
[server]
thread = 3
threads = 70000
timeout = "soon"
[store]
url = 5
[[access.tokens]]
name = "ci"
role = "admin"
sha256 = "abc"
colour = "red"
"#;
    let variables = [
        ("GREY__SERVR__PORT", "1"),
        ("GREY__SERVR__ADDR", "x"),
        ("GREY__SERVER__ADDR", "here"),
        ("GREY__SERVER____X", "1"),
    ];
    insta::assert_snapshot!(refusal(file, &variables), @r#"
    configuration has 10 faults
      a variable is spelled GREY__SECTION__KEY (environment GREY__SERVER____X)
      access.tokens.0.colour: unknown key, expected one of `name`, `role`, `sha256` (file DIR/grey.toml)
      access.tokens.0.sha256: expected a SHA-256 as 64 hexadecimal digits (file DIR/grey.toml)
      server.addr: invalid socket address syntax (environment GREY__SERVER__ADDR)
      server.thread: unknown key, expected one of `addr`, `threads`, `timeout`, `idle`, `zones` (file DIR/grey.toml)
      server.threads: expected u16, found 70000 (file DIR/grey.toml)
      server.timeout: `soon` is not a duration such as "250ms", "10s" or "1m30s" (file DIR/grey.toml)
      servr: unknown key, expected one of `server`, `store`, `access` (environment GREY__SERVR__ADDR, GREY__SERVR__PORT)
      store.url: expected a string, found integer (file DIR/grey.toml)
      top: unknown key, expected one of `server`, `store`, `access` (file DIR/grey.toml)
    "#);
}

#[test]
fn broken_rules_name_the_layer_that_broke_them() {
    insta::assert_snapshot!(
        refusal("[server]\nthreads = 2000\n", &[("GREY__SERVER__TIMEOUT", "0s")]),
        @r#"
    configuration has 2 faults
      server.threads: must be at most 1024 (file DIR/grey.toml)
      server.timeout: must be longer than nothing (environment GREY__SERVER__TIMEOUT)
    "#
    );
}

#[test]
fn broken_rules_are_reported_beside_broken_types() {
    insta::assert_snapshot!(refusal("[server]\nthreads = 2000\naddr = 7\n", &[]), @r#"
    configuration has 2 faults
      server.addr: expected socket address, found integer (file DIR/grey.toml)
      server.threads: must be at most 1024 (file DIR/grey.toml)
    "#);
}

#[test]
fn missing_setting_is_named() {
    let error =
        config::load::<Config>(Source { defaults: "[server]\nthreads = 1", file: None, env: env(&[]) });
    insta::assert_snapshot!(error.unwrap_err(), @r#"
    configuration has 1 fault
      server.addr: missing
    "#);
}

#[test]
fn table_in_place_of_a_value_is_refused() {
    insta::assert_snapshot!(refusal("", &[("GREY__SERVER__THREADS__MAX", "1")]), @r#"
    configuration has 1 fault
      server.threads: expected u16, found table (environment GREY__SERVER__THREADS__MAX)
    "#);
}

#[test]
fn variables_that_differ_only_in_case_are_refused() {
    insta::assert_snapshot!(
        refusal("", &[("GREY__SERVER__THREADS", "1"), ("GREY__SERVER__threads", "2")]),
        @r#"
    configuration has 1 fault
      another variable, different only in case, sets the same key (environment GREY__SERVER__threads)
    "#
    );
}

#[test]
fn syntax_error_tells_the_line_but_not_its_text() {
    let text = refusal("[store]\nurl = \"memory:\"\npassword = hunter2\n", &[]);
    assert!(!text.contains("hunter2"), "{text}");
    insta::assert_snapshot!(text.lines().next().unwrap(), @"parse configuration file DIR/grey.toml, line 3: string values must be quoted, expected literal string");
}

#[test]
fn absent_file_is_refused() {
    let error = load(Some(Path::new("/nowhere/grey.toml")), &[]).unwrap_err();
    insta::assert_snapshot!(error, @"read configuration file /nowhere/grey.toml");
    assert!(std::error::Error::source(&error).is_some());
}

#[test]
fn values_of_the_wrong_type_are_not_repeated() {
    let text = refusal(
        "[server]\nthreads = \"hunter2\"\n[store]\npassword = 31337\n",
        &[("GREY__SERVER__ADDR", "5")],
    );
    assert!(!text.contains("hunter2") && !text.contains("31337"), "{text}");
}

#[test]
fn secrets_are_masked_wherever_they_are_printed() {
    let config = load(None, &[("GREY__STORE__PASSWORD", "hunter2")]).unwrap();
    let (debug, toml) = (format!("{config:?}"), config::to_toml(&config).unwrap());
    assert!(!debug.contains("hunter2") && !debug.contains("memory:"), "{debug}");
    insta::assert_snapshot!(toml, @r#"
    [access]
    tokens = []
    
    [server]
    addr = "127.0.0.1:7400"
    threads = 0
    timeout = "10s"
    zones = []
    
    [store]
    password = "***"
    url = "***"
    "#);
}
