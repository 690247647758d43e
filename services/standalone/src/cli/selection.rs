//! Which tenants a write is about, where it is about many.

use std::path::PathBuf;

use clap::Args;
use grey_proto::control::{OnVersion, TenantSelector, TenantStatus};

use super::tenant::Status;
use super::{Failure, input, pair};

/// Tenants in common words. Every condition given must hold.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Instead of one tenant, all those")]
pub(super) struct Selection {
    /// That there are
    #[arg(long)]
    all: bool,
    /// Of this tier; may be given several times, for any of them
    #[arg(long = "tier", value_name = "TIER")]
    tiers: Vec<String>,
    /// Of this home region; may be given several times, for any of them
    #[arg(long = "region", value_name = "REGION")]
    regions: Vec<String>,
    /// With this attribute; may be given several times, for all of them
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// Of this status
    #[arg(long)]
    status: Option<Status>,
    /// Named in this file, one a line; `-` for standard input
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// That the rules give this version of a service now, whatever instances run
    #[arg(long, value_name = "SERVICE=VERSION", value_parser = pair)]
    on_version: Option<(String, String)>,
}

impl Selection {
    /// The selector; none if nothing was said.
    ///
    /// # Errors
    /// The list cannot be read.
    pub(super) fn selector(self) -> Result<Option<TenantSelector>, Failure> {
        let tenants = match &self.list {
            Some(path) => {
                let text = input::read(path)?;
                let named: Vec<String> =
                    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
                if named.is_empty() {
                    return Err(Failure::Input(format!("{}: names no tenant", path.display())));
                }
                named
            }
            None => Vec::new(),
        };
        let selector = TenantSelector {
            all: self.all,
            tenants,
            labels: self.labels.into_iter().collect(),
            tiers: self.tiers,
            regions: self.regions,
            status: self.status.map_or(TenantStatus::Unspecified, Into::into).into(),
            on_version: self.on_version.map(|(service, version)| OnVersion { service, version }),
        };
        Ok(Some(selector).filter(|selector| *selector != TenantSelector::default()))
    }
}
