//! Events that are written by SQL, linked as the control plane links them: a publisher follows no others.

use anyhow::{Context as _, Result};
use grey_core::change::{EntryHash, Event};
use grey_proto::codec;
use sea_orm::{ConnectionTrait as _, DatabaseConnection, Statement};
use sha2::{Digest as _, Sha256};

/// The end of a log, to which events are added.
pub(crate) struct Chain(EntryHash);

impl Chain {
    /// The control plane's.
    pub(crate) async fn of(database: &DatabaseConnection) -> Result<Self> {
        let sql = "SELECT hash FROM log_head WHERE id = 1";
        let statement = Statement::from_string(database.get_database_backend(), sql);
        let row = database.query_one_raw(statement).await?.context("read the log's head")?;
        let hash: Option<Vec<u8>> = row.try_get("", "hash")?;
        let hash = hash.map(<[u8; 32]>::try_from).transpose();
        Ok(Self(EntryHash(hash.ok().context("read the newest hash")?.unwrap_or_default())))
    }

    /// The next event's body.
    pub(crate) fn add(&mut self, event: Event) -> Vec<u8> {
        let body = codec::encode_event(&Event { previous: self.0, ..event });
        self.0 = EntryHash(Sha256::digest(&body).into());
        body
    }
}
