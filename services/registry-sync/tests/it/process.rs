//! The program as it is started in production.

use std::fs;

use grey_testkit::{Redis, Spawned, eventually};

use crate::following::SOON;
use crate::replica::{connect, published};

const PROGRAM: &str = env!("CARGO_BIN_EXE_grey-registry-sync");

#[tokio::test]
async fn the_program_mirrors_a_file_and_ends_on_sigterm() {
    let redis = Redis::start().await.unwrap();
    let state = connect(redis.url()).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("instances.yaml");
    let write = |version: &str| {
        let text = format!(
            "services:\n  payment:\n    - id: a\n      address: 10.0.0.1:80\n      version: {version}\n"
        );
        let fresh = directory.path().join("fresh.yaml");
        fs::write(&fresh, text).unwrap();
        fs::rename(fresh, &path).unwrap();
    };
    write("v1.0");
    let program = Spawned::builder(PROGRAM)
        .env("GREY__GRPC__LISTEN", "127.0.0.1:0")
        .env("GREY__HTTP__LISTEN", "127.0.0.1:0")
        .env("GREY__REDIS__URLS", format!("[\"{}\"]", redis.url()))
        .env(
            "GREY__SOURCES",
            format!("[{{ name = \"files\", kind = \"file\", path = \"{}\" }}]", path.display()),
        )
        .start()
        .unwrap();
    eventually(SOON, "the file is mirrored", async || published(&state).await == "a v1.0").await;
    write("v2.0");
    eventually(SOON, "the change is mirrored", async || published(&state).await == "a v2.0").await;
    let status = program.terminate(SOON).await.unwrap();
    assert!(status.success(), "{status}: {}", program.output());
    assert_eq!(published(&state).await, "a v2.0", "what was published stays");
}
