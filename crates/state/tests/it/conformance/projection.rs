use crate::samples::{
    canary, event, events, load, normal, overlay_id, position, records, service_id, service_put, tenant_id,
    tenant_put, version,
};
use grey_core::change::{Change, Event, FormatLevel};
use grey_core::key::{Fact, Key};
use grey_core::policy::{Overlay, Policy};
use grey_core::record::{Record, ServiceRecord, TenantRecord};
use grey_core::service::Pin;
use grey_core::table::Table;
use grey_core::tenant::Tenant;
use grey_state::projection::{Beat, Indexes, ProjectionStatus, Repair};
use grey_state::{Digests, Error, FencingToken, State};

fn status(revision: u64) -> ProjectionStatus {
    let digests = Digests::one(u64::MAX - revision);
    ProjectionStatus { position: position(3, revision), digests, level: FormatLevel(2) }
}

async fn rebuild(state: &State, token: u64, records: Vec<Record>, revision: u64) {
    let at = status(revision);
    let mut rebuild = state.projection.rebuild(FencingToken(token), &at.position).await.unwrap();
    assert_eq!(state.projection.status().await.unwrap(), None, "an unfinished rebuild has no status");
    for batch in records.chunks(7) {
        rebuild.write(batch.to_vec()).await.unwrap();
    }
    assert_eq!(state.projection.status().await.unwrap(), None, "an unfinished rebuild has no status");
    rebuild.finish(&at).await.unwrap();
    assert_eq!(state.projection.status().await.unwrap(), Some(at));
}

async fn apply(state: &State, token: u64, event: &Event) -> Result<(), Error> {
    apply_all(state, token, std::slice::from_ref(event)).await
}

async fn apply_all(state: &State, token: u64, events: &[Event]) -> Result<(), Error> {
    let last = events.last().unwrap().revision;
    state.projection.apply(FencingToken(token), events, &status(last.0)).await
}

fn is_fenced(outcome: &Result<(), Error>, by: u64) -> bool {
    matches!(outcome, Err(Error::Fenced { newest, .. }) if *newest == by)
}

