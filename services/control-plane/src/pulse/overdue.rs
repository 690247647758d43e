//! Takes back holds whose strict move did not end: whoever made it died in between, or could not take it back itself.

use std::time::Duration;

use grey_core::change::{Change, Principal};
use grey_core::error::Reason;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use tokio_util::sync::CancellationToken;

use crate::command::{Command, Commands, Error, Intent, Proposed, chain, now_ms};
use crate::database::Database;
use crate::entity::{holds, signed, unsigned};

const EVERY: Duration = Duration::from_secs(1);
/// Holds that one command takes back.
const AT_ONCE: u64 = 1_000;

/// The look at holds. Every replica takes it; whichever comes first takes them back.
pub(crate) struct Overdue {
    database: Database,
    commands: Commands,
}

impl Overdue {
    pub(crate) fn new(database: Database, commands: Commands) -> Self {
        Self { database, commands }
    }

    pub(super) async fn run(self, token: CancellationToken) {
        loop {
            match self.take_back().await {
                Ok(0) => {}
                Ok(holds) => tracing::warn!(holds, "took back holds of strict moves that did not end"),
                // Another replica was first, or a move ended just now.
                Err(Error::Refused(refusal)) if refusal.reason == Reason::RevisionMismatch => {}
                Err(error) => {
                    tracing::debug!(error = %chain(&error), "holds that are overdue could not be taken back");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = token.cancelled() => return,
            }
        }
    }

    async fn take_back(&self) -> Result<usize, Error> {
        let overdue = holds::Entity::find()
            .filter(holds::Column::UntilMs.lt(signed(now_ms())))
            .order_by_asc(holds::Column::UntilMs)
            .limit(AT_ONCE);
        let overdue = overdue.all(self.database.readers());
        let overdue = self.database.read("read overdue holds", overdue).await?;
        if overdue.is_empty() {
            return Ok(0);
        }
        let mut changes = Vec::with_capacity(overdue.len());
        for row in &overdue {
            let expected = Some(unsigned("holds", row.revision)?);
            changes.push(Proposed { change: Change::Removed(row.key()?), expected });
        }
        let reason = "the strict move did not end in time".to_owned();
        let principal = Principal::named("control-plane");
        self.commands
            .execute(Command { principal, reason, intent: Intent::Changes(changes), ..Command::default() })
            .await?;
        Ok(overdue.len())
    }
}
