//! Pages of the event log: what is asked for, and whether more follows.

use grey_core::change::Principal;
use grey_core::error::Reason;
use grey_proto::control::{
    DeletePinRequest, Event, ListEventsRequest, ListEventsResponse, PutPinsRequest, PutTenantRequest,
    TenantSelector, WriteOptions, change,
};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend};

use crate::fixture::{Plane, on_both, reason, tenant};

on_both! {
    a_page_says_whether_more_follows
    a_page_of_large_events_says_that_more_follow
    events_are_found_by_tenant_and_service
    events_are_found_by_actor_and_time
    a_page_that_finds_nothing_says_where_to_go_on
    what_cannot_be_asked_for_is_refused
}

async fn list(plane: &Plane, request: ListEventsRequest) -> ListEventsResponse {
    plane.history().list_events(request).await.unwrap().into_inner()
}

fn revisions(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.revision).collect()
}

/// All pages, as revisions of each.
async fn pages(plane: &Plane, mut request: ListEventsRequest) -> Vec<Vec<u64>> {
    let mut pages = Vec::new();
    loop {
        let page = list(plane, request.clone()).await;
        pages.push(revisions(&page.events));
        match page.next {
            0 => return pages,
            next if request.newest_first => request.before = next,
            next => request.after = next,
        }
    }
}

async fn all(plane: &Plane, request: ListEventsRequest) -> Vec<u64> {
    pages(plane, request).await.concat()
}

async fn database(plane: &Plane) -> DatabaseConnection {
    sea_orm::Database::connect(&plane.store.url).await.unwrap()
}

async fn a_page_says_whether_more_follows(plane: Plane) {
    for i in 0..10 {
        plane.put_tenant(&format!("t{i}")).await;
    }
    let ask = |after, before, limit, newest_first| ListEventsRequest {
        after,
        before,
        limit,
        newest_first,
        ..ListEventsRequest::default()
    };
    let both = async |request| {
        let page = list(&plane, request).await;
        (revisions(&page.events), page.next)
    };
    assert_eq!(both(ask(0, 0, 4, false)).await, (vec![1, 2, 3, 4], 4));
    assert_eq!(both(ask(4, 0, 6, false)).await, (vec![5, 6, 7, 8, 9, 10], 0), "exactly what is left");
    assert_eq!(both(ask(4, 7, 6, false)).await, (vec![5, 6], 0));
    assert_eq!(both(ask(4, 7, 1, false)).await, (vec![5], 5));
    assert_eq!(both(ask(0, 0, 4, true)).await, (vec![10, 9, 8, 7], 7));
    assert_eq!(both(ask(0, 7, 6, true)).await, (vec![6, 5, 4, 3, 2, 1], 0));
    assert_eq!(both(ask(3, 7, 2, true)).await, (vec![6, 5], 5));
    assert_eq!(both(ask(10, 0, 2, false)).await, (vec![], 0));
    for newest_first in [false, true] {
        let pages = pages(&plane, ask(0, 0, 3, newest_first)).await;
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 3, 1]);
    }
}

async fn a_page_of_large_events_says_that_more_follow(plane: Plane) {
    plane.acme().await;
    // Each of the copies has some hundred kilobytes.
    let labels = (0..30).map(|i| (format!("label-{i}"), "x".repeat(120))).collect();
    let large = grey_proto::control::Tenant { labels, ..tenant("large") };
    let request = PutTenantRequest { tenant: Some(large), write: None, update_mask: Vec::new() };
    plane.tenants().put_tenant(request).await.unwrap();
    let event = plane.events().await.pop().unwrap();
    let changes: Vec<_> = event.changes.iter().cycle().take(90).cloned().collect();
    let (head, database) = (plane.revision().await, database(&plane).await);
    for revision in head + 1..=head + 10 {
        let body = Event { revision, changes: changes.clone(), ..event.clone() };
        let bytes = prost::Message::encode_to_vec(&body);
        assert!(bytes.len() > 300_000, "{}", bytes.len());
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let body = match database.get_database_backend() {
            DbBackend::Postgres => format!("decode('{hex}', 'hex')"),
            _ => format!("x'{hex}'"),
        };
        let sql = format!("INSERT INTO events VALUES ({revision}, 1, 'someone', '', {body})");
        database.execute_unprepared(&sql).await.unwrap();
    }
    let sql = format!("UPDATE log_head SET revision = {}", head + 10);
    database.execute_unprepared(&sql).await.unwrap();
    let first = list(&plane, ListEventsRequest { after: head, ..ListEventsRequest::default() }).await;
    assert!((2..10).contains(&first.events.len()), "{}", first.events.len());
    assert_eq!(first.next, head + first.events.len() as u64);
    let newest = ListEventsRequest { newest_first: true, after: head, ..ListEventsRequest::default() };
    let newest = list(&plane, newest).await;
    assert_eq!(newest.next, head + 11 - newest.events.len() as u64);
}

