//! Instance lists: a hash for each version, replaced together, a stream of whole replacements, and the digest of every
//! list beside the stream.
//!
//! A replacement is written first and announced second, and a loader takes its place in the stream before it
//! reads, so it sees every replacement in one way or the other. Which services there are and what their digests are is
//! written with the announcement, so a late write of an old leader is refused there as by the service's index. One to a
//! service that the new leader has not written yet lasts until it does; that it was never announced is told meanwhile.

mod begin;
mod found;

use super::connection::{Link, failure};
use super::stream::{Place, Stream, Tail, verdict};
use super::values::{corrupt, items, text};
use super::{keys, scripts};
use crate::instances::{Cursor, Damaged, InstancesRead, Loaded, ServiceInstances, by_id};
use crate::{Error, FencingToken, Instances};
use async_trait::async_trait;
use begin::Begin;
use found::{Found, is_version};
use grey_core::ids::ServiceId;
use grey_core::instance::Instance;
use grey_proto::codec;
use redis::{Pipeline, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use uuid::Uuid;

/// Replacements read at once.
const READ_LIMIT: usize = 100;
/// Services read at once.
const LOAD_BATCH: usize = 50;
/// Attempts to write or read a service whose versions change at the same time.
const ATTEMPTS: usize = 50;
/// What reads and writes are told as.
const READ: &str = "read instance lists";
const REPLACE: &str = "replace an instance list";

pub(super) struct RedisInstances {
    link: Arc<Link>,
    stream: Stream,
    length: u64,
    /// The digests beside the stream were found damaged: the next announcement adds them up again.
    add_up: AtomicBool,
}

impl RedisInstances {
    pub(super) fn new(link: Arc<Link>, length: u64) -> Self {
        let stream = Stream::new(Arc::clone(&link), keys::INSTANCES, READ);
        Self { link, stream, length, add_up: AtomicBool::new(false) }
    }

    async fn begin(&self) -> Result<Begin, Error> {
        let script = &scripts::INSTANCES_BEGIN;
        let call = script.on(&[keys::INSTANCES, keys::INSTANCE_DIGESTS]);
        let begin = Begin::read(self.link.call(READ, keys::INSTANCES, script, &call).await?);
        if begin.as_ref().map_or(true, |begin| !begin.damaged.is_empty()) {
            self.add_up.store(true, Relaxed);
        }
        begin
    }

    /// The versions of each service that have instances. An index that does not read names none.
    async fn versions(&self, services: &[ServiceId]) -> Result<Vec<BTreeSet<String>>, Error> {
        let mut ask = Pipeline::with_capacity(services.len());
        for service in services {
            ask.cmd("HKEYS").arg(keys::instance_index(service.as_str()));
        }
        let answers = self.link.batch(READ, &ask).await?;
        let read = |(service, answer): (&ServiceId, Value)| {
            let key = keys::instance_index(service.as_str());
            if let Value::ServerError(error) = answer {
                return match failure(READ, &key, error.into()) {
                    Error::Corrupt { .. } => Ok(BTreeSet::new()),
                    error => Err(error),
                };
            }
            let names = items(&key, answer)?;
            let names = names.iter().filter_map(|name| text(&key, name).ok());
            Ok(names.filter(|name| is_version(name)).map(str::to_owned).collect())
        };
        services.iter().zip(answers).map(read).collect()
    }

    /// Reads the lists of some services, each as of one moment; those whose versions changed are left out.
    async fn lists(&self, services: &[ServiceId]) -> Result<Vec<Option<Found>>, Error> {
        let versions = self.versions(services).await?;
        let script = &scripts::INSTANCES_LIST;
        let mut calls = Pipeline::with_capacity(services.len());
        for (service, versions) in services.iter().zip(&versions) {
            let service = service.as_str();
            let mut keys = vec![keys::instance_index(service)];
            keys.extend(versions.iter().map(|version| keys::version_instances(service, version)));
            calls.add_command(script.on(&keys));
        }
        let answers = self.link.call_batch(READ, script, &calls).await?;
        let found = services.iter().zip(&versions).zip(answers);
        found.map(|((id, versions), answer)| Found::read(id, versions, answer)).collect()
    }

    /// Reads all lists of `services`; those whose versions change all the time are left out and told as damaged.
    async fn all_lists(&self, services: Vec<ServiceId>) -> Result<(Vec<Found>, Vec<Damaged>), Error> {
        let (mut lists, mut pending) = (Vec::with_capacity(services.len()), services);
        for _ in 0..ATTEMPTS {
            let mut changed = Vec::new();
            for batch in pending.chunks(LOAD_BATCH) {
                for (service, list) in batch.iter().zip(self.lists(batch).await?) {
                    match list {
                        Some(list) => lists.push(list),
                        None => changed.push(service.clone()),
                    }
                }
            }
            pending = changed;
            if pending.is_empty() {
                break;
            }
        }
        lists.sort_by(|one, other| one.list.service.cmp(&other.list.service));
        let restless = |service: ServiceId| {
            let why = corrupt(&keys::instance_index(service.as_str()), "its versions change all the time");
            Damaged { service: Some(service), why: why.to_string() }
        };
        Ok((lists, pending.into_iter().map(restless).collect()))
    }

    async fn write(&self, token: FencingToken, list: &ServiceInstances) -> Result<(), Error> {
        let service = list.service.as_str();
        let index = keys::instance_index(service);
        let mut by_version: BTreeMap<&str, Vec<&Instance>> = BTreeMap::new();
        for instance in &list.instances {
            by_version.entry(instance.version.as_str()).or_default().push(instance);
        }
        let script = &scripts::INSTANCES_REPLACE;
        for _ in 0..ATTEMPTS {
            let old = self.versions(std::slice::from_ref(&list.service)).await?.pop().unwrap_or_default();
            let versions: BTreeSet<&str> =
                old.iter().map(String::as_str).chain(by_version.keys().copied()).collect();
            let mut keys = vec![index.clone()];
            keys.extend(versions.iter().map(|version| keys::version_instances(service, version)));
            let mut call = script.on(&keys);
            call.arg(token.0).arg(digits(list.digest()));
            for version in versions {
                let instances = by_version.get(version).map_or(&[][..], Vec::as_slice);
                call.arg(version).arg(instances.len());
                for instance in instances {
                    call.arg(instance.id.as_str()).arg(codec::encode_instance(instance));
                }
            }
            let answer = self.link.call(REPLACE, &index, script, &call).await?;
            if verdict(REPLACE, &index, &answer)? != "changed" {
                return Ok(());
            }
        }
        Err(corrupt(&index, "its versions change all the time"))
    }

    async fn announce(
        &self,
        token: FencingToken,
        list: &ServiceInstances,
        add_up: bool,
    ) -> Result<(), Error> {
        let script = &scripts::INSTANCES_ANNOUNCE;
        let mut call = script.on(&[keys::INSTANCES, keys::INSTANCE_DIGESTS]);
        call.arg(token.0).arg(Uuid::new_v4().to_string()).arg(format!("{:016x}", rand::random::<u64>()));
        call.arg(list.service.as_str()).arg(digits(list.digest()));
        call.arg(codec::encode_service_instances(&list.service, &list.instances)).arg(self.length);
        call.arg(u8::from(add_up));
        let answer = self.link.call(REPLACE, keys::INSTANCES, script, &call).await?;
        verdict(REPLACE, keys::INSTANCES, &answer).map(drop)
    }
}

#[async_trait]
impl Instances for RedisInstances {
    async fn replace(&self, token: FencingToken, list: &ServiceInstances) -> Result<(), Error> {
        match self.stream.ends().await {
            Ok(Some(ends)) if ends.token > token => {
                return Err(Error::Fenced { attempted: REPLACE, newest: ends.token.0 });
            }
            // What is damaged of the stream is mended with the announcement.
            Ok(_) | Err(Error::Corrupt { .. }) => {}
            Err(error) => return Err(error),
        }
        self.write(token, list).await?;
        let add_up = self.add_up.swap(false, Relaxed);
        let announced = self.announce(token, list, add_up).await;
        if announced.is_err() {
            self.add_up.fetch_or(add_up, Relaxed);
        }
        announced
    }

    async fn load(&self) -> Result<Loaded, Error> {
        let Begin { cursor, digest, announced, mut damaged } = self.begin().await?;
        let (found, restless) = self.all_lists(announced.keys().cloned().collect()).await?;
        damaged.extend(restless);
        let is_announced = |found: &Found, announced: &BTreeMap<ServiceId, u64>| {
            found.written.is_none() || found.written == announced.get(&found.list.service).copied()
        };
        // What was announced while all was being read is announced.
        let unannounced = found.iter().any(|found| !is_announced(found, &announced));
        let announced = if unannounced { self.begin().await?.announced } else { announced };
        let mut lists = Vec::with_capacity(found.len());
        for found in found {
            let unannounced = || {
                let key = keys::instance_index(found.list.service.as_str());
                (!is_announced(&found, &announced)).then(|| corrupt(&key, "its list was not announced"))
            };
            let why = found.damage.clone().or_else(|| unannounced().map(|why| why.to_string()));
            damaged.extend(why.map(|why| Damaged { service: Some(found.list.service.clone()), why }));
            lists.push(found.list);
        }
        Ok(Loaded { lists, damaged, cursor, digest })
    }

    async fn list(&self, service: &ServiceId) -> Result<ServiceInstances, Error> {
        let (found, _) = self.all_lists(vec![service.clone()]).await?;
        let list = found.into_iter().map(|found| found.list).next();
        list.ok_or_else(|| {
            corrupt(&keys::instance_index(service.as_str()), "its versions change all the time")
        })
    }

    async fn read(&self, after: &Cursor, wait: Duration) -> Result<InstancesRead, Error> {
        let Some(place) = place(after) else { return Ok(InstancesRead::Lost) };
        let (generation, entries) = match self.stream.follow(place, READ_LIMIT, wait).await {
            Ok(Tail::Entries(generation, entries)) => (generation, entries),
            Ok(Tail::Idle(digest)) => return Ok(InstancesRead::Idle { digest }),
            Ok(Tail::Lost) => return Ok(InstancesRead::Lost),
            Err(error @ Error::Corrupt { .. }) => return Ok(lost(&error)),
            Err(error) => return Err(error),
        };
        let last = entries.last().map(|entry| {
            let digest = entry.digest.as_deref().and_then(|digest| u64::from_str_radix(digest, 16).ok());
            (cursor(&generation, entry.number, &entry.nonce), digest)
        });
        let (next, digest) = last.unwrap_or_else(|| (after.clone(), None));
        let mut lists = Vec::with_capacity(entries.len());
        for entry in entries {
            match codec::decode_service_instances(&entry.payload) {
                Ok((service, mut instances)) => {
                    instances.sort_by(by_id);
                    lists.push(ServiceInstances { service, instances });
                }
                Err(why) => {
                    return Ok(lost(&corrupt(keys::INSTANCES, &format!("at {}: {why}", entry.number))));
                }
            }
        }
        Ok(InstancesRead::Replaced { lists, next, digest })
    }

    async fn digest(&self) -> Result<Option<u64>, Error> {
        match self.stream.ends().await {
            Ok(ends) => Ok(ends.and_then(|ends| ends.digest)),
            Err(Error::Corrupt { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What does not read in the stream is in the lists all the same.
fn lost(why: &Error) -> InstancesRead {
    tracing::warn!(error = %why, "replacements of instance lists do not read, all lists are loaded again");
    InstancesRead::Lost
}

fn digits(digest: u64) -> String {
    format!("{digest:016x}")
}

fn cursor(generation: &str, number: u64, nonce: &str) -> Cursor {
    Cursor(format!("{generation} {number} {nonce}"))
}

fn place(cursor: &Cursor) -> Option<Place<'_>> {
    if cursor.0.is_empty() {
        return Some(Place { generation: None, number: 0, nonce: "" });
    }
    let mut parts = cursor.0.split(' ');
    let (generation, number, nonce) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
    Some(Place { generation: Some(generation), number, nonce })
}
