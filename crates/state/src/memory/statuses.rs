//! Statuses in memory.

use super::{end_of, lock};
use crate::{Error, FencingToken, Statuses};
use async_trait::async_trait;
use grey_core::ids::Name;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

#[derive(Default)]
pub(super) struct MemoryStatuses(Mutex<BTreeMap<Name, Told>>);

struct Told {
    token: FencingToken,
    status: Vec<u8>,
    expires: Instant,
}

#[async_trait]
impl Statuses for MemoryStatuses {
    async fn publish(
        &self,
        name: &Name,
        token: FencingToken,
        status: &[u8],
        ttl: Duration,
    ) -> Result<(), Error> {
        let mut statuses = lock(&self.0);
        if let Some(told) =
            statuses.get(name).filter(|told| told.token > token && told.expires > Instant::now())
        {
            return Err(Error::Fenced { attempted: "publish a status", newest: told.token.0 });
        }
        statuses.insert(name.clone(), Told { token, status: status.to_vec(), expires: end_of(ttl) });
        Ok(())
    }

    async fn read(&self, name: &Name) -> Result<Option<Vec<u8>>, Error> {
        let statuses = lock(&self.0);
        let told = statuses.get(name).filter(|told| told.expires > Instant::now());
        Ok(told.map(|told| told.status.clone()))
    }
}
