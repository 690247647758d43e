//! A database without room: told as what it is, not taken for a fault of ours, and over once there is room again.

use grey_core::error::Reason;
use grey_proto::control::PutTenantRequest;
use grey_testkit::eventually;
use reqwest::StatusCode;
use sea_orm::{ConnectionTrait, DbBackend};

use crate::fixture::{Plane, SOON, on_both, reason, tenant};

on_both! {
    a_full_disk_is_unavailable_and_heals
}

/// What makes the server itself say that it has no room, and what ends that.
fn full(backend: DbBackend) -> (&'static str, &'static str) {
    match backend {
        DbBackend::Postgres => (
            "CREATE FUNCTION no_room() RETURNS trigger AS $$ BEGIN RAISE EXCEPTION 'could not extend file' \
             USING ERRCODE = 'disk_full'; END $$ LANGUAGE plpgsql; \
             CREATE TRIGGER full_log BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION no_room(); \
             CREATE TRIGGER full_probe BEFORE INSERT ON room_probe FOR EACH ROW EXECUTE FUNCTION no_room();",
            "DROP TRIGGER full_log ON events; DROP TRIGGER full_probe ON room_probe;",
        ),
        // A table that counts its rows up to the greatest number is full with it.
        _ => (
            "CREATE TABLE brim (id INTEGER PRIMARY KEY AUTOINCREMENT); \
             INSERT INTO brim VALUES (9223372036854775807); \
             CREATE TRIGGER full_log BEFORE INSERT ON events BEGIN INSERT INTO brim (id) VALUES (NULL); END; \
             CREATE TRIGGER full_probe BEFORE INSERT ON room_probe BEGIN INSERT INTO brim (id) VALUES (NULL); END;",
            "DROP TRIGGER full_log; DROP TRIGGER full_probe;",
        ),
    }
}

async fn ready(plane: &Plane) -> (StatusCode, String) {
    let answer = plane.http.get(format!("{}/health/ready", plane.base)).send().await.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

async fn a_full_disk_is_unavailable_and_heals(plane: Plane) {
    let before = plane.acme().await;
    eventually(SOON, "it is ready", async || ready(&plane).await.0 == StatusCode::OK).await;
    let database = sea_orm::Database::connect(&plane.store.url).await.unwrap();
    let (fill, free) = full(database.get_database_backend());
    database.execute_unprepared(fill).await.unwrap();

    for _ in 0..3 {
        let request = PutTenantRequest { tenant: Some(tenant("beta")), write: None, update_mask: Vec::new() };
        let refused = plane.tenants().put_tenant(request).await.map(drop);
        let message = refused.clone().unwrap_err().message().to_owned();
        assert!(message.contains("no room left; free disk space; nothing was changed"), "{message}");
        assert_eq!(reason(refused), Reason::Unavailable);
    }
    let unready = async || {
        let (status, text) = ready(&plane).await;
        status == StatusCode::SERVICE_UNAVAILABLE && text.contains("no room left; free disk space")
    };
    eventually(SOON, "it is not ready, and says why", unready).await;
    assert_eq!(plane.revision().await, before, "reads go on");

    database.execute_unprepared(free).await.unwrap();
    eventually(SOON, "it is ready again", async || ready(&plane).await.0 == StatusCode::OK).await;
    assert_eq!(plane.put_tenant("beta").await, before + 1);
}
