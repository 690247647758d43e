//! Instance lists: a hash for each version, replaced together, and a stream of whole replacements.
//!
//! A replacement is written first and announced second, and a loader takes its place in the stream before it
//! reads, so it sees every replacement in one way or the other. A late write of an old leader is refused by the
//! service's index and by the stream; one to a service that the new leader has not written yet lasts until it does.

use super::connection::{Link, failure};
use super::stream::{Stream, Tail, verdict};
use super::values::{corrupt, fields, items, parsed, text};
use super::{keys, scripts};
use crate::instances::{Cursor, InstancesRead, ServiceInstances, by_id};
use crate::{Error, FencingToken, Instances};
use async_trait::async_trait;
use grey_core::ids::ServiceId;
use grey_core::instance::Instance;
use grey_proto::codec;
use redis::{Pipeline, Value, cmd};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Replacements read at once.
const READ_LIMIT: usize = 100;
/// Services read at once.
const LOAD_BATCH: usize = 50;
/// Attempts to write or read a service whose versions change at the same time.
const ATTEMPTS: usize = 50;
/// The field of an index that is no version.
const TOKEN: &str = "#token";

pub(super) struct RedisInstances {
    link: Arc<Link>,
    stream: Stream,
    length: u64,
}

impl RedisInstances {
    pub(super) fn new(link: Arc<Link>, length: u64) -> Self {
        let stream = Stream::new(Arc::clone(&link), keys::INSTANCES, "read instance lists");
        Self { link, stream, length }
    }

    /// The versions of each service that have instances.
    async fn versions(&self, services: &[ServiceId]) -> Result<Vec<BTreeSet<String>>, Error> {
        let mut ask = Pipeline::with_capacity(services.len());
        for service in services {
            ask.cmd("HKEYS").arg(keys::instance_index(service.as_str()));
        }
        let answers = self.link.batch("read instance lists", &ask).await?;
        let read = |(service, answer): (&ServiceId, Value)| {
            let key = keys::instance_index(service.as_str());
            let names = items(&key, answer)?;
            let names = names.iter().map(|name| text(&key, name).map(str::to_owned));
            let mut names: BTreeSet<String> = names.collect::<Result<_, _>>()?;
            names.remove(TOKEN);
            Ok(names)
        };
        services.iter().zip(answers).map(read).collect()
    }

    /// Reads the lists of some services, each as of one moment; those whose versions changed are left out.
    async fn lists(&self, services: &[ServiceId]) -> Result<Vec<Option<ServiceInstances>>, Error> {
        let versions = self.versions(services).await?;
        let script = &scripts::INSTANCES_LIST;
        let mut calls = Pipeline::with_capacity(services.len());
        for (service, versions) in services.iter().zip(&versions) {
            let service = service.as_str();
            let mut keys = vec![keys::instance_index(service)];
            keys.extend(versions.iter().map(|version| keys::version_instances(service, version)));
            calls.add_command(script.on(&keys));
        }
        let answers = self.link.call_batch("read instance lists", script, &calls).await?;
        services
            .iter()
            .zip(&versions)
            .zip(answers)
            .map(|((id, versions), answer)| list(id, versions, answer))
            .collect()
    }

    async fn write(&self, token: FencingToken, list: &ServiceInstances) -> Result<(), Error> {
        let attempted = "replace an instance list";
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
            call.arg(token.0);
            for version in versions {
                let instances = by_version.get(version).map_or(&[][..], Vec::as_slice);
                call.arg(version).arg(instances.len());
                for instance in instances {
                    call.arg(instance.id.as_str()).arg(codec::encode_instance(instance));
                }
            }
            let answer = self.link.call(attempted, &index, script, &call).await?;
            if verdict(attempted, &index, &answer)? != "changed" {
                return Ok(());
            }
        }
        Err(corrupt(&index, "its versions change all the time"))
    }
}

#[async_trait]
impl Instances for RedisInstances {
    async fn replace(&self, token: FencingToken, list: &ServiceInstances) -> Result<(), Error> {
        let attempted = "replace an instance list";
        if let Some(ends) = self.stream.ends().await?
            && ends.token > token
        {
            return Err(Error::Fenced { attempted, newest: ends.token.0 });
        }
        let mut add = cmd("SADD");
        add.arg(keys::INSTANCE_SERVICES).arg(list.service.as_str());
        self.link.run(attempted, keys::INSTANCE_SERVICES, &add).await?;
        self.write(token, list).await?;

        let script = &scripts::INSTANCES_ANNOUNCE;
        let mut call = script.on(&[keys::INSTANCES]);
        call.arg(token.0).arg(Uuid::new_v4().to_string());
        call.arg(codec::encode_service_instances(&list.service, &list.instances)).arg(self.length);
        let answer = self.link.call(attempted, keys::INSTANCES, script, &call).await?;
        verdict(attempted, keys::INSTANCES, &answer).map(drop)
    }

