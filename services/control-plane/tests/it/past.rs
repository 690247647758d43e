//! What is long past is explained by checkpoints of the log, and neither that nor a listing is at the expense of anything else.

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use grey_core::error::Reason;
use grey_proto::control::{ExplainAtRequest, GetTenantRequest, ListServicesRequest};
use grey_proto::router::RouteRequest;
use grey_proto::router::route_outcome::Outcome;
use grey_state::State;
use grey_testkit::eventually;
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement, TransactionTrait};
use tonic::Status;

use crate::explain::run_instances;
use crate::fixture::{Backend, Plane, SOON, Store, config, on_both, reason};

on_both! {
    a_past_state_costs_what_lies_behind_its_checkpoint
    a_damaged_checkpoint_is_not_believed_and_made_again
    a_tenant_that_is_gone_was_there
}

/// More changes of one tenant than lie between three checkpoints.
const PINS: u64 = 420;

async fn database(store: &Store) -> DatabaseConnection {
    sea_orm::Database::connect(&store.url).await.unwrap()
}

async fn numbers(database: &DatabaseConnection, sql: &str) -> Vec<u64> {
    let statement = Statement::from_string(database.get_database_backend(), sql);
    let rows = database.query_all_raw(statement).await.unwrap();
    rows.iter().map(|row| row.try_get_by_index::<i64>(0).unwrap().try_into().unwrap()).collect()
}

async fn explained(plane: &Plane, revision: u64) -> Result<String, Status> {
    let call = RouteRequest { tenant: "acme".into(), service: "payment".into(), ..RouteRequest::default() };
    let request = ExplainAtRequest { call: Some(call), revision };
    let explanation = plane.history().explain_at(request).await?.into_inner().explanation.unwrap();
    assert!(revision == 0 || explanation.revision == revision);
    Ok(match explanation.outcome.unwrap().outcome.unwrap() {
        Outcome::Decision(decision) => decision.version,
        Outcome::Error(error) => error.reason,
    })
}

/// Pins acme by turns, the first time to `versions[0]`; the version that it has at each revision.
async fn pin_by_turns(plane: &Plane, versions: [&str; 2]) -> Vec<(u64, String)> {
    let mut known = Vec::new();
    for round in 0..PINS {
        let version = versions[usize::from(round % 2 == 1)];
        known.push((plane.put_pin("acme", "payment", version).await.unwrap(), format!("v{version}")));
    }
    known
}

/// A long history of acme.
async fn long_history(plane: &Plane) -> Vec<(u64, String)> {
    run_instances(plane).await;
    plane.acme().await;
    plane.put_version("payment", "1.5", None).await;
    let known = pin_by_turns(plane, ["1.5", "1.0"]).await;
    plane.put_tenant("beta").await;
    known
}

const CHECKPOINTS: &str = "SELECT revision FROM checkpoints WHERE kind = 'tenant' ORDER BY revision";

async fn a_past_state_costs_what_lies_behind_its_checkpoint(plane: Plane) {
    let known = long_history(&plane).await;
    let database = database(&plane.store).await;
    assert!(numbers(&database, CHECKPOINTS).await.is_empty(), "a write costs nothing more");
    let (last, version) = known.last().unwrap();
    assert_eq!(explained(&plane, *last).await.unwrap(), *version);
    let checkpoints = numbers(&database, CHECKPOINTS).await;
    assert!(checkpoints.len() >= 2, "{checkpoints:?}");
    // Whoever reads what lies before the last of them fails.
    let (first, newest) = (known[0].0, checkpoints.last().unwrap());
    let damage = format!(
        "UPDATE events SET body = substr(body, 1, 5) WHERE revision BETWEEN {first} AND {newest} - 1"
    );
    database.execute_unprepared(&damage).await.unwrap();
    for (revision, version) in known.iter().filter(|(revision, _)| revision >= newest) {
        assert_eq!(explained(&plane, *revision).await.unwrap(), *version, "{revision}");
    }
    assert_eq!(reason(explained(&plane, first + 1).await), Reason::RevisionUnavailable);
}

async fn a_damaged_checkpoint_is_not_believed_and_made_again(plane: Plane) {
    let known = long_history(&plane).await;
    let database = database(&plane.store).await;
    let (last, expected) = known.last().unwrap();
    explained(&plane, *last).await.unwrap();
    let kept = numbers(&database, CHECKPOINTS).await;
    let newest = kept.last().unwrap();
    let at_newest = || known.iter().find(|(revision, _)| revision == newest).unwrap().1.clone();
    let others = kept.first().unwrap();
    for damage in [
        "UPDATE checkpoints SET body = substr(body, 1, 9)".to_owned(),
        "UPDATE checkpoints SET seal = body".to_owned(),
        // Whole, but of another revision.
        format!("DELETE FROM checkpoints WHERE revision = {newest}"),
        format!("UPDATE checkpoints SET revision = {newest} WHERE revision = {others}"),
    ] {
        database.execute_unprepared(&damage).await.unwrap();
        if damage.starts_with("DELETE") {
            continue;
        }
        assert_eq!(explained(&plane, *newest).await.unwrap(), at_newest(), "{damage}");
        assert_eq!(explained(&plane, *last).await.unwrap(), *expected, "{damage}");
        assert_eq!(numbers(&database, CHECKPOINTS).await, kept, "{damage}");
    }
}

