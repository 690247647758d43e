//! Turns: a counter for each group of a version's instances.

use super::connection::Link;
use super::values::corrupt;
use super::{keys, scripts};
use crate::turns::LAST_TURN;
use crate::{Error, Turns};
use async_trait::async_trait;
use grey_core::ids::ServiceId;
use grey_core::table::Locality;
use grey_core::version::Version;
use redis::Value;
use std::sync::Arc;
use std::time::Duration;

pub(super) struct RedisTurns {
    link: Arc<Link>,
    deadline: Duration,
}

impl RedisTurns {
    pub(super) fn new(link: Arc<Link>, deadline: Duration) -> Self {
        Self { link, deadline }
    }
}

#[async_trait]
impl Turns for RedisTurns {
    async fn next(
        &self,
        service: &ServiceId,
        version: &Version,
        locality: Locality<'_>,
    ) -> Result<u64, Error> {
        let key = keys::counter(service, version, locality);
        let script = &scripts::TURN;
        let mut call = script.on(&[&key]);
        call.arg(LAST_TURN);
        let turn = self.link.call_within(self.deadline, "take a turn", &key, script, &call).await?;
        match turn {
            Value::Int(turn) => u64::try_from(turn).map_err(|_| corrupt(&key, "the turn is negative")),
            _ => Err(corrupt(&key, "the turn is no number")),
        }
    }
}
