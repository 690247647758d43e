//! Counting moves: two tables side by side, one look at each tenant that may differ.

use super::{Lack, Loss, Move, Moves};
use crate::change::Change;
use crate::decide::{Answer, Call, Detour, answer};
use crate::error::Refusal;
use crate::ids::{ServiceId, TenantId};
use crate::key::Key;
use crate::policy::{Overlay, Unit};
use crate::table::{Row, ServiceTable, Table};
use crate::version::Version;
use foldhash::fast::RandomState;
use std::collections::{BTreeSet, HashMap, HashSet};

/// Tells which tenants the changes would move, with up to `examples` tenants of each group.
///
/// Only what the changes can touch is looked at: a pin or schema touches one tenant of one service, a tenant's
/// attributes that tenant, and what belongs to a service all tenants of that service. Tenants of a service that
/// differ in nothing that decides are decided once.
#[must_use]
pub fn moves(table: &Table, changes: &[Change], examples: usize) -> Moves {
    preview(table, changes, examples).0
}

/// As [`moves`]; also gives the table after the changes, still at the position before them.
#[must_use]
pub fn preview(table: &Table, changes: &[Change], examples: usize) -> (Moves, Table) {
    let mut after = table.clone();
    after.change_all(changes);
    let tables = Tables { before: table, after: &after };
    let touched = Touched::by(changes, &tables);
    let mut groups = Groups::new(examples);
    tables.whole_services(&touched, &mut groups);
    tables.whole_tenants(&touched, &mut groups);
    tables.pairs(&touched, &mut groups);
    (Moves { active: table.active_tenants() as u64, groups: groups.sorted() }, after)
}

/// What changes can make differ.
struct Touched {
    /// Services of which any tenant may move.
    services: BTreeSet<ServiceId>,
    /// Tenants that may move in any service.
    tenants: HashSet<TenantId, RandomState>,
    /// One tenant in one service each, in order, each once.
    pairs: Vec<(ServiceId, TenantId)>,
    /// Tenants whose row may be another one.
    rows: HashSet<TenantId, RandomState>,
}

impl Touched {
    fn by(changes: &[Change], tables: &Tables<'_>) -> Self {
        let (mut services, mut pairs) = (BTreeSet::new(), Vec::new());
        let (mut tenants, mut rows) = (HashSet::default(), HashSet::default());
        for change in changes {
            match change.key() {
                Key::Service(service)
                | Key::Version(service, _)
                | Key::Policy(service)
                | Key::Overlay(service, _) => drop(services.insert(service)),
                Key::Pin(tenant, service) | Key::Schema(tenant, service) => {
                    rows.insert(tenant.clone());
                    pairs.push((service, tenant));
                }
                // A hold refuses for a moment and moves nobody; the pin that follows does.
                Key::Hold(..) => {}
                // Where a database is decides nothing.
                Key::Database(..) => {}
                Key::Tenant(tenant) => {
                    rows.insert(tenant.clone());
                    // One that is removed loses its pins, even if it comes back as it was.
                    if matches!(change, Change::Removed(_)) || tables.profile_differs(&tenant) {
                        tenants.insert(tenant);
                    }
                }
            }
        }
        pairs.sort_unstable();
        pairs.dedup();
        pairs.retain(|(service, tenant)| !services.contains(service) && !tenants.contains(tenant));
        Self { services, tenants, pairs, rows }
    }
}

struct Tables<'t> {
    before: &'t Table,
    after: &'t Table,
}

impl<'t> Tables<'t> {
    /// Whether anything that decides differs about the tenant itself.
    fn profile_differs(&self, tenant: &TenantId) -> bool {
        let [before, after] = [self.before, self.after].map(|table| table.tenant(tenant.as_str()));
        let profile = |row: Option<&'t Row>| row.and_then(Row::profile);
        profile(before) != profile(after)
    }

