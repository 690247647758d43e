//! Live figures of one instance, shared by all threads without locks.

mod fading;
mod voices;

use fading::Fading;
use voices::Voices;

/// Milliseconds since an origin of the process's choosing; wraps after 49 days.
pub type Millis = u32;

/// Most calls of one outcome that move an instance's figures.
pub const MAX_WEIGHT: u32 = 64;
/// Latencies below this count as equally good, in microseconds.
///
/// Without it an instance that never reports, because it is new or because it hangs, would look a
/// thousand times quicker than its siblings and draw all their calls.
pub(super) const LATENCY_FLOOR_US: f32 = 1_000.0;

/// How long an assignment weighs on an instance when nobody reports its end, in milliseconds.
///
/// A router sees calls begin, not end; without decay its counts would only ever grow.
const ASSIGNMENT_LIFE_MS: f32 = 5_000.0;
/// How long it is remembered whether callers report the ends of their calls, in milliseconds.
const REPORTING_LIFE_MS: f32 = 60_000.0;
/// How fast a latency peak is forgotten, and that calls failed, in milliseconds.
const TROUBLE_LIFE_MS: f32 = 10_000.0;
/// Share of the success rate that one outcome replaces.
const OUTCOME_SHARE: f32 = 0.05;
/// Share of failing calls that counts as none: what one failure amounts to.
const NEGLIGIBLE: f32 = 0.06;

/// How a call ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// The instance served it.
    Served,
    /// The instance turned it down, or its caller gave it up, for reasons of the caller: this says nothing
    /// about the instance's health.
    Refused,
    /// The instance failed.
    Failed,
}

/// The end of some equal calls, as a caller reports it.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Who reports: a hash of its proven name.
    pub reporter: u32,
    /// How the calls ended.
    pub ending: Ending,
    /// How long each took, in microseconds.
    pub latency_us: u32,
    /// How many there were.
    pub calls: u32,
    /// How many of them move the figures, at most [`MAX_WEIGHT`]; the others only end.
    pub weight: u32,
}

/// Whether callers report the ends of their calls, as far as one instance shows it.
#[derive(Clone, Copy, Default)]
pub(super) struct Reporting {
    /// Calls sent to it lately.
    pub(super) sent: f32,
    /// Those of them whose end was reported while they weighed on it.
    pub(super) ended: f32,
    /// Those of them that weigh on it now.
    pub(super) under_way: f32,
}

/// Live figures of one instance, or of a group of them.
#[derive(Debug)]
pub struct Load {
    assigned: Fading,
    sent: Fading,
    ended: Fading,
    latency_us: Fading,
    success: Fading,
    failing: Fading,
    voices: Voices,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            assigned: Fading::default(),
            sent: Fading::default(),
            ended: Fading::default(),
            latency_us: Fading::default(),
            success: Fading::new(1.0),
            failing: Fading::default(),
            voices: Voices::default(),
        }
    }
}

impl Load {
    /// Counts a call sent to the instance.
    pub fn assign(&self, now: Millis) {
        self.assigned.update(now, ASSIGNMENT_LIFE_MS, |calls| calls + 1.0);
        self.sent.update(now, REPORTING_LIFE_MS, |calls| calls + 1.0);
    }

    /// Takes the reported end of calls.
    pub fn complete(&self, now: Millis, outcome: &Outcome) {
        #[expect(clippy::cast_precision_loss, reason = "a count needs no more than 24 bits")]
        let calls = outcome.calls as f32;
        let under_way = self.assigned.update(now, ASSIGNMENT_LIFE_MS, |before| (before - calls).max(0.0));
        // Only the end of a call that was sent here shows that the calls sent here are reported.
        self.ended.update(now, REPORTING_LIFE_MS, |before| before + calls.min(under_way));
        if outcome.weight > 0 {
            let figures = self.voices.hear(now, outcome);
            self.latency_us.write(now, figures.latency_us);
            self.success.write(now, figures.success);
            self.failing.write(now, figures.failing);
        }
    }

    /// Calls that weigh on the instance now.
    #[must_use]
    pub fn calls(&self, now: Millis) -> f32 {
        self.assigned.read(now, ASSIGNMENT_LIFE_MS)
    }

    /// Moving peak of the latency in microseconds; 0 if none was reported lately.
    #[must_use]
    pub fn latency_us(&self, now: Millis) -> f32 {
        self.latency_us.read(now, TROUBLE_LIFE_MS)
    }

    /// Share of calls that succeed, from 0 to 1, as last reported.
    #[must_use]
    pub fn success(&self) -> f32 {
        self.success.written(0).0
    }

    /// Share of calls that fail, from 0 to 1; forgotten with time, so that the instance is tried again.
    ///
    /// What a single failure amounts to is none, or a failure now and then would decide between instances
    /// that have nothing to do.
    #[must_use]
    pub fn failing(&self, now: Millis) -> f32 {
        let share = self.failing.read(now, TROUBLE_LIFE_MS);
        if share > NEGLIGIBLE { share } else { 0.0 }
    }

