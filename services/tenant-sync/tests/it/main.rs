//! The service as its tenant API, its control plane and its operators see it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::string_slice,
    clippy::str_to_string,
    clippy::needless_pass_by_value,
    clippy::large_futures,
    reason = "test code panics"
)]

mod configuration;
mod deliveries;
mod faults;
mod fleet;
mod leaving;
mod mirroring;
mod size;
mod source;
mod upstream;
mod world;
