//! The instances of one version, grouped by place.

use crate::balance::{Group, Load, Moment};
use crate::ids::{InstanceId, Name};
use crate::instance::Instance;
use crate::policy::Strategy;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An instance with its live figures.
#[derive(Clone, Debug)]
pub struct Member {
    /// The instance.
    pub instance: Instance,
    /// Its live figures; they stay with it from table to table.
    pub load: Arc<Load>,
}

/// The instances of one version.
#[derive(Debug, Default)]
pub struct Pool {
    members: Box<[Member]>,
    everywhere: Group,
    regions: BTreeMap<Name, Group>,
    zones: BTreeMap<(Option<Name>, Name), Group>,
}

/// Where a call comes from and where it may be served.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place<'a> {
    /// The caller's region; empty if unknown.
    pub region: &'a str,
    /// The caller's zone; empty if unknown.
    pub zone: &'a str,
    /// Regions that may serve, most wanted first; empty for any.
    pub residency: &'a [Name],
}

impl Pool {
    /// Builds the pool of `instances`; live figures and turns go on from `before`.
    pub(crate) fn new(mut instances: Vec<Instance>, strategy: Strategy, before: &Self) -> Self {
        instances.sort_by(|a, b| a.id.cmp(&b.id));
        instances.dedup_by(|a, b| a.id == b.id);
        let member = |instance: Instance| {
            let load = before.member(&instance.id).map_or_else(Arc::default, |m| Arc::clone(&m.load));
            Member { instance, load }
        };
        let members: Box<[Member]> = instances.into_iter().map(member).collect();
        let regions: BTreeSet<Name> = members.iter().filter_map(|m| m.instance.region.clone()).collect();
        let zones: BTreeSet<(Option<Name>, Name)> = members
            .iter()
            .filter_map(|m| m.instance.zone.clone().map(|zone| (m.instance.region.clone(), zone)))
            .collect();
        Self {
            everywhere: Group::new(&members, |_| true, strategy, Some(&before.everywhere)),
            regions: regions
                .into_iter()
                .map(|region| {
                    let fits = |m: &Member| m.instance.region.as_ref() == Some(&region);
                    let group = Group::new(&members, fits, strategy, before.regions.get(&region));
                    (region, group)
                })
                .collect(),
            zones: zones
                .into_iter()
                .map(|place| {
                    let fits = |m: &Member| {
                        m.instance.region == place.0 && m.instance.zone.as_ref() == Some(&place.1)
                    };
                    let group = Group::new(&members, fits, strategy, before.zones.get(&place));
                    (place, group)
                })
                .collect(),
            members,
        }
    }

    /// All members, by id, routable or not.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// A member by id.
    #[must_use]
    pub fn member(&self, id: &InstanceId) -> Option<&Member> {
        let at = self.members.binary_search_by(|m| m.instance.id.cmp(id)).ok()?;
        self.members.get(at)
    }

    /// The group that serves a call from `place`: its zone, else its region, else the nearest allowed.
    pub(crate) fn group(&self, place: &Place<'_>) -> Option<&Group> {
        let usable = |group: &&Group| !group.is_empty();
        let resident =
            |region: &str| place.residency.is_empty() || place.residency.iter().any(|r| r.as_str() == region);
        if !place.zone.is_empty() {
            let matching = |((region, zone), _): &(&(Option<Name>, Name), &Group)| {
                let region = region.as_ref().map_or("", |name| name.as_str());
                zone.as_str() == place.zone
                    && (place.region.is_empty() || place.region == region)
                    && resident(region)
            };
            if let Some(group) = self.zones.iter().filter(matching).map(|(_, g)| g).find(usable) {
                return Some(group);
            }
        }
        if !place.region.is_empty()
            && resident(place.region)
            && let Some(group) = self.regions.get(place.region).filter(usable)
        {
            return Some(group);
        }
        if place.residency.is_empty() {
            return Some(&self.everywhere).filter(usable);
        }
        place.residency.iter().filter_map(|region| self.regions.get(region)).find(usable)
    }

    /// Chooses an instance for a call from `place`.
    pub(crate) fn choose(&self, place: &Place<'_>, key: u32, moment: &Moment, peek: bool) -> Option<&Member> {
        self.group(place)?.choose(&self.members, key, moment, peek)
    }
}
