//! What goes wrong changes nothing, is told, and is made good for.

use std::time::Duration;

use grey_proto::control::TenantStatus::Active;
use grey_proto::sync::SourceState;
use grey_runtime::Secret;
use grey_runtime::access::{Token, TokenHash};
use grey_state::State;
use grey_testkit::{Postgres, Proxy, eventually};

use crate::upstream::{Fault, Upstream, tenants};
use crate::world::{Plane, Replica, SOON, World, config, counts, did};

/// Bytes of some batches of twenty tenants; a hundred of them are a multiple of it.
const SOME_BATCHES: u64 = 30_000;

#[tokio::test]
async fn a_reading_that_fails_changes_nothing_and_is_told() {
    let world = World::start_with(&tenants(0..30), |config| {
        config.source.timeout = Duration::from_millis(300);
    })
    .await;
    let before = world.plane.revision().await;
    // Whatever is told in the end would take tenants out of service.
    world.upstream.list(&tenants(1..30));
    let cases = [
        (Fault::Status(500, "broken"), "500"),
        (Fault::CutOff, "cut off"),
        (Fault::Half, "cut off"),
        (Fault::Slow(SOON), "no complete answer"),
        (Fault::Body("{}".to_owned()), "understand"),
        (Fault::Status(401, "who are you"), "401"),
    ];
    for (number, (fault, expected)) in (1..).zip(cases) {
        world.upstream.always(Some(fault));
        let error = world.replica.failed_run().await;
        assert!(error.contains(expected), "{error}");
        let source = world.replica.status().await.sources.swap_remove(0);
        assert_eq!((source.state(), source.failures, source.error), (SourceState::Failing, number, error));
        assert!(source.last_success.is_some());
    }
    assert_eq!(world.plane.revision().await, before);
    let metrics = world.replica.metrics().await;
    assert!(metrics.contains("grey_tenant_sync_runs_total{outcome=\"failed\""), "{metrics}");
    world.upstream.always(None);
    let run = world.replica.run().await;
    assert_eq!(counts(&run), did([("unchanged", 29), ("missing", 1)]));
    let source = world.replica.status().await.sources.swap_remove(0);
    assert_eq!((source.state(), source.failures, source.error.as_str()), (SourceState::Ok, 0, ""));
    world.stop().await;
}

#[tokio::test]
async fn a_sync_that_failed_is_soon_tried_again() {
    let (upstream, plane, state) = (Upstream::start().await, Plane::start().await, State::memory());
    upstream.list(&tenants(0..3));
    upstream.script([Some(Fault::Status(503, "")), Some(Fault::Status(503, ""))]);
    let mut config = config(&upstream, &plane.url());
    config.sync.retry = Duration::from_millis(20);
    let replica = Replica::start(config, &state).await;
    assert!(!replica.first_run().await.error.is_empty());
    eventually(SOON, "the tenants are there", async || plane.all().await.len() == 3).await;
    replica.stop().await;
    plane.stop().await;
}

#[tokio::test]
async fn a_control_plane_out_of_reach_in_the_middle_is_waited_for() {
    let (upstream, plane, state) = (Upstream::start().await, Plane::start().await, State::memory());
    let proxy = Proxy::start(plane.addr).await.unwrap();
    upstream.list(&tenants(0..2_000));
    let mut config = config(&upstream, &format!("http://{}", proxy.addr()));
    config.apply.batch = 20;
    config.apply.attempts = 100;
    // They must outlast each cut, however slow the machine is.
    config.apply.max_pause = Duration::from_millis(500);
    proxy.cut_after(SOME_BATCHES);
    let replica = Replica::start(config, &state).await;
    for cuts_left in [1, 0] {
        proxy.until_cut().await.unwrap();
        let cut = plane.all().await;
        assert!(!cut.is_empty() && cut.len() < 2_000, "it was to be cut in the middle: {}", cut.len());
        assert_eq!(cut.len() % 20, 0, "whole batches");
        proxy.heal().await.unwrap();
        if cuts_left > 0 {
            proxy.cut_after(SOME_BATCHES);
        }
    }
    let run = replica.first_run().await;
    assert_eq!(counts(&run), did([("created", 2_000)]));
    assert_eq!((plane.count(Active).await, plane.revision().await), (2_000, 100));
    replica.stop().await;
    plane.stop().await;
}

