//! Leases in memory.

use super::lock;
use crate::{Error, FencingToken, Leases};
use async_trait::async_trait;
use grey_core::ids::Name;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

#[derive(Default)]
pub(super) struct MemoryLeases(Mutex<BTreeMap<Name, Lease>>);

struct Lease {
    token: u64,
    /// None once it was given up.
    held: Option<(String, Instant)>,
}

#[async_trait]
impl Leases for MemoryLeases {
    async fn acquire_above(
        &self,
        name: &Name,
        holder: &str,
        ttl: Duration,
        above: FencingToken,
    ) -> Result<Option<FencingToken>, Error> {
        let now = Instant::now();
        let mut leases = lock(&self.0);
        let lease = leases.entry(name.clone()).or_insert(Lease { token: 0, held: None });
        match &lease.held {
            Some((other, expires)) if *expires > now && other != holder => return Ok(None),
            Some((_, expires)) if *expires > now && lease.token > above.0 => {}
            _ => lease.token = now_ms().max(lease.token.max(above.0).saturating_add(1)),
        }
        lease.held = Some((holder.to_owned(), now + ttl));
        Ok(Some(FencingToken(lease.token)))
    }

    async fn release(&self, name: &Name, holder: &str) -> Result<(), Error> {
        if let Some(lease) = lock(&self.0).get_mut(name)
            && lease.held.as_ref().is_some_and(|(held_by, _)| held_by == holder)
        {
            lease.held = None;
        }
        Ok(())
    }
}

/// Milliseconds since the Unix epoch: a token that outgrows those of an earlier process.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