pub(crate) async fn check(state: &State) {
    nothing_can_be_applied_to_nothing(state).await;
    a_rebuild_replaces_everything(state).await;
    events_change_what_they_name_and_replays_change_nothing(state).await;
    events_at_once_end_as_one_by_one(state).await;
    what_is_put_again_or_removed_in_between_ends_as_one_by_one(state).await;
    an_event_that_does_not_follow_is_refused(state).await;
    old_leaders_and_abandoned_rebuilds_are_fenced(state).await;
    what_is_not_declared_has_no_facts(state).await;
    overlays_come_and_go_one_by_one_and_with_their_service(state).await;
    epochs_and_revisions_beyond_2_to_the_53_are_exact(state).await;
    large_projections_come_in_batches(state).await;
    records_are_repaired_one_by_one(state).await;
    signs_of_life_are_fenced_and_outlast_a_rebuild(state).await;
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

/// However events are cut into batches, and however much of a batch was there already.
async fn events_at_once_end_as_one_by_one(state: &State) {
    let model = State::memory();
    let (start, events) = (records(5, 20), events(6, 8, 90));
    for state in [state, &model] {
        rebuild(state, 2, start.clone(), 7).await;
    }
    let mut done = 0;
    for (again, size) in [(0, 1), (0, 7), (3, 20), (28, 2), (0, 30), (5, 0), (9, 30)] {
        let (from, to) = (done - again, done + size);
        apply_all(state, 2, &events[from..to]).await.unwrap();
        for event in &events[done..to] {
            apply(&model, 2, event).await.unwrap();
        }
        done = to;
        assert_eq!(load(state).await, load(&model).await, "after {done} events");
        assert_eq!(state.projection.status().await.unwrap(), Some(status(7 + done as u64)));
        assert_eq!(state.projection.indexes().await.unwrap(), model.projection.indexes().await.unwrap());
    }
    assert_eq!(done, events.len());
}

/// A unit is declared, changed, removed and declared again within one batch, its facts before and behind.
async fn what_is_put_again_or_removed_in_between_ends_as_one_by_one(state: &State) {
    let (acme, payment) = (tenant_id("acme"), service_id("payment"));
    let name = |name: &str| tenant_put(Tenant { name: name.to_owned(), ..Tenant::new(acme.clone()) });
    let pin = |service: &str, to: &str| {
        let pin = Pin { version: version(to), locked: false };
        Change::Put(Fact::Pin(acme.clone(), service_id(service), pin))
    };
    let unpin = || Change::Removed(Key::Pin(acme.clone(), payment.clone()));
    let gone = || Change::Removed(Key::Tenant(acme.clone()));
    let default = |to: &str| service_put(&payment, &version(to));
    let overlay =
        |id: &str, weight| Change::Put(Fact::Overlay(payment.clone(), Box::new(canary(id, weight))));
    let no_service = || Change::Removed(Key::Service(payment.clone()));
    let stories = [
        vec![name("a"), pin("payment", "v1"), name("b")],
        vec![pin("payment", "v1"), name("a"), pin("orders", "v1"), pin("orders", "v2")],
        vec![name("a"), pin("payment", "v1"), gone(), name("b"), pin("orders", "v2")],
        vec![name("a"), pin("payment", "v1"), pin("orders", "v1"), unpin(), name("b")],
        vec![name("a"), gone(), pin("payment", "v1")],
        vec![name("a"), pin("payment", "v1"), gone()],
        vec![name("a"), pin("payment", "v1"), unpin(), pin("payment", "v3"), name("c")],
        vec![default("v1"), overlay("o", 100), default("v2"), overlay("o", 200), overlay("p", 50)],
        vec![overlay("o", 100), default("v1"), overlay("p", 50), no_service(), default("v2")],
        vec![default("v1"), overlay("o", 100), no_service()],
    ];
    for story in stories {
        let model = State::memory();
        let events: Vec<Event> =
            (1..).zip(&story).map(|(at, change)| event(at, vec![change.clone()])).collect();
        for state in [state, &model] {
            rebuild(state, 2, vec![], 0).await;
        }
        apply_all(state, 2, &events).await.unwrap();
        for event in &events {
            apply(&model, 2, event).await.unwrap();
        }
        assert_eq!(load(state).await, load(&model).await, "{story:?}");
        assert_eq!(state.projection.indexes().await.unwrap(), model.projection.indexes().await.unwrap());
    }
}

async fn an_event_that_does_not_follow_is_refused(state: &State) {
    rebuild(state, 2, vec![], 10).await;
    let tenant = || vec![tenant_put(Tenant::new(tenant_id("late")))];
    for gap in [vec![event(12, tenant())], vec![event(11, vec![]), event(13, tenant())]] {
        let gap = apply_all(state, 2, &gap).await;
        assert!(matches!(gap, Err(Error::Corrupt { .. })), "{gap:?}");
    }
    let foreign = ProjectionStatus { position: position(4, 11), ..status(11) };
    let foreign = state.projection.apply(FencingToken(2), &[event(11, tenant())], &foreign).await;
    assert!(matches!(foreign, Err(Error::Corrupt { .. })), "{foreign:?}");
    assert_eq!(load(state).await, []);
    assert_eq!(state.projection.status().await.unwrap(), Some(status(10)));
}

async fn old_leaders_and_abandoned_rebuilds_are_fenced(state: &State) {
    rebuild(state, 3, vec![], 10).await;
    apply(state, 5, &event(11, vec![])).await.unwrap();
    let tenant = Tenant::new(tenant_id("late"));
    let late = event(12, vec![tenant_put(tenant.clone())]);
    assert!(is_fenced(&apply(state, 4, &late).await, 5));
    let refused = state.projection.rebuild(FencingToken(4), &position(3, 0)).await.err();
    assert!(matches!(refused, Some(Error::Fenced { newest: 5, .. })), "{refused:?}");
    assert_eq!(load(state).await, []);

    let mut abandoned = state.projection.rebuild(FencingToken(5), &position(3, 12)).await.unwrap();
    rebuild(state, 5, vec![], 12).await;
    let records = || {
        let tenant = tenant.clone();
        vec![Record::Tenant(tenant.into())]
    };
    assert!(is_fenced(&abandoned.write(records()).await, 5));
    assert!(is_fenced(&abandoned.finish(&status(12)).await, 5));
    let mut old = state.projection.rebuild(FencingToken(5), &position(3, 12)).await.unwrap();
    let newer = state.projection.rebuild(FencingToken(6), &position(3, 12)).await.unwrap();
    assert!(is_fenced(&old.write(records()).await, 6));
    assert!(is_fenced(&old.finish(&status(12)).await, 6));
    newer.finish(&status(12)).await.unwrap();
    assert_eq!(load(state).await, []);
    assert_eq!(state.projection.status().await.unwrap(), Some(status(12)));
}

/// The log declares a tenant or service first, so what comes without it was removed since.
async fn what_is_not_declared_has_no_facts(state: &State) {
    rebuild(state, 7, vec![], 0).await;
    let (tenant, service) = (Tenant::new(tenant_id("acme")), service_id("payment"));
    let pin = Pin { version: version("v2.1"), locked: true };
    let pinned = || Change::Put(Fact::Pin(tenant.id.clone(), service.clone(), pin.clone()));
    let overlaid = || Change::Put(Fact::Overlay(service.clone(), Box::new(canary("o", 100))));
    let declared = || [tenant_put(tenant.clone()), service_put(&service, &version("v1"))];
    apply(state, 7, &event(1, vec![pinned(), overlaid()])).await.unwrap();
    assert_eq!(load(state).await, []);
    apply(state, 7, &event(2, declared().into())).await.unwrap();
    let bare = load(state).await;
    assert!(
        matches!(&bare[..], [Record::Service(s), Record::Tenant(t)] if s.overlays.is_empty() && t.pins.is_empty()),
        "{bare:?}"
    );
    apply(state, 7, &event(3, vec![pinned(), overlaid()])).await.unwrap();
    let whole = load(state).await;
    assert!(
        matches!(&whole[..], [Record::Service(s), Record::Tenant(t)]
            if s.overlays == [canary("o", 100)] && t.pins == [(service.clone(), pin.clone())]),
        "{whole:?}"
    );
    let gone =
        vec![Change::Removed(Key::Tenant(tenant.id.clone())), Change::Removed(Key::Service(service.clone()))];
    apply(state, 7, &event(4, gone)).await.unwrap();
    assert_eq!(load(state).await, []);
    apply(state, 7, &event(5, declared().into())).await.unwrap();
    assert_eq!(load(state).await, bare, "what is declared again has nothing of before");
}

async fn overlays_come_and_go_one_by_one_and_with_their_service(state: &State) {
    rebuild(state, 7, vec![], 0).await;
    let service = service_id("payment");
    let put = |overlay: &Overlay| Change::Put(Fact::Overlay(service.clone(), Box::new(overlay.clone())));
    let overlays = async || match &load(state).await[..] {
        [Record::Service(record)] => record.overlays.clone(),
        other => panic!("not one service but {other:?}"),
    };
    let (first, second, raised) = (canary("a", 100), canary("b", 200), canary("a", 300));
    let changes = vec![service_put(&service, &version("v1")), put(&second), put(&first)];
    apply(state, 7, &event(1, changes)).await.unwrap();
    assert_eq!(overlays().await, [first.clone(), second.clone()], "by id");
    apply(state, 7, &event(2, vec![put(&raised)])).await.unwrap();
    assert_eq!(overlays().await, [raised.clone(), second.clone()]);
    let policy = Policy { stateless: true, ..Policy::default() };
    let policy = Change::Put(Fact::Policy(service.clone(), policy));
    apply(state, 7, &event(3, vec![policy, service_put(&service, &version("v2"))])).await.unwrap();
    assert_eq!(overlays().await, [raised.clone(), second.clone()], "a policy has none to replace");

    rebuild(state, 7, load(state).await, 3).await;
    assert_eq!(overlays().await, [raised, second.clone()]);
    let gone = |id: &str| Change::Removed(Key::Overlay(service.clone(), overlay_id(id)));
    apply(state, 7, &event(4, vec![gone("a"), gone("unknown")])).await.unwrap();
    assert_eq!(overlays().await, [second]);
    apply(state, 7, &event(5, vec![Change::Removed(Key::Policy(service.clone()))])).await.unwrap();
    let plain = load(state).await;
    assert!(
        matches!(&plain[..], [Record::Service(ServiceRecord { policy, overlays, .. })]
            if *policy == Policy::default() && overlays.len() == 1),
        "{plain:?}"
    );
    apply(state, 7, &event(6, vec![Change::Removed(Key::Service(service.clone()))])).await.unwrap();
    apply(state, 7, &event(7, vec![service_put(&service, &version("v1"))])).await.unwrap();
    assert_eq!(overlays().await, []);
}

async fn epochs_and_revisions_beyond_2_to_the_53_are_exact(state: &State) {
    let at = |revision| ProjectionStatus { position: position(u64::MAX - 1, revision), ..status(1) };
    let (base, token) = ((1 << 60) + 1, FencingToken(7));
    let rebuild = state.projection.rebuild(token, &at(base).position).await.unwrap();
    rebuild.finish(&at(base)).await.unwrap();
    for revision in [base + 1, base + 2] {
        state.projection.apply(token, &[event(revision, vec![])], &at(revision)).await.unwrap();
        assert_eq!(state.projection.status().await.unwrap(), Some(at(revision)));
    }
    let later = ProjectionStatus { position: position(u64::MAX, base + 3), ..status(1) };
    let later = state.projection.apply(token, &[event(base + 3, vec![])], &later).await;
    assert!(matches!(later, Err(Error::Corrupt { .. })), "{later:?}");
}

async fn large_projections_come_in_batches(state: &State) {
    let tenant = |n: usize| {
        Record::Tenant(TenantRecord {
            pins: (0..5)
                .map(|s| (service_id(&format!("s{s}")), Pin { version: version("v1"), locked: false }))
                .collect(),
            ..Tenant::new(tenant_id(&format!("t{n:05}"))).into()
        })
    };
    let records: Vec<Record> = (0..1_700).map(tenant).collect();
    let mut rebuild = state.projection.rebuild(FencingToken(8), &position(3, 1)).await.unwrap();
    rebuild.write(records.clone()).await.unwrap();
    rebuild.finish(&status(1)).await.unwrap();
    let mut sizes = Vec::new();
    state.projection.load(&mut |batch| sizes.push(batch.len())).await.unwrap();
    assert!(sizes.len() >= 3 && sizes.iter().all(|size| (1..=700).contains(size)), "{sizes:?}");
    assert_eq!(load(state).await, normal(records));
}

async fn records_are_repaired_one_by_one(state: &State) {
    let token = FencingToken(9);
    rebuild(state, 9, records(5, 30), 20).await;
    let (mut wanted, others) = (records(5, 30), records(6, 8));
    let gone: Vec<Record> = wanted.drain(..4).collect();
    wanted.extend(others.iter().cloned());
    let removals = gone.iter().map(|record| Repair::Remove(record.key().into()));
    let repairs: Vec<Repair> = removals.chain(others.into_iter().map(Repair::Put)).collect();
    state.projection.repair(token, &position(3, 20), &repairs).await.unwrap();
    let wanted = normal(wanted);
    assert_eq!(load(state).await, wanted);
    let mut table = Table::default();
    wanted.into_iter().for_each(|record| table.insert(record));
    let indexes = Indexes::of(&table);
    assert_eq!(state.projection.indexes().await.unwrap(), indexes);
    state.projection.reindex(token, &indexes).await.unwrap();
    assert_eq!(state.projection.indexes().await.unwrap(), indexes);
    assert_eq!(state.projection.status().await.unwrap(), Some(status(20)), "a repair does not withdraw it");
    apply(state, 9, &event(21, vec![tenant_put(Tenant::new(tenant_id("after")))])).await.unwrap();
    let late = state.projection.repair(FencingToken(8), &position(3, 21), &repairs).await;
    assert!(is_fenced(&late, 9));
    assert!(is_fenced(&state.projection.reindex(FencingToken(8), &indexes).await, 9));
}

async fn signs_of_life_are_fenced_and_outlast_a_rebuild(state: &State) {
    let beat = |number| Beat { number, position: position(u64::MAX, number) };
    let (old, new) = (FencingToken(10), FencingToken(11));
    for number in [7, u64::MAX] {
        state.projection.beat(new, &beat(number)).await.unwrap();
        assert_eq!(state.projection.last_beat().await.unwrap(), Some(beat(number)));
    }
    assert!(is_fenced(&state.projection.beat(old, &beat(8)).await, 11));
    drop(state.projection.rebuild(new, &position(3, 1)).await.unwrap());
    assert_eq!(state.projection.status().await.unwrap(), None);
    assert_eq!(state.projection.last_beat().await.unwrap(), Some(beat(u64::MAX)));
    rebuild(state, 11, vec![], 12).await;
    assert_eq!(state.projection.last_beat().await.unwrap(), Some(beat(u64::MAX)));
}