#[tokio::test]
async fn a_sync_that_gave_up_in_the_middle_is_continued_by_the_next() {
    let (upstream, plane, state) = (Upstream::start().await, Plane::start().await, State::memory());
    let proxy = Proxy::start(plane.addr).await.unwrap();
    upstream.list(&tenants(0..2_000));
    let mut config = config(&upstream, &format!("http://{}", proxy.addr()));
    config.apply.batch = 20;
    config.apply.attempts = 2;
    proxy.cut_after(SOME_BATCHES);
    let replica = Replica::start(config, &state).await;
    let error = replica.first_run().await.error;
    assert!(error.contains("at the control plane"), "{error}");
    let source = replica.status().await.sources.swap_remove(0);
    assert_eq!(source.state(), SourceState::Ok, "the tenant API is not to blame");
    let done = plane.all().await.len();
    assert!(done > 0 && done < 2_000, "it was to be cut in the middle: {done}");
    proxy.heal().await.unwrap();
    let rest = u64::try_from(2_000 - done).unwrap();
    let unchanged = u64::try_from(done).unwrap();
    assert_eq!(counts(&replica.run().await), did([("created", rest), ("unchanged", unchanged)]));
    assert_eq!(plane.revision().await, 100);
    replica.stop().await;
    plane.stop().await;
}

#[tokio::test]
async fn a_control_plane_with_another_history_is_read_anew() {
    let World { upstream, plane, replica, state } = World::start(&tenants(0..30)).await;
    let addr = plane.addr;
    drop(plane.stop().await);
    let plane = Plane::start_at(addr, tempfile::tempdir().unwrap(), |_| {}).await;
    assert_eq!(counts(&replica.run().await), did([("created", 30)]));
    assert_eq!(plane.all().await.len(), 30);
    drop(World { upstream, plane, replica, state });
}

#[tokio::test]
async fn more_events_than_are_read_are_not_needed() {
    let world = World::start_with(&tenants(0..30), |config| config.apply.max_events = 5).await;
    for i in 0..10 {
        let mut tenant = world.plane.tenant(&format!("t{i:06}")).await;
        tenant.name = "Edited".to_owned();
        world.plane.put(tenant).await;
    }
    assert_eq!(counts(&world.replica.run().await), did([("updated", 10), ("unchanged", 20)]));
    world.stop().await;
}

#[tokio::test]
async fn a_token_that_may_not_write_tenants_is_told_clearly() {
    let token = |name: &str| Token {
        name: name.to_owned(),
        role: name.to_owned(),
        sha256: TokenHash::of(&format!("{name}-secret")),
    };
    let store = tempfile::tempdir().unwrap();
    let listen = "127.0.0.1:0".parse().unwrap();
    let plane = Plane::start_at(listen, store, |config| {
        config.access.tokens = vec![token("operator"), token("admin")];
    })
    .await;
    let upstream = Upstream::start().await;
    upstream.list(&tenants(0..3));
    let cases = [
        (
            "operator-secret",
            "role operator may not apply change sets of more than pins and schemas; it takes admin",
        ),
        ("wrong-secret", "unknown bearer token"),
        ("", "without bearer token"),
        ("admin-secret", ""),
    ];
    for (secret, expected) in cases {
        let mut config = config(&upstream, &plane.url());
        config.control.token = Secret::new(secret);
        let replica = Replica::start(config, &State::memory()).await;
        let error = replica.first_run().await.error;
        assert!(error.contains(expected) && error.is_empty() == expected.is_empty(), "{secret}: {error}");
        assert!(secret.is_empty() || !error.contains(secret), "{error}");
        replica.stop().await;
    }
    plane.stop().await;
}

#[tokio::test]
async fn tenants_that_the_database_refuses_are_named_and_keep_no_other_back() {
    let postgres = Postgres::start().await.unwrap();
    let database = postgres.database("control").await.unwrap();
    let store = tempfile::tempdir().unwrap();
    let plane = Plane::start_at("127.0.0.1:0".parse().unwrap(), store, |config| {
        config.database.url = Secret::new(database);
    })
    .await;
    let refuse = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                  IF NEW.id IN ('t000003', 't000042') THEN RAISE 'cannot be stored'; END IF; RETURN NEW; END $$; \
                  CREATE TRIGGER refuse BEFORE INSERT ON tenants FOR EACH ROW EXECUTE FUNCTION refuse()";
    postgres.query("control", refuse).await.unwrap();
    let upstream = Upstream::start().await;
    upstream.list(&tenants(0..50));
    let replica = Replica::start(config(&upstream, &plane.url()), &State::memory()).await;
    let run = replica.first_run().await;
    assert_eq!(counts(&run), did([("created", 48), ("invalid", 2)]));
    let left_out = replica.status().await.quarantined;
    let subjects: Vec<_> = left_out.iter().map(|left| left.subject.as_str()).collect();
    assert_eq!(subjects, ["t000003", "t000042"]);
    assert!(left_out.iter().all(|left| !left.why.is_empty()));
    postgres.query("control", "DROP TRIGGER refuse ON tenants").await.unwrap();
    assert_eq!(counts(&replica.run().await), did([("created", 2), ("unchanged", 48)]));
    replica.stop().await;
    plane.stop().await;
}
