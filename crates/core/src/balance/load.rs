//! Live figures of one instance, shared by all threads without locks.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Milliseconds since an origin of the process's choosing; wraps after 49 days.
pub type Millis = u32;

/// How long an assignment weighs on an instance when nobody reports its end, in milliseconds.
///
/// A router sees calls begin, not end; without decay its counts would only ever grow.
const ASSIGNMENT_LIFE_MS: f32 = 5_000.0;
/// How fast a latency peak is forgotten, in milliseconds.
const LATENCY_LIFE_MS: f32 = 10_000.0;
/// How far a thread's clock may be behind another's, in milliseconds; what looks younger is very old.
const CLOCK_SLACK_MS: Millis = 60_000;
/// Share of the success rate that one outcome replaces.
const OUTCOME_SHARE: f32 = 0.05;

/// A number that fades with time, in one word: the value in the high half, its time in the low.
#[derive(Debug, Default)]
struct Fading(AtomicU64);

impl Fading {
    fn unpack(word: u64) -> (f32, Millis) {
        #[expect(clippy::cast_possible_truncation, reason = "each half has 32 bits")]
        let halves = ((word >> 32) as u32, word as u32);
        (f32::from_bits(halves.0), halves.1)
    }

    fn pack(value: f32, at: Millis) -> u64 {
        (u64::from(value.to_bits()) << 32) | u64::from(at)
    }

    fn faded(word: u64, now: Millis, life_ms: f32) -> f32 {
        let (value, at) = Self::unpack(word);
        // A thread may look with a slightly older clock than the one that wrote.
        let age = Some(now.wrapping_sub(at)).filter(|age| *age < Millis::MAX - CLOCK_SLACK_MS).unwrap_or(0);
        #[expect(clippy::cast_precision_loss, reason = "an age needs no more than 24 bits")]
        let age = age as f32;
        if value == 0.0 { 0.0 } else { value * (-age / life_ms).exp() }
    }

    fn read(&self, now: Millis, life_ms: f32) -> f32 {
        Self::faded(self.0.load(Relaxed), now, life_ms)
    }

    fn update(&self, now: Millis, life_ms: f32, change: impl Fn(f32) -> f32) {
        let mut word = self.0.load(Relaxed);
        loop {
            let next = Self::pack(change(Self::faded(word, now, life_ms)), now);
            match self.0.compare_exchange_weak(word, next, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(seen) => word = seen,
            }
        }
    }
}

/// Live figures of one instance, or of a group of them.
#[derive(Debug)]
pub struct Load {
    assigned: Fading,
    latency_us: Fading,
    success: AtomicU32,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            assigned: Fading::default(),
            latency_us: Fading::default(),
            success: AtomicU32::new(1.0f32.to_bits()),
        }
    }
}

impl Load {
    /// Counts a call sent to the instance.
    pub fn assign(&self, now: Millis) {
        self.assigned.update(now, ASSIGNMENT_LIFE_MS, |calls| calls + 1.0);
    }

    /// Takes the reported end of a call.
    pub fn complete(&self, now: Millis, latency_us: u32, success: bool) {
        self.assigned.update(now, ASSIGNMENT_LIFE_MS, |calls| (calls - 1.0).max(0.0));
        #[expect(clippy::cast_precision_loss, reason = "a latency needs no more than 24 bits")]
        let sample = latency_us as f32;
        // Peaks count at once, improvement only slowly: an instance in trouble is left quickly.
        self.latency_us.update(now, LATENCY_LIFE_MS, |mean| sample.max(mean * 0.9 + sample * 0.1));
        let outcome = if success { 1.0 } else { 0.0 };
        let blend =
            |bits| Some((f32::from_bits(bits) * (1.0 - OUTCOME_SHARE) + outcome * OUTCOME_SHARE).to_bits());
        // The closure never declines, so the update cannot fail.
        let _previous = self.success.fetch_update(Relaxed, Relaxed, blend);
    }

    /// Calls that weigh on the instance now.
    #[must_use]
    pub fn calls(&self, now: Millis) -> f32 {
        self.assigned.read(now, ASSIGNMENT_LIFE_MS)
    }

    /// Moving peak of the latency in microseconds; 0 if none was reported lately.
    #[must_use]
    pub fn latency_us(&self, now: Millis) -> f32 {
        self.latency_us.read(now, LATENCY_LIFE_MS)
    }

    /// Share of calls that succeed, from 0 to 1.
    #[must_use]
    pub fn success(&self) -> f32 {
        f32::from_bits(self.success.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_fade_and_reports_take_them_off() {
        let load = Load::default();
        for _ in 0..100 {
            load.assign(1_000);
        }
        assert!((load.calls(1_000) - 100.0).abs() < 0.1);
        assert!(load.calls(61_000) < 0.01, "an unreported call must not weigh for ever");
        load.complete(1_000, 5_000, true);
        assert!((load.calls(1_000) - 99.0).abs() < 0.1);
    }

    #[test]
    fn a_latency_peak_counts_at_once_and_is_forgotten() {
        let load = Load::default();
        load.complete(0, 1_000, true);
        load.complete(0, 50_000, true);
        assert!(load.latency_us(0) > 49_000.0);
        assert!(load.latency_us(60_000) < 1_000.0);
    }

    #[test]
    fn failures_lower_the_success_share_and_successes_restore_it() {
        let load = Load::default();
        for _ in 0..50 {
            load.complete(0, 1, false);
        }
        assert!(load.success() < 0.1);
        for _ in 0..100 {
            load.complete(0, 1, true);
        }
        assert!(load.success() > 0.9);
    }

    #[test]
    fn the_clock_may_wrap_and_differ_between_threads() {
        let load = Load::default();
        load.assign(u32::MAX - 10);
        assert!(load.calls(5) > 0.9);
        assert!(load.calls(u32::MAX - 1_000) > 0.9, "a thread that is a second behind sees the call too");
    }

    #[test]
    fn what_is_weeks_old_stays_forgotten() {
        let load = Load::default();
        load.assign(0);
        let day = 86_400_000;
        for days in [1, 20, 25, 30, 49] {
            assert!(load.calls(days * day) < 0.01, "after {days} days");
        }
    }
}
