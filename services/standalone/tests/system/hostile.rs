//! Hostile clients at every port of every service: what they do to a port stops nobody else there, and the memory of its
//! process stays bounded.
//!
//! Behind a switch: with `GREY_HOSTILE=full` (`just hostile`) each port meets each attack by itself and in large numbers,
//! which takes half an hour; with `GREY_HOSTILE=small` all at once and in small ones, which takes a minute.
//! `GREY_HOSTILE_PORT` and `GREY_HOSTILE_ATTACK` select by parts of the names in the table.
//!
//! What is measured is what attackers do to a service, not what they do to its machine: they run on one thread of the lowest
//! priority, and so have what the services and their well-behaved clients leave. Those have the priority of this process.
//! The services are configured as they are shipped; nothing here waits for their deadlines but who wants to watch while
//! others keep the places.

mod attack;
mod place;
mod port;
mod watch;
mod wire;

use crate::server::{DEADLINE, settings, stage};
use attack::{ATTACKS, Attack, ENDLESS, Raid, Scale};
use grey_testkit::others::{self, QUIET};
use grey_testkit::process::cargo_binary;
use grey_testkit::{Redis, ReservedPort, Spawned, eventually};
use place::Place;
use port::Port;
use std::net::SocketAddr;
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
/// Calls that take no longer than this are as fast as they should be, however fast they were before: it is less than twice
/// the 3 ms for which Linux lets one thread run while another one waits for its core.
const NOISE: Duration = Duration::from_millis(5);
/// Open files of a router that is given few.
const GIVEN: usize = 256;
/// How often an attack is repeated that made them take longer, and a measurement while others keep the machine busy.
const TRIES: usize = 3;
/// Calls of a client before its connection counts as one that it has had for long.
const SETTLED: usize = 20;
/// How long an attack is looked at, once it is there, if calls take so long that there are few of them.
const PATROL: Duration = Duration::from_secs(45);
/// How long a process may take to give back what attackers who are gone had of it.
const RELEASE: Duration = Duration::from_secs(10);

/// What an attack did.
struct Outcome {
    before: u64,
    peak: u64,
    after: u64,
    calm: Tail,
    under: Sight,
    /// Attackers that had their turn.
    landed: String,
    is_complete: bool,
    /// Cores that others than those in this test kept busy.
    others: f64,
    took: Duration,
}

/// How long the slowest hundredth of calls takes at least, on a connection that stays and on new ones.
#[derive(Clone, Copy)]
struct Tail([Duration; 2]);

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
    let (begun, mut faults) = (Instant::now(), Vec::new());
    eprintln!("{}", heading());
    for port in place.ports.iter().filter(|port| is_selected("GREY_HOSTILE_PORT", &port.name)) {
        let mut calm = calm(port, scale).await;
        for (name, attacks) in rounds(port, scale) {
            let what = format!("{} | {name}", port.name);
            for fault in attempt(port, &what, &attacks, scale, &mut calm).await {
                eprintln!("  {fault}");
                faults.push(format!("{what}: {fault}"));
            }
        }
    }
    eprintln!("{:.0} s", begun.elapsed().as_secs_f64());
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// A router that is given few open files, and its two ports; `which` is the shell's flag for the limit that is set, or
/// nothing for both.
async fn router_with_few_files(redis: &Redis, which: &str) -> (Spawned, [ReservedPort; 2]) {
    let ports = [(); 2].map(|()| ReservedPort::any().unwrap());
    let [grpc, http] = ports.each_ref().map(ReservedPort::addr);
    let router = cargo_binary("grey-router").unwrap();
    let limited = format!("ulimit {which} -n {GIVEN} && exec {}", router.display());
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
    (process, ports)
}

async fn connect_silently(addr: SocketAddr) -> Vec<TcpStream> {
    let mut silent = Vec::new();
    for _ in 0..2 * GIVEN {
        silent.push(TcpStream::connect(addr).await.unwrap());
    }
    silent
}

