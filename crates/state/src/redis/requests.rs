//! Requests to leaders: a list each.

use super::connection::Link;
use super::leases::millis;
use super::values::{bytes, corrupt, items};
use super::{keys, scripts};
use crate::requests::LIMIT;
use crate::{Error, Requests};
use async_trait::async_trait;
use grey_core::ids::Name;
use redis::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Time between two looks for requests.
const POLL: Duration = Duration::from_millis(200);
/// Requests that nobody takes for so long are forgotten: who left them has long stopped waiting.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3_600);

pub(super) struct RedisRequests {
    link: Arc<Link>,
}

impl RedisRequests {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self { link }
    }

    async fn take_now(&self, key: &str) -> Result<Vec<Vec<u8>>, Error> {
        let script = &scripts::REQUEST_TAKE;
        let taken = self.link.call("take requests", key, script, &script.on(&[key])).await?;
        let request = |value: &Value| {
            bytes(value).map(<[u8]>::to_vec).ok_or_else(|| corrupt(key, "a request is no text"))
        };
        items(key, taken)?.iter().map(request).collect()
    }
}

#[async_trait]
impl Requests for RedisRequests {
    async fn post(&self, name: &Name, request: &[u8]) -> Result<(), Error> {
        let (attempted, key) = ("post a request", keys::requests(name));
        let script = &scripts::REQUEST_POST;
        let mut call = script.on(&[&key]);
        call.arg(request).arg(LIMIT).arg(millis(FORGOTTEN_AFTER));
        match self.link.call(attempted, &key, script, &call).await? {
            Value::Int(0) => Err(Error::Full { attempted, limit: LIMIT }),
            _ => Ok(()),
        }
    }

    async fn take(&self, name: &Name, wait: Duration) -> Result<Vec<Vec<u8>>, Error> {
        let (key, begun) = (keys::requests(name), Instant::now());
        loop {
            let taken = self.take_now(&key).await?;
            let left = wait.saturating_sub(begun.elapsed());
            if !taken.is_empty() || left.is_zero() {
                return Ok(taken);
            }
            sleep(POLL.min(left)).await;
        }
    }
}
