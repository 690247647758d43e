//! The instances of one version, grouped by place.

use super::is_resident;
use crate::balance::{Group, Load, Moment, Spread, spread};
use crate::ids::{InstanceId, Name};
use crate::instance::Instance;
use crate::policy::Strategy;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
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
    /// By region and zone. Instances that tell no zone make one without a name, which no caller is in.
    zones: Box<[Zone]>,
}

/// The instances of one zone.
#[derive(Debug)]
struct Zone {
    region: Option<Name>,
    zone: Option<Name>,
    group: Group,
    /// Where the calls of its callers go; none if nothing here can serve.
    spread: Option<Spread>,
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

/// Where a group of instances is: what tells it from the other groups of its version.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Locality<'t> {
    /// Anywhere: all instances.
    Everywhere,
    /// In a region.
    Region(&'t Name),
    /// In a zone.
    Zone {
        /// The zone's region, if its instances tell one.
        region: Option<&'t Name>,
        /// The zone; none for instances that tell none.
        zone: Option<&'t Name>,
    },
}

impl fmt::Display for Locality<'_> {
    /// Nothing for everywhere, else `region` or `region/zone`, either of which may be empty; names have no slash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everywhere => Ok(()),
            Self::Region(region) => f.write_str(region.as_str()),
            Self::Zone { region, zone } => write!(f, "{}/{}", text(*region), text(*zone)),
        }
    }
}

/// The group that serves a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site<'t> {
    group: &'t Group,
    pub(crate) locality: Locality<'t>,
    /// The caller's own zone, if it has instances.
    home: Option<&'t Zone>,
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
            zones: zones(&members, strategy, &before.zones),
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

    /// The group that serves a call from `place`: its zone as far as that has the capacity, another zone of the
    /// region for the rest; without its zone its region, else the nearest allowed one.
    pub(crate) fn site(&self, place: &Place<'_>, key: u32, moment: &Moment) -> Option<Site<'_>> {
        if let Some((home, spread)) = self.home(place) {
            let other = spread.other(home.group.zone_point(key, moment));
            let serving = other.and_then(|at| self.zones.get(at)).unwrap_or(home);
            return Some(Site { group: &serving.group, locality: serving.locality(), home: Some(home) });
        }
        let usable = |(region, group)| -> Option<Site<'_>> {
            let group: &Group = group;
            (!group.is_empty()).then_some(Site { group, locality: region, home: None })
        };
        let of_region = |region: &str| {
            self.regions.get_key_value(region).map(|(name, group)| (Locality::Region(name), group))
        };
        // No region has an empty name, so there is nothing to search for.
        if !place.region.is_empty()
            && is_resident(place.residency, place.region)
            && let Some(site) = of_region(place.region).and_then(usable)
        {
            return Some(site);
        }
        if place.residency.is_empty() {
            return usable((Locality::Everywhere, &self.everywhere));
        }
        place.residency.iter().find_map(|region| of_region(region.as_str()).and_then(usable))
    }

    /// Whether a call from `place` finds an instance.
    pub(crate) fn can_serve(&self, place: &Place<'_>) -> bool {
        // Which instance depends on key and moment, whether there is one does not.
        self.site(place, 0, &Moment::default()).is_some()
    }

    /// The caller's own zone, if it can serve.
    fn home(&self, place: &Place<'_>) -> Option<(&Zone, &Spread)> {
        if place.zone.is_empty() {
            return None;
        }
        self.zones.iter().find_map(|home| {
            let region = text(home.region.as_ref());
            let matches = text(home.zone.as_ref()) == place.zone
                && (place.region.is_empty() || place.region == region)
                && is_resident(place.residency, region);
            if matches { Some((home, home.spread.as_ref()?)) } else { None }
        })
    }

    /// Chooses an instance of the group that serves a call.
    pub(crate) fn choose(&self, site: &Site<'_>, key: u32, moment: &Moment, peek: bool) -> Option<&Member> {
        site.group.choose(&self.members, key, moment, peek)
    }
}

impl Zone {
    fn locality(&self) -> Locality<'_> {
        Locality::Zone { region: self.region.as_ref(), zone: self.zone.as_ref() }
    }
}

impl Site<'_> {
    /// Tells people of a zone that has too little capacity for its callers; empty otherwise.
    pub(crate) fn spill(&self) -> String {
        let spread = self.home.and_then(|home| Some((home, home.spread.as_ref()?)));
        let Some((home, spread)) = spread.filter(|(_, spread)| spread.is_partial()) else {
            return String::new();
        };
        let here = if self.locality == home.locality() {
            "this one stays".to_owned()
        } else {
            format!("this one goes to {}", self.locality)
        };
        format!(
            "; by its weight {} keeps {}% of its callers' calls, {here}",
            home.locality(),
            spread.percent()
        )
    }
}

fn zones(members: &[Member], strategy: Strategy, before: &[Zone]) -> Box<[Zone]> {
    let places: BTreeSet<(Option<Name>, Option<Name>)> =
        members.iter().map(|m| (m.instance.region.clone(), m.instance.zone.clone())).collect();
    let zone = |(region, zone): (Option<Name>, Option<Name>)| {
        let same = before.binary_search_by(|other| (&other.region, &other.zone).cmp(&(&region, &zone)));
        let before = same.ok().and_then(|at| before.get(at)).map(|before| &before.group);
        let fits = |m: &Member| m.instance.region == region && m.instance.zone == zone;
        let group = Group::new(members, fits, strategy, before);
        Zone { region, zone, group, spread: None }
    };
    let mut zones: Box<[Zone]> = places.into_iter().map(zone).collect();
    let mut first = 0;
    for region in zones.chunk_by_mut(|a, b| a.region == b.region) {
        let weights: Vec<(usize, u64)> = (first..)
            .zip(region.iter())
            .map(|(at, zone)| (at, zone.group.weight()))
            .filter(|(_, w)| *w > 0)
            .collect();
        first += region.len();
        let able = region.iter_mut().filter(|zone| zone.group.weight() > 0);
        for (zone, spread) in able.zip(spread(&weights)) {
            zone.spread = Some(spread);
        }
    }
    zones
}

fn text(name: Option<&Name>) -> &str {
    name.map_or("", |name| name.as_str())
}
