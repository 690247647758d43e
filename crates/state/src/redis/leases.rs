//! Leases: a string each, `<token> <expires_ms> <holder>`, by the server's clock.

use super::connection::Link;
use super::values::{parsed, text};
use super::{keys, scripts};
use crate::{Error, FencingToken, Leases};
use async_trait::async_trait;
use grey_core::ids::Name;
use redis::Value;
use std::sync::Arc;
use std::time::Duration;

pub(super) struct RedisLeases {
    link: Arc<Link>,
}

impl RedisLeases {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self { link }
    }
}

#[async_trait]
impl Leases for RedisLeases {
    async fn acquire_above(
        &self,
        name: &Name,
        holder: &str,
        ttl: Duration,
        above: FencingToken,
    ) -> Result<Option<FencingToken>, Error> {
        let key = keys::lease(name);
        let script = &scripts::LEASE_ACQUIRE;
        let mut call = script.on(&[&key]);
        call.arg(holder).arg(millis(ttl)).arg(above.0);
        match self.link.call("acquire a lease", &key, script, &call).await? {
            Value::Nil => Ok(None),
            token => Ok(Some(FencingToken(parsed(&key, "the token", text(&key, &token)?)?))),
        }
    }

    async fn release(&self, name: &Name, holder: &str) -> Result<(), Error> {
        let key = keys::lease(name);
        let script = &scripts::LEASE_RELEASE;
        let mut call = script.on(&[&key]);
        call.arg(holder);
        self.link.call("release a lease", &key, script, &call).await.map(drop)
    }
}

/// Whole milliseconds, at least one, at most a day.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).clamp(1, 86_400_000)
}