async fn a_tenant_that_is_gone_was_there(plane: Plane) {
    let known = long_history(&plane).await;
    let remove = grey_proto::control::DeleteTenantRequest { id: "acme".into(), ..Default::default() };
    plane.tenants().delete_tenant(remove).await.unwrap();
    plane.put_tenant("gamma").await;
    assert_eq!(explained(&plane, plane.revision().await - 1).await.unwrap(), "UNKNOWN_TENANT");
    for (revision, version) in [&known[1], &known[230], known.last().unwrap()] {
        assert_eq!(explained(&plane, *revision).await.unwrap(), *version, "{revision}");
    }
}

async fn what_was_abandoned_explains_nothing(backend: Backend) {
    let plane = Plane::start(backend).await;
    let abandoned = long_history(&plane).await;
    explained(&plane, abandoned.last().unwrap().0).await.unwrap();
    let store = plane.stop().await;
    let database = database(&store).await;
    let checkpoint = *numbers(&database, CHECKPOINTS).await.last().unwrap();
    let kept = abandoned[0].0 - 1;
    for set_back in [
        format!("DELETE FROM events WHERE revision > {kept}"),
        format!("DELETE FROM record_history WHERE revision > {kept}"),
        format!("UPDATE log_head SET revision = {kept}, epoch = epoch + 1"),
        "DELETE FROM pins".to_owned(),
        "DELETE FROM tenants WHERE id = 'beta'".to_owned(),
    ] {
        database.execute_unprepared(&set_back).await.unwrap();
    }
    let config = config(&store.url);
    let plane = Plane::start_with(store, config, State::memory()).await;
    run_instances(&plane).await;
    // As before, but the other way round.
    let known = pin_by_turns(&plane, ["1.0", "1.5"]).await;
    plane.put_tenant("beta").await;
    let at = |log: &[(u64, String)]| log.iter().find(|(at, _)| *at == checkpoint).unwrap().1.clone();
    assert_ne!(at(&known), at(&abandoned));
    assert_eq!(explained(&plane, checkpoint).await.unwrap(), at(&known));
}

#[tokio::test]
async fn what_was_abandoned_explains_nothing_sqlite() {
    what_was_abandoned_explains_nothing(Backend::Sqlite).await;
}

#[tokio::test]
async fn what_was_abandoned_explains_nothing_postgres() {
    what_was_abandoned_explains_nothing(Backend::Postgres).await;
}

/// Explanations that get no answer take up their own connections, and no more than may wait do.
#[tokio::test]
async fn nothing_waits_for_explanations() {
    let store = Store::new(Backend::Postgres).await;
    let mut config = config(&store.url);
    config.database.statement_timeout = SOON * 2;
    config.history.timeout = SOON * 2;
    (config.history.connections, config.history.queue) = (2, 8);
    let plane = Plane::start_with(store, config, State::memory()).await;
    run_instances(&plane).await;
    let known = plane.acme().await;
    plane.put_tenant("beta").await;

    let held = database(&plane.store).await.begin().await.unwrap();
    held.execute_unprepared("LOCK TABLE checkpoints IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let mut asked: FuturesUnordered<_> = (0..60).map(|_| explained(&plane, known)).collect();
    for _ in 0..50 {
        assert_eq!(reason(asked.next().await.unwrap()), Reason::RateLimited);
    }
    // The others hang. What else there is goes on.
    let written = plane.put_tenant("meanwhile").await;
    eventually(SOON, "the event is published", async || {
        let status = plane.state.projection.status().await.unwrap();
        status.is_some_and(|status| status.position.revision.0 == written)
    })
    .await;
    let ready = plane.http.get(format!("{}/health/ready", plane.base)).send().await.unwrap();
    assert!(ready.status().is_success(), "{ready:?}");
    assert_eq!(plane.events().await.len(), usize::try_from(written).unwrap());
    held.rollback().await.unwrap();
    let answers: Vec<_> = asked.collect().await;
    assert_eq!(answers.len(), 10);
    assert!(
        answers.iter().all(|answer| answer.as_ref().is_ok_and(|version| version == "v1.0")),
        "{answers:?}"
    );
}

async fn listed(plane: &Plane) -> Result<(), Status> {
    plane.catalog().list_services(ListServicesRequest::default()).await.map(drop)
}

/// Pages that get no answer take up their own connections, and no more than may wait do.
#[tokio::test]
async fn nothing_waits_for_listings() {
    let store = Store::new(Backend::Postgres).await;
    let mut config = config(&store.url);
    config.database.statement_timeout = SOON * 2;
    config.lists.timeout = SOON * 2;
    (config.lists.connections, config.lists.queue) = (2, 8);
    let plane = Plane::start_with(store, config, State::memory()).await;
    plane.acme().await;

    let held = database(&plane.store).await.begin().await.unwrap();
    held.execute_unprepared("LOCK TABLE services IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let mut asked: FuturesUnordered<_> = (0..60).map(|_| listed(&plane)).collect();
    for _ in 0..50 {
        assert_eq!(reason(asked.next().await.unwrap()), Reason::RateLimited);
    }
    // The others hang. What else there is goes on.
    let request = GetTenantRequest { id: "acme".into() };
    plane.tenants().get_tenant(request).await.unwrap();
    held.rollback().await.unwrap();
    let answers: Vec<_> = asked.collect().await;
    assert_eq!(answers.len(), 10);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}
