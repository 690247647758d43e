//! Choosing one instance among those that may serve a call.
//!
//! A [`Group`] is a set of instances prepared for the service's strategy: what is expensive (smooth
//! interleaving, the hash ring) happens when the group is built, so that a choice is a few loads. Live
//! figures are kept per instance in [`Load`] and travel from one table to the next with the instance.

mod group;
mod load;
mod ring;
mod sequence;
mod spread;
mod turns;

pub use group::Group;
pub use load::{Ending, Load, MAX_WEIGHT, Millis, Outcome};
pub(crate) use spread::{Spread, spread};

/// How much more than its even share an instance may carry under consistent hashing.
pub const LOAD_BOUND: f32 = 1.25;

/// What a choice depends on besides the group: handed in, so that a choice can be repeated.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moment {
    /// Milliseconds since an origin of the process's choosing.
    pub now: Millis,
    /// Random bits.
    pub random: u64,
    /// Which core decides: each counts turns for itself, and keeps its number.
    pub core: usize,
    /// The fleet-wide turn, if the service counts its turns globally.
    pub turn: Option<u64>,
}
