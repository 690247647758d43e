//! Every write tells which tenants it moves, and is held to what it may move.

use grey_core::error::Reason;
use grey_core::ids::ServiceId;
use grey_proto::control::change::Change as Kind;
use grey_proto::control::{
    ApplyChangeSetRequest, ApplyChangeSetResponse, Change, DeletePinRequest, DeleteServiceRequest, Lack,
    Move, Moves, ObservedSchema, ProposedChange, PutPinRequest, PutServiceRequest, SchemaWindow, Service,
    ServiceVersion, WriteOptions, WriteResult,
};
use grey_state::FencingToken;
use grey_state::instances::ServiceInstances;
use grey_testkit::eventually;
use tonic::Status;

use crate::explain::instance;
use crate::fixture::{Plane, SOON, fact, on_both, pin, reason, tenant};

on_both! {
    a_default_that_moves_many_is_told_and_needs_its_number
    a_dry_run_changes_nothing_and_tells_the_same
    what_was_observed_is_never_refused
    who_only_gains_is_never_refused
    instances_are_known_and_their_lack_is_told
}

const TENANTS: usize = 150;

/// Payment with versions 1.0 (default) and 2.0, and tenants t000 to t149.
pub(crate) async fn many(plane: &Plane) {
    plane.put_service("payment", "1.0").await;
    plane.put_version("payment", "2.0", None).await;
    let tenants = (0..TENANTS).map(|at| Kind::TenantPut(tenant(&format!("t{at:03}"))));
    apply(plane, tenants.collect(), WriteOptions::default()).await.unwrap();
}

pub(crate) async fn apply(
    plane: &Plane,
    changes: Vec<Kind>,
    write: WriteOptions,
) -> Result<WriteResult, Status> {
    let proposed =
        |change| ProposedChange { change: Some(Change { change: Some(change) }), expected_revision: None };
    let changes = changes.into_iter().map(proposed).collect();
    let request = ApplyChangeSetRequest { changes, write: Some(write) };
    let response: ApplyChangeSetResponse = plane.pins().apply_change_set(request).await?.into_inner();
    Ok(response.result.unwrap())
}

async fn put_default(plane: &Plane, version: &str, write: WriteOptions) -> Result<WriteResult, Status> {
    let service = Service { id: "payment".into(), default_version: version.into(), revision: 0 };
    let request = PutServiceRequest { service: Some(service), write: Some(write) };
    Ok(plane.catalog().put_service(request).await?.into_inner().result.unwrap())
}

pub(crate) fn at_most(moves: u64) -> WriteOptions {
    WriteOptions { max_moves: Some(moves), ..WriteOptions::default() }
}

pub(crate) fn dry_run() -> WriteOptions {
    WriteOptions { dry_run: true, ..WriteOptions::default() }
}

fn moved(from: &str, to: &str, tenants: u64, examples: &[&str]) -> Move {
    Move {
        service: "payment".into(),
        from: from.into(),
        to: to.into(),
        tenants,
        examples: examples.iter().map(|id| (*id).to_owned()).collect(),
        ..Move::default()
    }
}

const FIRST: [&str; 5] = ["t000", "t001", "t002", "t003", "t004"];

