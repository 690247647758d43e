//! Statuses of leaders: a string each, `<token> <status>`, with an expiry.

use super::connection::Link;
use super::leases::millis;
use super::values::{corrupt, parsed, text};
use super::{keys, scripts};
use crate::{Error, FencingToken, Statuses};
use async_trait::async_trait;
use grey_core::ids::Name;
use redis::{Value, cmd};
use std::sync::Arc;
use std::time::Duration;

pub(super) struct RedisStatuses {
    link: Arc<Link>,
}

impl RedisStatuses {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self { link }
    }
}

#[async_trait]
impl Statuses for RedisStatuses {
    async fn publish(
        &self,
        name: &Name,
        token: FencingToken,
        status: &[u8],
        ttl: Duration,
    ) -> Result<(), Error> {
        let (attempted, key) = ("publish a status", keys::status(name));
        let script = &scripts::STATUS_PUBLISH;
        let mut call = script.on(&[&key]);
        call.arg(token.0).arg(status).arg(millis(ttl));
        match self.link.call(attempted, &key, script, &call).await? {
            Value::Nil => Ok(()),
            newest => {
                Err(Error::Fenced { attempted, newest: parsed(&key, "the token", text(&key, &newest)?)? })
            }
        }
    }

    async fn read(&self, name: &Name) -> Result<Option<Vec<u8>>, Error> {
        let key = keys::status(name);
        match self.link.run("read a status", &key, cmd("GET").arg(&key)).await? {
            Value::Nil => Ok(None),
            Value::BulkString(told) => {
                let space = told.iter().position(|byte| *byte == b' ');
                let at = space.ok_or_else(|| corrupt(&key, "it has no token"))?;
                Ok(Some(told.get(at + 1..).unwrap_or_default().to_vec()))
            }
            _ => Err(corrupt(&key, "it is no string")),
        }
    }
}
