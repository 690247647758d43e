//! The queue by itself, on both databases: order, limits, leases, fencing, and what is forgotten.

use crate::run_world::postgres;
use crate::service_world::unique;
use grey_core::change::Principal;
use grey_core::ids::{ServiceId, TenantId};
use grey_proto::schema::{Target, UpgradeDirection, UpgradeOptions, UpgradeState, UpgradeStep};
use grey_runtime::Secret;
use grey_schema_migrator::jobs::{
    Database, DatabaseOptions, Ended, Filter, Limits, Progress, Queue, Refused, Seen, Wanted,
};
use grey_testkit::eventually;
use std::time::Duration;
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(60);
const GONE: Duration = Duration::ZERO;

struct Store {
    url: String,
    _dir: TempDir,
}

impl Store {
    async fn new(on_postgres: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = match on_postgres {
            true => postgres().await.database(&unique("queue")).await.unwrap(),
            false => format!("sqlite://{}/queue.db", dir.path().display()),
        };
        Self { url, _dir: dir }
    }

    /// As another replica sees it.
    async fn queue(&self) -> Queue {
        let options = DatabaseOptions {
            url: Secret::new(self.url.as_str()),
            connections: 4,
            acquire_timeout: LONG,
            statement_timeout: LONG,
            migrate_timeout: LONG,
        };
        Queue::new(Box::pin(Database::open(&options)).await.unwrap())
    }
}

fn wanted(tenant: &str, server: &str) -> Wanted {
    Wanted {
        tenant: TenantId::new(tenant).unwrap(),
        service: ServiceId::new("shop").unwrap(),
        direction: UpgradeDirection::Up,
        target: Target::default(),
        options: UpgradeOptions::default(),
        asker: Principal::named("ann"),
        reason: String::new(),
        from: String::new(),
        steps: vec![UpgradeStep { schema: "1.1".to_owned(), ..UpgradeStep::default() }],
        server: server.to_owned(),
        flip: None,
        provision: None,
        idempotency_key: String::new(),
    }
}

fn limits(overall: u32, per_server: u32) -> Limits {
    Limits { overall, per_server }
}

fn succeeded() -> Ended {
    let seen = Seen { schema: "1.1".to_owned(), fingerprint: String::new(), pending: 0 };
    let progress = Progress { schema: "1.1".to_owned(), ..Progress::default() };
    Ended { state: UpgradeState::Succeeded, progress, error: String::new(), reason: None, seen: Some(seen) }
}

/// Runs one test on both databases.
macro_rules! on_both {
    ($($name:ident)*) => {$(
        mod $name {
            #[tokio::test]
            async fn sqlite() {
                Box::pin(super::test::$name(super::Store::new(false).await)).await;
            }

            #[tokio::test]
            async fn postgres() {
                Box::pin(super::test::$name(super::Store::new(true).await)).await;
            }
        }
    )*};
}

on_both! {
    one_upgrade_of_a_database_at_a_time
    the_oldest_is_taken_first_unless_its_server_is_busy
    no_more_are_taken_by_all_replicas_together_than_may_run
    whoever_lost_the_lease_can_write_no_more
    racing_replicas_take_each_upgrade_once
    what_waits_is_cancelled_at_once_and_what_runs_is_asked
    a_failure_is_told_until_another_upgrade_has_run
    old_upgrades_are_forgotten_and_others_are_not
}

mod test {
    use super::{
        Ended, Filter, GONE, LONG, Progress, Queue, Refused, Store, UpgradeState, eventually, limits,
        succeeded, wanted,
    };

    pub(super) async fn one_upgrade_of_a_database_at_a_time(store: Store) {
        let (queue, other) = (store.queue().await, store.queue().await);
        let first = queue.enqueue(&wanted("acme", "s")).await.unwrap();
        match other.enqueue(&wanted("acme", "s")).await {
            Err(Refused::Busy { upgrade }) => assert_eq!(upgrade, first.upgrade.id),
            unexpected => panic!("{unexpected:?}"),
        }
        let taken = queue.take("a", LONG, limits(99, 9)).await.unwrap().unwrap();
        assert!(other.enqueue(&wanted("acme", "s")).await.is_err());
        assert!(queue.end(&taken.job, &taken.lease, &succeeded()).await.unwrap());
        other.enqueue(&wanted("acme", "s")).await.unwrap();
        let observed = other.observed("shop", &["acme".to_owned()]).await.unwrap();
        assert_eq!(observed.first().unwrap().seen.schema, "1.1");
    }

