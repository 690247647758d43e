//! Brings a plan into the control plane, batch by batch.
//!
//! Each batch is one event: a sync that is interrupted leaves whole batches behind, and the next one finds the rest
//! by comparing anew. Every change states the revision it was planned on, so what somebody else writes meanwhile is
//! never overwritten unseen: the plan is made anew instead.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use grey_core::error::Reason;
use grey_core::ids::TenantId;
use grey_proto::control::{self, ProposedChange};
use grey_sync::MAX_QUARANTINED;
use prost::Message as _;

use crate::control::{Control, Error as ControlError, Known};
use crate::diff::{Facts, Kind, Plan, Unfit, Write};
use crate::metrics::Metrics;

/// Kept in the event log with each batch.
const REASON: &str = "tenant-sync";
/// Most bytes of a batch: the control plane takes requests of 1 MiB.
const MAX_BATCH_BYTES: usize = 768 << 10;
/// Batches under way at once: the control plane reads one while it commits the one before.
const UNDER_WAY: usize = 2;
/// Batches refused in a row, down to single changes, before nothing at all is thought to be taken.
const MAX_REFUSALS: u32 = 20;
/// Plans made anew in one sync because others wrote the same tenants.
const MAX_ROUNDS: u32 = 20;

/// Why a plan was not brought in, or not all of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The control plane refuses, or does not answer for too long.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Others keep changing the same tenants.
    #[error("apply changes: made anew {0} times, because the tenants keep changing meanwhile")]
    Contended(u32),
}

/// What was done.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// How many changes of each kind were made.
    pub(crate) counts: BTreeMap<Kind, u64>,
    /// Who was taken out of service without anybody having accepted it.
    pub(crate) left: Vec<TenantId>,
}

impl Done {
    fn note(&mut self, batch: &[Write], leaving: &BTreeSet<TenantId>, metrics: &Metrics) {
        for write in batch {
            *self.counts.entry(write.kind).or_default() += 1;
            metrics.applied(write.kind);
            if leaving.contains(&write.tenant) {
                self.left.push(write.tenant.clone());
            }
        }
    }
}

/// A plan that leaves nothing to write.
pub(crate) struct Applied {
    pub(crate) plan: Plan,
    /// Tenants that needed no change from the beginning.
    pub(crate) unchanged: u64,
}

/// Makes plans from `facts` and applies them until one has nothing left to write; answers that one.
///
/// A batch that the control plane refuses is halved until it is known whose change is to blame: that tenant is left as it
/// is and told, and the others go on.
///
/// # Errors
/// The control plane refuses everything, does not answer for too long, or others keep changing the same tenants. What
/// `done` says has been done then.
pub(crate) async fn apply(
    control: &Control,
    known: &mut Known,
    facts: Facts<'_>,
    done: &mut Done,
    metrics: &Metrics,
) -> Result<Applied, Error> {
    let (mut rounds, mut unchanged) = (0, None);
    let mut pauses = control.pauses();
    let mut doubts = Doubts { most: control.batch(), in_a_row: 0, refused: BTreeMap::new() };
    // What was sent last without success. It may have been carried out all the same, even after the answer was lost.
    let mut open: Vec<Write> = Vec::new();
    let mut leaving = BTreeSet::new();
    loop {
        known.catch_up(control).await?;
        open.retain(|write| known.reflects(&write.change));
        done.note(&open, &leaving, metrics);
        open.clear();
        let mut todo = facts.plan(known);
        leaving.extend(todo.leaving.iter().cloned());
        doubts.leave_out(&mut todo);
        let unchanged = *unchanged.get_or_insert(todo.unchanged);
        if todo.writes.is_empty() {
            return Ok(Applied { plan: todo, unchanged });
        }
        let Some((writes, error)) = send(control, known, &todo.writes, &mut doubts, &mut open, |writes| {
            done.note(writes, &leaving, metrics);
            pauses = control.pauses();
        })
        .await
        else {
            continue;
        };
        match error.reason() {
            Some(Reason::RevisionMismatch) => {
                rounds += 1;
                if rounds >= MAX_ROUNDS {
                    return Err(Error::Contended(rounds));
                }
                // The log itself may have been restored to an earlier state.
                if rounds > 1 {
                    known.forget();
                }
                tracing::info!(error = %chain(&error), "tenants have changed meanwhile, planning anew");
            }
            Some(reason) if is_about_content(reason) => doubts.refuse(writes, error)?,
            _ => pauses.take(error).await?,
        }
    }
}

/// Sends writes, batch by batch, until one is not taken; tells which one that was. Those under way beside it are waited
/// for. What was sent without success is left in `open`.
async fn send<'w>(
    control: &Control,
    known: &mut Known,
    writes: &'w [Write],
    doubts: &mut Doubts,
    open: &mut Vec<Write>,
    mut taken: impl FnMut(&[Write]),
) -> Option<(&'w [Write], ControlError)> {
    let (mut rest, mut under_way, mut failed) = (writes, FuturesUnordered::new(), None);
    loop {
        while failed.is_none() && under_way.len() < UNDER_WAY && !rest.is_empty() {
            let Batch { writes, changes, rest: more } = Batch::cut(rest, doubts.most);
            rest = more;
            under_way.push(async move { (writes, control.apply(changes, REASON).await) });
        }
        // As they are committed: what is known follows the log without reading it.
        let Some(sent) = under_way.next().await else { return failed };
        match sent {
            (writes, Ok(position)) => {
                known.commit(position, writes.iter().map(|write| &write.change));
                doubts.settle(control.batch());
                taken(writes);
            }
            (writes, Err(error)) => {
                open.extend_from_slice(writes);
                failed.get_or_insert((writes, error));
            }
        }
    }
}

