//! Following instances: their lists are loaded once, then replaced one by one, and compared with what was announced.

use super::{Drift, Follower, Pause};
use crate::Error;
use crate::instances::{Cursor, Damaged, Doubt, InstancesRead, Loaded, ServiceInstances, WRITER};
use grey_core::ids::Name;
use grey_core::table::Table;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long lists that keep being replaced may differ from what was announced: replacements on their way explain it.
const PATIENCE: Duration = Duration::from_millis(500);
/// Pauses while what is loaded cannot be followed.
const LOST_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(60));
/// Most lists that the writer is reminded of at once.
const MAX_REMINDERS: usize = 10;

/// Where a follower of instances is.
#[derive(Default)]
struct Following {
    /// None: to be loaded.
    cursor: Option<Cursor>,
    /// Nothing was read since the last load.
    fresh: bool,
    /// Since when the lists differ while they are being replaced.
    since: Option<Instant>,
    /// Since when it is known that no instances were ever announced.
    unannounced: Option<Instant>,
    drift: Drift,
}

enum Step {
    Loaded,
    Read,
    /// What was loaded cannot be followed.
    Lost,
}

impl Follower {
    pub(super) async fn follow_instances(&self) {
        let mut pause = Pause::new(self.options.backoff);
        let mut lost = Pause::new(LOST_PAUSE);
        let mut following = Following::default();
        loop {
            match self.next_instances(&mut following).await {
                Ok(Step::Read) => {
                    pause.reset();
                    lost.reset();
                }
                Ok(Step::Loaded) => pause.reset(),
                Ok(Step::Lost) => lost.wait("instance lists cannot be followed", None).await,
                Err(error) => {
                    if let Error::Corrupt { .. } = error {
                        self.doubt(&Doubt::Stored).await;
                    }
                    pause.wait("instances are away; the last good ones stay in use", Some(&error)).await;
                }
            }
        }
    }

    async fn next_instances(&self, at: &mut Following) -> Result<Step, Error> {
        let Some(cursor) = at.cursor.as_ref().filter(|_| !at.drift.is_due()) else {
            self.load_instances(at).await?;
            return Ok(Step::Loaded);
        };
        match self.state.instances.read(cursor, at.drift.wait(self.options.wait)).await? {
            InstancesRead::Replaced { lists, next, digest } => {
                self.tables.set_instances(lists);
                (at.cursor, at.fresh) = (Some(next), false);
                self.compare_instances(at, digest, PATIENCE);
            }
            InstancesRead::Idle { digest } => {
                at.fresh = false;
                self.compare_instances(at, digest, Duration::ZERO);
            }
            InstancesRead::Lost => {
                at.cursor = None;
                return Ok(if at.fresh { Step::Lost } else { Step::Read });
            }
        }
        Ok(Step::Read)
    }

    async fn load_instances(&self, at: &mut Following) -> Result<(), Error> {
        let (again, begun) = (at.drift.is_due(), Instant::now());
        let loaded = self.state.instances.load().await;
        at.drift.tried(begun.elapsed());
        let loaded = loaded?;
        let table = self.tables.load_full();
        let listed: BTreeSet<&str> = loaded.lists.iter().map(|list| list.service.as_str()).collect();
        let reminders = match loaded.digest {
            Some(_) if again => unlisted(&table, &listed),
            // A store that lost everything is being filled, and may know nothing yet.
            _ => Vec::new(),
        };
        let lists = loaded.lists.iter().filter(|list| {
            let held = table.service(list.service.as_str());
            let (held, stored) = (held.map_or(0, |held| held.instances_digest()), list.digest());
            // The last good list outlives a damaged one.
            stored != held && !(held != 0 && loaded.is_damaged(&list.service))
        });
        self.tables.set_instances(lists.cloned().collect());
        if self.is_announced(at, &loaded) {
            self.tables.instances_loaded();
        }
        self.note_damage(&loaded.damaged);
        (at.cursor, at.fresh) = (Some(loaded.cursor), true);
        if loaded.digest == Some(self.tables.load().instances_digest()) {
            self.agreed(at);
        }
        if !loaded.damaged.is_empty() {
            // It is mended by and by, and nobody announces that.
            at.drift.noticed();
        }
        if again || !loaded.damaged.is_empty() {
            self.doubt(&Doubt::Stored).await;
        }
        for list in reminders {
            self.doubt(&Doubt::Missing(list)).await;
        }
        Ok(())
    }

    /// Whether what was loaded may be believed. A store that was wiped knows nothing until its writer has noticed: a router
    /// that starts just then would be ready without any instances.
    fn is_announced(&self, at: &mut Following, loaded: &Loaded) -> bool {
        if loaded.digest.is_some() || !loaded.lists.is_empty() || !loaded.damaged.is_empty() {
            return true;
        }
        let since = *at.unannounced.get_or_insert_with(Instant::now);
        let is_over = since.elapsed() >= self.options.unannounced;
        if is_over {
            at.drift = Drift::default();
        } else {
            at.drift.noticed();
        }
        is_over
    }

    fn note_damage(&self, damaged: &[Damaged]) {
        let count = damaged.len() as u64;
        let before = self.tables.set_instances_damaged(count);
        if let Some(first) = damaged.first().filter(|_| count != before) {
            tracing::error!(damaged.count = count, damaged.first = first.why, "instance lists are damaged");
        }
    }

    /// Compares the table with what was announced up to the reader's place. What differs is loaded again.
    fn compare_instances(&self, at: &mut Following, announced: Option<u64>, patience: Duration) {
        let Some(announced) = announced else { return };
        if announced == self.tables.load().instances_digest() {
            self.agreed(at);
            return;
        }
        let since = *at.since.get_or_insert_with(Instant::now);
        if since.elapsed() < patience {
            return;
        }
        if self.tables.set_instances_differ(true) {
            tracing::warn!("instances differ from those that were announced, all lists are loaded again");
        }
        at.drift.noticed();
    }

    fn agreed(&self, at: &mut Following) {
        self.tables.instances_loaded();
        (at.since, at.drift) = (None, Drift::default());
        if self.tables.set_instances_differ(false) {
            tracing::info!("instances are those that were announced");
        }
        self.tables.set_instances_damaged(0);
    }

    /// Asks the writer to look at something. It looks by itself as well, only later.
    async fn doubt(&self, doubt: &Doubt) {
        let writer = Name::new(WRITER).expect("the writer is called by a valid name");
        if let Err(error) = self.state.requests.post(&writer, &doubt.encode()).await {
            tracing::debug!(%error, "writer of instances could not be asked");
        }
    }
}

/// The lists of services that the store does not have.
fn unlisted(table: &Table, listed: &BTreeSet<&str>) -> Vec<ServiceInstances> {
    let missing = table
        .services()
        .filter(|service| service.instances_digest() != 0 && !listed.contains(service.id().as_str()));
    let list = |service: &grey_core::table::ServiceTable| {
        let members = service.versions().iter().flat_map(|slot| slot.pool.members());
        let instances = members.map(|member| member.instance.clone()).collect();
        ServiceInstances { service: service.id().clone(), instances }
    };
    missing.take(MAX_REMINDERS).map(list).collect()
}
