//! Watching the publisher: its sign of life confirms the table, and its digest is compared with the table's.

use super::Follower;
use crate::Error;
use crate::projection::Beat;
use std::time::{Duration, Instant};

/// Time between looks while nothing has confirmed the table.
const UNCONFIRMED: Duration = Duration::from_millis(50);

/// The sign of life seen last, and when it was first seen. The first one of all counts for nothing: it may be old.
#[derive(Default)]
struct Seen {
    last: Option<(Beat, Option<Instant>)>,
}

impl Follower {
    pub(super) async fn watch_publisher(&self) {
        let mut seen = Seen::default();
        loop {
            if let Err(error) = self.look(&mut seen).await {
                tracing::debug!(error = %super::chain(&error), "publisher's status does not read");
                if let Error::Corrupt { .. } = error {
                    self.ask_for_check(&super::chain(&error)).await;
                }
            }
            let confirmed = self.tables.status().is_current();
            tokio::time::sleep(if confirmed {
                self.options.look
            } else {
                UNCONFIRMED.min(self.options.look)
            })
            .await;
        }
    }

    async fn look(&self, seen: &mut Seen) -> Result<(), Error> {
        // What the table lacked of the beat before, it may have by now.
        self.confirm_by(seen);
        if let Some(beat) = self.state.projection.last_beat().await?
            && seen.last.is_none_or(|(last, _)| last != beat)
        {
            seen.last = Some((beat, seen.last.is_some().then(Instant::now)));
            self.confirm_by(seen);
        }
        // Without an event to tell, this is how a table is found wrong whose revision came to mean something else: the
        // log and the store were both restored.
        if let Some(projected) = self.state.projection.status().await? {
            match self.tables.compare(&projected) {
                Some(true) if self.tables.set_differs(false) => {
                    tracing::info!("table is the publisher's again");
                }
                Some(false) if self.tables.set_differs(true) => {
                    self.drifted("by the projection's digest").await;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn confirm_by(&self, seen: &Seen) {
        if let Some((beat, Some(at))) = seen.last
            && self.tables.loaded_position().is_some_and(|table| {
                table.epoch == beat.position.epoch && table.revision >= beat.position.revision
            })
        {
            self.tables.confirm(at);
        }
    }
}