    async fn load(&self) -> Result<(Vec<ServiceInstances>, Cursor), Error> {
        let attempted = "read instance lists";
        let ends = self.stream.ends().await?;
        let cursor = ends.map_or_else(Cursor::default, |ends| cursor(&ends.generation, ends.last));
        let services = self
            .link
            .run(attempted, keys::INSTANCE_SERVICES, cmd("SMEMBERS").arg(keys::INSTANCE_SERVICES))
            .await?;
        let mut pending = Vec::new();
        for service in items(keys::INSTANCE_SERVICES, services)? {
            let id = ServiceId::new(text(keys::INSTANCE_SERVICES, &service)?);
            pending.push(id.map_err(|why| corrupt(keys::INSTANCE_SERVICES, &why))?);
        }
        pending.sort_unstable();
        let mut lists = Vec::with_capacity(pending.len());
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
                lists.sort_by(|one, other| one.service.cmp(&other.service));
                return Ok((lists, cursor));
            }
        }
        Err(corrupt(&keys::instance_index(pending[0].as_str()), "its versions change all the time"))
    }

    async fn read(&self, after: &Cursor, wait: Duration) -> Result<InstancesRead, Error> {
        let (generation, number) = match after.0.split_once(' ') {
            Some((generation, number)) => match number.parse() {
                Ok(number) => (Some(generation), number),
                Err(_) => return Ok(InstancesRead::Lost),
            },
            None if after.0.is_empty() => (None, 0),
            None => return Ok(InstancesRead::Lost),
        };
        let (generation, entries) = match self.stream.follow(generation, number, READ_LIMIT, wait).await? {
            Tail::Entries(generation, entries) => (generation, entries),
            Tail::Idle => return Ok(InstancesRead::Idle),
            Tail::Lost => return Ok(InstancesRead::Lost),
        };
        let next = cursor(&generation, entries.last().map_or(number, |entry| entry.number));
        let lists = entries.into_iter().map(|entry| {
            let list = codec::decode_service_instances(&entry.payload);
            let (service, mut instances) =
                list.map_err(|why| corrupt(keys::INSTANCES, &format!("at {}: {why}", entry.number)))?;
            instances.sort_by(by_id);
            Ok(ServiceInstances { service, instances })
        });
        Ok(InstancesRead::Replaced(lists.collect::<Result<_, Error>>()?, next))
    }
}

fn cursor(generation: &str, number: u64) -> Cursor {
    Cursor(format!("{generation} {number}"))
}

/// Reads index and hashes; none if the versions are not those that were asked for.
fn list(
    id: &ServiceId,
    versions: &BTreeSet<String>,
    answer: Value,
) -> Result<Option<ServiceInstances>, Error> {
    let index = keys::instance_index(id.as_str());
    if let Value::ServerError(error) = answer {
        return Err(failure("read instance lists", &index, error.into()));
    }
    let mut hashes = items(&index, answer)?.into_iter();
    let mut counts = BTreeMap::new();
    for (version, count) in fields(&index, &hashes.next().unwrap_or_default())? {
        counts.insert(text(&index, version)?.to_owned(), text(&index, count)?.to_owned());
    }
    counts.remove(TOKEN);
    if !counts.keys().eq(versions.iter()) {
        return Ok(None);
    }
    let mut instances = Vec::new();
    for ((version, count), hash) in counts.iter().zip(hashes) {
        let key = keys::version_instances(id.as_str(), version);
        let before = instances.len();
        for (field, value) in fields(&key, &hash)? {
            let instance = codec::decode_instance(text(&key, value)?).map_err(|why| corrupt(&key, &why))?;
            if instance.version.as_str() != version || instance.id.as_str() != text(&key, field)? {
                return Err(corrupt(
                    &key,
                    &format!("it holds instance `{}` of {}", instance.id, instance.version),
                ));
            }
            instances.push(instance);
        }
        if instances.len() - before != parsed::<usize>(&index, "a count", count)? {
            return Err(corrupt(
                &key,
                &format!("it holds {} of {count} instances", instances.len() - before),
            ));
        }
    }
    instances.sort_by(by_id);
    Ok(Some(ServiceInstances { service: id.clone(), instances }))
}