async fn a_default_that_moves_many_is_told_and_needs_its_number(plane: Plane) {
    many(&plane).await;
    let before = plane.revision().await;
    for (write, limit) in [(WriteOptions::default(), "100"), (at_most(149), "149")] {
        let refused = put_default(&plane, "2.0", write).await;
        let message = refused.clone().unwrap_err().message().to_owned();
        for part in ["150 of 150 active tenants", "payment", "v1.0 → v2.0", "--moves 150", "max_moves"] {
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(
            (fact(refused.clone(), "tenants"), fact(refused.clone(), "limit")),
            ("150".into(), limit.into())
        );
        assert_eq!(refused.clone().unwrap_err().code(), tonic::Code::FailedPrecondition);
        assert_eq!(reason(refused), Reason::MovesOverBudget);
    }
    assert_eq!(plane.revision().await, before);
    let written = put_default(&plane, "2.0", at_most(150)).await.unwrap();
    assert_eq!(written.revision, before + 1);
    let told = written.moves.unwrap();
    assert_eq!(told.groups, [moved("v1.0", "v2.0", 150, &FIRST)]);
    assert_eq!((told.active, told.largest, told.budget, told.omitted), (150, 150, 100, 0));
    // A pin moves one, and who is there already is not moved.
    let put = PutPinRequest { pin: Some(pin("t007", "payment", "1.0")), ..PutPinRequest::default() };
    let result = plane.pins().put_pin(put.clone()).await.unwrap().into_inner().result.unwrap();
    assert_eq!(result.moves.unwrap().groups, [moved("v2.0", "v1.0", 1, &["t007"])]);
    let again = plane.pins().put_pin(put).await.unwrap().into_inner().result.unwrap();
    assert_eq!(again.moves.unwrap().groups, []);
    let remove = DeletePinRequest {
        tenant: "t007".into(),
        service: "payment".into(),
        write: Some(WriteOptions { max_moves: Some(0), ..WriteOptions::default() }),
    };
    assert_eq!(reason(plane.pins().delete_pin(remove).await), Reason::MovesOverBudget);
}

async fn a_dry_run_changes_nothing_and_tells_the_same(plane: Plane) {
    many(&plane).await;
    let before = (plane.revision().await, plane.events().await);
    let told = put_default(&plane, "2.0", dry_run()).await.unwrap();
    assert!(told.dry_run);
    assert_eq!((told.revision, told.routers), (before.0, None));
    let put = PutPinRequest {
        pin: Some(pin("t000", "payment", "2.0")),
        write: Some(dry_run()),
        migrate: true,
        ..Default::default()
    };
    let pinned = plane.pins().put_pin(put).await.unwrap().into_inner();
    assert_eq!(pinned.pin.unwrap().revision, 0, "what is not there was changed at no revision");
    let delete = DeleteServiceRequest { id: "payment".into(), write: Some(dry_run()) };
    let gone = plane.catalog().delete_service(delete).await.unwrap().into_inner().result.unwrap();
    assert_eq!(gone.moves.unwrap().groups, [moved("v1.0", "", 150, &FIRST)]);
    // What rules forbid is refused all the same, and no upgrade begins.
    plane.put_version("payment", "3.0", Some(("7", ""))).await;
    let put = PutPinRequest {
        pin: Some(pin("t000", "payment", "3.0")),
        write: Some(dry_run()),
        migrate: true,
        ..Default::default()
    };
    assert_eq!(reason(plane.pins().put_pin(put).await), Reason::NoLegalVersion);
    assert_eq!(plane.events().await[..before.1.len()], before.1);
    assert_eq!(plane.revision().await, before.0 + 1);
    let written = put_default(&plane, "2.0", at_most(150)).await.unwrap();
    assert_eq!(written.moves, told.moves);
}

async fn what_was_observed_is_never_refused(plane: Plane) {
    many(&plane).await;
    let window = SchemaWindow { min: String::new(), max: "1".into() };
    let narrow = ServiceVersion {
        service: "payment".into(),
        version: "1.0".into(),
        schema: Some(window),
        revision: 0,
    };
    let instances = vec![instance("a", "1.0"), instance("b", "2.0")];
    let list = ServiceInstances { service: ServiceId::new("payment").unwrap(), instances };
    plane.state.instances.replace(FencingToken(1), &list).await.unwrap();
    // Nobody's schema was observed yet, so nobody may stay on 1.0.
    let fallen =
        Move { lack: Lack::Schema.into(), wanted: "v1.0".into(), ..moved("v1.0", "v2.0", 150, &FIRST) };
    eventually(SOON, "the control plane knows what runs", async || {
        let told = apply(&plane, vec![Kind::VersionPut(narrow.clone())], dry_run()).await.unwrap();
        told.moves.unwrap().groups == [fallen.clone()]
    })
    .await;
    let narrowed = apply(&plane, vec![Kind::VersionPut(narrow.clone())], WriteOptions::default()).await;
    assert_eq!(reason(narrowed), Reason::MovesOverBudget);
    let narrowed = apply(&plane, vec![Kind::VersionPut(narrow)], at_most(150)).await.unwrap();
    assert_eq!(narrowed.moves.unwrap().groups, [fallen]);
    let seen = (0..TENANTS).map(|at| {
        let (tenant, service, schema) = (format!("t{at:03}"), "payment".into(), "1".into());
        Kind::SchemaObserved(ObservedSchema { tenant, service, schema, ..ObservedSchema::default() })
    });
    let observed = apply(&plane, seen.collect(), WriteOptions::default()).await.unwrap();
    assert_eq!(observed.moves.unwrap().groups, [moved("v2.0", "v1.0", 150, &FIRST)]);
}

async fn who_only_gains_is_never_refused(plane: Plane) {
    many(&plane).await;
    let service = Service { id: "orders".into(), default_version: "1.0".into(), revision: 0 };
    let request = PutServiceRequest { service: Some(service), write: Some(at_most(0)) };
    let created = plane.catalog().put_service(request).await.unwrap().into_inner().result.unwrap();
    let Moves { groups, largest, .. } = created.moves.unwrap();
    let gained = Move { service: "orders".into(), ..moved("", "v1.0", 150, &FIRST) };
    assert_eq!((groups, largest), (vec![gained], 0));
}

async fn instances_are_known_and_their_lack_is_told(plane: Plane) {
    many(&plane).await;
    let (service, instances) = (ServiceId::new("payment").unwrap(), vec![instance("a", "1.0")]);
    plane.state.instances.replace(FencingToken(1), &ServiceInstances { service, instances }).await.unwrap();
    let lost = Move { lack: Lack::Instance.into(), wanted: "v2.0".into(), ..moved("v1.0", "", 150, &FIRST) };
    eventually(SOON, "the control plane knows what runs", async || {
        let told = put_default(&plane, "2.0", dry_run()).await.unwrap();
        told.moves.unwrap().groups == [lost.clone()]
    })
    .await;
    assert_eq!(reason(put_default(&plane, "2.0", WriteOptions::default()).await), Reason::MovesOverBudget);
}
