//! Brings a plan into the control plane, batch by batch.
//!
//! Each batch is one event: a sync that is interrupted leaves whole batches behind, and the next one finds the rest
//! by comparing anew. Every change states the revision it was planned on, so what somebody else writes meanwhile is
//! never overwritten unseen: the plan is made anew instead.

use std::collections::BTreeMap;

use grey_core::change::Change;
use grey_core::error::Reason;
use grey_core::key::Fact;
use grey_proto::control::{self, ProposedChange};

use crate::control::{Control, Error as ControlError, Known};
use crate::diff::{Facts, Kind, Plan, Write};
use crate::metrics::Metrics;

/// Kept in the event log with each batch.
const REASON: &str = "tenant-sync";
/// Most bytes of a batch: the control plane takes requests of 1 MiB.
const MAX_BATCH_BYTES: usize = 768 << 10;
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
/// # Errors
/// The control plane refuses, does not answer for too long, or others keep changing the same tenants. What `counts` says
/// has been done then.
pub(crate) async fn apply(
    control: &Control,
    known: &mut Known,
    facts: Facts<'_>,
    counts: &mut Counts,
    metrics: &Metrics,
) -> Result<Applied, Error> {
    let (mut rounds, mut unchanged) = (0, None);
    let mut pauses = control.pauses();
    // What was sent last without success. It may have been carried out all the same, even after the answer was lost.
    let mut open: Vec<Write> = Vec::new();
    loop {
        known.catch_up(control).await?;
        open.retain(|write| known.reflects(&write.change));
        note(&open, counts, metrics);
        open.clear();
        let todo = facts.plan(known);
        let unchanged = *unchanged.get_or_insert(todo.unchanged);
        if todo.writes.is_empty() {
            return Ok(Applied { plan: todo, unchanged });
        }
        for batch in batches(&todo.writes, control.batch()) {
            let changes = batch.iter().map(propose).collect();
            let error = match control.apply(changes, REASON).await {
                Ok(position) => {
                    known.commit(position, batch.iter().map(|write| &write.change));
                    note(batch, counts, metrics);
                    pauses = control.pauses();
                    continue;
                }
                Err(error) => error,
            };
            open = batch.to_vec();
            if error.reason() != Some(Reason::RevisionMismatch) {
                pauses.take(error).await?;
                break;
            }
            rounds += 1;
            if rounds >= MAX_ROUNDS {
                return Err(Error::Contended(rounds));
            }
            // The log itself may have been restored to an earlier state.
            if rounds > 1 {
                known.forget();
            }
            tracing::info!(error = %chain(&error), "tenants have changed meanwhile, planning anew");
            break;
        }
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

/// Cuts writes into batches of at most `most`, none too large for a request.
fn batches(writes: &[Write], most: usize) -> impl Iterator<Item = &[Write]> {
    let mut rest = writes;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fit = rest.iter().take(most).take_while(|write| {
            bytes += size(write);
            bytes <= MAX_BATCH_BYTES
        });
        // One alone always fits: a tenant has far less bytes than a batch.
        let fit = fit.count().max(1).min(rest.len());
        let (batch, more) = rest.split_at(fit);
        rest = more;
        (!batch.is_empty()).then_some(batch)
    })
}

/// An upper bound of a write's bytes in a request, without writing it.
fn size(write: &Write) -> usize {
    /// For numbers, tags and lengths.
    const AROUND: usize = 96;
    let Change::Put(Fact::Tenant(tenant)) = &write.change else { return AROUND };
    let labels = tenant.labels.iter().map(|(key, value)| key.as_str().len() + value.len() + 16);
    let residency = tenant.residency.iter().map(|region| region.as_str().len() + 4);
    let names =
        [&tenant.tier, &tenant.region].map(|name| name.as_ref().map_or(0, |name| name.as_str().len()));
    AROUND
        + tenant.id.as_str().len()
        + tenant.name.len()
        + names.iter().sum::<usize>()
        + labels.sum::<usize>()
        + residency.sum::<usize>()
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
    use grey_core::ids::{Name, TenantId};
    use grey_core::key::Key;
    use grey_core::tenant::{MAX_LABEL_VALUE, MAX_LABELS, MAX_TENANT_NAME, Tenant};
    use prost::Message;

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
        Write { kind: Kind::Create, change: Change::Put(Fact::Tenant(Box::new(tenant))), expected: u64::MAX }
    }

    fn small(i: usize) -> Write {
        let gone = Change::Removed(Key::Tenant(TenantId::new(&format!("t{i}")).unwrap()));
        Write { kind: Kind::Remove, change: gone, expected: 7 }
    }

    #[test]
    fn no_batch_is_too_large_and_nothing_is_left_out() {
        let writes: Vec<Write> = (0..600).map(|i| if i % 3 == 0 { large(i) } else { small(i) }).collect();
        for most in [1, 7, 500] {
            let batches: Vec<&[Write]> = batches(&writes, most).collect();
            assert_eq!(batches.concat(), writes);
            for batch in batches {
                assert!((1..=most).contains(&batch.len()));
                let changes = batch.iter().map(propose).collect();
                let request = control::ApplyChangeSetRequest { changes, write: None };
                assert!(request.encoded_len() < 1 << 20, "{}", request.encoded_len());
            }
        }
        assert_eq!(batches(&[], 5).count(), 0);
    }

    #[test]
    fn the_bound_of_a_write_holds() {
        for write in [large(1), small(1)] {
            let changes = vec![propose(&write)];
            assert!(control::ApplyChangeSetRequest { changes, write: None }.encoded_len() <= size(&write));
        }
    }
}
