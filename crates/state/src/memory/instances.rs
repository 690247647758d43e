//! Instance lists in memory.

use super::feed::fence;
use super::{end_of, lock};
use crate::instances::{Cursor, InstancesRead, ServiceInstances, by_id};
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
    /// The last replacements, the newest of which is number `count`.
    replacements: VecDeque<ServiceInstances>,
    count: usize,
}

impl MemoryInstances {
    pub(super) fn new(length: usize) -> Self {
        Self { length: length.max(1), lists: Mutex::default(), replaced: Notify::new() }
    }

    fn replacements_after(&self, after: &Cursor) -> InstancesRead {
        let lists = lock(&self.lists);
        let seen = if after.0.is_empty() { Some(0) } else { after.0.parse::<usize>().ok() };
        let kept_from = lists.count - lists.replacements.len();
        match seen {
            Some(seen) if seen == lists.count => InstancesRead::Idle,
            Some(seen) if (kept_from..lists.count).contains(&seen) => {
                let new = lists.replacements.iter().skip(seen - kept_from).cloned().collect();
                InstancesRead::Replaced(new, Cursor(lists.count.to_string()))
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
        lists.current.insert(list.service.clone(), list.clone());
        lists.replacements.push_back(list);
        lists.count += 1;
        if lists.replacements.len() > self.length {
            lists.replacements.pop_front();
        }
        self.replaced.notify_waiters();
        Ok(())
    }

    async fn load(&self) -> Result<(Vec<ServiceInstances>, Cursor), Error> {
        let lists = lock(&self.lists);
        Ok((lists.current.values().cloned().collect(), Cursor(lists.count.to_string())))
    }

    async fn read(&self, after: &Cursor, wait: Duration) -> Result<InstancesRead, Error> {
        let end = end_of(wait);
        loop {
            let replaced = self.replaced.notified();
            let read = self.replacements_after(after);
            if read != InstancesRead::Idle || timeout_at(end, replaced).await.is_err() {
                return Ok(read);
            }
        }
    }
}