/// Whether a refusal may be about one of many changes.
fn is_about_content(reason: Reason) -> bool {
    !matches!(
        reason,
        Reason::Unavailable
            | Reason::RateLimited
            | Reason::Unauthenticated
            | Reason::Denied
            | Reason::RoutersTooOld
    )
}

/// Which changes the control plane does not take.
struct Doubts {
    /// Changes of the next batch.
    most: usize,
    /// Refusals without a batch that was taken in between.
    in_a_row: u32,
    /// Whose change is refused, and why.
    refused: BTreeMap<TenantId, String>,
}

impl Doubts {
    /// A batch was taken.
    fn settle(&mut self, most: usize) {
        self.in_a_row = 0;
        self.most = self.most.saturating_mul(2).min(most);
    }

    /// A batch was refused: it is halved, or its only change is left out. Nothing at all is taken: that is no one's fault.
    fn refuse(&mut self, batch: &[Write], error: ControlError) -> Result<(), ControlError> {
        self.in_a_row += 1;
        if self.in_a_row > MAX_REFUSALS || self.refused.len() >= MAX_QUARANTINED {
            return Err(error);
        }
        self.most = (batch.len() / 2).max(1);
        if let [write] = batch {
            let why = chain(&error);
            tracing::warn!(tenant.id = %write.tenant, error = why, "a tenant is left as it is");
            self.refused.insert(write.tenant.clone(), why);
        }
        Ok(())
    }

    fn leave_out(&self, plan: &mut Plan) {
        plan.writes.retain(|write| !self.refused.contains_key(&write.tenant));
        let unfit = |(tenant, why): (&TenantId, &String)| Unfit { tenant: tenant.clone(), why: why.clone() };
        plan.unfit.extend(self.refused.iter().map(unfit));
    }
}

fn propose(write: &Write) -> ProposedChange {
    ProposedChange {
        change: Some(control::Change::from(&write.change)),
        expected_revision: Some(write.expected),
    }
}

/// What one request carries.
struct Batch<'w> {
    writes: &'w [Write],
    changes: Vec<ProposedChange>,
    /// The writes after it.
    rest: &'w [Write],
}

impl<'w> Batch<'w> {
    /// Cuts off the next one: at most `most` writes, and not too large for a request.
    fn cut(writes: &'w [Write], most: usize) -> Self {
        let mut bytes = 0;
        let fit = writes.iter().take(most).map(propose).take_while(|change| {
            // With its tag and length. One alone always fits: a tenant has far less bytes than a batch.
            bytes += change.encoded_len() + 8;
            bytes <= MAX_BATCH_BYTES
        });
        let changes: Vec<_> = fit.collect();
        let (writes, rest) = writes.split_at(changes.len());
        Self { writes, changes, rest }
    }
}

/// An error with its causes, for people.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use grey_core::change::Change;
    use grey_core::ids::Name;
    use grey_core::key::{Fact, Key};
    use grey_core::tenant::{MAX_LABEL_VALUE, MAX_LABELS, MAX_TENANT_NAME, Tenant};

    use super::*;

    fn large(i: usize) -> Write {
        let mut tenant = Tenant::new(TenantId::new(&format!("{i:063}")).unwrap());
        tenant.name = "n".repeat(MAX_TENANT_NAME);
        for label in 0..MAX_LABELS {
            tenant.labels.insert(Name::new(&format!("{label:063}")).unwrap(), "v".repeat(MAX_LABEL_VALUE));
        }
        tenant.residency = (0..64).map(|region| Name::new(&format!("{region:063}")).unwrap()).collect();
        tenant.tier = Some(Name::new(&"t".repeat(63)).unwrap());
        tenant.region = Some(Name::new(&"r".repeat(63)).unwrap());
        let id = tenant.id.clone();
        let change = Change::Put(Fact::Tenant(Box::new(tenant)));
        Write { kind: Kind::Create, tenant: id, change, expected: u64::MAX }
    }

    fn small(i: usize) -> Write {
        let tenant = TenantId::new(&format!("t{i}")).unwrap();
        Write {
            kind: Kind::Remove,
            change: Change::Removed(Key::Tenant(tenant.clone())),
            tenant,
            expected: 7,
        }
    }

    #[test]
    fn no_batch_is_too_large_and_nothing_is_left_out() {
        let writes: Vec<Write> = (0..600).map(|i| if i % 3 == 0 { large(i) } else { small(i) }).collect();
        for most in [1, 7, 500] {
            let (mut rest, mut cut_off) = (writes.as_slice(), 0);
            while !rest.is_empty() {
                let batch = Batch::cut(rest, most);
                rest = batch.rest;
                cut_off += batch.writes.len();
                assert!((1..=most).contains(&batch.writes.len()));
                let request = control::ApplyChangeSetRequest { changes: batch.changes, write: None };
                assert!(request.encoded_len() < 1 << 20, "{}", request.encoded_len());
            }
            assert_eq!(cut_off, writes.len());
        }
        assert!(Batch::cut(&[], 5).writes.is_empty());
    }
}
