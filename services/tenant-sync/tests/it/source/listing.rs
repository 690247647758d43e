//! What is read when all goes well.

use serde_json::json;

use super::*;
use crate::upstream::{Fault, Pages, tenants};

#[tokio::test]
async fn every_kind_of_paging_lists_everything() {
    for (pages, kind, pointer) in [
        (Pages::Numbered, PagingKind::Page, ""),
        (Pages::Cursors, PagingKind::Cursor, ""),
        (Pages::Links, PagingKind::Link, ""),
        (Pages::Addresses, PagingKind::Link, "/links/next"),
    ] {
        for count in [0, 3, 4, 5, 8] {
            let upstream = Upstream::start().await;
            upstream.pages(pages);
            upstream.list(&tenants(0..count));
            let mut options = paged(&upstream, kind, 4);
            options.paging.next = pointer.to_owned();
            let roster = full(&mut source(&options)).await;
            assert_eq!(roster.tenants.len(), count, "{pages:?}");
            assert_eq!((roster.listed(), roster.duplicates, roster.invalid_total), (count as u64, 0, 0));
            let asked = upstream.seen();
            assert_eq!(asked.len() as u64, roster.pages);
            assert!(asked.iter().all(|seen| seen.query.contains("size=4")), "{asked:?}");
        }
    }
}

#[tokio::test]
async fn a_told_total_ends_numbered_pages_without_an_empty_one() {
    let upstream = Upstream::start().await;
    upstream.pages(Pages::Numbered);
    upstream.list(&tenants(0..8));
    upstream.total(8);
    let mut options = paged(&upstream, PagingKind::Page, 4);
    options.paging.total = "/total".to_owned();
    assert_eq!(full(&mut source(&options)).await.tenants.len(), 8);
    let queries: Vec<String> = upstream.seen().into_iter().map(|seen| seen.query).collect();
    assert_eq!(queries, ["size=4&page=1", "size=4&page=2"]);
}

#[tokio::test]
async fn pages_smaller_than_asked_for_do_not_end_the_list() {
    let upstream = Upstream::start().await;
    upstream.pages(Pages::Numbered);
    let some = |range| Some(Fault::Body(json!({"tenants": tenants(range)}).to_string()));
    upstream.script([some(0..2), some(2..4), some(4..5), some(0..0)]);
    let mut source = source(&paged(&upstream, PagingKind::Page, 1000));
    assert_eq!(full(&mut source).await.tenants.len(), 5);
}

#[tokio::test]
async fn an_unchanged_list_is_not_sent_again() {
    for (pages, kind) in [
        (Pages::Whole, PagingKind::None),
        (Pages::Numbered, PagingKind::Page),
        (Pages::Links, PagingKind::Link),
    ] {
        let upstream = Upstream::start().await;
        upstream.pages(pages);
        upstream.etags(true);
        upstream.list(&tenants(0..10));
        let mut source = source(&paged(&upstream, kind, 4));
        let first = full(&mut source).await;
        let asked = upstream.statuses().len();
        assert_eq!(pull(&mut source, false).await.unwrap(), Pull::Unchanged);
        assert_eq!(upstream.statuses(), vec![304; asked], "{kind:?}");
        // A fresh reading does not rely on versions.
        assert_eq!(pull(&mut source, true).await.unwrap(), Pull::Full(first));
        let fresh = upstream.seen();
        assert!(fresh.iter().all(|seen| seen.status == 200 && !seen.headers.contains_key("if-none-match")));
        assert_eq!(pull(&mut source, false).await.unwrap(), Pull::Unchanged);
    }
}

#[tokio::test]
async fn pages_that_have_not_changed_come_from_memory() {
    let upstream = Upstream::start().await;
    upstream.pages(Pages::Cursors);
    upstream.etags(true);
    let mut list = tenants(0..12);
    upstream.list(&list);
    let mut source = source(&paged(&upstream, PagingKind::Cursor, 4));
    full(&mut source).await;
    upstream.seen();
    for changed in [0, 5, 11] {
        list[changed]["name"] = json!("Renamed");
        upstream.list(&list);
        let roster = full(&mut source).await;
        let mut statuses = vec![304; 3];
        statuses[changed / 4] = 200;
        assert_eq!(upstream.statuses(), statuses);
        let names = roster.tenants.values().map(|tenant| tenant.name.clone().unwrap());
        let expected = list.iter().map(|tenant| tenant["name"].as_str().unwrap().to_owned());
        assert!(names.eq(expected));
    }
    list.truncate(7);
    upstream.list(&list);
    assert_eq!(full(&mut source).await.tenants.len(), 7);
    assert_eq!(upstream.statuses(), [304, 200]);
    list.extend(tenants(20..30));
    upstream.list(&list);
    assert_eq!(full(&mut source).await.tenants.len(), 17);
}