async fn events_are_found_by_tenant_and_service(plane: Plane) {
    for service in ["a", "b"] {
        plane.put_service(service, "1.0").await;
    }
    for tenant in ["acme", "beta"] {
        plane.put_tenant(tenant).await;
    }
    plane.put_version("a", "2.0", None).await;
    assert_eq!(plane.put_pin("acme", "a", "2.0").await.unwrap(), 6);
    plane.put_pin("acme", "b", "1.0").await.unwrap();
    plane.put_pin("beta", "a", "1.0").await.unwrap();
    let tenants = Some(TenantSelector { all: true, ..TenantSelector::default() });
    let write = Some(WriteOptions { max_moves: Some(10), ..WriteOptions::default() });
    let many = PutPinsRequest {
        tenants,
        service: "b".into(),
        version: "1.0".into(),
        locked: true,
        write,
        ..PutPinsRequest::default()
    };
    plane.pins().put_pins(many).await.unwrap();
    let remove = DeletePinRequest { tenant: "acme".into(), service: "a".into(), write: None };
    plane.pins().delete_pin(remove).await.unwrap();

    let of = |tenant: &str, service: &str, limit| ListEventsRequest {
        tenant: tenant.into(),
        service: service.into(),
        limit,
        ..ListEventsRequest::default()
    };
    for limit in [1, 3, 1_000] {
        assert_eq!(all(&plane, of("acme", "", limit)).await, [3, 6, 7, 9, 10]);
        assert_eq!(all(&plane, of("", "a", limit)).await, [1, 5, 6, 8, 10], "its pins too");
        assert_eq!(all(&plane, of("", "b", limit)).await, [2, 7, 9]);
        assert_eq!(all(&plane, of("acme", "a", limit)).await, [6, 10]);
        assert_eq!(all(&plane, of("nobody", "", limit)).await, [0_u64; 0]);
        let newest = ListEventsRequest { newest_first: true, ..of("acme", "", limit) };
        assert_eq!(all(&plane, newest).await, [10, 9, 7, 6, 3]);
    }
    let after = ListEventsRequest { after: 6, before: 10, ..of("acme", "", 0) };
    assert_eq!(all(&plane, after).await, [7, 9]);
    // Of an event of many tenants, what was asked for is told.
    let page = list(&plane, ListEventsRequest { after: 8, ..of("beta", "", 0) }).await;
    let [event] = page.events.as_slice() else { panic!("{page:?}") };
    let told: Vec<_> = event.changes.iter().map(|change| change.change.as_ref().unwrap()).collect();
    assert!(matches!(told.as_slice(), [change::Change::PinPut(pin)] if pin.tenant == "beta"), "{told:?}");
    assert_eq!(event.omitted, 1);
}

