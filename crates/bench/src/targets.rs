//! What the product promises of itself: ratios within one run, since absolute figures are the machine's.

use std::fmt;

/// A promise about one field of a measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    /// The measurement.
    pub(crate) name: &'static str,
    /// The field of its line.
    pub(crate) field: &'static str,
    /// What the field must be.
    pub(crate) limit: Limit,
}

/// A bound that counts as met when reached exactly.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Limit {
    /// Not less.
    AtLeast(f64),
    /// Not more.
    AtMost(f64),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, ">= {least}"),
            Self::AtMost(most) => write!(f, "<= {most}"),
        }
    }
}

const fn target(name: &'static str, field: &'static str, limit: Limit) -> Target {
    Target { name, field, limit }
}

/// All promises.
pub(crate) const TARGETS: &[Target] = &[
    target("route_vs_echo", "ratio", Limit::AtLeast(1.15)),
    target("route_vs_default_echo", "ratio", Limit::AtLeast(1.4)),
    target("route_vs_lua", "ratio", Limit::AtLeast(4.5)),
    target("route_vs_lua", "p99_ratio", Limit::AtMost(0.35)),
    target("stream_vs_unary", "ratio", Limit::AtLeast(3.0)),
    target("mixed_tail", "ratio", Limit::AtMost(5.0)),
    target("decide_vs_naive", "ratio", Limit::AtLeast(2.5)),
    target("decide_flat", "ratio", Limit::AtMost(6.0)),
    target("apply_flat", "ratio", Limit::AtMost(4.0)),
    target("moves_100k", "value", Limit::AtMost(100.0)),
    target("memory_per_pin", "value", Limit::AtMost(40.0)),
    target("watch_memory", "value", Limit::AtMost(1_048_576.0)),
    target("change_to_effect", "ratio", Limit::AtMost(4.0)),
    target("change_to_effect", "p99_ratio", Limit::AtMost(12.0)),
    target("publish_rate", "ratio", Limit::AtLeast(0.5)),
    target("bulk_10k", "ratio", Limit::AtMost(5.0)),
    target("explain_past", "ratio", Limit::AtMost(20.0)),
    target("cold_start", "ratio", Limit::AtMost(2.5)),
    target("registry_to_router", "ratio", Limit::AtMost(1.1)),
    target("registry_to_router", "nacos_cpu_ratio", Limit::AtMost(1.5)),
    target("tenant_sync_100k", "ratio", Limit::AtMost(2.0)),
    target("tenant_sync_100k", "first_ratio", Limit::AtMost(3.0)),
    target("migrate_fleet", "ratio", Limit::AtLeast(15.0)),
    target("migrate_overhead", "ratio", Limit::AtMost(1.15)),
];
