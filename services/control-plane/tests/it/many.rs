//! Writes about many tenants: one command, one event, one revision.

use std::collections::BTreeSet;

use grey_core::change::Revision;
use grey_core::error::Reason;
use grey_proto::control::change::Change as Kind;
use grey_proto::control::overlay::Kind as OverlayKind;
use grey_proto::control::{
    Canary, GetServiceRequest, ListEventsRequest, ListPinsRequest, OnVersion, Overlay, PromoteOverlayRequest,
    PutOverlayRequest, PutPinsRequest, PutPinsResponse, Tenant, TenantSelector, WatchEventsRequest,
    WriteOptions,
};
use grey_state::follower::{Follower, Options};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::fixture::{Plane, SOON, fact, on_both, reason, tenant};
use crate::moves::{apply, at_most, dry_run, many};

on_both! {
    thousands_are_pinned_at_one_revision
    what_is_selected_is_told_and_what_is_so_already_is_left_alone
    a_selector_that_says_nothing_or_something_unknown_is_refused
    one_without_the_schema_refuses_all
    a_promotion_moves_nobody
    many_are_pinned_and_promoted_over_http
}

const MANY: usize = 2_500;

fn selector(tiers: &[&str]) -> Option<TenantSelector> {
    let tiers = tiers.iter().map(|tier| (*tier).to_owned()).collect();
    Some(TenantSelector { tiers, ..TenantSelector::default() })
}

fn to(version: &str, tenants: Option<TenantSelector>) -> PutPinsRequest {
    let write = Some(at_most(u64::MAX));
    PutPinsRequest {
        tenants,
        service: "payment".into(),
        version: version.into(),
        write,
        ..Default::default()
    }
}

async fn put(plane: &Plane, request: PutPinsRequest) -> Result<PutPinsResponse, Status> {
    Ok(plane.pins().put_pins(request).await?.into_inner())
}

/// Payment with versions 1.0 (default), 2.0 and so many tenants, of which every other is gold.
async fn tiers(plane: &Plane, count: usize) {
    plane.put_service("payment", "1.0").await;
    plane.put_version("payment", "2.0", None).await;
    let ids: Vec<usize> = (0..count).collect();
    for some in ids.chunks(1_000) {
        let one = |at: &usize| {
            let tier = if at.is_multiple_of(2) { "gold" } else { "free" }.to_owned();
            Kind::TenantPut(Tenant { tier, ..tenant(&format!("t{at:05}")) })
        };
        apply(plane, some.iter().map(one).collect(), WriteOptions::default()).await.unwrap();
    }
}

async fn thousands_are_pinned_at_one_revision(plane: Plane) {
    tiers(&plane, 2 * MANY).await;
    let before = plane.revision().await;
    let (follower, tables) = Follower::new(plane.state.clone(), Options::default());
    let stop = CancellationToken::new();
    tokio::spawn(follower.run(stop.clone()));
    let told = put(&plane, PutPinsRequest { write: Some(dry_run()), ..to("2.0", selector(&["gold"])) }).await;
    let done = put(&plane, to("2.0", selector(&["gold"]))).await.unwrap();
    assert_eq!((done.selected, done.changed), (MANY as u64, MANY as u64));
    let result = done.result.unwrap();
    assert_eq!(result.revision, before + 1);
    assert_eq!(result.moves, told.unwrap().result.unwrap().moves);
    assert_eq!(result.moves.unwrap().largest, MANY as u64);

    // A router sees all of it or nothing.
    assert!(tables.wait_until(|position| position.revision == Revision(before + 1), SOON).await);
    let pinned = |at: Revision| {
        let table = tables.at(at).unwrap();
        let service = table.service("payment").unwrap();
        table.tenants().filter(|(_, row)| service.assigned(Some(row)).pin.is_some()).count()
    };
    assert_eq!((pinned(Revision(before)), pinned(Revision(before + 1))), (0, MANY));

    // In a list the pins beyond a thousand are left out, in a stream they follow.
    let list = ListEventsRequest { after: before, limit: 1, ..ListEventsRequest::default() };
    let listed = plane.history().list_events(list).await.unwrap().into_inner().events.remove(0);
    assert_eq!((listed.changes.len(), listed.omitted), (1_000, MANY as u64 - 1_000));
    let watch = WatchEventsRequest { after: before };
    let mut stream = plane.history().watch_events(watch).await.unwrap().into_inner();
    let (mut parts, mut tenants) = (Vec::new(), BTreeSet::new());
    loop {
        let part = tokio::time::timeout(SOON, stream.message()).await.unwrap().unwrap().unwrap();
        let part = part.event.unwrap();
        assert_eq!(part.revision, before + 1);
        parts.push(part.omitted);
        tenants.extend(part.changes.into_iter().filter_map(|change| match change.change {
            Some(Kind::PinPut(pin)) => Some(pin.tenant),
            _ => None,
        }));
        if part.omitted == 0 {
            break;
        }
    }
    assert_eq!((parts, tenants.len()), (vec![1_500, 500, 0], MANY));
    stop.cancel();
}

