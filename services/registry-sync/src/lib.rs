//! Mirrors running instances from registries into shared state.

pub mod mirror;
pub mod probe;
pub mod registry;
