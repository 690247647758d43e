//! Requests that cannot succeed: each is refused at once with its own reason, and nothing is queued or changed.

use crate::service_world::{PLAIN, Replica, Stage, reason, to_schema, to_version, unique, up};
use grey_core::error::Reason;
use grey_proto::control::DatabaseKind;
use grey_proto::schema::{
    GetUpgradeRequest, ListUpgradesRequest, StartUpgradeRequest, UpgradeOptions, UpgradeState,
};
use std::time::Duration;

async fn nothing_queued(replica: &Replica) {
    let listed = replica.grpc().list_upgrades(ListUpgradesRequest::default()).await.unwrap().into_inner();
    assert!(listed.upgrades.is_empty(), "{:?}", listed.upgrades);
}

#[tokio::test]
async fn unknown_things_are_told_apart() {
    let stage = Stage::new(&PLAIN).await;
    let replica = stage.replica().await;
    stage.sqlite("acme").await;
    stage.plane.put_tenant("homeless").await;
    assert_eq!(reason(replica.try_start(up("homeless")).await), Reason::UnknownDatabase);
    for (target, why) in [
        (to_schema("9.9"), Reason::UnknownVersion),
        (to_version("7.7"), Reason::UnknownVersion),
        (to_schema("not-one"), Reason::InvalidArgument),
        (to_version("not-one"), Reason::InvalidArgument),
    ] {
        let request = StartUpgradeRequest { target, ..up("acme") };
        assert_eq!(reason(replica.try_start(request).await), why);
    }
    let unknown = GetUpgradeRequest { id: "nothing".into() };
    assert_eq!(reason(replica.grpc().get_upgrade(unknown).await), Reason::UnknownUpgrade);
    let rule = UpgradeOptions { accept: vec!["everything".into()], ..UpgradeOptions::default() };
    let request = StartUpgradeRequest { options: Some(rule), ..up("acme") };
    assert_eq!(reason(replica.try_start(request).await), Reason::InvalidArgument);
    let timeout = Some(Duration::from_secs(1_000_000).into());
    let options = Some(UpgradeOptions { timeout, ..UpgradeOptions::default() });
    let request = StartUpgradeRequest { options, ..up("acme") };
    assert_eq!(reason(replica.try_start(request).await), Reason::InvalidArgument);
    let long = StartUpgradeRequest { reason: "x".repeat(501), ..up("acme") };
    assert_eq!(reason(replica.try_start(long).await), Reason::InvalidArgument);
    let unfit = StartUpgradeRequest { reason: "a\u{3164}b".into(), ..up("acme") };
    assert_eq!(reason(replica.try_start(unfit).await), Reason::InvalidArgument);
    nothing_queued(&replica).await;
    replica.stop().await;
}

#[tokio::test]
async fn files_that_are_wrong_are_refused() {
    let stage = Stage::new(&PLAIN).await;
    let replica = stage.replica().await;
    stage.sqlite("acme").await;
    stage.write("V1.3__broken.sql", "CREATE TABLE broken (name VARCHAR(9) DEFAULT 'oops);");
    assert_eq!(reason(replica.try_start(up("acme")).await), Reason::MigrationRefused);
    let broken = stage.files.path().join("shop/V1.3__broken.sql");
    std::fs::remove_file(&broken).unwrap();
    let outside = stage.folder.path().join("outside.sql");
    std::fs::write(&outside, "CREATE TABLE outside (id INT);").unwrap();
    std::os::unix::fs::symlink(&outside, &broken).unwrap();
    assert_eq!(reason(replica.try_start(up("acme")).await), Reason::MigrationRefused);
    std::fs::remove_file(&broken).unwrap();
    nothing_queued(&replica).await;
    replica.stop().await;
}

#[tokio::test]
async fn a_changed_file_is_refused() {
    let stage = Stage::new(&PLAIN).await;
    let replica = stage.replica().await;
    stage.sqlite("acme").await;
    let queued = replica.up("acme").await;
    assert_eq!(replica.ended(&queued.id).await.state(), UpgradeState::Succeeded);
    stage.write("V1.1__make_notes.sql", "CREATE TABLE notes (id INT NOT NULL PRIMARY KEY, more INT);");
    let refused = replica.try_start(up("acme")).await.unwrap_err();
    assert!(refused.message().contains("checksum"), "{}", refused.message());
    assert_eq!(reason(Err::<(), _>(refused)), Reason::MigrationRefused);
    replica.stop().await;
}

#[tokio::test]
async fn databases_that_refuse_or_are_away_are_told_apart_and_no_password_is_told() {
    let stage = Stage::new(&PLAIN).await;
    let mut config = stage.config();
    config.tenants.connect = Duration::from_secs(2);
    let replica = Replica::start(config).await;
    let maria = crate::run_world::mariadb().await;
    let name = unique("locked");
    maria.database(&name).await.unwrap();
    let wrong = format!("mysql://nobody:s3cret-word@{}/{name}", maria.addr());
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let away = format!("postgres://app:s3cret-word@{free}/none");
    for (tenant, url, why) in
        [("wrong", wrong, Reason::DatabaseRefused), ("away", away, Reason::DatabaseUnavailable)]
    {
        stage.plane.put_tenant(tenant).await;
        stage.plane.register(tenant, DatabaseKind::Database, "", &url).await;
        let refused = replica.try_start(up(tenant)).await.unwrap_err();
        assert!(!refused.message().contains("s3cret"), "{}", refused.message());
        assert_eq!(reason(Err::<(), _>(refused)), why, "{tenant}");
    }
    nothing_queued(&replica).await;
    replica.stop().await;
}