async fn what_is_selected_is_told_and_what_is_so_already_is_left_alone(plane: Plane) {
    tiers(&plane, 10).await;
    plane.put_pin("t00000", "payment", "2.0").await.unwrap();
    let pin_of = async |id: &str| {
        let request = ListPinsRequest { tenant: id.to_owned(), ..ListPinsRequest::default() };
        plane.pins().list_pins(request).await.unwrap().into_inner().pins.pop()
    };
    let first = pin_of("t00000").await.unwrap().revision;
    let done = put(&plane, to("2.0", selector(&["gold"]))).await.unwrap();
    assert_eq!((done.selected, done.changed), (5, 4));
    assert_eq!(pin_of("t00000").await.unwrap().revision, first);
    assert_eq!(pin_of("t00001").await, None);
    // Whoever is on 2.0 now goes back; conditions are taken together.
    let on_version = Some(OnVersion { service: "payment".into(), version: "2.0".into() });
    let tenants = ["t00000", "t00001", "t00002"].map(str::to_owned).to_vec();
    let selector = Some(TenantSelector { tenants, on_version, ..TenantSelector::default() });
    let request = PutPinsRequest { version: String::new(), remove: true, ..to("", selector) };
    let done = put(&plane, request.clone()).await.unwrap();
    assert_eq!((done.selected, done.changed), (2, 2));
    assert_eq!(pin_of("t00000").await, None);
    let before = plane.revision().await;
    let none = put(&plane, request).await.unwrap();
    assert_eq!((none.selected, none.changed, none.result.unwrap().revision), (0, 0, before));
    let all = Some(TenantSelector { all: true, ..TenantSelector::default() });
    let stale = WriteOptions { expected_revision: Some(before - 1), ..at_most(10) };
    let refused = put(&plane, PutPinsRequest { write: Some(stale), ..to("2.0", all.clone()) }).await;
    assert_eq!(reason(refused), Reason::RevisionMismatch);
    let over = put(&plane, PutPinsRequest { write: Some(at_most(6)), ..to("2.0", all) }).await;
    assert_eq!((fact(over.clone(), "tenants"), reason(over)), ("7".into(), Reason::MovesOverBudget));
}

async fn a_selector_that_says_nothing_or_something_unknown_is_refused(plane: Plane) {
    tiers(&plane, 2).await;
    let before = plane.revision().await;
    let refused = async |request| reason(put(&plane, request).await);
    assert_eq!(refused(to("2.0", None)).await, Reason::InvalidArgument);
    assert_eq!(refused(to("2.0", Some(TenantSelector::default()))).await, Reason::InvalidArgument);
    let both = TenantSelector { all: true, ..selector(&["gold"]).unwrap() };
    assert_eq!(refused(to("2.0", Some(both))).await, Reason::InvalidArgument);
    assert_eq!(refused(to("", selector(&["gold"]))).await, Reason::InvalidArgument);
    let remove = PutPinsRequest { remove: true, ..to("2.0", selector(&["gold"])) };
    assert_eq!(refused(remove).await, Reason::InvalidArgument);
    let named =
        Some(TenantSelector { tenants: vec!["t00000".into(), "nobody".into()], ..Default::default() });
    assert_eq!(refused(to("2.0", named)).await, Reason::UnknownTenant);
    assert_eq!(refused(to("9", selector(&["gold"]))).await, Reason::UnknownVersion);
    for (service, version, why) in
        [("paymnt", "1.0", Reason::UnknownService), ("payment", "9.0", Reason::UnknownVersion)]
    {
        let on_version = Some(OnVersion { service: service.into(), version: version.into() });
        let on = Some(TenantSelector { on_version, ..TenantSelector::default() });
        assert_eq!(refused(to("2.0", on)).await, why);
    }
    let elsewhere = PutPinsRequest { service: "nothing".into(), ..to("2.0", selector(&["gold"])) };
    assert_eq!(refused(elsewhere).await, Reason::UnknownService);
    assert_eq!(plane.revision().await, before);
}

async fn one_without_the_schema_refuses_all(plane: Plane) {
    tiers(&plane, 20).await;
    plane.put_version("payment", "3.0", Some(("2", ""))).await;
    let before = plane.revision().await;
    let refused = put(&plane, to("3.0", selector(&["gold"]))).await;
    let message = refused.clone().unwrap_err().message().to_owned();
    assert!(message.contains("10 of 10 tenants") && message.contains("t00000, t00002"), "{message}");
    assert_eq!(reason(refused), Reason::NoLegalVersion);
    assert_eq!(plane.revision().await, before);
}

