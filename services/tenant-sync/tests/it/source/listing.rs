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
async fn pages_by_offset_follow_each_other_without_a_gap_or_a_duplicate() {
    // A server gives fewer entries than wanted, as some do; SCIM counts from 1.
    for (first, size) in [(0, 4), (1, 4), (0, 1000)] {
        let upstream = Upstream::start().await;
        upstream.pages(Pages::Offsets { first, most: 5 });
        upstream.list(&tenants(0..13));
        upstream.total(13);
        let mut options = paged(&upstream, PagingKind::Offset, size);
        options.paging.first_offset = first;
        options.paging.total = "/total".to_owned();
        let roster = full(&mut source(&options)).await;
        assert_eq!((roster.tenants.len(), roster.duplicates), (13, 0), "{first} {size}");
    }
}

#[tokio::test]
async fn a_total_that_is_a_pages_length_hides_nobody() {
    let upstream = Upstream::start().await;
    upstream.pages(Pages::Numbered);
    upstream.list(&tenants(0..20));
    upstream.total(5);
    let mut options = paged(&upstream, PagingKind::Page, 5);
    options.paging.total = "/total".to_owned();
    let error = failure(&mut source(&options)).await;
    assert!(matches!(error, Error::Total { told: 5, .. }), "{error:?}");
    assert!(error.to_string().contains("leave source.paging.total empty"), "{error}");
    options.paging.total.clear();
    assert_eq!(full(&mut source(&options)).await.tenants.len(), 20);
}

#[tokio::test]
async fn a_server_without_a_page_behind_the_last_one_is_read_to_its_end() {
    let upstream = Upstream::start().await;
    upstream.pages(Pages::Numbered);
    upstream.list(&tenants(0..3));
    upstream.total(3);
    upstream.script([None, Some(Fault::Status(404, "no such page"))]);
    let mut options = paged(&upstream, PagingKind::Page, 5);
    options.paging.total = "/total".to_owned();
    assert_eq!(full(&mut source(&options)).await.tenants.len(), 3);
}

#[tokio::test]
async fn a_list_is_read_whole_each_time_whatever_a_server_remembers() {
    let upstream = Upstream::start().await;
    upstream.pages(Pages::Links);
    upstream.list(&tenants(0..10));
    let mut source = source(&paged(&upstream, PagingKind::Link, 10));
    assert_eq!(full(&mut source).await.tenants.len(), 10);
    // The first page is as it was, and has a page behind it now.
    upstream.list(&tenants(0..15));
    assert_eq!(full(&mut source).await.tenants.len(), 15);
    let asked = upstream.seen();
    assert!(asked.iter().all(|seen| !seen.headers.contains_key("if-none-match")), "{asked:?}");
    upstream.always(Some(Fault::Status(304, "")));
    assert_eq!(failure(&mut source).await.kind(), "status");
}

#[tokio::test]
async fn a_byte_order_mark_and_compression_are_read_through() {
    let upstream = Upstream::start().await;
    upstream.list(&tenants(0..3));
    let document = json!({"tenants": tenants(0..3)}).to_string();
    upstream.script([Some(Fault::Body(format!("\u{feff}{document}"))), Some(Fault::Gzip(document.clone()))]);
    let mut source = source(&options(&upstream));
    assert_eq!(full(&mut source).await.tenants.len(), 3);
    assert_eq!(full(&mut source).await.tenants.len(), 3);
    // The limit is one of what is read, not of what is sent.
    upstream.script([Some(Fault::Gzip(" ".repeat(1 << 20) + &document))]);
    let small = Options { max_page_bytes: 100_000, ..options(&upstream) };
    assert_eq!(failure(&mut super::source(&small)).await.kind(), "limit");
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
    assert_eq!((roster.invalid_total, roster.listed()), (4, 5));
    assert_eq!(roster.unidentified, [(String::new(), 2), ("No Id".to_owned(), 1)].into());
    assert_eq!(
        roster.invalid.iter().map(|invalid| invalid.id.as_str()).collect::<Vec<_>>(),
        ["globex", "No Id", "", ""]
    );
}

#[tokio::test]
async fn a_hundred_thousand_tenants_are_read_in_pages_and_at_once() {
    let upstream = Upstream::start().await;
    upstream.list(&tenants(0..100_000));
    for (pages, kind, read) in
        [(Pages::Cursors, PagingKind::Cursor, 100), (Pages::Whole, PagingKind::None, 1)]
    {
        upstream.pages(pages);
        let mut source = source(&paged(&upstream, kind, 1000));
        let roster = full(&mut source).await;
        assert_eq!((roster.tenants.len(), roster.pages), (100_000, read));
    }
}

#[tokio::test]
async fn a_reading_can_be_moved_between_threads() {
    let upstream = Upstream::start().await;
    upstream.list(&tenants(0..3));
    let mut source = source(&options(&upstream));
    let reading = tokio::spawn(async move { source.pull().await });
    assert_eq!(timeout(DEADLINE, reading).await.unwrap().unwrap().unwrap().tenants.len(), 3);
}
