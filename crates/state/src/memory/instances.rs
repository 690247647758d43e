//! Instance lists in memory.

use super::feed::fence;
use super::{end_of, lock};
use crate::instances::{Cursor, InstancesRead, Loaded, ServiceInstances, by_id};
use crate::{Error, FencingToken, Instances};
use async_trait::async_trait;
use grey_core::ids::ServiceId;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout_at;

pub(super) struct MemoryInstances {
    length: usize,
    lists: Mutex<Lists>,
    replaced: Notify,
}

#[derive(Default)]
struct Lists {
    token: Option<FencingToken>,
    current: BTreeMap<ServiceId, ServiceInstances>,
    /// Of all current lists.
    digest: u64,
    /// The last replacements, the newest of which is number `count`.
    replacements: VecDeque<ServiceInstances>,
    count: usize,
}

impl Lists {
    fn digest(&self) -> Option<u64> {
        (self.count > 0).then_some(self.digest)
    }

    fn cursor(&self) -> Cursor {
        Cursor(self.count.to_string())
    }
}

impl MemoryInstances {
    pub(super) fn new(length: usize) -> Self {
        Self { length: length.max(1), lists: Mutex::default(), replaced: Notify::new() }
    }

    fn replacements_after(&self, after: &Cursor) -> InstancesRead {
        let lists = lock(&self.lists);
        let digest = lists.digest();
        let seen = if after.0.is_empty() { Some(0) } else { after.0.parse::<usize>().ok() };
        let kept_from = lists.count - lists.replacements.len();
        match seen {
            Some(seen) if seen == lists.count => InstancesRead::Idle { digest },
            Some(seen) if (kept_from..lists.count).contains(&seen) => {
                let new = lists.replacements.iter().skip(seen - kept_from).cloned().collect();
                InstancesRead::Replaced { lists: new, next: lists.cursor(), digest }
            }
            _ => InstancesRead::Lost,
        }
    }
}

#[async_trait]
impl Instances for MemoryInstances {
    async fn replace(&self, token: FencingToken, list: &ServiceInstances) -> Result<(), Error> {
        let mut lists = lock(&self.lists);
        if let Some(seen) = lists.token {
            fence("replace an instance list", token, seen)?;
        }
        let mut list = list.clone();
        list.instances.sort_by(by_id);
        lists.token = Some(token);
        let before = lists.current.insert(list.service.clone(), list.clone());
        let before = before.map_or(0, |before| before.digest());
        lists.digest = lists.digest.wrapping_sub(before).wrapping_add(list.digest());
        lists.replacements.push_back(list);
        lists.count += 1;
        if lists.replacements.len() > self.length {
            lists.replacements.pop_front();
        }
        self.replaced.notify_waiters();
        Ok(())
    }

    async fn load(&self) -> Result<Loaded, Error> {
        let lists = lock(&self.lists);
        Ok(Loaded {
            lists: lists.current.values().cloned().collect(),
            damaged: Vec::new(),
            cursor: lists.cursor(),
            digest: lists.digest(),
        })
    }

    async fn list(&self, service: &ServiceId) -> Result<ServiceInstances, Error> {
        let current = lock(&self.lists).current.get(service).cloned();
        Ok(current.unwrap_or_else(|| ServiceInstances { service: service.clone(), instances: Vec::new() }))
    }

    async fn read(&self, after: &Cursor, wait: Duration) -> Result<InstancesRead, Error> {
        let end = end_of(wait);
        loop {
            let replaced = self.replaced.notified();
            let read = self.replacements_after(after);
            let idle = matches!(read, InstancesRead::Idle { .. });
            if !idle || timeout_at(end, replaced).await.is_err() {
                return Ok(read);
            }
        }
    }

    async fn digest(&self) -> Result<Option<u64>, Error> {
        Ok(lock(&self.lists).digest())
    }
}
