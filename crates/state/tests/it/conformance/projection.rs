use crate::samples::{event, events, load, normal, position, records, service_id, tenant_id, version};
use grey_core::change::{Change, Event, Record};
use grey_core::service::{Pin, Service};
use grey_core::tenant::Tenant;
use grey_state::projection::ProjectionStatus;
use grey_state::{Error, FencingToken, State};

fn status(revision: u64) -> ProjectionStatus {
    ProjectionStatus { position: position("g", revision), digest: u64::MAX - revision }
}

async fn rebuild(state: &State, token: u64, records: Vec<Record>, revision: u64) {
    let at = status(revision);
    let mut rebuild = state.projection.rebuild(FencingToken(token), &at.position).await.unwrap();
    assert_eq!(state.projection.status().await.unwrap(), None, "an unfinished rebuild has no status");
    for batch in records.chunks(7) {
        rebuild.write(batch.to_vec()).await.unwrap();
    }
    assert_eq!(state.projection.status().await.unwrap(), None, "an unfinished rebuild has no status");
    rebuild.finish(at.digest).await.unwrap();
    assert_eq!(state.projection.status().await.unwrap(), Some(at));
}

async fn apply(state: &State, token: u64, event: &Event) -> Result<(), Error> {
    state.projection.apply(FencingToken(token), event, &status(event.revision.0)).await
}

fn is_fenced(outcome: &Result<(), Error>, by: u64) -> bool {
    matches!(outcome, Err(Error::Fenced { newest, .. }) if *newest == by)
}

pub(crate) async fn check(state: &State) {
    nothing_can_be_applied_to_nothing(state).await;
    a_rebuild_replaces_everything(state).await;
    events_change_what_they_name_and_replays_change_nothing(state).await;
    an_event_that_does_not_follow_is_refused(state).await;
    old_leaders_and_abandoned_rebuilds_are_fenced(state).await;
    an_undeclared_tenant_is_not_loaded(state).await;
    large_projections_come_in_batches(state).await;
}

async fn nothing_can_be_applied_to_nothing(state: &State) {
    assert_eq!(state.projection.status().await.unwrap(), None);
    let refused = apply(state, 1, &event(1, vec![])).await;
    assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
    assert_eq!(state.projection.status().await.unwrap(), None);
    assert_eq!(load(state).await, []);
}

async fn a_rebuild_replaces_everything(state: &State) {
    let first = records(1, 80);
    rebuild(state, 1, first.clone(), 40).await;
    assert_eq!(load(state).await, first);
    let second = records(2, 60);
    rebuild(state, 1, second.clone(), 41).await;
    assert_eq!(load(state).await, second);
    rebuild(state, 1, vec![], 0).await;
    assert_eq!(load(state).await, []);
}

/// The model is the implementation in memory, which has neither units nor encodings.
async fn events_change_what_they_name_and_replays_change_nothing(state: &State) {
    let model = State::memory();
    let (start, events) = (records(3, 20), events(4, 8, 60));
    for state in [state, &model] {
        rebuild(state, 2, start.clone(), 7).await;
    }
    for (done, event) in events.iter().enumerate() {
        apply(state, 2, event).await.unwrap();
        apply(&model, 2, event).await.unwrap();
        assert_eq!(state.projection.status().await.unwrap(), Some(status(event.revision.0)));
        assert_eq!(load(state).await, load(&model).await, "after {event:?}");
        if done % 10 == 9 {
            for replayed in &events[done - 5..=done] {
                apply(state, 2, replayed).await.unwrap();
            }
            assert_eq!(load(state).await, load(&model).await, "after a replay");
            assert_eq!(state.projection.status().await.unwrap(), Some(status(event.revision.0)));
        }
    }
}

async fn an_event_that_does_not_follow_is_refused(state: &State) {
    rebuild(state, 2, vec![], 10).await;
    let tenant = || vec![Change::TenantPut(Tenant::new(tenant_id("late")))];
    let gap = apply(state, 2, &event(12, tenant())).await;
    assert!(matches!(gap, Err(Error::Corrupt { .. })), "{gap:?}");
    let foreign = ProjectionStatus { position: position("other", 11), digest: 0 };
    let foreign = state.projection.apply(FencingToken(2), &event(11, tenant()), &foreign).await;
    assert!(matches!(foreign, Err(Error::Corrupt { .. })), "{foreign:?}");
    assert_eq!(load(state).await, []);
    assert_eq!(state.projection.status().await.unwrap(), Some(status(10)));
}

