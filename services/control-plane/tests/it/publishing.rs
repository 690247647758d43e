//! What is committed reaches feed and projection; what is not reachable keeps no write waiting.

use std::time::Duration;

use grey_core::change::{Event, FormatLevel, Revision};
use grey_core::table::Table;
use grey_proto::codec;
use grey_state::feed::FeedRead;
use grey_state::{State, redis};
use grey_testkit::{Redis, eventually, free_port};
use sea_orm::{ConnectionTrait, Statement};

use crate::fixture::{Backend, Plane, SOON, Store, config, on_both};

on_both! {
    every_event_reaches_the_feed_and_the_projection
}

/// Waits until the projection holds the whole log, and compares it with its digest.
async fn projected(plane: &Plane) -> Table {
    let revision = Revision(plane.revision().await);
    let reached = async || {
        let status = plane.state.projection.status().await;
        status.is_ok_and(|status| status.is_some_and(|status| status.position.revision == revision))
    };
    eventually(SOON, "the projection has every event", reached).await;
    let status = plane.state.projection.status().await.unwrap().unwrap();
    let mut table = Table::default();
    plane
        .state
        .projection
        .load(&mut |records| records.into_iter().for_each(|record| table.insert(record)))
        .await
        .unwrap();
    assert_eq!(Some(table.digest()), status.digests.at(status.level));
    table.set_position(status.position);
    table
}

async fn every_event_reaches_the_feed_and_the_projection(plane: Plane) {
    // Once there is a projection of the empty log, all that follows comes through the feed.
    let start = projected(&plane).await.position();
    plane.acme().await;
    plane.put_pin("acme", "payment", "1.0").await.unwrap();
    let table = projected(&plane).await;
    assert_eq!((table.tenant_count(), table.service_count()), (1, 1));
    plane.put_tenant("beta").await;
    assert_eq!(projected(&plane).await.tenant_count(), 2);

    let read =
        plane.state.feed.read(&start, FormatLevel::CURRENT, 10, Duration::from_secs(10)).await.unwrap();
    let FeedRead::Entries(entries) = read else { panic!("{read:?}") };
    let published: Vec<_> = entries.into_iter().map(|entry| entry.event.revision.0).collect();
    assert_eq!((start.revision.0, published), (0, vec![1, 2, 3, 4, 5]));
}

/// The publisher reads its last event again with each batch: that must leave room for another one.
#[tokio::test]
async fn what_follows_a_very_large_event_is_published() {
    let plane = Plane::start(Backend::Sqlite).await;
    let large = plane.acme().await + 1;
    let event = Event { revision: Revision(large), reason: "x".repeat(17 << 20), ..Event::default() };
    let database = sea_orm::Database::connect(&plane.store.url).await.unwrap();
    let (backend, revision) = (database.get_database_backend(), large.cast_signed());
    for (sql, values) in [
        (
            "INSERT INTO events (revision, at_ms, principal, reason, body) VALUES ($1, 0, '', '', $2)",
            vec![revision.into(), codec::encode_event(&event).into()],
        ),
        ("UPDATE log_head SET revision = $1", vec![revision.into()]),
    ] {
        database.execute_raw(Statement::from_sql_and_values(backend, sql, values)).await.unwrap();
    }
    let last = Revision(plane.put_tenant("beta").await);
    assert_eq!(last, Revision(large + 1));
    eventually(SOON, "the projection has every event", async || {
        let status = plane.state.projection.status().await;
        status.is_ok_and(|status| status.is_some_and(|status| status.position.revision == last))
    })
    .await;
}

#[tokio::test]
async fn writes_go_on_while_redis_is_away() {
    let store = Store::new(Backend::Sqlite).await;
    let urls = vec![format!("redis://127.0.0.1:{}", free_port().unwrap())];
    let state = State::redis(&redis::Options { urls, ..redis::Options::default() }).await.unwrap();
    let plane = Plane::start_with(store_url(&store), config(&store.url), state).await;
    assert_eq!(plane.put_tenant("acme").await, 1);
    let ready = async || {
        let answer = plane.http.get(format!("{}/health/ready", plane.base)).send().await.unwrap();
        answer.status() == 200
    };
    eventually(SOON, "the control plane is ready", ready).await;
    // A wait for routers that nobody can see does not take the write back.
    let request = grey_proto::control::PutTenantRequest {
        tenant: Some(crate::fixture::tenant("beta")),
        write: Some(grey_proto::control::WriteOptions {
            wait: Some(pbjson_types::Duration { seconds: 0, nanos: 1 }),
            ..Default::default()
        }),
        update_mask: Vec::new(),
    };
    let result = plane.tenants().put_tenant(request).await.unwrap().into_inner().result.unwrap();
    let routers = result.routers.unwrap();
    assert_eq!((result.revision, routers.complete, routers.fault.is_empty()), (2, false, false));
}

