//! Heartbeats in memory.

use super::{end_of, lock};
use crate::heartbeats::{Heartbeat, check_router};
use crate::{Error, Heartbeats};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

#[derive(Default)]
pub(super) struct MemoryHeartbeats(Mutex<BTreeMap<String, (Heartbeat, Instant)>>);

#[async_trait]
impl Heartbeats for MemoryHeartbeats {
    async fn beat(&self, heartbeat: &Heartbeat, ttl: Duration) -> Result<(), Error> {
        check_router(&heartbeat.router)?;
        lock(&self.0).insert(heartbeat.router.clone(), (heartbeat.clone(), end_of(ttl)));
        Ok(())
    }

    async fn leave(&self, router: &str) -> Result<(), Error> {
        lock(&self.0).remove(router);
        Ok(())
    }

    async fn live(&self) -> Result<Vec<Heartbeat>, Error> {
        let mut routers = lock(&self.0);
        let now = Instant::now();
        routers.retain(|_, (_, expires)| *expires > now);
        Ok(routers.values().map(|(heartbeat, _)| heartbeat.clone()).collect())
    }
}
