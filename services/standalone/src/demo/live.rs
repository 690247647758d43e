//! The live view: rates, latencies and the story, redrawn several times a second.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use crossterm::event::{self, Event, KeyCode, KeyModifiers};
use crossterm::style::Print;
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
};
use crossterm::{cursor, execute, queue};
use tokio_util::sync::CancellationToken;

use super::Mode;
use super::screen::{Said, Screen};
use super::tally::{Latency, Tally};
use super::world;

/// Between two pictures.
const REDRAW: Duration = Duration::from_millis(250);
/// Between two lines of figures where there is no picture.
const LINE: Duration = Duration::from_secs(5);

/// Shows the figures until `draining`; blocks its thread. `q` and Ctrl-C begin the drain.
pub(super) fn run(screen: &Screen, tally: &Tally, draining: &CancellationToken) -> io::Result<()> {
    match screen.mode() {
        Mode::Live => draw(screen, tally, draining),
        Mode::Plain => {
            lines(screen, tally, draining);
            Ok(())
        }
        Mode::Check => Ok(()),
    }
}

/// A terminal in raw mode, put back however the view ends.
struct Terminal;

impl Terminal {
    fn take() -> io::Result<Self> {
        enable_raw_mode()?;
        let terminal = Self;
        execute!(io::stdout(), EnterAlternateScreen, cursor::Hide)?;
        Ok(terminal)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Nothing can be told through a terminal that does not listen.
        drop(execute!(io::stdout(), cursor::Show, LeaveAlternateScreen));
        drop(disable_raw_mode());
    }
}

fn draw(screen: &Screen, tally: &Tally, draining: &CancellationToken) -> io::Result<()> {
    let terminal = Terminal::take()?;
    let mut rates = Rates::new(tally);
    while !draining.is_cancelled() {
        let (width, height) = size()?;
        let picture = picture(&screen.said(), &mut rates, tally, usize::from(height));
        let mut out = io::stdout().lock();
        queue!(out, cursor::MoveTo(0, 0))?;
        for line in picture.lines() {
            let line: String = line.chars().take(usize::from(width)).collect();
            queue!(out, Print(line), Clear(ClearType::UntilNewLine), Print("\r\n"))?;
        }
        queue!(out, Clear(ClearType::FromCursorDown))?;
        out.flush()?;
        drop(out);
        if event::poll(REDRAW)?
            && let Event::Key(key) = event::read()?
            && (key.code == KeyCode::Char('q')
                || key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL))
        {
            draining.cancel();
        }
    }
    drop(terminal);
    Ok(())
}

fn lines(screen: &Screen, tally: &Tally, draining: &CancellationToken) {
    let mut rates = Rates::new(tally);
    let runtime = tokio::runtime::Handle::current();
    while runtime.block_on(async { tokio::time::timeout(LINE, draining.cancelled()).await.is_err() }) {
        rates.update(tally);
        screen.say(&format!("               {}", figures(&rates, tally)));
    }
}

/// Calls per second, from the difference between two looks at the tally.
struct Rates {
    at: Instant,
    counts: Vec<[u64; world::VERSIONS]>,
    per_second: Vec<[u64; world::VERSIONS]>,
}

impl Rates {
    fn new(tally: &Tally) -> Self {
        let counts = tally.by_version();
        Self { at: Instant::now(), per_second: vec![[0; world::VERSIONS]; counts.len()], counts }
    }

    /// Looks again, if the last look is long enough ago for a steady figure.
    fn update(&mut self, tally: &Tally) {
        let millis = u64::try_from(self.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        if millis < 900 {
            return;
        }
        let counts = tally.by_version();
        for ((rates, now), before) in self.per_second.iter_mut().zip(&counts).zip(&self.counts) {
            for ((rate, now), before) in rates.iter_mut().zip(now).zip(before) {
                *rate = (now.saturating_sub(*before) * 1_000 + millis / 2) / millis;
            }
        }
        (self.at, self.counts) = (Instant::now(), counts);
    }
}

fn picture(said: &Said, rates: &mut Rates, tally: &Tally, height: usize) -> String {
    rates.update(tally);
    let mut text = String::from("Grey Router demo, q quits\n");
    for line in &said.head {
        text.push_str(line);
        text.push('\n');
    }
    text.push_str("\ncalls per second of each version\n");
    for (service, rates) in world::SERVICES.iter().zip(&rates.per_second) {
        let one = |(version, rate): (&str, &u64)| format!("  {version} {rate:>6}");
        let line: String = world::versions_of(service).into_iter().zip(rates).map(one).collect();
        writeln!(text, "{service:13}{line}").expect("writing to a string does not fail");
    }
    writeln!(text, "all            {}\n", figures(rates, tally)).expect("writing to a string does not fail");
    // The last line of a terminal must stay free, or the picture scrolls.
    let room = height.saturating_sub(text.lines().count() + 1);
    let skipped = said.lines.len().saturating_sub(room);
    for line in said.lines.iter().skip(skipped) {
        text.push_str(line);
        text.push('\n');
    }
    text
}

fn figures(rates: &Rates, tally: &Tally) -> String {
    let Latency { p50, p99 } = tally.latency();
    let per_second: u64 = rates.per_second.iter().flatten().sum();
    let (failed, again) = (tally.failures().count, tally.reroutes());
    format!("{per_second} calls/s, {failed} failed, {again} routed again; Route p50 {p50:.0?}, p99 {p99:.0?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_lines_of_the_story_fit_the_terminal() {
        let tally = Tally::default();
        tally.routed(Duration::from_micros(210));
        let mut rates = Rates::new(&tally);
        rates.per_second[1] = [120, 0, 14];
        let said = Said {
            head: vec!["router         http://127.0.0.1:7400".to_owned()],
            lines: (1..=9).map(|step| format!("step {step}")).collect(),
        };
        insta::assert_snapshot!(picture(&said, &mut rates, &tally, 12), @"
        Grey Router demo, q quits
        router         http://127.0.0.1:7400

        calls per second of each version
        orders         v1.1      0  v1.2      0  v1.3      0
        payment        v1.0    120  v2.0      0  v2.1     14
        users          v1.0      0  v2.0      0  v2.1      0
        all            134 calls/s, 0 failed, 0 routed again; Route p50 210µs, p99 210µs

        step 8
        step 9
        ");
    }
}
