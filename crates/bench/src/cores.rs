//! Which core does what, and what a process has used of it.
//!
//! Server and generator get a core each where there are two: sharing one would measure the scheduler. Linux only.

use anyhow::{Context as _, Result};
use grey_testkit::others::available_cores;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::time::Duration;

/// Ticks per second in `/proc`, fixed by the kernel's interface.
const TICKS: u64 = 100;

/// Who a core is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    /// Measured processes.
    Server,
    /// The load generator.
    Generator,
}

/// The core of a side: the first for servers, the second, if there is one, for the generator.
fn core(side: Side) -> Result<usize> {
    let cores = available_cores()?;
    let wanted = match side {
        Side::Server => cores.first(),
        Side::Generator => cores.get(1).or(cores.first()),
    };
    wanted.copied().context("find a core")
}

/// Ties the calling thread, and what it starts, to the core of a side.
pub(crate) fn pin(side: Side) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core(side)?)?;
    sched_setaffinity(Pid::from_raw(0), &set).context("pin a thread to a core")
}

/// Runs `start` tied to the servers' core, so that the processes that it starts are born there.
pub(crate) fn on_server_core<T: Send>(start: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let work = || {
        pin(Side::Server)?;
        start()
    };
    std::thread::scope(|scope| scope.spawn(work).join().expect("the start of a server does not panic"))
}

/// Ties a process that runs already to the servers' core.
pub(crate) fn pin_process(process: u32) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core(Side::Server)?)?;
    for task in std::fs::read_dir(format!("/proc/{process}/task")).context("list a process's threads")? {
        let task: i32 = task?.file_name().to_string_lossy().parse().context("read a thread's id")?;
        sched_setaffinity(Pid::from_raw(task), &set).context("pin a process to a core")?;
    }
    Ok(())
}

/// Processor time that each process has used in all its threads so far.
pub(crate) fn processor_times(processes: &[u32]) -> Result<Vec<Duration>> {
    processes.iter().map(|process| processor_time(*process)).collect()
}

fn processor_time(process: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).context("read a process's times")?;
    // The name is in parentheses and may hold anything; user and system time are fields 14 and 15.
    let (_, rest) = stat.rsplit_once(')').context("find the process's name")?;
    let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 1_000 / TICKS))
}

/// How far before others measured processes come, on the scale of `nice`.
const PRIORITY: i32 = -15;

/// Puts this process and all that it starts before other programs, as far as the system lets it: the time slice of
/// another would be the tail of whatever is measured. Returns whether it does.
pub(crate) fn come_first() -> bool {
    rustix::process::setpriority_process(None, PRIORITY).is_ok()
}

/// Bytes of a process that are in memory, and those of them that no file stands behind.
pub(crate) fn resident(process: u32) -> Result<(u64, u64)> {
    let status =
        std::fs::read_to_string(format!("/proc/{process}/status")).context("read a process's memory")?;
    let field = |name: &str| {
        let line =
            status.lines().find_map(|line| line.strip_prefix(name)).context("find a process's memory")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("read a process's memory")?;
        Ok::<_, anyhow::Error>(kib * 1024)
    };
    Ok((field("VmRSS:")?, field("RssAnon:")?))
}
