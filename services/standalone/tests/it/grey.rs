//! A running `grey standalone`, and the command line to talk to it.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use grey_testkit::{Spawned, eventually};
use serde_json::Value;

pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// The binary under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_grey");

/// Settings under which a standalone finds free ports.
pub(crate) const FREE_PORTS: [(&str, &str); 10] = [
    ("GREY__ROUTER__GRPC", "127.0.0.1:0"),
    ("GREY__ROUTER__HTTP", "127.0.0.1:0"),
    ("GREY__CONTROL_PLANE__GRPC", "127.0.0.1:0"),
    ("GREY__CONTROL_PLANE__HTTP", "127.0.0.1:0"),
    ("GREY__REGISTRY_SYNC__GRPC", "127.0.0.1:0"),
    ("GREY__REGISTRY_SYNC__HTTP", "127.0.0.1:0"),
    ("GREY__TENANT_SYNC__GRPC", "127.0.0.1:0"),
    ("GREY__TENANT_SYNC__HTTP", "127.0.0.1:0"),
    ("GREY__SCHEMA_MIGRATOR__GRPC", "127.0.0.1:0"),
    ("GREY__SCHEMA_MIGRATOR__HTTP", "127.0.0.1:0"),
];

/// Where nothing listens.
const NOWHERE: &str = "http://127.0.0.1:1";

/// A running standalone.
pub(crate) struct Grey {
    pub(crate) process: Spawned,
    pub(crate) control: String,
    pub(crate) router: String,
    pub(crate) registry_sync: Option<String>,
    pub(crate) tenant_sync: Option<String>,
    pub(crate) migrator: Option<String>,
    /// The HTTP addresses of all services.
    pub(crate) http: Vec<String>,
}

/// What a command did.
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    /// The document on standard output.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    /// The command succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self}");
        self
    }

    /// The command was refused with one line that has `reason` in it.
    #[track_caller]
    pub(crate) fn refused(self, code: i32, reason: &str) -> Self {
        assert_eq!(self.code, code, "{self}");
        assert!(self.err.contains(reason), "{reason}: {self}");
        assert!(self.out.is_empty(), "{self}");
        self
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit code {}\nout: {}\nerr: {}", self.code, self.out, self.err)
    }
}

impl Grey {
    /// A standalone on free ports.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[], &[]).await
    }

    /// The same with these arguments and variables besides.
    pub(crate) async fn start_with(args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut builder = Spawned::builder(PROGRAM).arg("standalone");
        for arg in args {
            builder = builder.arg(arg);
        }
        for (name, value) in FREE_PORTS.iter().chain(env) {
            builder = builder.env(name, value);
        }
        let process = builder.start().unwrap();
        // The last line of what it prints when it starts.
        process.wait_for_line("data           ", DEADLINE).await.unwrap();
        let output = process.output();
        let mut http = Vec::new();
        let mut grpc = |service: &str| {
            let line = output.lines().find(|line| line.starts_with(&format!("{service:15}gRPC")))?;
            let (grpc, rest) = urls(line);
            http.push(rest);
            Some(grpc)
        };
        let (control, router) = (grpc("control plane").unwrap(), grpc("router").unwrap());
        let (registry_sync, tenant_sync) = (grpc("registry-sync"), grpc("tenant-sync"));
        let migrator = grpc("migrator");
        Self { process, control, router, registry_sync, tenant_sync, migrator, http }
    }

    /// Runs a command against it.
    pub(crate) async fn run(&self, args: &[&str]) -> Done {
        run(&self.addressed(args), &[], "").await
    }

    /// Runs a command against it in a terminal, where a person types `input`. All output is in one.
    pub(crate) async fn run_in_terminal(&self, args: &[&str], input: &str) -> Done {
        let words = [PROGRAM].into_iter().chain(self.addressed(args)).map(|word| format!("'{word}'"));
        let line = words.collect::<Vec<_>>().join(" ");
        // `script` of util-linux runs a command in a terminal of its own.
        let arguments = ["--quiet", "--return", "--command", &line, "/dev/null"];
        feed("script", &arguments, &[("SHELL", "/bin/sh")], input).await
    }

    /// The arguments, and where the services are.
    fn addressed<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        let target = [
            ("--control", Some(&self.control)),
            ("--router", Some(&self.router)),
            ("--registry-sync", self.registry_sync.as_ref()),
            ("--tenant-sync", self.tenant_sync.as_ref()),
            ("--migrator", self.migrator.as_ref()),
        ];
        let target = target.into_iter().flat_map(|(name, url)| [name, url.map_or(NOWHERE, String::as_str)]);
        args.iter().copied().chain(target).collect()
    }

    /// The same with `--json`, and its document.
    pub(crate) async fn json(&self, args: &[&str]) -> Value {
        self.run(&[args, ["--json"].as_slice()].concat()).await.ok().json()
    }

    /// Services and tenants that most tests need; the router has them.
    pub(crate) async fn declare(&self) {
        // Writes wait for the routers that live, which at first are none.
        eventually(DEADLINE, "the router announces itself", async || {
            self.json(&["routers"]).await.get("routers").is_some()
        })
        .await;
        for service in ["payment", "orders"] {
            self.run(&["service", "put", service, "--default", "v1.0"]).await.ok();
            self.run(&["version", "put", service, "v2.1"]).await.ok();
        }
        self.run(&["tenant", "put", "acme", "--tier", "gold", "--region", "eu", "--wait", "20s"]).await.ok();
    }
}

/// Runs a command, with nothing of the product's settings in its environment but `env`.
pub(crate) async fn run(args: &[&str], env: &[(&str, &str)], input: &str) -> Done {
    feed(PROGRAM, args, env, input).await
}

async fn feed(program: &str, args: &[&str], env: &[(&str, &str)], input: &str) -> Done {
    let mut command = tokio::process::Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"GREY_")) {
        command.env_remove(name);
    }
    command.args(args).envs(env.iter().copied()).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let fed = async move {
        // A command that reads nothing closes its input first.
        drop(tokio::io::AsyncWriteExt::write_all(&mut stdin, input.as_bytes()).await);
    };
    let both = async { tokio::join!(fed, child.wait_with_output()).1.unwrap() };
    let Output { status, stdout, stderr } = tokio::time::timeout(DEADLINE, both).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Done { code: status.code().unwrap(), out: text(stdout), err: text(stderr) }
}

/// Writes a file into `dir`; one that is there is replaced at once.
pub(crate) fn file(dir: &Path, name: &str, text: &str) -> PathBuf {
    let (path, new) = (dir.join(name), dir.join(format!("{name}.new")));
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, &path).unwrap();
    path
}

/// The two addresses of a line.
fn urls(line: &str) -> (String, String) {
    let urls: Vec<_> = line.split_whitespace().filter(|word| word.contains("://")).collect();
    (urls[0].to_owned(), urls[1].to_owned())
}
