//! Turn counters in memory.

use super::lock;
use crate::turns::LAST_TURN;
use crate::{Error, Turns};
use async_trait::async_trait;
use grey_core::ids::ServiceId;
use grey_core::table::Locality;
use grey_core::version::Version;
use std::collections::BTreeMap;
use std::sync::Mutex;

#[derive(Default)]
pub(super) struct MemoryTurns(Mutex<BTreeMap<Group, u64>>);

/// Service, version and locality.
type Group = (ServiceId, Version, String);

#[async_trait]
impl Turns for MemoryTurns {
    async fn next(
        &self,
        service: &ServiceId,
        version: &Version,
        locality: Locality<'_>,
    ) -> Result<u64, Error> {
        let mut counters = lock(&self.0);
        let group = (service.clone(), version.clone(), locality.to_string());
        let counter = counters.entry(group).or_default();
        *counter = if *counter >= LAST_TURN { 1 } else { *counter + 1 };
        Ok(*counter)
    }
}
