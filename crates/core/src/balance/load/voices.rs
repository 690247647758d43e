//! What reporters tell of one instance, so that none of them outweighs the others.
//!
//! Each reporter has a voice of its own. An instance's figures are the mean of the voices that were heard
//! lately, so one of `n` reporters has an `n`th of the weight, however much it reports.

use super::fading::{FOR_EVER, Fading};
use super::{Ending, LATENCY_FLOOR_US, MAX_WEIGHT, Millis, OUTCOME_SHARE, Outcome, TROUBLE_LIFE_MS};

/// Voices told apart; reporters beyond share them.
const VOICES: usize = 8;
/// How long a voice counts after it was heard, in milliseconds.
const VOICE_LIFE_MS: Millis = 10_000;
/// How often as high as before one outcome may make a voice's latency.
///
/// A true peak is reported again and climbs on; one absurd report costs the instance less than a minute.
const RAISE: f32 = 64.0;
/// Share of the latency that one outcome below it replaces.
const LATENCY_SHARE: f32 = 0.1;
/// Lowest success rate of a voice: above 0, which means that it was never heard.
const LEAST_SUCCESS: f32 = 0.001;

#[derive(Debug, Default)]
struct Voice {
    latency_us: Fading,
    /// Written with each outcome, so that its time is when the voice was last heard.
    success: Fading,
    failing: Fading,
}

#[derive(Debug, Default)]
pub(super) struct Voices([Voice; VOICES]);

/// The mean of the voices.
pub(super) struct Figures {
    pub(super) latency_us: f32,
    pub(super) success: f32,
    pub(super) failing: f32,
}

impl Voices {
    /// Takes an outcome, and tells what all voices come to.
    pub(super) fn hear(&self, now: Millis, outcome: &Outcome) -> Figures {
        if let Some(voice) = self.0.get(outcome.reporter as usize % VOICES) {
            voice.hear(now, outcome);
        }
        let (mut heard, mut success, mut failing) = (0.0, 0.0, 0.0);
        let (mut logarithms, mut alone) = (0.0, 0.0);
        for voice in &self.0 {
            let (share, age) = voice.success.written(now);
            if share == 0.0 || age > VOICE_LIFE_MS {
                continue;
            }
            heard += 1.0;
            success += share;
            failing += voice.failing.read(now, TROUBLE_LIFE_MS);
            alone = voice.latency_us.read(now, TROUBLE_LIFE_MS);
            logarithms += alone.max(LATENCY_FLOOR_US).ln();
        }
        // The geometric mean: an absurd latency of one voice moves it by its factor's root alone.
        let latency_us = if heard > 1.0 { (logarithms / heard).exp() } else { alone };
        let heard = f32::max(heard, 1.0);
        Figures { latency_us, success: success / heard, failing: failing / heard }
    }
}

impl Voice {
    fn hear(&self, now: Millis, outcome: &Outcome) {
        #[expect(clippy::cast_precision_loss, reason = "a latency needs no more than 24 bits")]
        let sample = outcome.latency_us as f32;
        let weight = i32::try_from(outcome.weight.min(MAX_WEIGHT)).unwrap_or(1);
        let kept = |share: f32| (1.0 - share).powi(weight);
        self.latency_us.update(now, TROUBLE_LIFE_MS, |mean| {
            let sample = sample.min(mean.max(LATENCY_FLOOR_US) * RAISE);
            // Peaks count at once, improvement only slowly: an instance in trouble is left quickly. A call
            // that failed shows how long a caller waited, not how quickly the instance serves.
            let eased = mean * kept(LATENCY_SHARE) + sample * (1.0 - kept(LATENCY_SHARE));
            sample.max(if outcome.ending == Ending::Served { eased } else { mean })
        });
        let kept = kept(OUTCOME_SHARE);
        let failed = match outcome.ending {
            Ending::Served => Some(0.0),
            Ending::Failed => Some(1.0),
            Ending::Refused => None,
        };
        let blend = |share: f32, new: Option<f32>| new.map_or(share, |new| share * kept + new * (1.0 - kept));
        self.failing.update(now, TROUBLE_LIFE_MS, |share| blend(share, failed));
        self.success.update(now, FOR_EVER, |share| {
            let share = if share == 0.0 { 1.0 } else { share };
            blend(share, failed.map(|failed| 1.0 - failed)).max(LEAST_SUCCESS)
        });
    }
}
