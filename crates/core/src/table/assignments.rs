//! What tenants are assigned to in a service: each pair of pin and schema once, however many tenants share it.

use super::VersionSlot;
use crate::schema::SchemaVersion;
use crate::service::Pin;
use std::collections::BTreeSet;
use std::hash::BuildHasher;

/// Assignments of one service that are kept before those without tenants are looked for.
const SWEEP_AT: usize = 1_024;

/// What tenants with the same pin and the same observed schema share.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Assignment {
    /// The pin, if there is one.
    pub pin: Option<Pin>,
    /// The observed schema, if there is one.
    pub schema: Option<SchemaVersion>,
    /// Index of the pin's version, else of the service's default.
    pub(crate) base: Option<usize>,
    /// Whether the base version may serve these tenants.
    pub(crate) base_legal: bool,
}

/// The assignments of one service. The first is "no pin, no schema".
#[derive(Clone, Debug)]
pub(super) struct Assignments {
    list: Vec<Assignment>,
    /// Those in use, by the hash of their pin and schema.
    by_hash: BTreeSet<(u64, u32)>,
    /// Places that may be given out again.
    free: Vec<u32>,
    /// How many are in use when those without tenants are next looked for.
    sweep_at: usize,
}

impl Default for Assignments {
    fn default() -> Self {
        Self {
            list: vec![Assignment::default()],
            by_hash: BTreeSet::from([(fingerprint(None, None), 0)]),
            free: Vec::new(),
            sweep_at: SWEEP_AT,
        }
    }
}

impl Assignments {
    pub(super) fn get(&self, index: u32) -> &Assignment {
        const NONE: &Assignment = &Assignment { pin: None, schema: None, base: None, base_legal: false };
        self.list.get(index as usize).unwrap_or(NONE)
    }

    /// Finds the assignment with this pin and schema.
    pub(super) fn find(&self, pin: Option<&Pin>, schema: Option<&SchemaVersion>) -> Option<u32> {
        let hash = fingerprint(pin, schema);
        let alike = self.by_hash.range((hash, 0)..=(hash, u32::MAX));
        alike.map(|(_, index)| *index).find(|index| {
            let assignment = self.get(*index);
            assignment.pin.as_ref() == pin && assignment.schema.as_ref() == schema
        })
    }

    /// Adds an assignment that is not there yet; its base is worked out by [`Self::resolve`].
    pub(super) fn add(&mut self, pin: Option<Pin>, schema: Option<SchemaVersion>) -> u32 {
        let hash = fingerprint(pin.as_ref(), schema.as_ref());
        let assignment = Assignment { pin, schema, ..Assignment::default() };
        let index = self.free.pop().unwrap_or_else(|| {
            self.list.push(Assignment::default());
            // Each is held by a tenant of its own, and 2^32 tenants fit no memory.
            u32::try_from(self.list.len() - 1).expect("fewer assignments than 2^32 tenants")
        });
        if let Some(place) = self.list.get_mut(index as usize) {
            *place = assignment;
        }
        self.by_hash.insert((hash, index));
        index
    }

    /// Whether those without tenants should be looked for before another one is added.
    pub(super) fn is_crowded(&self) -> bool {
        self.by_hash.len() >= self.sweep_at
    }

    /// Whether there is none but the first.
    pub(super) fn is_empty(&self) -> bool {
        self.by_hash.len() == 1
    }

    /// Forgets those that no tenant has; `used` is by index.
    pub(super) fn sweep(&mut self, used: &[bool]) {
        let in_use = |index: u32| index == 0 || used.get(index as usize).copied().unwrap_or(false);
        let (list, free) = (&mut self.list, &mut self.free);
        self.by_hash.retain(|(_, index)| {
            if in_use(*index) {
                return true;
            }
            if let Some(assignment) = list.get_mut(*index as usize) {
                *assignment = Assignment::default();
                free.push(*index);
            }
            false
        });
        self.sweep_at = (self.by_hash.len() * 2).max(SWEEP_AT);
    }

    /// The pins of those in use.
    pub(super) fn pins(&self) -> impl Iterator<Item = &Pin> {
        self.list.iter().filter_map(|assignment| assignment.pin.as_ref())
    }

    /// Works out the base version of one.
    pub(super) fn resolve(&mut self, index: u32, versions: &[VersionSlot], default: Option<usize>) {
        if let Some(assignment) = self.list.get_mut(index as usize) {
            assignment.resolve(versions, default);
        }
    }

    /// Works out the base version of all.
    pub(super) fn resolve_all(&mut self, versions: &[VersionSlot], default: Option<usize>) {
        for assignment in &mut self.list {
            assignment.resolve(versions, default);
        }
    }
}

impl Assignment {
    pub(super) fn new(
        pin: Option<Pin>,
        schema: Option<SchemaVersion>,
        versions: &[VersionSlot],
        default: Option<usize>,
    ) -> Self {
        let mut assignment = Self { pin, schema, base: None, base_legal: false };
        assignment.resolve(versions, default);
        assignment
    }

    fn resolve(&mut self, versions: &[VersionSlot], default: Option<usize>) {
        self.base = match &self.pin {
            Some(pin) => versions.binary_search_by(|slot| slot.version.cmp(&pin.version)).ok(),
            None => default,
        };
        let base = self.base.and_then(|at| versions.get(at));
        self.base_legal = base.is_some_and(|slot| slot.admits(self.schema.as_ref()));
    }
}

fn fingerprint(pin: Option<&Pin>, schema: Option<&SchemaVersion>) -> u64 {
    foldhash::fast::FixedState::with_seed(0).hash_one((pin, schema))
}