    fn service(&self, service: &ServiceId) -> Pair<'t> {
        Pair::new(self.before.service(service.as_str()), self.after.service(service.as_str()))
    }

    fn rows(&self, tenant: &TenantId) -> Rows<'t> {
        Rows { before: self.before.tenant(tenant.as_str()), after: self.after.tenant(tenant.as_str()) }
    }

    fn whole_services(&self, touched: &Touched, groups: &mut Groups) {
        let mut pairs: Vec<_> = touched.services.iter().map(|id| (id, self.service(id))).collect();
        if pairs.is_empty() {
            return;
        }
        let kept = self.after.tenants().map(|(id, row)| {
            let same = !touched.rows.contains(id);
            let before = if same { Some(row) } else { self.before.tenant(id.as_str()) };
            (id, Rows { before, after: Some(row) })
        });
        let gone = touched.rows.iter().filter(|id| self.after.tenant(id.as_str()).is_none());
        for (tenant, rows) in kept.chain(gone.map(|id| (id, self.rows(id)))) {
            for (service, pair) in &mut pairs {
                pair.count(service, tenant, rows, groups);
            }
        }
    }

    fn whole_tenants(&self, touched: &Touched, groups: &mut Groups) {
        if touched.tenants.is_empty() {
            return;
        }
        let others = self.after.services().map(ServiceTable::id).filter(|id| !touched.services.contains(*id));
        let mut pairs: Vec<_> = others.map(|id| (id, self.service(id))).collect();
        for tenant in &touched.tenants {
            let rows = self.rows(tenant);
            for (service, pair) in &mut pairs {
                pair.count(service, tenant, rows, groups);
            }
        }
    }

    fn pairs(&self, touched: &Touched, groups: &mut Groups) {
        for of_service in touched.pairs.chunk_by(|(one, _), (next, _)| one == next) {
            let Some((service, _)) = of_service.first() else { continue };
            let mut pair = self.service(service);
            for (_, tenant) in of_service {
                pair.count(service, tenant, self.rows(tenant), groups);
            }
        }
    }
}

/// A tenant in both tables.
#[derive(Clone, Copy)]
struct Rows<'t> {
    before: Option<&'t Row>,
    after: Option<&'t Row>,
}

/// What decides for a tenant, if nothing but its assignment does; none: it is not declared.
type Class = Option<u32>;

/// A service in both tables.
struct Pair<'t> {
    before: Option<&'t ServiceTable>,
    after: Option<&'t ServiceTable>,
    /// Whether an overlay tells tenants with the same pin and schema apart.
    splits: bool,
    /// The group of all tenants of a class.
    classes: HashMap<(Class, Class), Option<usize>, RandomState>,
}

impl<'t> Pair<'t> {
    fn new(before: Option<&'t ServiceTable>, after: Option<&'t ServiceTable>) -> Self {
        let overlays = [before, after].into_iter().flatten().flat_map(ServiceTable::overlays);
        let splits = overlays.into_iter().any(|overlay| takes_plain_calls(overlay));
        Self { before, after, splits, classes: HashMap::default() }
    }

    fn count(&mut self, service: &ServiceId, tenant: &TenantId, rows: Rows<'t>, groups: &mut Groups) {
        let declared = |row: Option<&Row>| row.is_some_and(|row| row.profile().is_some());
        if !declared(rows.before) && !declared(rows.after) {
            return;
        }
        let class = self.class(rows);
        let known = class.and_then(|class| self.classes.get(&class).copied());
        let group = known.unwrap_or_else(|| {
            let call = Call::new(tenant.as_str(), service.as_str());
            let of = |service: Option<&'t ServiceTable>, row| {
                answer(service.ok_or(Refusal::UnknownService)?, row, &call)
            };
            let (before, after) = (of(self.before, rows.before), of(self.after, rows.after));
            let group = compare(&before, &after).map(|kind| groups.find(service, &kind));
            if let Some(class) = class {
                self.classes.insert(class, group);
            }
            group
        });
        if let Some(group) = group {
            groups.add(group, tenant);
        }
    }

    /// The tenant's classes before and after, if nothing else tells it from others of the same ones.
    fn class(&self, rows: Rows<'_>) -> Option<(Class, Class)> {
        if self.splits {
            return None;
        }
        Some((class(self.before, rows.before)?, class(self.after, rows.after)?))
    }
}

fn class(service: Option<&ServiceTable>, row: Option<&Row>) -> Option<Class> {
    match row.filter(|row| row.profile().is_some()) {
        None => Some(None),
        Some(row) if row.is_plain() => Some(Some(service.map_or(0, |s| s.assignment_index(Some(row))))),
        Some(_) => None,
    }
}

/// Whether the overlay may take a call that has neither metadata nor a user or request key.
fn takes_plain_calls(overlay: &Overlay) -> bool {
    overlay.unit == Unit::Tenant && overlay.matching.metadata.is_empty()
}

/// What makes tenants one group within a service.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind<'t> {
    pub(crate) from: Option<&'t Version>,
    pub(crate) to: Option<&'t Version>,
    loss: Option<(&'t Version, Lack)>,
}

