//! Heartbeats: a JSON text for each router that expires by itself, and the list of routers.

use super::connection::Link;
use super::leases::millis;
use super::values::{corrupt, items, text};
use super::{keys, scripts};
use crate::heartbeats::{GOODBYE_KEPT, Goodbye, Heartbeat, check_router};
use crate::{Error, Heartbeats};
use async_trait::async_trait;
use grey_core::change::{Epoch, FormatLevel, Position, Revision};
use grey_proto::codec;
use grey_proto::control::RouterState;
use redis::{Pipeline, Value, cmd};
use std::sync::Arc;

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
    async fn beat(&self, heartbeat: &Heartbeat) -> Result<(), Error> {
        let attempted = "announce the router";
        check_router(&heartbeat.router)?;
        let key = keys::router(&heartbeat.router);
        let ttl = millis(heartbeat.lease);
        let state = codec::encode_router_state(&encode(heartbeat));
        let mut set = cmd("SET");
        set.arg(&key).arg(state).arg("PX").arg(ttl);
        self.link.run(attempted, &key, &set).await?;
        let script = &scripts::ROUTERS_ADD;
        let mut call = script.on(&[keys::ROUTERS, keys::ROUTERS_LEFT]);
        call.arg(&heartbeat.router).arg(ttl).arg(entry(&heartbeat.router, heartbeat.run));
        self.link.call(attempted, keys::ROUTERS, script, &call).await.map(drop)
    }

    async fn leave(&self, goodbye: &Goodbye) -> Result<(), Error> {
        let attempted = "take the router off the list";
        let Goodbye { router, run } = goodbye;
        check_router(router)?;
        let key = keys::router(router);
        let script = &scripts::ROUTERS_LEAVE;
        let mut call = script.on(&[keys::ROUTERS, keys::ROUTERS_LEFT]);
        call.arg(router).arg(millis(GOODBYE_KEPT)).arg(entry(router, *run));
        self.link.call(attempted, keys::ROUTERS, script, &call).await?;
        self.link.run(attempted, &key, cmd("DEL").arg(&key)).await.map(drop)
    }

    async fn live(&self) -> Result<Vec<Heartbeat>, Error> {
        let attempted = "list the routers";
        let script = &scripts::ROUTERS_LIVE;
        let routers = self.link.call(attempted, keys::ROUTERS, script, &script.on(&[keys::ROUTERS])).await?;
        let routers = items(keys::ROUTERS, routers)?;
        // What is no id can be no router.
        let routers: Vec<&str> = routers
            .iter()
            .filter_map(|router| text(keys::ROUTERS, router).ok())
            .filter(|router| check_router(router).is_ok())
            .collect();
        let mut get = Pipeline::new();
        for router in &routers {
            get.cmd("GET").arg(keys::router(router));
        }
        let states = self.link.batch(attempted, &get).await?;
        let mut live = Vec::with_capacity(routers.len());
        for (router, state) in routers.iter().zip(states) {
            // What expired since it was listed is gone.
            if state != Value::Nil {
                live.push(decode(router, &state).unwrap_or_else(|error| {
                    tracing::warn!(router.id = router, %error, "a router's heartbeat does not read back");
                    Heartbeat::unreadable(router)
                }));
            }
        }
        live.sort_by(|one, other| one.router.cmp(&other.router));
        Ok(live)
    }

    async fn left(&self) -> Result<Vec<Goodbye>, Error> {
        let (attempted, script) = ("list the routers that left", &scripts::ROUTERS_LIVE);
        let key = keys::ROUTERS_LEFT;
        let routers = items(key, self.link.call(attempted, key, script, &script.on(&[key])).await?)?;
        let mut left: Vec<Goodbye> =
            routers.iter().filter_map(|entry| goodbye(text(key, entry).ok()?)).collect();
        left.sort_unstable();
        Ok(left)
    }
}

/// A run of a router as it stands among those that left; no id holds a space.
fn entry(router: &str, run: u64) -> String {
    format!("{router} {run}")
}

/// Reads an entry; what is none says nothing of any router.
fn goodbye(entry: &str) -> Option<Goodbye> {
    let (router, run) = entry.split_once(' ')?;
    check_router(router).ok()?;
    Some(Goodbye { router: router.to_owned(), run: run.parse().ok()? })
}

fn encode(heartbeat: &Heartbeat) -> RouterState {
    RouterState {
        id: heartbeat.router.clone(),
        run: heartbeat.run,
        address: heartbeat.address.clone(),
        region: heartbeat.region.clone(),
        zone: heartbeat.zone.clone(),
        epoch: heartbeat.position.epoch.0,
        revision: heartbeat.position.revision.0,
        digest: heartbeat.digest,
        stale: heartbeat.stale,
        level: heartbeat.level.0,
        lease: Some(heartbeat.lease.into()),
        ..RouterState::default()
    }
}

fn decode(router: &str, state: &Value) -> Result<Heartbeat, Error> {
    let key = keys::router(router);
    let state = codec::decode_router_state(text(&key, state)?).map_err(|why| corrupt(&key, &why))?;
    if state.id != router {
        return Err(corrupt(&key, &format!("it is about router `{}`", state.id)));
    }
    if i64::try_from(state.run).is_err() {
        return Err(corrupt(&key, &"no router draws such a run"));
    }
    Ok(Heartbeat {
        router: state.id,
        run: state.run,
        address: state.address,
        region: state.region,
        zone: state.zone,
        position: Position { epoch: Epoch(state.epoch), revision: Revision(state.revision) },
        digest: state.digest,
        stale: state.stale,
        level: FormatLevel(state.level),
        lease: state.lease.and_then(|lease| lease.try_into().ok()).unwrap_or_default(),
    })
}
