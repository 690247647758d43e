//! The measurements by name.

mod apply;
mod bulk;
mod change;
mod decide;
mod migrate;
mod mixed;
mod moves;
mod past;
mod projection;
mod publish;
mod registry;
mod route;
mod tenants;
mod throughput;
mod watch;

#[cfg(test)]
pub(crate) use route::{ROUTE, ROUTE_BATCH, traffic};

use crate::report::Measurement;
use anyhow::{Context as _, Result};
use clap::ValueEnum;

/// A measurement.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Yardstick {
    /// Route calls per second against a bare echo on the same server.
    RouteVsEcho,
    /// Route calls per second against an echo as one writes it first.
    RouteVsDefaultEcho,
    /// Route calls per second and their p99 against deciding in a Redis script.
    RouteVsLua,
    /// Decisions per second on one connection, packed against single.
    StreamVsUnary,
    /// The p99 of Route beside a busy stream on the same core, against without it.
    MixedTail,
    /// A decision in process against nested hash maps.
    DecideVsNaive,
    /// A decision in process among a million tenants against ten thousand.
    DecideFlat,
    /// A change to a table of a million tenants against ten thousand.
    ApplyFlat,
    /// Telling which of 100,000 tenants a policy would move, against deciding a call of each.
    #[value(name = "moves_100k")]
    Moves,
    /// Resident bytes of a router per pin.
    MemoryPerPin,
    /// Bytes of a router per watcher, of a hundred that resume over 40 events of 1,000 changes.
    WatchMemory,
    /// From an operator's command to the first right answer.
    ChangeToEffect,
    /// Pins per second from the log into a router's table, against the bare commits.
    PublishRate,
    /// 10,000 tenants pinned anew by one command, until the last of three routers obeys, against one SQL insert.
    #[value(name = "bulk_10k")]
    Bulk,
    /// Explaining a call as of a million revisions ago, against as of now.
    ExplainPast,
    /// From a router's start to readiness with a million pins.
    ColdStart,
    /// From a registration at a Nacos server to a router's decision that uses it.
    RegistryToRouter,
    /// A sync of 100,000 tenants that finds nothing new, against the first one.
    #[value(name = "tenant_sync_100k")]
    TenantSync,
    /// A look at 1,000 tenants' schemas with nothing to do, against opening each database.
    MigrateFleet,
    /// Small migrations of 200 tenants, against their bare SQL.
    MigrateOverhead,
}

impl Yardstick {
    /// The name on the command line and in the line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// What it measures, for people.
    pub(crate) fn about(self) -> String {
        let value = self.to_possible_value();
        value.and_then(|value| value.get_help().map(ToString::to_string)).unwrap_or_default()
    }

    /// Measures.
    ///
    /// # Errors
    /// Something that is needed does not start, or answers wrongly.
    pub(crate) fn measure(self) -> Result<Measurement> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let measured = match self {
            Self::RouteVsEcho => runtime.block_on(route::vs_echo()),
            Self::RouteVsDefaultEcho => runtime.block_on(route::vs_default_echo()),
            Self::RouteVsLua => runtime.block_on(route::vs_lua()),
            Self::StreamVsUnary => runtime.block_on(route::stream_vs_unary()),
            Self::MixedTail => runtime.block_on(mixed::tail()),
            Self::DecideVsNaive => decide::vs_naive(),
            Self::DecideFlat => decide::flat(),
            Self::ApplyFlat => apply::flat(),
            Self::Moves => moves::preview(),
            Self::MemoryPerPin => runtime.block_on(projection::memory_per_pin()),
            Self::WatchMemory => runtime.block_on(watch::memory()),
            Self::PublishRate => runtime.block_on(publish::rate()),
            Self::Bulk => runtime.block_on(bulk::repinned()),
            Self::ExplainPast => runtime.block_on(past::explained()),
            Self::ChangeToEffect => runtime.block_on(change::to_effect()),
            Self::ColdStart => runtime.block_on(projection::cold_start()),
            Self::RegistryToRouter => runtime.block_on(registry::to_router()),
            Self::TenantSync => runtime.block_on(tenants::sync()),
            Self::MigrateFleet => runtime.block_on(migrate::fleet()),
            Self::MigrateOverhead => runtime.block_on(migrate::overhead()),
        };
        measured.with_context(|| format!("measure {}", self.name()))
    }
}