    pub(super) fn reporting(&self, now: Millis) -> Reporting {
        Reporting {
            sent: self.sent.read(now, REPORTING_LIFE_MS),
            ended: self.ended.read(now, REPORTING_LIFE_MS),
            under_way: self.calls(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(latency_us: u32, ending: Ending) -> Outcome {
        Outcome { reporter: 0, ending, latency_us, calls: 1, weight: 1 }
    }

    fn served(latency_us: u32) -> Outcome {
        outcome(latency_us, Ending::Served)
    }

    #[test]
    fn assignments_fade_and_reports_take_them_off() {
        let load = Load::default();
        for _ in 0..100 {
            load.assign(1_000);
        }
        assert!((load.calls(1_000) - 100.0).abs() < 0.1);
        assert!(load.calls(61_000) < 0.01, "an unreported call must not weigh for ever");
        load.complete(1_000, &served(5_000));
        assert!((load.calls(1_000) - 99.0).abs() < 0.1);
        load.complete(1_000, &Outcome { calls: 50, ..served(5_000) });
        assert!((load.calls(1_000) - 49.0).abs() < 0.1, "a sum ends all its calls");
    }

    #[test]
    fn a_latency_peak_counts_at_once_and_is_forgotten() {
        let load = Load::default();
        load.complete(0, &served(1_000));
        load.complete(0, &served(50_000));
        assert!(load.latency_us(0) > 49_000.0);
        assert!(load.latency_us(60_000) < 1_000.0);
    }

    #[test]
    fn one_absurd_latency_raises_the_figure_by_a_bounded_factor() {
        let load = Load::default();
        load.complete(0, &served(5_000));
        load.complete(0, &served(u32::MAX));
        assert!(load.latency_us(0) <= 5_000.0 * 64.0, "{}", load.latency_us(0));
        load.complete(0, &served(2_000_000));
        assert!(load.latency_us(0) > 1_900_000.0, "what is reported again counts in full");
    }

    #[test]
    fn a_failure_lowers_no_latency_and_what_the_caller_is_to_blame_for_changes_nothing() {
        let load = Load::default();
        load.complete(0, &served(20_000));
        for _ in 0..100 {
            load.complete(0, &outcome(1, Ending::Refused));
        }
        assert!(load.latency_us(0) >= 20_000.0 && load.success() >= 1.0);
        load.complete(0, &outcome(1, Ending::Failed));
        assert!(load.latency_us(0) >= 20_000.0 && load.success() < 1.0);
    }

    #[test]
    fn failures_lower_the_success_share_and_successes_restore_it() {
        let load = Load::default();
        for _ in 0..50 {
            load.complete(0, &outcome(1, Ending::Failed));
        }
        assert!(load.success() < 0.1);
        assert!(load.failing(0) > 0.9 && load.failing(60_000) < 0.01, "tried again after a while");
        assert!(load.success() < 0.1, "as last reported");
        for _ in 0..100 {
            load.complete(0, &served(1));
        }
        assert!(load.success() > 0.9);
    }

    #[test]
    fn one_failure_among_successes_is_no_trouble() {
        let load = Load::default();
        load.complete(0, &outcome(1, Ending::Failed));
        assert!(load.failing(0) < 0.001);
        load.complete(0, &outcome(1, Ending::Failed));
        assert!(load.failing(0) > 0.05);
    }

    #[test]
    fn a_sum_counts_as_its_calls_up_to_a_bound() {
        let (sum, single) = (Load::default(), Load::default());
        sum.complete(0, &Outcome { calls: 20, weight: 20, ..outcome(1, Ending::Failed) });
        for _ in 0..20 {
            single.complete(0, &outcome(1, Ending::Failed));
        }
        assert!((sum.success() - single.success()).abs() < 0.001);
        let (huge, most) = (Load::default(), Load::default());
        huge.complete(0, &Outcome { calls: u32::MAX, weight: u32::MAX, ..outcome(1, Ending::Failed) });
        most.complete(0, &Outcome { calls: MAX_WEIGHT, weight: MAX_WEIGHT, ..outcome(1, Ending::Failed) });
        assert!((huge.success() - most.success()).abs() < 0.001);
    }

    #[test]
    fn one_reporter_of_several_has_no_more_than_its_share_of_the_weight() {
        let load = Load::default();
        for _ in 0..1_000 {
            for reporter in 1..4 {
                load.complete(0, &Outcome { reporter, ..served(10_000) });
            }
            load.complete(0, &Outcome { weight: MAX_WEIGHT, ..outcome(30_000_000, Ending::Failed) });
        }
        assert!(load.success() > 0.7, "{}", load.success());
        assert!(load.latency_us(0) < 10_000.0 * 8.0, "{}", load.latency_us(0));
        // The others go on; the one that is silent loses its voice.
        load.complete(20_000, &Outcome { reporter: 1, ..served(10_000) });
        assert!(load.success() > 0.99 && load.latency_us(20_000) < 11_000.0);
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
