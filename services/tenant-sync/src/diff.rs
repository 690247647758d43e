//! What must change in the control plane for it to say what the tenant API says. Pure.
//!
//! A tenant that the API lists is the API's in every attribute that is mapped, and marked by a label as ours; what is
//! not mapped stays as it is. A marked tenant that the API no longer lists is first only marked as deleted and suspended,
//! keeping its pins, and removed after a while. Tenants without the mark are left alone.
//!
//! What a faulty API could make of this is bounded: if a sync, with those shortly before it, would take more than a share of
//! the active tenants out of service, it takes none, until someone accepts exactly these.

mod hold;
mod lately;
mod merge;
mod missing;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use grey_core::change::Change;
use grey_core::ids::{Name, TenantId};
use grey_core::key::{Fact, Key};
use grey_core::tenant::{Tenant, TenantStatus};
use grey_proto::control;
use grey_proto::convert::InvalidMessage;

use crate::control::{Entry, Known};
use crate::source::{Roster, Sourced};

pub use hold::{Hold, Loss};
pub use lately::Lately;
pub use missing::Missing;

/// The label that marks a tenant as ours.
pub const MANAGED_BY: &str = "managed-by";
/// The label that says since when a tenant is no longer listed, as an RFC 3339 time.
pub const DELETED_AT: &str = "deleted-at";

/// What decides about a sync besides tenants.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The value of the label [`MANAGED_BY`].
    pub managed_by: String,
    /// Whether the API tells when a tenant is under maintenance. If not, one that the control plane has under
    /// maintenance stays so while the API calls it active.
    pub tells_maintenance: bool,
    /// Complete readings of the API that must miss a tenant before it counts as gone.
    pub missing_pulls: u32,
    /// How far apart these are at least.
    pub recheck: Duration,
    /// How long a tenant that is gone is kept.
    pub retain: Duration,
    /// The share of the active tenants that may be taken out of service within the window.
    pub share: f64,
    /// As many tenants may always be taken out of service within it.
    pub allow: u64,
    /// What leaves so close together is counted together.
    pub window: Duration,
}

/// What one change is for. In the order in which changes are applied: what takes tenants out of service comes late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A tenant is new.
    Create,
    /// Attributes changed.
    Update,
    /// A tenant that was gone is listed again.
    Restore,
    /// A tenant's calls are no longer routed.
    Suspend,
    /// A tenant is gone.
    Tombstone,
    /// A tenant has been gone for long.
    Remove,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::Create, Self::Update, Self::Restore, Self::Suspend, Self::Tombstone, Self::Remove];

    /// What was done to a tenant, in reports and metrics.
    #[must_use]
    pub fn done(self) -> &'static str {
        match self {
            Self::Create => "created",
            Self::Update => "updated",
            Self::Restore => "restored",
            Self::Suspend => "suspended",
            Self::Tombstone => "tombstoned",
            Self::Remove => "removed",
        }
    }
}

/// One change to make.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// What it is for.
    pub kind: Kind,
    /// Whom it is about.
    pub tenant: TenantId,
    /// The change.
    pub change: Change,
    /// The revision at which the tenant changed last; 0: it does not exist.
    pub expected: u64,
}

/// A tenant that the control plane does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// The tenant.
    pub tenant: TenantId,
    /// Why.
    pub why: String,
}

/// What a sync has to do.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// In the order to apply them.
    pub writes: Vec<Write>,
    /// What is held back.
    pub hold: Option<Hold>,
    /// Whom the writes take out of service without anybody having accepted it.
    pub leaving: BTreeSet<TenantId>,
    /// Tenants that stay as they are, because the control plane would not take them.
    pub unfit: Vec<Unfit>,
    /// Tenants that are as the API says.
    pub unchanged: u64,
    /// Tenants that are no longer listed, but not for long enough to count as gone.
    pub missing: u64,
}

/// What a plan is made from, besides what the control plane has.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// What decides.
    pub rules: &'a Rules,
    /// What the API lists.
    pub roster: &'a Roster,
    /// How often the API has missed whom.
    pub missing: &'a Missing,
    /// Active tenants that the sync answers for, when it began: what it creates makes no room for losses.
    pub in_service: u64,
    /// Tenants that syncs before have taken out of service within the window, unless that was accepted.
    pub lately: u64,
    /// What was held back and has been accepted.
    pub accepted: &'a BTreeMap<TenantId, Loss>,
    /// The present time.
    pub now: SystemTime,
}

