//! From a real Nacos to shared state, through the server's death.

use std::time::Duration;

use anyhow::Result;
use grey_proto::sync::{HoldReason, SourceState, SyncStatus};
use grey_registry_sync::{App, Kind, Source};
use grey_state::State;
use grey_state::instances::{Cursor, InstancesRead, ServiceInstances};
use grey_testkit::{Nacos, eventually};

use crate::following::SOON;
use crate::nacos_fleet::{Fleet, instances, options};
use crate::replica::{Replica, config};

const SERVICES: usize = 100;
const EACH: usize = 20;

fn name(service: usize) -> String {
    format!("service-{service}")
}

/// The lists that have instances, and how many of them can be routed to by `version`.
async fn routable(state: &State, version: &str) -> (usize, usize) {
    let lists = state.instances.load().await.unwrap().lists;
    let fits = lists.iter().flat_map(|list| &list.instances);
    let count = fits.filter(|one| one.is_routable() && one.version.as_str() == version).count();
    (lists.iter().filter(|list| !list.instances.is_empty()).count(), count)
}

/// Every list that was written after `cursor`.
async fn written_since(state: &State, mut cursor: Cursor) -> Vec<ServiceInstances> {
    let mut written = Vec::new();
    while let InstancesRead::Replaced { lists, next, .. } =
        state.instances.read(&cursor, Duration::ZERO).await.unwrap()
    {
        written.extend(lists);
        cursor = next;
    }
    written
}

#[tokio::test]
async fn nothing_is_lost_when_nacos_dies_and_comes_back_empty() -> Result<()> {
    let server = Nacos::start().await?;
    let fleet = Fleet::connect(server.addr(), "").await?;
    for service in 0..SERVICES {
        fleet.register_all(&name(service), instances(EACH, "1.0.0")).await?;
    }
    let mut config = config("one");
    config.sources = vec![Source::new("dc-1", Kind::Nacos(Box::new(options(server.addr()))))];
    // Whether anything answers at the made-up addresses depends on the network.
    config.probe.mode = grey_registry_sync::probe::Mode::None;
    let state = State::memory();
    let replica = Replica::serving(&state, async |telemetry| {
        App::bind(config, state.clone(), telemetry).await.unwrap()
    })
    .await;
    let all = (SERVICES, SERVICES * EACH);
    eventually(SOON, "everything is published", async || routable(&state, "v1.0").await == all).await;
    let cursor = state.instances.load().await?.cursor;

    server.kill9()?;
    replica.status_where("it is noticed", |status| status.sources[0].state() == SourceState::Failing).await;
    server.restart_empty().await?;
    // Services register again one by one, after the list was empty.
    let back = |status: &SyncStatus| status.sources[0].state() == SourceState::Ok && status.held_total == 0;
    replica.status_where("everything is back", back).await;
    assert_eq!(replica.trigger().await.error, "");
    assert_eq!(routable(&state, "v1.0").await, all);
    for list in written_since(&state, cursor).await {
        assert_eq!(list.instances.iter().filter(|one| one.is_routable()).count(), EACH, "{}", list.service);
    }

    // All instances of a service at once have another version: that is asked about.
    fleet.register_all(&name(0), instances(EACH, "2.0.0")).await?;
    let most = |status: &SyncStatus| status.held_total == 1 && status.held[0].affected > EACH as u64 / 2;
    let status = replica.status_where("the flip is held", most).await;
    assert_eq!(status.held[0].reason(), HoldReason::VersionFlip);
    assert_eq!(replica.accept(&status.held[0].id).await.error, "");
    eventually(SOON, "it is applied", async || routable(&state, "v2.0").await == (SERVICES, EACH)).await;

    // A few that leave are gone.
    fleet.register_all(&name(1), instances(EACH, "1.0.0").split_off(5)).await?;
    let left = (SERVICES, (SERVICES - 1) * EACH - 5);
    eventually(SOON, "five are gone", async || routable(&state, "v1.0").await == left).await;
    replica.stop().await;
    Ok(())
}