fn canary(weight: u32) -> Overlay {
    let (baseline, canary) = ("1.0".to_owned(), "2.0".to_owned());
    let kind = Some(OverlayKind::Canary(Canary { baseline, canary, weight, ..Canary::default() }));
    Overlay { service: "payment".into(), id: "c".into(), layer: "c".into(), kind, ..Overlay::default() }
}

async fn a_promotion_moves_nobody(plane: Plane) {
    tiers(&plane, 300).await;
    put(&plane, to("1.0", selector(&["gold"]))).await.unwrap();
    let laid =
        PutOverlayRequest { overlay: Some(canary(3_000)), write: Some(at_most(300)), ..Default::default() };
    let dry = PutOverlayRequest { write: Some(dry_run()), ..laid.clone() };
    let told = plane.catalog().put_overlay(dry).await.unwrap().into_inner().result.unwrap().moves;
    let moved = plane.catalog().put_overlay(laid).await.unwrap().into_inner().result.unwrap().moves;
    assert_eq!(moved, told, "a new layer's salt is the same in a dry run");
    let moved = moved.unwrap();
    assert!((50..130).contains(&moved.largest), "{moved:?}");
    let request = PromoteOverlayRequest {
        service: "payment".into(),
        id: "c".into(),
        write: Some(at_most(0)),
        ..PromoteOverlayRequest::default()
    };
    let promote = async |request: PromoteOverlayRequest| {
        Ok::<_, Status>(plane.catalog().promote_overlay(request).await?.into_inner())
    };
    let dry = PromoteOverlayRequest { write: Some(dry_run()), ..request.clone() };
    let told = promote(dry).await.unwrap();
    let before = plane.revision().await;
    let done = promote(request.clone()).await.unwrap();
    assert_eq!(done.pinned, told.pinned);
    let result = done.result.unwrap();
    assert_eq!((result.moves.unwrap().groups, result.revision), (Vec::new(), before + 1));
    let service = GetServiceRequest { id: "payment".into() };
    let service = plane.catalog().get_service(service).await.unwrap().into_inner();
    assert_eq!(service.service.unwrap().default_version, "v2.0");
    assert_eq!(service.overlays, []);
    let events = plane.events().await;
    assert_eq!(events.last().unwrap().changes.len() as u64, done.pinned + 2, "one event");
    assert_eq!(reason(promote(request).await), Reason::UnknownOverlay);
}

async fn many_are_pinned_and_promoted_over_http(plane: Plane) {
    many(&plane).await;
    let body = json!({"tenants": {"all": true}, "service": "payment", "version": "2.0"});
    let (status, told) = plane.call(Method::POST, "/api/pins?dryRun=true", body.clone()).await;
    assert_eq!((status, &told["result"]["moves"]["largest"]), (StatusCode::OK, &json!("150")), "{told}");
    let (status, refused) = plane.call(Method::POST, "/api/pins", body.clone()).await;
    assert_eq!((status, &refused["error"]["reason"]), (StatusCode::CONFLICT, &json!("MOVES_OVER_BUDGET")));
    let path = "/api/pins?maxMoves=150&reason=wave";
    let old = [("if-match", "\"1-1\"")];
    let (status, refused) = plane.call_if(Method::POST, path, body.clone(), &old).await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED, "what was previewed is not what is there: {refused}");
    let known = |tag: &Value| tag.as_str().unwrap().to_owned();
    let (epoch, log) = (known(&told["result"]["epoch"]), known(&told["result"]["revision"]));
    let metadata = &refused["error"]["metadata"];
    assert_eq!((known(&metadata["epoch"]), known(&metadata["present"])), (epoch.clone(), log.clone()));
    let tag = format!("\"{epoch}-{log}\"");
    let (status, done) = plane.call_if(Method::POST, path, body, &[("if-match", tag.as_str())]).await;
    assert_eq!((status, &done["changed"]), (StatusCode::OK, &json!("150")), "{done}");

    plane.call(Method::PUT, "/api/services/payment?maxMoves=150", json!({"defaultVersion": "2.0"})).await;
    let canary = json!({"layer": "c", "canary": {"baseline": "2.0", "canary": "1.0", "weight": 10_000}});
    let overlay = "/api/services/payment/overlays/c";
    let (status, laid) = plane.call(Method::PUT, &format!("{overlay}?maxMoves=150"), canary).await;
    assert_eq!(status, StatusCode::OK, "{laid}");
    let (status, done) =
        plane.call(Method::POST, &format!("{overlay}/promotion?maxMoves=0"), json!({})).await;
    assert_eq!((status, &done["pinned"]), (StatusCode::OK, &json!("150")), "{done}");
    let (_, service) = plane.call(Method::GET, "/api/services/payment", json!(null)).await;
    assert_eq!(service["service"]["defaultVersion"], "v1.0");
}
