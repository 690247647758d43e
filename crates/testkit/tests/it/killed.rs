use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use grey_testkit::{Spawned, eventually};
use tokio::net::TcpStream;

const LONG: Duration = Duration::from_secs(120);

#[tokio::test]
async fn killed_test_process_leaves_no_server_and_no_directory() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    // The servers run as another user where the test runs as root, and must get in.
    std::fs::set_permissions(scratch.path(), Permissions::from_mode(0o755))?;
    let holder =
        Spawned::builder(env!("CARGO_BIN_EXE_hold-servers")).env("TMPDIR", scratch.path()).start()?;
    holder.wait_for_line("holding", LONG).await?;
    let addrs = addresses(&holder.output())?;
    assert_eq!(addrs.len(), 14, "{}", holder.output());
    for addr in &addrs {
        TcpStream::connect(addr).await.with_context(|| format!("connect to {addr}"))?;
    }
    assert_eq!(std::fs::read_dir(scratch.path())?.count(), 6);

    holder.kill9()?;
    for addr in addrs {
        eventually(LONG, &format!("{addr} is closed"), async || TcpStream::connect(addr).await.is_err())
            .await;
    }
    eventually(LONG, "the directories are gone", async || {
        std::fs::read_dir(scratch.path()).is_ok_and(|entries| entries.count() == 0)
    })
    .await;
    Ok(())
}

fn addresses(output: &str) -> Result<Vec<SocketAddr>> {
    let urls = output.lines().filter_map(|line| line.split_once("://"));
    urls.map(|(_, rest)| {
        let host = rest.split('/').next().unwrap_or(rest);
        let host = host.rsplit('@').next().unwrap_or(host);
        host.parse().with_context(|| format!("read the address {host}"))
    })
    .collect()
}