async fn old_leaders_and_abandoned_rebuilds_are_fenced(state: &State) {
    rebuild(state, 3, vec![], 10).await;
    apply(state, 5, &event(11, vec![])).await.unwrap();
    let tenant = Tenant::new(tenant_id("late"));
    let late = event(12, vec![Change::TenantPut(tenant.clone())]);
    assert!(is_fenced(&apply(state, 4, &late).await, 5));
    let refused = state.projection.rebuild(FencingToken(4), &position("g", 0)).await.err();
    assert!(matches!(refused, Some(Error::Fenced { newest: 5, .. })), "{refused:?}");
    assert_eq!(load(state).await, []);

    let mut abandoned = state.projection.rebuild(FencingToken(5), &position("g", 12)).await.unwrap();
    rebuild(state, 5, vec![], 12).await;
    let records = || {
        let tenant = tenant.clone();
        vec![Record::Tenant(grey_core::change::TenantRecord { tenant, pins: vec![], schemas: vec![] })]
    };
    assert!(is_fenced(&abandoned.write(records()).await, 5));
    assert!(is_fenced(&abandoned.finish(1).await, 5));
    let mut old = state.projection.rebuild(FencingToken(5), &position("g", 12)).await.unwrap();
    let newer = state.projection.rebuild(FencingToken(6), &position("g", 12)).await.unwrap();
    assert!(is_fenced(&old.write(records()).await, 6));
    assert!(is_fenced(&old.finish(1).await, 6));
    newer.finish(status(12).digest).await.unwrap();
    assert_eq!(load(state).await, []);
    assert_eq!(state.projection.status().await.unwrap(), Some(status(12)));
}

async fn an_undeclared_tenant_is_not_loaded(state: &State) {
    rebuild(state, 7, vec![], 0).await;
    let (tenant, service) = (Tenant::new(tenant_id("acme")), service_id("payment"));
    let pin = Pin { version: version("v2.1"), locked: true };
    let put = Change::PinPut { tenant: tenant.id.clone(), service: service.clone(), pin: pin.clone() };
    apply(state, 7, &event(1, vec![put])).await.unwrap();
    assert_eq!(load(state).await, []);
    let default = Service { id: service.clone(), default: version("v1") };
    let both = vec![Change::TenantPut(tenant.clone()), Change::ServicePut(default)];
    apply(state, 7, &event(2, both)).await.unwrap();
    let loaded = load(state).await;
    let pinned = loaded
        .iter()
        .any(|record| matches!(record, Record::Tenant(t) if t.pins == [(service.clone(), pin.clone())]));
    assert!(loaded.len() == 2 && pinned, "{loaded:?}");
    let gone = vec![Change::TenantRemoved(tenant.id.clone()), Change::ServiceRemoved(service.clone())];
    apply(state, 7, &event(3, gone)).await.unwrap();
    assert_eq!(load(state).await, []);
    apply(state, 7, &event(4, vec![Change::TenantPut(tenant.clone())])).await.unwrap();
    let back = load(state).await;
    assert!(
        matches!(&back[..], [Record::Tenant(t)] if t.pins.is_empty()),
        "a pin outlived its tenant: {back:?}"
    );
}

async fn large_projections_come_in_batches(state: &State) {
    let tenant = |n: usize| {
        Record::Tenant(grey_core::change::TenantRecord {
            tenant: Tenant::new(tenant_id(&format!("t{n:05}"))),
            pins: (0..5)
                .map(|s| (service_id(&format!("s{s}")), Pin { version: version("v1"), locked: false }))
                .collect(),
            schemas: vec![],
        })
    };
    let records: Vec<Record> = (0..1_700).map(tenant).collect();
    let mut rebuild = state.projection.rebuild(FencingToken(8), &position("g", 1)).await.unwrap();
    rebuild.write(records.clone()).await.unwrap();
    rebuild.finish(0).await.unwrap();
    let mut sizes = Vec::new();
    state.projection.load(&mut |batch| sizes.push(batch.len())).await.unwrap();
    assert!(sizes.len() >= 3 && sizes.iter().all(|size| (1..=700).contains(size)), "{sizes:?}");
    assert_eq!(load(state).await, normal(records));
}
