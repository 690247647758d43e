use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use anyhow::Result;
use grey_testkit::{Spawned, eventually};
use nix::sys::signal::kill;
use nix::unistd::Pid;

const SOON: Duration = Duration::from_secs(20);

fn shell(script: &str) -> Result<Spawned> {
    Spawned::builder("/bin/sh").arg("-c").arg(script).env("GREETING", "hello").start()
}

#[tokio::test]
async fn lines_of_both_outputs_are_captured() -> Result<()> {
    let program = shell("echo $GREETING out; echo $GREETING err >&2; sleep 600")?;
    assert_eq!(program.wait_for_line("hello out", SOON).await?, "hello out");
    assert_eq!(program.wait_for_line("err", SOON).await?, "hello err");
    Ok(())
}

#[tokio::test]
async fn early_exit_ends_the_wait_with_the_output() -> Result<()> {
    let program = shell("echo broken >&2; exit 3")?;
    let error = program.wait_for_line("ready", SOON).await.unwrap_err().to_string();
    assert!(error.contains("broken") && error.contains('3'), "{error}");
    assert_eq!(program.wait(SOON).await?.code(), Some(3));
    Ok(())
}

#[tokio::test]
async fn terminate_lets_the_program_finish() -> Result<()> {
    let program = shell("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done")?;
    program.wait_for_line("up", SOON).await?;
    assert!(program.terminate(SOON).await?.success());
    program.wait_for_line("bye", SOON).await?;
    Ok(())
}

#[tokio::test]
async fn kill9_gives_no_time_to_finish() -> Result<()> {
    let program = shell("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done")?;
    program.wait_for_line("up", SOON).await?;
    program.kill9()?;
    assert_eq!(program.wait(SOON).await?.signal(), Some(9));
    assert!(!program.output().contains("bye"));
    Ok(())
}

#[tokio::test]
async fn drop_also_ends_what_the_program_started() -> Result<()> {
    let program = shell("sleep 600 & echo child $!; wait")?;
    let line = program.wait_for_line("child", SOON).await?;
    let child = Pid::from_raw(line.trim_start_matches("child ").parse()?);
    let dir = program.dir().to_owned();
    assert!(kill(child, None).is_ok());
    drop(program);
    assert!(!dir.exists());
    // Whoever adopted the killed child may take a moment to reap it.
    eventually(SOON, "the child is gone", async || kill(child, None).is_err() || is_zombie(child)).await;
    Ok(())
}

fn is_zombie(pid: Pid) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}
