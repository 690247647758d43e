//! The step about a registry that errs.

use anyhow::{Context, ensure};
use grey_proto::sync::{HeldChange, HoldReason, SourceState, SyncSource};

use super::{Story, until};
use crate::demo::world;

impl Story {
    /// Step 6: what a registry says in error changes nothing.
    pub(super) async fn doubt(&self) -> anyhow::Result<()> {
        // As a program leaves it that was killed while it wrote.
        self.registry.replace("")?;
        let failing = self.until_source("a file without content is told as a failure", |source| {
            source.state() == SourceState::Failing
        });
        let failing = failing.await?;
        self.turnover().await?;
        self.no_failures()?;
        self.screen.say(&format!(
            "6 doubt        the registry's file was emptied: registry-sync is FAILING ({}), every instance stays, no call fails",
            failing.error
        ));

        let mut forgetful = self.backends.listings();
        forgetful.retain(|listing| listing.service != "payment");
        self.registry.list(&forgetful)?;
        let held = self.until_held("the loss of every instance of payment is held").await?;
        ensure!(held.reason() == HoldReason::InstanceDrop, "held for another reason: {held:?}");
        self.turnover().await?;
        self.confirm(world::UNPINNED, "payment", world::DEFAULT).await?;
        self.screen.say(&format!(
            "               then it listed no instance of payment: change {} about {} of {} instances is held until something \
             confirms it, and calls go to them",
            held.id, held.affected, held.total
        ));

        self.registry.list(&self.backends.listings())?;
        let mirror = &self.mirror;
        let in_order = async || {
            let status = mirror.status().await?;
            let ok = status.sources.iter().all(|source| source.state() == SourceState::Ok);
            Ok(ok && !status.leader.is_empty() && status.held_total == 0)
        };
        until("nothing is held any more", in_order).await?;
        self.turnover().await?;
        self.screen.say("               mended: nothing is held any more, and nobody had to do anything");
        self.no_failures()
    }

    /// The registry's file as registry-sync sees it, once it `is` so.
    async fn until_source(&self, what: &str, is: impl Fn(&SyncSource) -> bool) -> anyhow::Result<SyncSource> {
        let mut found = None;
        until(what, async || {
            found = self.mirror.status().await?.sources.into_iter().find(&is);
            Ok(found.is_some())
        })
        .await?;
        found.context("there is a source")
    }

    async fn until_held(&self, what: &str) -> anyhow::Result<HeldChange> {
        let mut found = None;
        until(what, async || {
            found = self.mirror.status().await?.held.into_iter().next();
            Ok(found.is_some())
        })
        .await?;
        found.context("there is a held change")
    }
}
