//! Private Redis servers: alone, under Sentinel, and as a cluster.

pub(crate) mod cluster;
mod node;
pub(crate) mod sentinel;
pub(crate) mod standalone;
