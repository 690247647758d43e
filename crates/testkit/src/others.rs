//! What others did on this machine while something was measured: a figure taken beside a build is the build's.
//!
//! The kernel tells how long each core worked for programs or was taken away by other machines, and how long each process
//! worked; what this process and its descendants did not do, others did. Interrupts are left out, since most of them are
//! for what is measured. Linux only.

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use std::time::Instant;

/// Cores that others may keep busy while something is measured.
pub const QUIET: f64 = 0.15;

/// Ticks per second in `/proc`, fixed by the kernel's interface.
const TICKS: f64 = 100.0;

/// Measures from its beginning.
#[derive(Debug)]
pub struct Watch {
    begin: Instant,
    machine: u64,
    own: u64,
}

/// One process, as the kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    id: u32,
    parent: u32,
    /// Its own, and of children that have ended.
    ticks: u64,
}

impl Watch {
    /// Begins.
    ///
    /// # Errors
    /// The kernel does not tell what was done so far.
    pub fn begin() -> Result<Self> {
        Ok(Self { begin: Instant::now(), machine: machine()?, own: own()? })
    }

    /// Cores that others kept busy since, of those that this process was given.
    ///
    /// # Errors
    /// The kernel does not tell what was done since.
    pub fn others(&self) -> Result<f64> {
        let all = machine()?.saturating_sub(self.machine);
        let own = own()?.saturating_sub(self.own);
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 ticks")]
        let others = all.saturating_sub(own) as f64;
        Ok(others / TICKS / self.begin.elapsed().as_secs_f64().max(1.0 / TICKS))
    }
}

/// Cores that this process was given when it started.
///
/// # Errors
/// The kernel does not tell.
pub fn available_cores() -> Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(std::process::id().cast_signed()))?;
    Ok((0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).collect())
}

fn machine() -> Result<u64> {
    let stat = std::fs::read_to_string("/proc/stat").context("read the machine's times")?;
    busy(&stat, &available_cores()?)
}

fn own() -> Result<u64> {
    let listed = std::fs::read_dir("/proc").context("list processes")?;
    let stats = listed.filter_map(|entry| {
        let entry = entry.ok()?;
        entry.file_name().to_str()?.parse::<u32>().ok()?;
        // One that has ended meanwhile counts as its parent's.
        std::fs::read_to_string(entry.path().join("stat")).ok()
    });
    let processes: Vec<_> = stats.filter_map(|stat| process(&stat)).collect();
    Ok(of_tree(&processes, std::process::id()))
}

/// Ticks that these cores worked for programs, or were taken away.
fn busy(stat: &str, cores: &[usize]) -> Result<u64> {
    let mut sum = 0;
    for core in cores {
        let name = format!("cpu{core} ");
        let line = stat.lines().find_map(|line| line.strip_prefix(&name)).context("find a core's times")?;
        let ticks = line.split_whitespace().map(str::parse::<u64>).collect::<Result<Vec<_>, _>>()?;
        // user, nice, system, idle, iowait, irq, softirq, steal.
        sum += [0, 1, 2, 7].iter().filter_map(|at| ticks.get(*at)).sum::<u64>();
    }
    Ok(sum)
}

/// Reads `/proc/<id>/stat`.
fn process(stat: &str) -> Option<Process> {
    // The name is in parentheses and may hold anything.
    let (before, after) = stat.rsplit_once(')')?;
    let id = before.split_whitespace().next()?.parse().ok()?;
    let mut fields = after.split_whitespace().skip(1);
    let parent = fields.next()?.parse().ok()?;
    let ticks = fields.skip(9).take(4).map(str::parse::<u64>).sum::<Result<u64, _>>().ok()?;
    Some(Process { id, parent, ticks })
}

/// Ticks of a process and its descendants.
fn of_tree(processes: &[Process], root: u32) -> u64 {
    let own = processes.iter().find(|process| process.id == root).map_or(0, |process| process.ticks);
    let children = processes.iter().filter(|process| process.parent == root && process.id != root);
    own + children.map(|child| of_tree(processes, child.id)).sum::<u64>()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;

    const STAT: &str = "cpu  1 1 1 1 1 1 1 1 0 0\n\
        cpu0 100 20 30 4000 50 6 7 8 9 0\n\
        cpu1 1000 200 300 4000 50 6 7 80 9 0\n\
        cpu10 7 7 7 7 7 7 7 7 7 7\n\
        intr 1 2 3\n";

    #[test]
    fn a_core_is_busy_with_programs_and_when_it_is_taken_away() {
        assert_eq!(busy(STAT, &[0]).unwrap(), 158);
        assert_eq!(busy(STAT, &[0, 1]).unwrap(), 158 + 1_580);
        assert!(busy(STAT, &[2]).is_err());
    }

    #[test]
    fn descendants_count_as_own_and_nobody_else_does() {
        let stat = |id: u32, parent: u32| {
            format!("{id} (a) name) S {parent} 1 1 0 -1 4194304 99 0 0 0 10 20 3 4 20 0 1 0 99")
        };
        let one = process(&stat(7, 1)).unwrap();
        assert_eq!(one, Process { id: 7, parent: 1, ticks: 37 });
        let tree = [(1, 0), (7, 1), (8, 7), (9, 8), (10, 1), (11, 10)];
        let tree = tree.map(|(id, parent)| process(&stat(id, parent)).unwrap());
        assert_eq!(of_tree(&tree, 7), 3 * 37);
        assert_eq!(of_tree(&tree, 99), 0);
    }

    #[test]
    fn this_machine_tells_what_it_does() {
        assert!(Watch::begin().unwrap().others().unwrap().is_finite());
    }
}
