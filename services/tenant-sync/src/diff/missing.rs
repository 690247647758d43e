//! Tenants that the API no longer lists.

use std::collections::BTreeMap;
use std::time::Duration;

use grey_core::ids::TenantId;

use super::{Rules, gone_since, lists};
use crate::control::Known;
use crate::source::Roster;

/// How often in a row the API has missed whom, as one leader has seen it.
#[derive(Debug, Clone, Default)]
pub struct Missing {
    sights: BTreeMap<TenantId, Sight>,
    /// Entries whose id could not be read when nobody was missing: nobody is behind them.
    familiar: BTreeMap<String, u64>,
    /// How many others there were in the last reading.
    strangers: u64,
}

#[derive(Debug, Clone, Copy)]
struct Sight {
    pulls: u32,
    /// When it was counted last.
    at: Duration,
}

impl Missing {
    /// Counts a complete reading of the API, made at `uptime` on a clock that never goes backwards. Readings that follow
    /// each other too quickly count as one: they may well be of one fault.
    pub fn count(&mut self, known: &Known, roster: &Roster, rules: &Rules, uptime: Duration) {
        let mut before = std::mem::take(&mut self.sights);
        let gone = known.tenants().iter().filter(|(id, entry)| {
            rules.manages(&entry.tenant) && gone_since(&entry.tenant).is_none() && !lists(roster, id)
        });
        for (id, _) in gone {
            let sight = match before.remove(id) {
                None => Sight { pulls: 1, at: uptime },
                Some(Sight { pulls, at }) if uptime.saturating_sub(at) >= rules.recheck => {
                    Sight { pulls: pulls.saturating_add(1), at: uptime }
                }
                Some(sight) => sight,
            };
            self.sights.insert(id.clone(), sight);
        }
        let familiar = |id: &String| self.familiar.get(id).copied().unwrap_or_default();
        let others = roster.unidentified.iter().map(|(id, entries)| entries.saturating_sub(familiar(id)));
        self.strangers = others.sum();
        if self.sights.is_empty() {
            self.familiar.clone_from(&roster.unidentified);
        }
    }

    /// Entries of the last reading that somebody who seems to have vanished may be behind.
    #[must_use]
    pub fn strangers(&self) -> u64 {
        self.strangers
    }

    /// Forgets whoever has been marked as gone.
    pub fn settle(&mut self, known: &Known) {
        let is_here =
            |id: &TenantId| known.tenants().get(id).is_some_and(|entry| gone_since(&entry.tenant).is_none());
        self.sights.retain(|id, _| is_here(id));
    }

    /// Readings in a row that have missed the tenant.
    #[must_use]
    pub fn pulls(&self, id: &TenantId) -> u32 {
        self.sights.get(id).map_or(0, |sight| sight.pulls)
    }

    /// Whether another reading decides about someone.
    #[must_use]
    pub fn is_open(&self, rules: &Rules) -> bool {
        self.sights.values().any(|sight| sight.pulls < rules.missing_pulls)
    }

    /// Whether anybody is missing.
    #[must_use]
    pub fn is_any(&self) -> bool {
        !self.sights.is_empty()
    }
}
