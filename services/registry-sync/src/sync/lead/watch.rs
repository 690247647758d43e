//! Whether shared state still has what was written.

use std::time::{Duration, Instant};

use grey_state::Error;
use grey_state::instances::Doubt;
use tokio::time::sleep;

use super::super::Sync;
use super::super::work::{Next, doubts};
use super::{PAUSES, REREADS, TAKE};

/// How often is looked whether shared state still announces what was written.
const WATCH: Duration = Duration::from_millis(500);

impl Sync {
    /// Looks whether what was written is still there, and whether a reader doubts it: a store may lose what it had
    /// acknowledged, and others may write to it.
    pub(super) fn watch(&mut self, now: Instant) {
        let Some(leading) = &mut self.leading else { return };
        if !leading.watching && leading.watch_at <= now && leading.writing.is_empty() {
            (leading.watching, leading.watch_at) = (true, now + WATCH);
            let (writes, instances) = (leading.writes, self.parts.state.instances.clone());
            leading.work.spawn(async move { Next::Watched(writes, instances.digest().await) });
        }
        if !leading.doubting {
            leading.doubting = true;
            let state = self.parts.state.clone();
            leading.work.spawn(async move {
                let doubts = doubts(&state, TAKE).await;
                if doubts.is_err() {
                    sleep(PAUSES.1).await;
                }
                Next::Doubted(doubts)
            });
        }
    }

    pub(super) fn watched(&mut self, writes: u64, result: Result<Option<u64>, Error>, now: Instant) {
        let mirror = &self.parts.mirror;
        let Some(leading) = &mut self.leading else { return };
        leading.watching = false;
        match result {
            // Writes since then explain every difference.
            Ok(_) if writes != leading.writes || leading.loading || !mirror.is_written() => {}
            Ok(announced) if announced.unwrap_or(0) == mirror.stored_digest() => {
                leading.reread_at.1 = REREADS.0;
            }
            Ok(_) => {
                tracing::warn!("shared state does not announce the instances that were written");
                leading.reread();
            }
            Err(error) => self.failed(&error, now),
        }
    }

    pub(super) fn doubted(&mut self, result: Result<Vec<Doubt>, Error>, now: Instant) {
        let Some(leading) = &mut self.leading else { return };
        leading.doubting = false;
        match result {
            Ok(doubts) => {
                for doubt in doubts {
                    match doubt {
                        Doubt::Stored => leading.reread(),
                        Doubt::Missing(list) => self.parts.mirror.remind(list, now),
                    }
                }
                self.changed(now);
            }
            Err(error) => self.failed(&error, now),
        }
    }
}