    pub(super) async fn the_oldest_is_taken_first_unless_its_server_is_busy(store: Store) {
        let (queue, other) = (store.queue().await, store.queue().await);
        for (tenant, server) in [("one", "busy"), ("two", "busy"), ("three", "idle")] {
            queue.enqueue(&wanted(tenant, server)).await.unwrap();
        }
        let take = async |queue: &Queue| {
            queue
                .take("w", LONG, limits(99, 1))
                .await
                .unwrap()
                .map(|taken| (taken.job.upgrade.tenant.clone(), taken))
        };
        let (tenant, first) = take(&queue).await.unwrap();
        assert_eq!(tenant, "one");
        assert_eq!(take(&other).await.unwrap().0, "three");
        assert!(take(&other).await.is_none());
        assert!(queue.end(&first.job, &first.lease, &succeeded()).await.unwrap());
        assert_eq!(take(&other).await.unwrap().0, "two");
    }

    pub(super) async fn no_more_are_taken_by_all_replicas_together_than_may_run(store: Store) {
        let (queue, other) = (store.queue().await, store.queue().await);
        for (tenant, server) in [("one", "a"), ("two", "b"), ("three", "c")] {
            queue.enqueue(&wanted(tenant, server)).await.unwrap();
        }
        let first = queue.take("w", LONG, limits(2, 9)).await.unwrap().unwrap();
        assert!(other.take("v", LONG, limits(2, 9)).await.unwrap().is_some());
        assert!(queue.take("w", LONG, limits(2, 9)).await.unwrap().is_none());
        assert!(other.take("v", LONG, limits(2, 9)).await.unwrap().is_none());
        assert!(queue.end(&first.job, &first.lease, &succeeded()).await.unwrap());
        assert!(other.take("v", LONG, limits(2, 9)).await.unwrap().is_some());
    }

    pub(super) async fn whoever_lost_the_lease_can_write_no_more(store: Store) {
        let (queue, other) = (store.queue().await, store.queue().await);
        queue.enqueue(&wanted("acme", "s")).await.unwrap();
        let lost = queue.take("a", GONE, limits(99, 9)).await.unwrap().unwrap();
        assert!(!lost.taken_over);
        let mut found = None;
        eventually(LONG, "the lease has run out", async || {
            found = other.take("b", LONG, limits(99, 9)).await.unwrap();
            found.is_some()
        })
        .await;
        let taken = found.unwrap();
        assert!(taken.taken_over);
        assert_eq!((taken.job.upgrade.attempts, taken.job.upgrade.worker.as_str()), (2, "b"));
        assert_eq!(queue.renew(&lost.lease, LONG).await.unwrap(), None);
        assert!(!queue.save(&lost.lease, &Progress::default()).await.unwrap());
        assert!(!queue.put_back(&lost.lease).await.unwrap());
        let failed = Ended { state: UpgradeState::Failed, seen: None, ..succeeded() };
        assert!(!queue.end(&lost.job, &lost.lease, &failed).await.unwrap());
        assert_eq!(other.renew(&taken.lease, LONG).await.unwrap(), Some(false));
        assert!(other.end(&taken.job, &taken.lease, &succeeded()).await.unwrap());
        assert_eq!(other.get(&taken.lease.id).await.unwrap().upgrade.state(), UpgradeState::Succeeded);
    }

