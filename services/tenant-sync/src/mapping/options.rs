//! What an operator can set about the shape of the tenant API's documents.

use std::collections::BTreeMap;

use grey_runtime::{Faults, Validate};
use serde::{Deserialize, Serialize};

use super::Mapping;

/// Where a tenant's attributes stand, as JSON pointers (RFC 6901) into one entry of the list. An empty pointer means
/// that the attribute is not mapped: it stays as it is in the control plane.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// The list within the document; empty: the document is the list.
    pub items: String,
    /// The tenant's id: a string or a whole number.
    pub id: String,
    /// Turns upper-case letters of ids into lower-case ones instead of refusing them.
    pub lowercase_ids: bool,
    /// The name that people read.
    pub name: String,
    /// Whether calls are routed: a word that `statuses` translates.
    pub status: String,
    /// What each word means: `active`, `suspended` or `maintenance`. Letter case makes no difference.
    pub statuses: BTreeMap<String, String>,
    /// What a word that `statuses` lacks means.
    pub unknown_status: UnknownStatus,
    /// Commercial tier.
    pub tier: String,
    /// Renames tiers; one that is not listed keeps its name.
    pub tiers: BTreeMap<String, String>,
    /// Home region.
    pub region: String,
    /// Renames regions, those of `residency` too; one that is not listed keeps its name.
    pub regions: BTreeMap<String, String>,
    /// Regions that calls are held to: a string or a list of strings. Where it is absent from an entry, the tenant
    /// stays held to the regions it was held to; an empty list or `null` lifts the limit.
    pub residency: String,
    /// Label keys, and where their values stand: strings, numbers or booleans. Absent or `null`: the tenant loses the
    /// label.
    pub labels: BTreeMap<String, String>,
    /// Label keys whose value is the band that a number falls into.
    pub bands: BTreeMap<String, Band>,
}

/// What a status that the operator did not list means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownStatus {
    /// The tenant is reported and stays as it is.
    #[default]
    Invalid,
    /// Its calls are routed.
    Active,
    /// Its calls are refused.
    Suspended,
}

/// Turns a number, such as yearly revenue, into a few words that rollouts can select by.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Band {
    /// Where the number stands; a string that spells one will do. Absent or `null`: the tenant loses the label.
    pub field: String,
    /// Bands with their upper limits, lowest first.
    pub below: Vec<Step>,
    /// For a number that is below none of the limits.
    pub above: String,
}

/// One band.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Numbers below it, and not below an earlier one, are in the band.
    pub limit: f64,
    /// The label's value.
    pub value: String,
}

impl Default for Options {
    fn default() -> Self {
        let statuses = [
            ("active", "active"),
            ("trial", "active"),
            ("suspended", "suspended"),
            ("inactive", "suspended"),
            ("disabled", "suspended"),
            ("maintenance", "maintenance"),
        ];
        Self {
            items: "/tenants".to_owned(),
            id: "/id".to_owned(),
            lowercase_ids: false,
            name: "/name".to_owned(),
            status: "/status".to_owned(),
            statuses: statuses.map(|(word, meaning)| (word.to_owned(), meaning.to_owned())).into(),
            unknown_status: UnknownStatus::Invalid,
            tier: String::new(),
            tiers: BTreeMap::new(),
            region: String::new(),
            regions: BTreeMap::new(),
            residency: String::new(),
            labels: BTreeMap::new(),
            bands: BTreeMap::new(),
        }
    }
}

impl Validate for Options {
    fn validate(&self, faults: &mut Faults) {
        Mapping::compile(self, faults);
    }
}
