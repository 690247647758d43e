//! Following events: the projection is loaded once, then the feed is applied.

use super::tables::Applied;
use super::{Drift, Follower, NotCurrent, Pause};
use crate::feed::FeedRead;
use crate::load::{Loaded, load};
use crate::{Error, publisher};
use grey_core::change::FormatLevel;
use std::time::Instant;

/// What came of one step.
enum Step {
    Went,
    /// The store is there but cannot be followed yet.
    NotYet(&'static str),
}

impl Follower {
    pub(super) async fn follow_events(&self) {
        let mut pause = Pause::new(self.options.backoff);
        let mut drift = Drift::default();
        loop {
            match self.next_events(&mut drift).await {
                Ok(Step::Went) => pause.reset(),
                Ok(Step::NotYet(why)) => {
                    tracing::debug!(why, "no step along the feed");
                    pause.wait("routing table cannot be brought up to date yet", None).await;
                }
                Err(error) => {
                    if let Error::Corrupt { .. } = error {
                        self.ask_for_check(&super::chain(&error)).await;
                    }
                    pause.wait("shared state is away; the last good table stays in use", Some(&error)).await;
                }
            }
        }
    }

    async fn next_events(&self, drift: &mut Drift) -> Result<Step, Error> {
        if self.tables.differs() {
            drift.noticed();
        } else {
            *drift = Drift::default();
        }
        if drift.is_due() {
            // Whatever comes of it, the feed is followed on, from wherever the table is then.
            let begun = Instant::now();
            let loaded = self.load_table().await;
            drift.tried(begun.elapsed());
            loaded?;
        }
        let Some(position) = self.tables.loaded_position() else {
            return self.load_table().await;
        };
        let (level, batch, wait) = (self.options.level, self.options.batch, drift.wait(self.options.wait));
        match self.state.feed.read(&position, level, batch, wait).await {
            Ok(FeedRead::Idle) => Ok(Step::Went),
            Ok(FeedRead::Entries(entries)) => {
                self.tables.set_needed(None);
                match self.tables.apply(entries) {
                    Applied::InStep => {}
                    Applied::Differs => self.drifted("by the feed").await,
                    Applied::OutOfOrder => return self.load_table().await,
                }
                Ok(Step::Went)
            }
            Ok(FeedRead::Above(needed)) => Ok(self.above(needed)),
            Ok(FeedRead::Lost) => self.load_table().await,
            Err(error @ Error::Corrupt { .. }) => {
                // The projection leads past what does not read back in the feed.
                self.ask_for_check(&super::chain(&error)).await;
                match self.load_table().await? {
                    Step::Went if self.tables.loaded_position() > Some(position) => Ok(Step::Went),
                    _ => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    fn above(&self, needed: FormatLevel) -> Step {
        if self.tables.set_needed(Some(needed)) {
            let why = NotCurrent::Above { needed, own: self.options.level };
            tracing::error!(%why, "events are neither applied nor acknowledged");
        }
        Step::NotYet("a higher format level is needed")
    }

    /// The table differs from the publisher's: one of them, or the projection, has to be mended.
    pub(super) async fn drifted(&self, how: &'static str) {
        let table = self.tables.load().position();
        tracing::warn!(table.revision = %table.revision, how, "table differs from the publisher's");
        self.ask_for_check(&format!("a table differs at {table}")).await;
    }

    /// Loads a table; it is taken only if it is what the publisher has at that revision.
    async fn load_table(&self) -> Result<Step, Error> {
        match load(&self.state, self.options.level, self.options.batch).await? {
            Loaded::Table { table, verified, damage } => {
                if let Some(first) = damage.first() {
                    tracing::warn!(
                        key = first.key,
                        why = first.why,
                        count = damage.len(),
                        "projection is damaged"
                    );
                }
                if !verified || !damage.is_empty() {
                    self.ask_for_check(damage.first().map_or("a loaded table differs", |first| &first.key))
                        .await;
                }
                if !verified {
                    return Ok(Step::NotYet("what was loaded is not what the publisher has"));
                }
                Ok(if self.tables.replace(*table) { Step::Went } else { Step::NotYet("the store is behind") })
            }
            Loaded::Above(needed) => Ok(self.above(needed)),
            Loaded::NotYet(why) => Ok(Step::NotYet(why)),
        }
    }

    /// Asks the publisher to compare the projection with the log now. It does so by itself as well, only later.
    pub(super) async fn ask_for_check(&self, why: &str) {
        if !self.asked.is_due() {
            return;
        }
        if let Err(error) = publisher::ask_for_check(&self.state, why).await {
            tracing::debug!(%error, "publisher could not be asked for a check");
        }
    }
}
