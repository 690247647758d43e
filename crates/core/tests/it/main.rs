//! The decision and the table against an independent model, and the balancing against its promises.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_lossless,
    reason = "test figures are small"
)]

mod allocation;
mod balancing;
mod canary;
mod decision;
mod digest;
mod fixture;
mod folding;
mod growth;
mod history;
mod holds;
mod loading;
mod model;
mod moves;
mod overlays;
mod places;
mod promotion;
mod record;
mod reference;
mod selector;
