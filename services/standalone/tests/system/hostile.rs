//! Hostile clients at every port of every service: what they do to a port stops nobody else there, and the memory of its
//! process stays bounded.
//!
//! Behind a switch: with `GREY_HOSTILE=full` (`just hostile`) each port meets each attack by itself and in large numbers,
//! which takes an hour; with `GREY_HOSTILE=small` all at once and in small ones, which takes a minute. `GREY_HOSTILE_PORT` and
//! `GREY_HOSTILE_ATTACK` select by parts of the names in the table.

mod attack;
mod place;
mod port;
mod watch;
mod wire;

use crate::server::{DEADLINE, settings, stage};
use attack::{ATTACKS, Attack, Raid, Scale};
use grey_testkit::process::cargo_binary;
use grey_testkit::{Redis, ReservedPort, Spawned, eventually};
use place::Place;
use port::Port;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use watch::{Sight, Watch, resident};

/// What an attack may make a process take on top of what it had, in KiB, however many clients take part.
const GROWTH: u64 = 128 << 10;
/// What all attacks at once may.
const GROWTH_AT_ONCE: u64 = 256 << 10;
/// What it may keep of that once they are gone.
const KEPT: u64 = 64 << 10;
/// Beyond this an attack is broken off, as it has proved its point.
const BROKEN: u64 = 1 << 20;
/// How much longer calls may take under an attack.
const RATIO: f64 = 2.0;
/// How often an attack is repeated that made them take longer: the machine may have been busy.
const TRIES: usize = 3;

