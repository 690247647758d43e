//! Private Redis servers: alone, under Sentinel, and as a cluster.

mod node;

pub(crate) mod standalone;
