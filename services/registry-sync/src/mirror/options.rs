//! What decides how sightings become lists.

use std::collections::BTreeMap;
use std::time::Duration;

use grey_core::ids::{Name, ServiceId};
use grey_core::version::Version;
use grey_runtime::config::duration;
use grey_runtime::{Faults, Validate};
use serde::{Deserialize, Serialize};

/// A registry, as the mirror knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Names it in instances and reports; unique.
    pub name: Name,
    /// `nacos` or `file`, for reports.
    pub kind: &'static str,
    /// Whatever it says is believed at once: nothing of it is ever held.
    pub trusted: bool,
    /// The region of instances that tell none.
    pub region: Option<Name>,
    /// Names of its services are written in lower case here.
    pub lowercase_names: bool,
}

/// How what a registry lists is read.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Naming {
    /// The metadata entry that holds an instance's version.
    pub version_key: String,
    /// The one that holds its region.
    pub region_key: String,
    /// The one that holds its zone.
    pub zone_key: String,
    /// Versions of instances that tell none, by service.
    pub default_versions: BTreeMap<String, String>,
    /// Services that are called otherwise here: the registry's name, and ours.
    pub renames: BTreeMap<String, String>,
}

impl Default for Naming {
    fn default() -> Self {
        Self {
            version_key: "version".to_owned(),
            region_key: "region".to_owned(),
            zone_key: "zone".to_owned(),
            default_versions: BTreeMap::new(),
            renames: BTreeMap::new(),
        }
    }
}

impl Naming {
    /// The service that `source` calls `name`, or why there can be none. What was renamed by hand is taken as it is.
    pub(super) fn service(&self, source: &Source, name: &str) -> Result<ServiceId, String> {
        let service = match self.renames.get(name) {
            Some(renamed) => ServiceId::new(renamed),
            None if source.lowercase_names => ServiceId::new(&name.to_lowercase()),
            None => ServiceId::new(name),
        };
        service.map_err(|why| why.to_string())
    }

    /// The version of instances of `service` that tell none.
    pub(super) fn default_version(&self, service: &ServiceId) -> Option<&str> {
        self.default_versions.get(service.as_str()).map(String::as_str)
    }
}

impl Validate for Naming {
    fn validate(&self, faults: &mut Faults) {
        for (key, value) in [
            ("version_key", &self.version_key),
            ("region_key", &self.region_key),
            ("zone_key", &self.zone_key),
        ] {
            faults.check(!value.is_empty(), key, "must not be empty");
        }
        for (service, version) in &self.default_versions {
            let key = format!("default_versions.{service}");
            if let Err(why) = ServiceId::new(service) {
                faults.add(&key, why.to_string());
            }
            if let Err(why) = Version::new(version) {
                faults.add(&key, why.to_string());
            }
        }
        for (name, service) in &self.renames {
            if let Err(why) = ServiceId::new(service) {
                faults.add(&format!("renames.{name}"), why.to_string());
            }
        }
    }
}

/// When a change looks like a fault of the registry, and what confirms it.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Guard {
    /// Changes this close together are counted together.
    #[serde(with = "duration")]
    pub window: Duration,
    /// The share of a service's instances that may vanish or become unhealthy within the window, 0 to 1.
    pub drop_share: f64,
    /// The share whose version may change within the window, 0 to 1.
    pub flip_share: f64,
    /// Fewer changes of version than this are never held.
    pub flip_min: usize,
    /// A held change that the registry tells without interruption for so long is believed.
    #[serde(with = "duration")]
    pub confirm_after: Duration,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(30),
            drop_share: 0.5,
            flip_share: 0.5,
            flip_min: 3,
            confirm_after: Duration::from_secs(300),
        }
    }
}

impl Guard {
    /// How many of `total` instances may be lost within the window.
    pub(super) fn drop_room(&self, total: usize) -> usize {
        share(self.drop_share, total)
    }

    /// How many of `total` instances may change their version within the window.
    pub(super) fn flip_room(&self, total: usize) -> usize {
        share(self.flip_share, total).max(self.flip_min.saturating_sub(1))
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of at most 1 of a list's length"
)]
fn share(share: f64, total: usize) -> usize {
    // A third of three is one, whatever the rounding of the third.
    (share * total as f64 + 1e-9).floor() as usize
}

impl Validate for Guard {
    fn validate(&self, faults: &mut Faults) {
        for (key, value) in [("window", self.window), ("confirm_after", self.confirm_after)] {
            faults.check(!value.is_zero(), key, "must be longer than nothing");
        }
        for (key, value) in [("drop_share", self.drop_share), ("flip_share", self.flip_share)] {
            faults.check((0.0..=1.0).contains(&value), key, "must be between 0 and 1");
        }
        faults.check(self.flip_min >= 1, "flip_min", "must be at least 1");
    }
}

/// Everything that decides how sightings become lists.
#[derive(Debug, Clone)]
pub struct Options {
    /// The registries; where two list the same instance, the earlier one counts.
    pub sources: Vec<Source>,
    /// How what they list is read.
    pub naming: Naming,
    /// What is held.
    pub guard: Guard,
    /// How often an instance in question is probed; none: never.
    pub probe_interval: Option<Duration>,
    /// Whether a probe tells the version that runs.
    pub probe_tells_version: bool,
}