    pub(super) async fn racing_replicas_take_each_upgrade_once(store: Store) {
        let mut replicas = Vec::new();
        for _ in 0..4 {
            replicas.push(store.queue().await);
        }
        for n in 0..12 {
            let server = format!("s{}", n % 3);
            replicas.first().unwrap().enqueue(&wanted(&format!("t{n}"), &server)).await.unwrap();
        }
        let racing = replicas.into_iter().map(|queue| {
            tokio::spawn(async move {
                let mut mine = Vec::new();
                while let Some(taken) = queue.take("w", LONG, limits(99, 2)).await.unwrap() {
                    mine.push((taken.job.server.clone(), taken.lease.id));
                }
                mine
            })
        });
        let mut taken = Vec::new();
        for mine in racing.collect::<Vec<_>>() {
            taken.extend(mine.await.unwrap());
        }
        // Two of each of three servers, each once.
        taken.sort();
        let servers: Vec<_> = taken.iter().map(|(server, _)| server.as_str()).collect();
        assert_eq!(servers, ["s0", "s0", "s1", "s1", "s2", "s2"]);
        taken.dedup();
        assert_eq!(taken.len(), 6);
    }

    pub(super) async fn what_waits_is_cancelled_at_once_and_what_runs_is_asked(store: Store) {
        let queue = store.queue().await;
        let waiting = queue.enqueue(&wanted("one", "s")).await.unwrap().upgrade.id;
        let cancelled = queue.cancel(&waiting).await.unwrap();
        assert_eq!(cancelled.upgrade.state(), UpgradeState::Cancelled);
        assert!(queue.take("w", LONG, limits(99, 9)).await.unwrap().is_none());
        assert!(matches!(queue.cancel(&waiting).await, Err(Refused::Ended { .. })));
        assert!(matches!(queue.cancel("nothing").await, Err(Refused::Unknown(_))));
        queue.enqueue(&wanted("two", "s")).await.unwrap();
        let taken = queue.take("w", LONG, limits(99, 9)).await.unwrap().unwrap();
        assert!(queue.cancel(&taken.lease.id).await.unwrap().upgrade.cancelling);
        assert_eq!(queue.renew(&taken.lease, LONG).await.unwrap(), Some(true));
        // Something may be half done, so the next one to take it finds out.
        assert!(queue.put_back(&taken.lease).await.unwrap());
        let put_back = queue.cancel(&taken.lease.id).await.unwrap();
        assert_eq!(put_back.upgrade.state(), UpgradeState::Queued);
        assert!(queue.take("w", LONG, limits(99, 9)).await.unwrap().unwrap().job.upgrade.cancelling);
    }

    pub(super) async fn a_failure_is_told_until_another_upgrade_has_run(store: Store) {
        let queue = store.queue().await;
        let told = async || queue.unfinished("shop", &[]).await.unwrap().len();
        queue.enqueue(&wanted("acme", "s")).await.unwrap();
        let taken = queue.take("w", LONG, limits(99, 9)).await.unwrap().unwrap();
        let failed = Ended { state: UpgradeState::Failed, seen: None, ..succeeded() };
        assert!(queue.end(&taken.job, &taken.lease, &failed).await.unwrap());
        assert_eq!(told().await, 1);
        let waiting = queue.enqueue(&wanted("acme", "s")).await.unwrap().upgrade.id;
        queue.cancel(&waiting).await.unwrap();
        assert_eq!(told().await, 1);
        queue.enqueue(&wanted("acme", "s")).await.unwrap();
        let taken = queue.take("w", LONG, limits(99, 9)).await.unwrap().unwrap();
        assert!(queue.end(&taken.job, &taken.lease, &succeeded()).await.unwrap());
        assert_eq!(told().await, 0);
    }

    pub(super) async fn old_upgrades_are_forgotten_and_others_are_not(store: Store) {
        let queue = store.queue().await;
        queue.enqueue(&wanted("old", "s")).await.unwrap();
        let taken = queue.take("w", LONG, limits(99, 9)).await.unwrap().unwrap();
        queue.end(&taken.job, &taken.lease, &succeeded()).await.unwrap();
        queue.enqueue(&wanted("waiting", "s")).await.unwrap();
        assert_eq!(queue.forget(LONG).await.unwrap(), 0);
        let mut forgotten = 0;
        eventually(LONG, "its time is up", async || {
            forgotten += queue.forget(GONE).await.unwrap();
            forgotten == 1
        })
        .await;
        let filter = Filter { limit: 10, ..Filter::default() };
        let left = queue.list(&filter).await.unwrap();
        assert_eq!(left.iter().map(|it| it.tenant.as_str()).collect::<Vec<_>>(), ["waiting"]);
        assert_eq!(queue.depth().await.unwrap(), (1, 0));
    }
}
