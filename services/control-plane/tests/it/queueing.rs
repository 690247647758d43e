//! Writes that cannot be carried out at once, or whose end nobody hears of.

use std::pin::pin;
use std::time::Duration;

use futures::poll;
use grey_control_plane::command::{Command, Commands, Error, Options, Writer};
use grey_control_plane::database::Database;
use grey_control_plane::metrics::Metrics;
use grey_core::change::{Change, Principal};
use grey_core::error::Reason;
use grey_core::ids::TenantId;
use grey_core::key::Fact;
use grey_core::tenant::Tenant;
use grey_proto::control::PutTenantRequest;
use grey_runtime::Telemetry;
use grey_state::{State, publisher};
use grey_testkit::{Postgres, eventually};
use tokio_util::sync::CancellationToken;

use crate::fixture::{Backend, Plane, SOON, Store, config, expecting, fact, reason, tenant, unfollowed};

async fn writer(store: &Store, options: Options) -> (Database, Writer, Commands) {
    let config = config(&store.url);
    let telemetry = Telemetry::start("grey-control-plane", &config.telemetry).unwrap();
    let database = Database::open(&config.database).await.unwrap();
    let position = database.head().await.unwrap();
    let (handle, metrics) = (publisher::Handle::default(), Metrics::new(telemetry.meter()));
    let heartbeats = State::memory().heartbeats;
    let (writer, commands) =
        Writer::new(database.clone(), position, unfollowed(), options, handle, heartbeats, metrics);
    (database, writer, commands)
}

fn put(id: &str) -> Command {
    let tenant = Tenant::new(TenantId::new(id).unwrap());
    Command::single(Principal::named("tester"), Change::Put(Fact::Tenant(Box::new(tenant))))
}

#[tokio::test]
async fn a_full_queue_refuses_and_an_ended_writer_says_so() {
    let store = Store::new(Backend::Sqlite).await;
    let options = Options { queue: 1, wait: SOON, timeout: SOON, bulk_timeout: SOON };
    let (database, writer, commands) = writer(&store, options).await;
    // The writer does not run yet, so the first command takes the only place.
    let mut waiting = pin!(commands.execute(put("first")));
    assert!(poll!(&mut waiting).is_pending());
    assert!(matches!(commands.execute(put("second")).await, Err(Error::Busy)));
    let stop = CancellationToken::new();
    stop.cancel();
    // What was taken is carried out even while it ends.
    writer.run(stop).await;
    assert_eq!(waiting.await.unwrap().position.revision.0, 1);
    assert!(matches!(commands.execute(put("third")).await, Err(Error::Stopped)));
    assert_eq!(database.head().await.unwrap().revision.0, 1);
}

#[tokio::test]
async fn a_write_that_waited_too_long_is_not_begun() {
    let store = Store::new(Backend::Sqlite).await;
    let options = Options { queue: 8, wait: Duration::from_nanos(1), timeout: SOON, bulk_timeout: SOON };
    let (database, writer, commands) = writer(&store, options).await;
    let stop = CancellationToken::new();
    let running = tokio::spawn(writer.run(stop.clone()));
    assert!(matches!(commands.execute(put("late")).await, Err(Error::Late(_))));
    stop.cancel();
    running.await.unwrap();
    assert_eq!(database.head().await.unwrap().revision.0, 0);
}

#[tokio::test]
async fn an_unconfirmed_commit_is_told_as_such_and_can_be_repeated() {
    let server = Postgres::start().await.unwrap();
    let mut config = config(&server.url());
    config.commands.timeout = Duration::from_secs(1);
    config.database.statement_timeout = SOON;
    let plane = Plane::start_with(Store::borrowed(&server.url()), config, State::memory()).await;
    // The database takes longer over this one commit than the control plane waits.
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(3); RETURN NULL; END';
        CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (NEW.revision = 1) EXECUTE FUNCTION slow()";
    server.query("postgres", slow).await.unwrap();
    let put =
        || PutTenantRequest { tenant: Some(tenant("acme")), write: expecting(0), update_mask: Vec::new() };
    let unknown = plane.tenants().put_tenant(put()).await.map(drop);
    assert!(unknown.clone().unwrap_err().message().contains("may have been applied"), "{unknown:?}");
    assert_eq!(reason(unknown), Reason::Unavailable);
    // It was applied; the expectation keeps the repetition from doing it twice.
    eventually(SOON, "the repetition learns of the first", async || {
        let again = plane.tenants().put_tenant(put()).await.map(drop);
        again.is_err() && fact(again, "present") == "1"
    })
    .await;
    assert_eq!(plane.put_tenant("beta").await, 2);
}

#[tokio::test]
async fn a_write_goes_on_when_its_caller_leaves() {
    let plane = Plane::start(Backend::Sqlite).await;
    for i in 0..50 {
        let mut tenants = plane.tenants();
        let request =
            PutTenantRequest { tenant: Some(tenant(&format!("t{i}"))), write: None, update_mask: Vec::new() };
        drop(tokio::time::timeout(Duration::from_micros(i * 40), tenants.put_tenant(request)).await);
    }
    plane.put_tenant("last").await;
    let events = plane.events().await;
    let revisions: Vec<_> = events.iter().map(|event| event.revision).collect();
    assert_eq!(revisions, (1..=plane.revision().await).collect::<Vec<_>>());
}