#[tokio::test]
async fn an_emptied_redis_is_filled_again() {
    let redis = Redis::start().await.unwrap();
    let options = redis::Options { urls: vec![redis.url()], ..redis::Options::default() };
    let state = State::redis(&options).await.unwrap();
    let store = Store::new(Backend::Sqlite).await;
    let plane = Plane::start_with(store_url(&store), config(&store.url), state).await;
    plane.acme().await;
    let digest = projected(&plane).await.digest();
    redis.kill9().unwrap();
    plane.put_pin("acme", "payment", "1.0").await.unwrap();
    redis.restart_empty().await.unwrap();
    let again = projected(&plane).await;
    assert_ne!(again.digest(), digest);
    assert_eq!(again.tenant_count(), 1);
}

#[tokio::test]
async fn another_replica_takes_over_the_publication() {
    let store = Store::new(Backend::Sqlite).await;
    let state = State::memory();
    let one = Plane::start_with(store_url(&store), config(&store.url), state.clone()).await;
    one.put_tenant("a").await;
    projected(&one).await;
    let two = Plane::start_with(store_url(&store), config(&store.url), state).await;
    two.put_tenant("b").await;
    projected(&two).await;
    one.stop().await;
    two.put_tenant("c").await;
    assert_eq!(projected(&two).await.tenant_count(), 3);
}

fn store_url(store: &Store) -> Store {
    Store::borrowed(&store.url)
}

#[tokio::test]
async fn health_and_metrics_tell_of_log_and_publisher() {
    let plane = Plane::start(Backend::Sqlite).await;
    plane.put_tenant("acme").await;
    let get = async |path: &str| {
        plane.http.get(format!("{}{path}", plane.base)).send().await.unwrap().text().await.unwrap()
    };
    assert_eq!(get("/health/live").await, "alive\n");
    let metrics = async || get("/metrics").await;
    eventually(SOON, "the gauges know the log", async || {
        let text = metrics().await;
        let line = |name: &str, value: &str| {
            text.lines().any(|line| line.starts_with(name) && line.ends_with(value))
        };
        line("grey_control_log_revision", " 1")
            && line("grey_control_publisher_lag_revisions", " 0")
            && line("grey_control_publisher_leading", " 1")
            && line("grey_control_commands_total", " 1")
    })
    .await;
    eventually(SOON, "readiness tells of the publisher", async || {
        get("/health/ready").await.contains("leading")
    })
    .await;

    let mut health = tonic_health::pb::health_client::HealthClient::new(plane.channel());
    let request = tonic_health::pb::HealthCheckRequest::default();
    let status = health.check(request).await.unwrap().into_inner().status();
    assert_eq!(status, tonic_health::pb::health_check_response::ServingStatus::Serving);
}

#[tokio::test]
async fn a_lost_database_is_told_and_recovered_from() {
    let server = grey_testkit::Postgres::start().await.unwrap();
    let plane =
        Plane::start_with(Store::borrowed(&server.url()), config(&server.url()), State::memory()).await;
    plane.put_tenant("a").await;
    server.kill9().unwrap();
    let request = || grey_proto::control::PutTenantRequest {
        tenant: Some(crate::fixture::tenant("b")),
        write: None,
        update_mask: Vec::new(),
    };
    let lost = plane.tenants().put_tenant(request()).await;
    assert_eq!(crate::fixture::reason(lost), grey_core::error::Reason::Unavailable);
    let ready =
        async || plane.http.get(format!("{}/health/ready", plane.base)).send().await.unwrap().status();
    eventually(SOON, "the replica is not ready", async || ready().await == 503).await;
    server.restart().await.unwrap();
    eventually(SOON, "writes work again", async || plane.tenants().put_tenant(request()).await.is_ok()).await;
    eventually(SOON, "the replica is ready", async || ready().await == 200).await;
    assert_eq!(plane.revision().await, 2);
}

#[tokio::test]
async fn the_contract_is_offered_for_reflection() {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, ServiceResponse};

    let plane = Plane::start(Backend::Sqlite).await;
    let message_request = Some(MessageRequest::ListServices(String::new()));
    let asked = ServerReflectionRequest { host: String::new(), message_request };
    let mut client = ServerReflectionClient::new(plane.channel());
    let answers = client.server_reflection_info(futures::stream::iter([asked])).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(listed) = answer else { panic!("{answer:?}") };
    let offered = |name: &str| listed.service.iter().any(|ServiceResponse { name: known }| known == name);
    for service in ["Tenant", "Catalog", "Pin", "History", "Fleet"] {
        assert!(offered(&format!("grey.control.v1.{service}Service")), "{service}: {listed:?}");
    }
}