impl Kind<'_> {
    fn is_of(&self, group: &Move) -> bool {
        let loss = group.loss.as_ref().map(|loss| (&loss.wanted, loss.lack));
        self.from == group.from.as_ref() && self.to == group.to.as_ref() && self.loss == loss
    }
}

type Outcome<'t> = Result<Answer<'t>, Refusal>;

/// How a tenant moves between two answers; none if it does not.
pub(crate) fn compare<'a>(before: &'a Outcome<'_>, after: &'a Outcome<'_>) -> Option<Kind<'a>> {
    let (from, to, loss) = match (before, after) {
        (Ok(before), Ok(after)) => (
            Some(before.version),
            Some(after.version),
            stand_in(before, after).filter(|_| before.version != after.version),
        ),
        (Ok(before), Err(refusal)) => (Some(before.version), None, lacking(refusal)),
        (Err(_), Ok(after)) => (None, Some(after.version), None),
        (Err(before), Err(after)) => {
            let (from, to) = (decided(before), decided(after));
            (from, to, lacking(after).filter(|_| to.is_none()))
        }
    };
    (from != to).then_some(Kind { from, to, loss })
}

/// The version that has no instance, of a call that is refused for that.
fn decided(refusal: &Refusal) -> Option<&Version> {
    match refusal {
        Refusal::NoInstance { version } => Some(version),
        _ => None,
    }
}

fn lacking(refusal: &Refusal) -> Option<(&Version, Lack)> {
    match refusal {
        Refusal::NoLegalVersion { wanted } => Some((wanted, Lack::Schema)),
        Refusal::NoInstance { version } => Some((version, Lack::Instance)),
        _ => None,
    }
}

/// Why another version than the wanted one serves now, unless that was so before.
fn stand_in<'a>(before: &Answer<'_>, after: &Answer<'a>) -> Option<(&'a Version, Lack)> {
    let (wanted, detour) = after.detour?;
    if before.detour.is_some_and(|(_, known)| known == detour) {
        return None;
    }
    let lack = match detour {
        Detour::Schema => Lack::Schema,
        Detour::Failover => Lack::Instance,
    };
    Some((wanted, lack))
}

type GroupKey = (ServiceId, Option<Version>, Option<Version>, Option<Loss>);

/// Moves by kind, as they are found.
struct Groups {
    examples: usize,
    list: Vec<Move>,
    index: HashMap<GroupKey, usize, RandomState>,
    /// The group that was found last: most tenants make the same move as the one before.
    last: usize,
}

impl Groups {
    fn new(examples: usize) -> Self {
        Self { examples, list: Vec::new(), index: HashMap::default(), last: 0 }
    }

    /// The group's place, of a new one if there is none yet.
    fn find(&mut self, service: &ServiceId, kind: &Kind<'_>) -> usize {
        let known = self.list.get(self.last);
        if known.is_some_and(|known| known.service == *service && kind.is_of(known)) {
            return self.last;
        }
        let loss = kind.loss.map(|(wanted, lack)| Loss { wanted: wanted.clone(), lack });
        let (from, to) = (kind.from.cloned(), kind.to.cloned());
        let (list, key) = (&mut self.list, (service.clone(), from, to, loss));
        self.last = *self.index.entry(key).or_insert_with_key(|(service, from, to, loss)| {
            let (from, to, loss) = (from.clone(), to.clone(), loss.clone());
            list.push(Move { service: service.clone(), from, to, loss, tenants: 0, examples: Vec::new() });
            list.len() - 1
        });
        self.last
    }

    fn add(&mut self, group: usize, tenant: &TenantId) {
        let Some(group) = self.list.get_mut(group) else { return };
        group.tenants += 1;
        let full = group.examples.len() >= self.examples;
        if full && group.examples.last().is_none_or(|last| last < tenant) {
            return;
        }
        if full {
            group.examples.pop();
        }
        let at = group.examples.partition_point(|held| held < tenant);
        group.examples.insert(at, tenant.clone());
    }

    fn sorted(self) -> Vec<Move> {
        let mut groups = self.list;
        groups.sort_by(|a, b| {
            let size = |group: &Move| std::cmp::Reverse(group.tenants);
            let kind = |group: &Move| (group.from.clone(), group.to.clone(), group.loss.clone());
            (&a.service, size(a)).cmp(&(&b.service, size(b))).then_with(|| kind(a).cmp(&kind(b)))
        });
        groups
    }
}
