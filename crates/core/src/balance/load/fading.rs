//! A number that fades with time.

use super::Millis;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How far a thread's clock may be behind another's, in milliseconds; what looks younger is very old.
const CLOCK_SLACK_MS: Millis = 60_000;
/// The life of a number that stays as it is.
pub(super) const FOR_EVER: f32 = f32::INFINITY;

/// A number that fades with time, in one word: the value in the high half, its time in the low.
#[derive(Debug, Default)]
pub(super) struct Fading(AtomicU64);

impl Fading {
    pub(super) fn new(value: f32) -> Self {
        Self(AtomicU64::new(pack(value, 0)))
    }

    /// What it has come to.
    pub(super) fn read(&self, now: Millis, life_ms: f32) -> f32 {
        faded(self.0.load(Relaxed), now, life_ms)
    }

    /// What it was when it was written, and how old that is.
    pub(super) fn written(&self, now: Millis) -> (f32, Millis) {
        let (value, at) = unpack(self.0.load(Relaxed));
        (value, age(now, at))
    }

    pub(super) fn write(&self, now: Millis, value: f32) {
        self.0.store(pack(value, now), Relaxed);
    }

    /// Replaces what it has come to, which is returned.
    pub(super) fn update(&self, now: Millis, life_ms: f32, change: impl Fn(f32) -> f32) -> f32 {
        let mut word = self.0.load(Relaxed);
        loop {
            let before = faded(word, now, life_ms);
            match self.0.compare_exchange_weak(word, pack(change(before), now), Relaxed, Relaxed) {
                Ok(_) => return before,
                Err(seen) => word = seen,
            }
        }
    }
}

/// The share that is left after a time.
fn left(age: Millis, life_ms: f32) -> f32 {
    #[expect(clippy::cast_precision_loss, reason = "an age needs no more than 24 bits")]
    let ms = age as f32;
    if age == 0 { 1.0 } else { (-ms / life_ms).exp() }
}

fn unpack(word: u64) -> (f32, Millis) {
    #[expect(clippy::cast_possible_truncation, reason = "each half has 32 bits")]
    let halves = ((word >> 32) as u32, word as u32);
    (f32::from_bits(halves.0), halves.1)
}

fn pack(value: f32, at: Millis) -> u64 {
    (u64::from(value.to_bits()) << 32) | u64::from(at)
}

fn age(now: Millis, at: Millis) -> Millis {
    // A thread may look with a slightly older clock than the one that wrote.
    Some(now.wrapping_sub(at)).filter(|age| *age < Millis::MAX - CLOCK_SLACK_MS).unwrap_or(0)
}

fn faded(word: u64, now: Millis, life_ms: f32) -> f32 {
    let (value, at) = unpack(word);
    if value == 0.0 { 0.0 } else { value * left(age(now, at), life_ms) }
}
