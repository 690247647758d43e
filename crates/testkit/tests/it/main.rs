//! Every server starts, answers, bears its verbs, and is gone afterwards.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]

mod eventually;
mod postgres;
mod redis;
mod spawned;
