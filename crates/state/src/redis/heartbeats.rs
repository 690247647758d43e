//! Heartbeats: a JSON text for each router that expires by itself, and the list of routers.

use super::connection::Link;
use super::leases::millis;
use super::values::{corrupt, items, text};
use super::{keys, scripts};
use crate::heartbeats::{Heartbeat, check_router};
use crate::{Error, Heartbeats};
use async_trait::async_trait;
use grey_core::change::{Generation, Position, Revision};
use grey_proto::control::RouterState;
use redis::{Pipeline, Value, cmd};
use std::sync::Arc;
use std::time::Duration;

pub(super) struct RedisHeartbeats {
    link: Arc<Link>,
}

impl RedisHeartbeats {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self { link }
    }
}

#[async_trait]
impl Heartbeats for RedisHeartbeats {
    async fn beat(&self, heartbeat: &Heartbeat, ttl: Duration) -> Result<(), Error> {
        let attempted = "announce the router";
        check_router(&heartbeat.router)?;
        let key = keys::router(&heartbeat.router);
        let ttl = millis(ttl);
        let state = serde_json::to_string(&encode(heartbeat)).map_err(|why| corrupt(&key, &why))?;
        let mut set = cmd("SET");
        set.arg(&key).arg(state).arg("PX").arg(ttl);
        self.link.run(attempted, &key, &set).await?;
        let script = &scripts::ROUTERS_ADD;
        let mut call = script.on(&[keys::ROUTERS]);
        call.arg(&heartbeat.router).arg(ttl);
        self.link.call(attempted, keys::ROUTERS, script, &call).await.map(drop)
    }

    async fn leave(&self, router: &str) -> Result<(), Error> {
        let attempted = "take the router off the list";
        check_router(router)?;
        let key = keys::router(router);
        self.link.run(attempted, keys::ROUTERS, cmd("ZREM").arg(keys::ROUTERS).arg(router)).await?;
        self.link.run(attempted, &key, cmd("DEL").arg(&key)).await.map(drop)
    }

    async fn live(&self) -> Result<Vec<Heartbeat>, Error> {
        let attempted = "list the routers";
        let script = &scripts::ROUTERS_LIVE;
        let routers = self.link.call(attempted, keys::ROUTERS, script, &script.on(&[keys::ROUTERS])).await?;
        let mut stored = Vec::new();
        let mut get = Pipeline::new();
        for router in items(keys::ROUTERS, routers)? {
            let key = keys::router(text(keys::ROUTERS, &router)?);
            get.cmd("GET").arg(&key);
            stored.push(key);
        }
        let states = self.link.batch(attempted, &get).await?;
        let mut live = Vec::with_capacity(stored.len());
        for (key, state) in stored.iter().zip(states) {
            // What expired since it was listed is gone.
            if state != Value::Nil {
                live.push(decode(key, text(key, &state)?)?);
            }
        }
        live.sort_by(|one, other| one.router.cmp(&other.router));
        Ok(live)
    }
}

fn encode(heartbeat: &Heartbeat) -> RouterState {
    RouterState {
        id: heartbeat.router.clone(),
        address: heartbeat.address.clone(),
        region: heartbeat.region.clone(),
        zone: heartbeat.zone.clone(),
        generation: heartbeat.position.generation.to_string(),
        revision: heartbeat.position.revision.0,
        digest: heartbeat.digest,
        stale: heartbeat.stale,
    }
}

fn decode(key: &str, text: &str) -> Result<Heartbeat, Error> {
    let state: RouterState = serde_json::from_str(text).map_err(|why| corrupt(key, &why))?;
    if keys::router(&state.id) != key {
        return Err(corrupt(key, &format!("it is about router `{}`", state.id)));
    }
    Ok(Heartbeat {
        router: state.id,
        address: state.address,
        region: state.region,
        zone: state.zone,
        position: Position {
            generation: Generation(state.generation.into()),
            revision: Revision(state.revision),
        },
        digest: state.digest,
        stale: state.stale,
    })
}