impl Facts<'_> {
    /// Makes the plan for a control plane that has what is `known`.
    #[must_use]
    pub fn plan(&self, known: &Known) -> Plan {
        let Self { rules, roster, .. } = *self;
        let (plan, losses, due) = (Plan::default(), BTreeMap::new(), Vec::new());
        let mut draft = Draft { facts: *self, rules, known, plan, losses, due };
        for (id, sourced) in &roster.tenants {
            draft.listed(id, sourced);
        }
        for (id, entry) in known.tenants() {
            if !lists(roster, id) && rules.manages(&entry.tenant) {
                draft.vanished(id, entry);
            }
        }
        draft.finish()
    }
}

/// Whether the API lists the tenant, be it in a form that cannot be read.
fn lists(roster: &Roster, id: &TenantId) -> bool {
    roster.tenants.contains_key(id) || roster.present.contains(id)
}

impl Rules {
    /// Whether the tenant is marked as ours.
    #[must_use]
    pub fn manages(&self, tenant: &Tenant) -> bool {
        tenant.labels.get(MANAGED_BY).is_some_and(|by| *by == self.managed_by)
    }
}

/// Since when a tenant is gone; none: it is not, or someone has put it back into service.
#[must_use]
pub fn gone_since(tenant: &Tenant) -> Option<SystemTime> {
    let at = tenant.labels.get(DELETED_AT).filter(|_| tenant.status == TenantStatus::Suspended)?;
    chrono::DateTime::parse_from_rfc3339(at).ok().and_then(|at| {
        let seconds = u64::try_from(at.timestamp()).ok()?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
    })
}

/// A time as the label [`DELETED_AT`] has it.
fn stamp(at: SystemTime) -> String {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let at = i64::try_from(seconds).ok().and_then(|seconds| chrono::DateTime::from_timestamp(seconds, 0));
    at.unwrap_or_default().to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// A label key of ours.
fn key(text: &str) -> Name {
    Name::new(text).expect("our own label keys are names")
}

/// A tenant that would go out of service.
struct Leaving<'a> {
    loss: Loss,
    entry: &'a Entry,
    /// How it is to be.
    wanted: Tenant,
    /// It may go now, if it may go at all.
    due: bool,
}

/// A plan in the making.
struct Draft<'a> {
    facts: Facts<'a>,
    rules: &'a Rules,
    known: &'a Known,
    plan: Plan,
    losses: BTreeMap<&'a TenantId, Leaving<'a>>,
    /// Tenants that have been gone for long.
    due: Vec<(&'a TenantId, u64)>,
}

impl<'a> Draft<'a> {
    fn listed(&mut self, id: &'a TenantId, sourced: &Sourced) {
        let Some(entry) = self.known.tenants().get(id) else {
            let tenant = merge::created(id, sourced, self.rules);
            return self.write(Kind::Create, tenant, 0);
        };
        let Some(wanted) = merge::merged(&entry.tenant, sourced, self.rules) else {
            self.plan.unchanged += 1;
            return;
        };
        let (before, after) = (entry.tenant.status, wanted.status);
        if before == TenantStatus::Active && after != TenantStatus::Active {
            self.losses.insert(id, Leaving { loss: Loss::Suspended, entry, wanted, due: true });
        } else if gone_since(&entry.tenant).is_some() {
            self.write(Kind::Restore, wanted, entry.revision);
        } else if before != after && after == TenantStatus::Suspended {
            // Under maintenance its calls were refused already.
            self.write(Kind::Suspend, wanted, entry.revision);
        } else {
            self.write(Kind::Update, wanted, entry.revision);
        }
    }

    fn vanished(&mut self, id: &'a TenantId, entry: &'a Entry) {
        if let Some(since) = gone_since(&entry.tenant) {
            // A clock that went backwards removes nobody.
            if self.facts.now.duration_since(since).is_ok_and(|gone| gone >= self.rules.retain) {
                self.due.push((id, entry.revision));
            }
            return;
        }
        let due = self.facts.missing.pulls(id) >= self.rules.missing_pulls;
        let mut wanted = entry.tenant.clone();
        wanted.status = TenantStatus::Suspended;
        wanted.labels.insert(key(DELETED_AT), stamp(self.facts.now));
        self.losses.insert(id, Leaving { loss: Loss::Vanished, entry, wanted, due });
    }