/// What an attack did.
struct Outcome {
    before: u64,
    peak: u64,
    after: u64,
    calm: Sight,
    under: Sight,
    /// Attackers that had their turn.
    landed: String,
    is_complete: bool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_clients_stop_nobody_else() {
    let scale = match std::env::var("GREY_HOSTILE").as_deref() {
        Ok("full") => Scale::Full,
        Ok("small") => Scale::Small,
        // It takes all of the machine, and says nothing on a busy one.
        _ => return,
    };
    let _stage = stage().await;
    grey_runtime::files::raise_limit();
    let place = Place::start().await;
    let mut faults = Vec::new();
    eprintln!("{}", heading());
    for port in place.ports.iter().filter(|port| is_selected("GREY_HOSTILE_PORT", &port.name)) {
        for (name, attacks) in rounds(port, scale) {
            let outcome = attempt(port, &attacks, scale).await;
            let what = format!("{} | {name}", port.name);
            eprintln!("{}", outcome.row(&what));
            for fault in outcome.faults(scale) {
                eprintln!("  {fault}");
                faults.push(format!("{what}: {fault}"));
            }
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// A process is often given 1,024 open files, and may have many more if it asks.
#[tokio::test]
async fn few_open_files_do_not_let_some_keep_all_others_out() {
    const GIVEN: usize = 256;
    const SILENT: usize = 2 * GIVEN;
    let _stage = stage().await;
    grey_runtime::tls::install_provider();
    grey_runtime::files::raise_limit();
    let (redis, ports) = (Redis::start().await.unwrap(), [(); 2].map(|()| ReservedPort::any().unwrap()));
    let [grpc, http] = ports.each_ref().map(ReservedPort::addr);
    let router = cargo_binary("grey-router").unwrap();
    let limited = format!("ulimit -S -n {GIVEN} && exec {}", router.display());
    let mut builder = Spawned::builder("/bin/sh").arg("-c").arg(limited);
    let urls = format!("[\"{}\"]", redis.url());
    let listen = [grpc, http].map(|addr| addr.to_string());
    for (name, value) in
        settings([("GRPC__LISTEN", &listen[0]), ("HTTP__LISTEN", &listen[1]), ("REDIS__URLS", &urls)])
    {
        builder = builder.env(name, value);
    }
    let process = builder.start().unwrap();
    process.wait_for_line("serving", DEADLINE).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..SILENT {
        silent.push(TcpStream::connect(grpc).await.unwrap());
    }
    eventually(DEADLINE, "all are let in", async || {
        std::fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap().count() > SILENT
    })
    .await;
    let health = reqwest::get(format!("http://{http}/health/live")).await.unwrap();
    assert!(health.status().is_success());
}

fn is_selected(variable: &str, name: &str) -> bool {
    std::env::var(variable).map_or(true, |part| name.contains(&part))
}

/// What a port meets together.
fn rounds(port: &Port, scale: Scale) -> Vec<(&'static str, Vec<&'static Attack>)> {
    let met = |attack: &&Attack| attack.meets(port) && is_selected("GREY_HOSTILE_ATTACK", attack.name);
    let met: Vec<_> = ATTACKS.iter().filter(met).collect();
    match scale {
        Scale::Small => vec![("everything at once", met)],
        Scale::Full => met.into_iter().map(|attack| (attack.name, vec![attack])).collect(),
    }
}

/// A full run also looks at how much longer calls took; what a busy machine may have done is tried again.
async fn attempt(port: &Arc<Port>, attacks: &[&'static Attack], scale: Scale) -> Outcome {
    let mut outcome = raid(port, attacks, scale).await;
    for _ in 1..TRIES {
        if scale == Scale::Small || outcome.ratio() <= RATIO {
            break;
        }
        outcome = raid(port, attacks, scale).await;
    }
    outcome
}

/// Attacks a port, and looks on until each of its well-behaved clients has made a number of calls meanwhile.
async fn raid(port: &Arc<Port>, attacks: &[&'static Attack], scale: Scale) -> Outcome {
    let calls = match scale {
        Scale::Small => 15,
        Scale::Full => 200,
    };
    let watch = Watch::start(port);
    watch.until_called(calls, || false).await;
    let (calm, before) = (watch.look(), resident(port.process));
    let raid = Raid::start(port, attacks, scale);
    let is_broken = || watch.peak() > before + BROKEN;
    let end = Instant::now() + DEADLINE;
    while !raid.has_landed() && !is_broken() && Instant::now() < end {
        sleep(Duration::from_millis(10)).await;
    }
    let mut under = watch.look();
    watch.until_called(calls, is_broken).await;
    under.extend(watch.look());
    let (landed, is_complete) = (raid.landed(), raid.has_landed());
    drop(raid);
    let after = until_released(port.process, before + KEPT).await;
    let peak = watch.peak();
    watch.finish().await;
    Outcome { before, peak, after, calm, under, landed, is_complete }
}

/// Waits until a process takes no more than that, and says what it takes in the end.
async fn until_released(process: u32, most: u64) -> u64 {
    let end = Instant::now() + DEADLINE;
    while resident(process) > most && Instant::now() < end {
        sleep(Duration::from_millis(20)).await;
    }
    resident(process)
}

impl Outcome {
    /// How much longer calls took: the worse of those on kept and on new connections.
    fn ratio(&self) -> f64 {
        let of = |calm: &[Duration], under: &[Duration]| {
            percentile(under, 99).as_secs_f64() / percentile(calm, 99).as_secs_f64()
        };
        of(&self.calm.kept, &self.under.kept).max(of(&self.calm.fresh, &self.under.fresh))
    }

    fn faults(&self, scale: Scale) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |holds: bool, fault: String| faults.extend((!holds).then_some(fault));
        let grown = self.peak.saturating_sub(self.before);
        let most = if scale == Scale::Full { GROWTH } else { GROWTH_AT_ONCE };
        check(grown <= most, format!("the process grew by {} MiB, at most {}", grown >> 10, most >> 10));
        let kept = self.after.saturating_sub(self.before);
        check(kept <= KEPT, format!("it keeps {} MiB of it, at most {}", kept >> 10, KEPT >> 10));
        check(self.is_complete, format!("{} clients had their turn", self.landed));
        let first = |faults: &[String]| faults.first().cloned().unwrap_or_default();
        let failed = &self.under.failed;
        check(
            failed.is_empty(),
            format!("{} calls of others failed, such as {}", failed.len(), first(failed)),
        );
        let unwell = &self.under.unwell;
        check(unwell.is_empty(), format!("{} times not in health, such as {}", unwell.len(), first(unwell)));
        // How long anything takes is judged where the machine does nothing else and the programs are optimised.
        let late = &self.under.late;
        let holds = scale == Scale::Small || late.is_empty();
        check(holds, format!("{} late answers of health, such as {}", late.len(), first(late)));
        let ratio = self.ratio();
        let holds = scale == Scale::Small || ratio <= RATIO;
        check(holds, format!("calls of others took {ratio:.1} times as long, at most {RATIO:.1}"));
        faults
    }

    fn row(&self, what: &str) -> String {
        let mib = |kib: u64| kib >> 10;
        let p99 = |calls: &[Duration]| percentile(calls, 99).as_secs_f64() * 1e3;
        let (calm, under) = (&self.calm, &self.under);
        format!(
            "{what} | {} | {} {} {} | {:.0} | {:.1} {:.1} | {:.1} {:.1} | {:.1} | {} {}",
            self.landed,
            mib(self.before),
            mib(self.peak),
            mib(self.after),
            under.health.as_secs_f64() * 1e3,
            p99(&calm.kept),
            p99(&under.kept),
            p99(&calm.fresh),
            p99(&under.fresh),
            self.ratio(),
            under.failed.len(),
            under.unwell.len(),
        )
    }
}

fn heading() -> &'static str {
    "port | attack | clients | MiB before, peak, after | slowest health, ms | p99 on a kept connection before, under, ms | \
     on a new one | ratio | calls failed, health failed"
}

fn percentile(calls: &[Duration], hundredths: usize) -> Duration {
    let mut sorted = calls.to_vec();
    sorted.sort_unstable();
    let place = sorted.len().saturating_sub(1) * hundredths / 100;
    sorted.get(place).copied().unwrap_or_default()
}
