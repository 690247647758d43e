//! Requests in memory.

use super::{end_of, lock};
use crate::requests::LIMIT;
use crate::{Error, Requests};
use async_trait::async_trait;
use grey_core::ids::Name;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout_at;

#[derive(Default)]
pub(super) struct MemoryRequests {
    waiting: Mutex<BTreeMap<Name, Vec<Vec<u8>>>>,
    posted: Notify,
}

impl MemoryRequests {
    fn take_now(&self, name: &Name) -> Vec<Vec<u8>> {
        lock(&self.waiting).remove(name).unwrap_or_default()
    }
}

#[async_trait]
impl Requests for MemoryRequests {
    async fn post(&self, name: &Name, request: &[u8]) -> Result<(), Error> {
        {
            let mut waiting = lock(&self.waiting);
            let queue = waiting.entry(name.clone()).or_default();
            if queue.len() >= LIMIT {
                return Err(Error::Full { attempted: "post a request", limit: LIMIT });
            }
            queue.push(request.to_vec());
        }
        self.posted.notify_waiters();
        Ok(())
    }

    async fn take(&self, name: &Name, wait: Duration) -> Result<Vec<Vec<u8>>, Error> {
        let end = end_of(wait);
        loop {
            // Registered before looking, so that no post in between is missed.
            let posted = self.posted.notified();
            tokio::pin!(posted);
            posted.as_mut().enable();
            let taken = self.take_now(name);
            if !taken.is_empty() || timeout_at(end, posted).await.is_err() {
                return Ok(taken);
            }
        }
    }
}