/// A process is often given 1,024 open files, and may have many more if it asks.
#[tokio::test]
async fn few_open_files_do_not_let_some_keep_all_others_out() {
    let _stage = stage().await;
    grey_runtime::tls::install_provider();
    grey_runtime::files::raise_limit();
    let redis = Redis::start().await.unwrap();
    let (process, ports) = router_with_few_files(&redis, "-S").await;
    let [grpc, http] = ports.each_ref().map(ReservedPort::addr);
    let _silent = connect_silently(grpc).await;
    eventually(DEADLINE, "all are let in", async || {
        std::fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap().count() > 2 * GIVEN
    })
    .await;
    let health = reqwest::get(format!("http://{http}/health/live")).await.unwrap();
    assert!(health.status().is_success());
}

/// And one that may have no more lets those go on one port that others need on another.
#[tokio::test]
async fn a_process_without_file_handles_makes_room() {
    let _stage = stage().await;
    grey_runtime::tls::install_provider();
    grey_runtime::files::raise_limit();
    let redis = Redis::start().await.unwrap();
    let (_process, ports) = router_with_few_files(&redis, "").await;
    let [grpc, http] = ports.each_ref().map(ReservedPort::addr);
    let _silent = connect_silently(grpc).await;
    eventually(DEADLINE, "health answers", async || {
        let health = reqwest::get(format!("http://{http}/health/live")).await;
        health.is_ok_and(|health| health.status().is_success())
    })
    .await;
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

/// What calls take while nobody attacks; again while others keep the machine busy.
async fn calm(port: &Arc<Port>, scale: Scale) -> Tail {
    let watch = Watch::start(port, false);
    watch.until_called(SETTLED, || false).await;
    let mut tail = Tail([Duration::ZERO; 2]);
    for _ in 0..TRIES {
        drop(watch.look());
        let machine = others::Watch::begin().unwrap();
        watch.until_called(calls(scale), || false).await;
        tail = Tail::of(&watch.look());
        if machine.others().unwrap() <= QUIET {
            break;
        }
    }
    watch.finish().await;
    tail
}

/// Attacks a port, and says what went wrong. Calls that took too long, and what others may have done who kept the machine
/// busy, is tried again; what was seen on a machine that was busy each time is told, and no fault.
async fn attempt(
    port: &Arc<Port>,
    what: &str,
    attacks: &[&'static Attack],
    scale: Scale,
    calm: &mut Tail,
) -> Vec<String> {
    let mut faults = Vec::new();
    for tries in 1.. {
        let outcome = raid(port, attacks, scale, *calm).await;
        eprintln!("{}", outcome.row(what));
        faults.extend(outcome.faults(scale));
        let (late, longer) = (outcome.late(scale), outcome.longer(scale));
        if !outcome.is_busy() {
            faults.extend(late.clone());
        }
        let is_doubtful = longer.is_some() || (late.is_some() && outcome.is_busy());
        if is_doubtful && tries < TRIES {
            *calm = self::calm(port, scale).await;
            continue;
        }
        if outcome.is_busy() {
            for doubt in late.iter().chain(&longer) {
                eprintln!("  busy, no fault: {doubt}");
            }
        } else {
            faults.extend(longer);
        }
        break;
    }
    faults
}

/// So many calls that the slowest hundredth is several of them.
fn calls(scale: Scale) -> usize {
    match scale {
        Scale::Small => 15,
        Scale::Full => 400,
    }
}

/// Attacks a port, and looks on until each of its well-behaved clients has made a number of calls meanwhile.
async fn raid(port: &Arc<Port>, attacks: &[&'static Attack], scale: Scale, calm: Tail) -> Outcome {
    let begun = Instant::now();
    let has_watcher = port.is_watched() && attacks.iter().all(|attack| attack.name != ENDLESS);
    let watch = Watch::start(port, has_watcher);
    watch.until_called(SETTLED, || false).await;
    drop(watch.look());
    let (before, machine) = (resident(port.process), others::Watch::begin().unwrap());
    let raid = Raid::start(port, attacks, scale);
    let is_broken = || watch.peak() > before + BROKEN;
    let end = Instant::now() + DEADLINE;
    while !raid.has_landed() && !is_broken() && Instant::now() < end {
        sleep(Duration::from_millis(10)).await;
    }
    let mut under = watch.look();
    let end = Instant::now() + PATROL;
    watch.until_called(calls(scale), || is_broken() || Instant::now() >= end).await;
    under.extend(watch.look());
    let (landed, is_complete) = (raid.landed(), raid.has_landed());
    let others = machine.others().unwrap();
    drop(raid);
    let after = until_released(port.process, before + KEPT).await;
    let peak = watch.peak();
    watch.finish().await;
    let took = begun.elapsed();
    Outcome { before, peak, after, calm, under, landed, is_complete, others, took }
}

/// Waits until a process takes no more than that, and says what it takes in the end.
async fn until_released(process: u32, most: u64) -> u64 {
    let end = Instant::now() + RELEASE;
    while resident(process) > most && Instant::now() < end {
        sleep(Duration::from_millis(20)).await;
    }
    resident(process)
}

impl Tail {
    fn of(sight: &Sight) -> Self {
        Self([&sight.kept, &sight.fresh].map(|calls| percentile(calls, 99)))
    }
}

impl Outcome {
    /// How much longer calls took: the worse of those on kept and on new connections, noise apart.
    fn ratio(&self) -> f64 {
        let (Tail(calm), Tail(under)) = (self.calm, Tail::of(&self.under));
        let pairs = calm.into_iter().zip(under).filter(|(_, under)| *under > NOISE);
        pairs.map(|(calm, under)| under.as_secs_f64() / calm.as_secs_f64()).fold(0.0, f64::max)
    }

    /// Whether others may have done what was seen.
    fn is_busy(&self) -> bool {
        self.others > QUIET
    }

    /// Calls that took too long. How long anything takes is judged where the machine does nothing else and the programs are
    /// optimised.
    fn longer(&self, scale: Scale) -> Option<String> {
        let ratio = self.ratio();
        let holds = scale == Scale::Small || ratio <= RATIO;
        (!holds).then(|| format!("calls of others took {ratio:.1} times as long, at most {RATIO:.1}"))
    }

    /// Answers of health that came too late.
    fn late(&self, scale: Scale) -> Option<String> {
        let late = &self.under.late;
        let first = late.first().filter(|_| scale == Scale::Full)?;
        Some(format!("{} late answers of health, such as {first}", late.len()))
    }

    /// What is wrong however busy the machine was.
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
        faults
    }

    fn row(&self, what: &str) -> String {
        let mib = |kib: u64| kib >> 10;
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        let (Tail(calm), Tail(under)) = (self.calm, Tail::of(&self.under));
        let watched = self.under.watched.iter().max().copied();
        let watched = watched.map_or("-".to_owned(), |slowest| format!("{:.0}", milliseconds(slowest)));
        format!(
            "{what} | {} | {} {} {} | {:.0} | {:.1} {:.1} | {:.1} {:.1} | {:.1} | {watched} | {} {} | {:.2}{} | {:.1}",
            self.landed,
            mib(self.before),
            mib(self.peak),
            mib(self.after),
            milliseconds(self.under.health),
            milliseconds(calm[0]),
            milliseconds(under[0]),
            milliseconds(calm[1]),
            milliseconds(under[1]),
            self.ratio(),
            self.under.failed.len(),
            self.under.unwell.len(),
            self.others,
            if self.is_busy() { " busy" } else { "" },
            self.took.as_secs_f64(),
        )
    }
}

fn heading() -> &'static str {
    "port | attack | clients | MiB before, peak, after | slowest health, ms | p99 on a kept connection before, under, ms | \
     on a new one | ratio | slowest beginning of a watch, ms | calls failed, health failed | cores that others kept busy | s"
}

fn percentile(calls: &[Duration], hundredths: usize) -> Duration {
    let mut sorted = calls.to_vec();
    sorted.sort_unstable();
    let place = sorted.len().saturating_sub(1) * hundredths / 100;
    sorted.get(place).copied().unwrap_or_default()
}
