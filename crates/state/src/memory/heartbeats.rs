//! Heartbeats in memory.

use super::{end_of, lock};
use crate::heartbeats::{GOODBYE_KEPT, Goodbye, Heartbeat, check_router};
use crate::{Error, Heartbeats};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::Mutex;
use tokio::time::Instant;

#[derive(Default)]
pub(super) struct MemoryHeartbeats(Mutex<Routers>);

/// Each until it expires.
#[derive(Default)]
struct Routers {
    live: BTreeMap<String, (Heartbeat, Instant)>,
    left: BTreeMap<Goodbye, Instant>,
}

#[async_trait]
impl Heartbeats for MemoryHeartbeats {
    async fn beat(&self, heartbeat: &Heartbeat) -> Result<(), Error> {
        check_router(&heartbeat.router)?;
        let mut routers = lock(&self.0);
        routers.left.remove(&Goodbye { router: heartbeat.router.clone(), run: heartbeat.run });
        let until = end_of(heartbeat.lease);
        routers.live.insert(heartbeat.router.clone(), (heartbeat.clone(), until));
        Ok(())
    }

    async fn leave(&self, goodbye: &Goodbye) -> Result<(), Error> {
        check_router(&goodbye.router)?;
        let mut routers = lock(&self.0);
        routers.live.remove(&goodbye.router);
        routers.left.insert(goodbye.clone(), end_of(GOODBYE_KEPT));
        Ok(())
    }

    async fn live(&self) -> Result<Vec<Heartbeat>, Error> {
        let mut routers = lock(&self.0);
        let now = Instant::now();
        routers.live.retain(|_, (_, expires)| *expires > now);
        Ok(routers.live.values().map(|(heartbeat, _)| heartbeat.clone()).collect())
    }

    async fn left(&self) -> Result<Vec<Goodbye>, Error> {
        let mut routers = lock(&self.0);
        let now = Instant::now();
        routers.left.retain(|_, expires| *expires > now);
        Ok(routers.left.keys().cloned().collect())
    }
}
