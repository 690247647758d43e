//! Brings a plan into the control plane, batch by batch.
//!
//! Each batch is one event: a sync that is interrupted leaves whole batches behind, and the next one finds the rest
//! by comparing anew. Every change states the revision it was planned on, so what somebody else writes meanwhile is
//! never overwritten unseen: the plan is made anew instead.

use std::collections::BTreeMap;

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

/// How many changes of each kind were made.
pub(crate) type Counts = BTreeMap<Kind, u64>;

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
/// `counts` says has been done then.
pub(crate) async fn apply(
    control: &Control,
    known: &mut Known,
    facts: Facts<'_>,
    counts: &mut Counts,
    metrics: &Metrics,
) -> Result<Applied, Error> {
    let (mut rounds, mut unchanged) = (0, None);
    let mut pauses = control.pauses();
    let mut doubts = Doubts { most: control.batch(), in_a_row: 0, refused: BTreeMap::new() };
    // What was sent last without success. It may have been carried out all the same, even after the answer was lost.
    let mut open: Vec<Write> = Vec::new();
    loop {
        known.catch_up(control).await?;
        open.retain(|write| known.reflects(&write.change));
        note(&open, counts, metrics);
        open.clear();
        let mut todo = facts.plan(known);
        doubts.leave_out(&mut todo);
        let unchanged = *unchanged.get_or_insert(todo.unchanged);
        if todo.writes.is_empty() {
            return Ok(Applied { plan: todo, unchanged });
        }
        let mut rest = todo.writes.as_slice();
        while !rest.is_empty() {
            let (batch, more) = cut(rest, doubts.most);
            let changes = batch.iter().map(propose).collect();
            let error = match control.apply(changes, REASON).await {
                Ok(position) => {
                    known.commit(position, batch.iter().map(|write| &write.change));
                    note(batch, counts, metrics);
                    pauses = control.pauses();
                    doubts.settle(control.batch());
                    rest = more;
                    continue;
                }
                Err(error) => error,
            };
            open = batch.to_vec();
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
                Some(reason) if is_about_content(reason) => doubts.refuse(batch, error)?,
                _ => pauses.take(error).await?,
            }
            break;
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

fn note(batch: &[Write], counts: &mut Counts, metrics: &Metrics) {
    for write in batch {
        *counts.entry(write.kind).or_default() += 1;
        metrics.applied(write.kind);
    }
}

fn propose(write: &Write) -> ProposedChange {
    ProposedChange {
        change: Some(control::Change::from(&write.change)),
        expected_revision: Some(write.expected),
    }
}

/// Cuts off the next batch: at most `most` writes, and not too large for a request.
fn cut(writes: &[Write], most: usize) -> (&[Write], &[Write]) {
    let mut bytes = 0;
    let fit = writes.iter().take(most).take_while(|write| {
        bytes += size(write);
        bytes <= MAX_BATCH_BYTES
    });
    // One alone always fits: a tenant has far less bytes than a batch.
    writes.split_at(fit.count().max(1).min(writes.len()))
}

/// A write's bytes in a request, with its tag and length.
fn size(write: &Write) -> usize {
    propose(write).encoded_len() + 8
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
                let (batch, more) = cut(rest, most);
                rest = more;
                cut_off += batch.len();
                assert!((1..=most).contains(&batch.len()));
                let changes = batch.iter().map(propose).collect();
                let request = control::ApplyChangeSetRequest { changes, write: None };
                assert!(request.encoded_len() < 1 << 20, "{}", request.encoded_len());
            }
            assert_eq!(cut_off, writes.len());
        }
        assert_eq!(cut(&[], 5), (&[][..], &[][..]));
    }
}