#[tokio::test]
async fn a_failed_reading_does_not_count_as_read() {
    let upstream = Upstream::start().await;
    upstream.pages(Pages::Cursors);
    upstream.etags(true);
    upstream.list(&tenants(0..8));
    let mut source = source(&paged(&upstream, PagingKind::Cursor, 4));
    full(&mut source).await;
    let mut list = tenants(0..8);
    list[0]["status"] = json!("suspended");
    upstream.list(&list);
    // The first page is read and has changed, the second one cannot be read.
    upstream.script([None, Some(Fault::Status(403, "no"))]);
    assert_eq!(failure(&mut source).await.kind(), "credentials");
    let roster = full(&mut source).await;
    assert_eq!(roster.tenants.len(), 8);
}

#[tokio::test]
async fn duplicates_are_counted_and_contradictions_reported() {
    let upstream = Upstream::start().await;
    upstream.pages(Pages::Cursors);
    let mut list = tenants(0..6);
    list.insert(4, list[3].clone());
    list.push(json!({"id": "t000001", "name": "Another", "status": "suspended"}));
    upstream.list(&list);
    let roster = full(&mut source(&paged(&upstream, PagingKind::Cursor, 4))).await;
    assert_eq!(ids(&roster), ["t000000", "t000002", "t000003", "t000004", "t000005"]);
    assert_eq!(roster.present.iter().map(ToString::to_string).collect::<Vec<_>>(), ["t000001"]);
    assert_eq!((roster.duplicates, roster.invalid_total), (2, 1));
    assert_eq!(roster.invalid[0].reason, "listed twice with different content");
}

#[tokio::test]
async fn entries_that_fit_no_tenant_do_not_hide_the_others() {
    let upstream = Upstream::start().await;
    upstream.list(&[
        json!({"id": "acme", "status": "active"}),
        json!({"id": "globex", "status": "exploded"}),
        json!({"id": "No Id", "status": "active"}),
        json!({"name": "nobody"}),
        json!(null),
    ]);
    let roster = full(&mut source(&options(&upstream))).await;
    assert_eq!(ids(&roster), ["acme"]);
    assert_eq!(roster.present.iter().map(ToString::to_string).collect::<Vec<_>>(), ["globex"]);
    assert_eq!((roster.invalid_total, roster.unidentified, roster.listed()), (4, 3, 5));
    assert_eq!(
        roster.invalid.iter().map(|invalid| invalid.id.as_str()).collect::<Vec<_>>(),
        ["globex", "No Id", "", ""]
    );
}

#[tokio::test]
async fn a_hundred_thousand_tenants_are_read_in_pages_and_at_once() {
    let upstream = Upstream::start().await;
    upstream.etags(true);
    upstream.list(&tenants(0..100_000));
    for (pages, kind, read) in
        [(Pages::Cursors, PagingKind::Cursor, 100), (Pages::Whole, PagingKind::None, 1)]
    {
        upstream.pages(pages);
        let mut source = source(&paged(&upstream, kind, 1000));
        let roster = full(&mut source).await;
        assert_eq!((roster.tenants.len(), roster.pages), (100_000, read));
        assert_eq!(pull(&mut source, false).await.unwrap(), Pull::Unchanged);
    }
}

#[tokio::test]
async fn a_reading_can_be_moved_between_threads() {
    let upstream = Upstream::start().await;
    upstream.list(&tenants(0..3));
    let mut source = source(&options(&upstream));
    let reading = tokio::spawn(async move { source.pull(true).await });
    assert!(matches!(timeout(DEADLINE, reading).await.unwrap().unwrap(), Ok(Pull::Full(_))));
}