async fn events_are_found_by_actor_and_time(plane: Plane) {
    for (i, actor) in ["ann", "ben", "ann", "cid", "ann"].into_iter().enumerate() {
        let request = PutTenantRequest { tenant: Some(tenant(&format!("t{i}"))), ..Default::default() };
        let asker = Principal { id: actor.into(), role: "admin".into(), via: String::new() };
        plane.tenants().put_tenant(grey_edge::on_behalf_of(&asker, request)).await.unwrap();
    }
    // The clocks of replicas differ: times need not grow.
    let sql = "UPDATE events SET at_ms = CASE revision WHEN 4 THEN 2500 ELSE revision * 1000 END";
    database(&plane).await.execute_unprepared(sql).await.unwrap();
    let time = |ms: u64| Some(grey_proto::convert::timestamp(ms));
    let of = |actor: &str, from, to| ListEventsRequest {
        actor: actor.into(),
        from,
        to,
        ..ListEventsRequest::default()
    };
    assert_eq!(all(&plane, of("ann", None, None)).await, [1, 3, 5]);
    assert_eq!(all(&plane, of("nobody", None, None)).await, [0_u64; 0]);
    assert_eq!(all(&plane, of("", time(2_000), time(3_000))).await, [2, 4], "the end is left out");
    assert_eq!(all(&plane, of("", time(3_000), None)).await, [3, 5]);
    assert_eq!(all(&plane, of("ann", time(2_000), None)).await, [3, 5]);
    let of_tenant = |actor, id: &str| ListEventsRequest { tenant: id.into(), ..of(actor, None, None) };
    assert_eq!(all(&plane, of_tenant("ann", "t2")).await, [3]);
    assert_eq!(all(&plane, of_tenant("ben", "t2")).await, [0_u64; 0]);
    let url = |query: &str| format!("{}/api/events?{query}", plane.base);
    for query in
        ["actor=ann&from=2000&to=4000", "actor=ann&from=1970-01-01T00:00:02Z&to=1970-01-01T00:00:04Z&limit=1"]
    {
        let page = plane.http.get(url(query)).send().await.unwrap();
        let page: serde_json::Value = page.json().await.unwrap();
        assert_eq!(page["events"][0]["revision"], "3", "{page}");
        assert!(page["events"].as_array().unwrap().len() == 1 && page.get("next").is_none(), "{page}");
    }
    let page = plane.http.get(url("limit=2&newestFirst=true&before=5")).send().await.unwrap();
    let page: serde_json::Value = page.json().await.unwrap();
    assert_eq!(page["next"], "3", "{page}");
    let refused = plane.http.get(url("from=yesterday")).send().await.unwrap();
    assert_eq!(refused.status(), 400);
}

async fn a_page_that_finds_nothing_says_where_to_go_on(plane: Plane) {
    plane.put_tenant("t").await;
    let database = database(&plane).await;
    let numbers = match database.get_database_backend() {
        DbBackend::Postgres => "SELECT i FROM generate_series(2, 200001) AS n (i)",
        _ => {
            "SELECT i FROM (WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 200001) \
             SELECT i FROM n)"
        }
    };
    let sql = format!(
        "INSERT INTO events SELECT n.i, 1, 'nobody', '', e.body FROM ({numbers}) AS n, events AS e WHERE e.revision = 1"
    );
    database.execute_unprepared(&sql).await.unwrap();
    database.execute_unprepared("UPDATE log_head SET revision = 200001").await.unwrap();
    let actor = "anonymous".to_owned();
    let request = ListEventsRequest { actor, newest_first: true, ..ListEventsRequest::default() };
    let pages = pages(&plane, request).await;
    assert_eq!(pages.len(), 2, "no page looks at the whole log");
    assert_eq!(pages, [vec![], vec![1]]);
}

async fn what_cannot_be_asked_for_is_refused(plane: Plane) {
    let late = Some(pbjson_types::Timestamp { seconds: i64::MAX, nanos: 0 });
    for request in [
        ListEventsRequest { tenant: "A b".into(), ..ListEventsRequest::default() },
        ListEventsRequest { service: "/".into(), ..ListEventsRequest::default() },
        ListEventsRequest { actor: "a\0".into(), ..ListEventsRequest::default() },
        ListEventsRequest { from: late, ..ListEventsRequest::default() },
        ListEventsRequest { to: late, ..ListEventsRequest::default() },
    ] {
        let refused = plane.history().list_events(request.clone()).await;
        assert_eq!(reason(refused), Reason::InvalidArgument, "{request:?}");
    }
}