    fn write(&mut self, kind: Kind, tenant: Tenant, expected: u64) {
        // The control plane makes the same checks, and would refuse the whole batch.
        let checked = Tenant::try_from(control::Tenant::from(&tenant));
        match checked {
            Ok(_) => {
                self.plan.writes.push(Write {
                    kind,
                    tenant: tenant.id.clone(),
                    change: Change::Put(Fact::Tenant(Box::new(tenant))),
                    expected,
                });
            }
            Err(InvalidMessage { field, why }) => {
                self.plan.unfit.push(Unfit { tenant: tenant.id, why: format!("{field}: {why}") });
            }
        }
    }

    /// Decides about those who would leave, and puts everything in order.
    fn finish(mut self) -> Plan {
        let accepted = self.facts.accepted;
        let asked = |id: &TenantId, leaving: &Leaving<'_>| accepted.get(id) == Some(&leaving.loss);
        let losses = std::mem::take(&mut self.losses);
        let unasked: BTreeMap<TenantId, Loss> = losses
            .iter()
            .filter(|(id, leaving)| !asked(id, leaving))
            .map(|(id, leaving)| ((*id).clone(), leaving.loss))
            .collect();
        let doubt = hold::Doubt { empty: self.is_empty(), unidentified: self.facts.missing.strangers() };
        let before = hold::Before { in_service: self.facts.in_service, lately: self.facts.lately };
        self.plan.hold = hold::hold(unasked, before, doubt, self.rules);
        for (id, leaving) in losses {
            let held = self.plan.hold.as_ref().is_some_and(|hold| hold.losses.contains_key(id));
            if held {
                self.keep(leaving);
            } else if leaving.due || asked(id, &leaving) {
                if !asked(id, &leaving) {
                    self.plan.leaving.insert(id.clone());
                }
                let kind = match leaving.loss {
                    Loss::Suspended => Kind::Suspend,
                    Loss::Vanished => Kind::Tombstone,
                };
                self.write(kind, leaving.wanted, leaving.entry.revision);
            } else {
                self.plan.missing += 1;
            }
        }
        // A list that is doubtful is no reason to remove anybody for good.
        if self.plan.hold.is_none() && doubt == hold::Doubt::default() {
            let remove = |(id, expected): (&TenantId, u64)| Write {
                kind: Kind::Remove,
                tenant: id.clone(),
                change: Change::Removed(Key::Tenant(id.clone())),
                expected,
            };
            self.plan.writes.extend(std::mem::take(&mut self.due).into_iter().map(remove));
        }
        self.plan.writes.sort_by_key(|write| write.kind);
        self.plan
    }

    /// Keeps a tenant in service, and still tells what else is new about it.
    fn keep(&mut self, leaving: Leaving<'_>) {
        if leaving.loss == Loss::Vanished {
            return;
        }
        let before = &leaving.entry.tenant;
        let wanted = Tenant { status: before.status, ..leaving.wanted };
        if wanted != *before {
            self.write(Kind::Update, wanted, leaving.entry.revision);
        }
    }

    /// Whether the API lists nobody at all.
    fn is_empty(&self) -> bool {
        self.facts.roster.tenants.is_empty() && self.facts.roster.present.is_empty()
    }
}

/// Active tenants that a sync with this list answers for.
#[must_use]
pub fn in_service(known: &Known, roster: &Roster, rules: &Rules) -> u64 {
    count(known.tenants().iter().filter(|(id, entry)| {
        entry.tenant.status == TenantStatus::Active && (rules.manages(&entry.tenant) || lists(roster, id))
    }))
}

/// How many there are.
pub(crate) fn count<T>(items: impl IntoIterator<Item = T>) -> u64 {
    u64::try_from(items.into_iter().count()).unwrap_or(u64::MAX)
}

/// When the first of those who are gone has been gone for long; none: nobody is gone.
#[must_use]
pub fn next_removal(known: &Known, rules: &Rules) -> Option<SystemTime> {
    let ours = known.tenants().values().filter(|entry| rules.manages(&entry.tenant));
    ours.filter_map(|entry| gone_since(&entry.tenant)?.checked_add(rules.retain)).min()
}

/// The tenants of the control plane by state.
#[must_use]
pub fn census(known: &Known, rules: &Rules) -> BTreeMap<&'static str, u64> {
    let states = ["active", "suspended", "maintenance", "tombstoned", "unmanaged"];
    let mut census: BTreeMap<_, _> = states.map(|state| (state, 0)).into();
    for entry in known.tenants().values() {
        let tenant = &entry.tenant;
        let state = match tenant.status {
            _ if !rules.manages(tenant) => "unmanaged",
            _ if gone_since(tenant).is_some() => "tombstoned",
            status => status.as_str(),
        };
        *census.entry(state).or_default() += 1;
    }
    census
}

#[cfg(test)]
mod tests;
