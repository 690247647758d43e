//! What is never taken for a list.

use serde_json::{Value, json};

use super::*;
use crate::upstream::{Fault, Pages, tenants};

fn body(document: &Value) -> Option<Fault> {
    Some(Fault::Body(document.to_string()))
}

#[tokio::test]
async fn what_may_pass_by_itself_is_tried_again() {
    let faults = [
        Fault::Status(500, "oops"),
        Fault::Status(503, ""),
        Fault::Status(408, ""),
        Fault::Later(429, "0"),
        Fault::Later(503, "Mon, 23 Nov 2026 18:00:00 GMT"),
        Fault::CutOff,
        Fault::CutChunks,
        Fault::Half,
        Fault::Body(String::new()),
    ];
    for fault in faults {
        let upstream = Upstream::start().await;
        upstream.list(&tenants(0..3));
        upstream.script([Some(fault.clone()), Some(fault.clone())]);
        let roster = full(&mut source(&options(&upstream))).await;
        assert_eq!(roster.tenants.len(), 3, "{fault:?}");
        assert_eq!(upstream.statuses().len(), 3, "{fault:?}");
    }
}

#[tokio::test]
async fn a_server_that_wants_to_be_left_alone_is() {
    let upstream = Upstream::start().await;
    upstream.list(&tenants(0..3));
    upstream.script([Some(Fault::Later(429, "120"))]);
    let mut source = source(&options(&upstream));
    let error = failure(&mut source).await;
    assert!(matches!(error, Error::Status { status: 429, .. }), "{error:?}");
    let error = failure(&mut source).await;
    assert!(matches!(error, Error::TooEarly { wait } if wait.as_secs() > 60), "{error:?}");
    assert!(source.patience().is_some());
    assert_eq!(upstream.statuses(), [429], "it was asked once");
    // Nobody may keep it from being read for ever.
    let mut far = super::source(&options(&upstream));
    upstream.script([Some(Fault::Later(503, "31536000"))]);
    failure(&mut far).await;
    assert!(far.patience().unwrap() <= Duration::from_hours(1));
}

#[tokio::test]
async fn the_last_attempt_is_the_last() {
    let upstream = Upstream::start().await;
    upstream.always(Some(Fault::Status(502, "bad\n gateway")));
    let error = failure(&mut source(&options(&upstream))).await;
    let expected = format!("read page 1 of {}/api/tenants: answered 502: bad gateway", upstream.url());
    assert_eq!(error.to_string(), expected);
    assert_eq!(upstream.statuses(), [502, 502, 502]);
}

#[tokio::test]
async fn a_body_that_is_always_cut_off_is_no_list() {
    for fault in [Fault::CutOff, Fault::CutChunks, Fault::Half] {
        let upstream = Upstream::start().await;
        upstream.pages(Pages::Cursors);
        upstream.list(&tenants(0..8));
        upstream.script([None]);
        upstream.always(Some(fault.clone()));
        let error = failure(&mut source(&paged(&upstream, PagingKind::Cursor, 4))).await;
        assert!(matches!(error, Error::Truncated { received: 1.., .. }), "{fault:?}: {error:?}");
        assert_eq!((error.kind(), upstream.statuses().len()), ("truncated", 4));
    }
}

#[tokio::test]
async fn what_will_not_pass_by_itself_is_not_tried_again() {
    let refused = json!({"error": {"code": 7}});
    for (fault, kind) in [
        (Fault::Status(400, ""), "status"),
        (Fault::Status(404, ""), "status"),
        (Fault::Status(401, ""), "credentials"),
        (Fault::Status(403, ""), "credentials"),
        (Fault::Status(204, ""), "status"),
        (Fault::Status(206, "{\"tenants\":[]}"), "status"),
        (Fault::Status(304, ""), "status"),
        (Fault::Body("<html>log in</html>".to_owned()), "document"),
        (Fault::Body(refused.to_string()), "document"),
        (Fault::Body(json!({"tenants": {}}).to_string()), "document"),
        (Fault::Body(json!({"tenants": null}).to_string()), "document"),
    ] {
        let upstream = Upstream::start().await;
        upstream.always(Some(fault.clone()));
        let error = failure(&mut source(&options(&upstream))).await;
        assert_eq!((error.kind(), upstream.statuses().len()), (kind, 1), "{fault:?}: {error}");
    }
}

#[tokio::test]
async fn what_is_no_json_tells_what_it_is() {
    let once_more = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, b"{\"tenants\":[]}").unwrap();
        encoder.finish().unwrap()
    };
    for (fault, told) in [
        (
            Fault::Body("<html>\n log in </html>".to_owned()),
            "content-type text/plain; charset=utf-8, it begins `<html> log in </html>`",
        ),
        (Fault::Bytes(once_more), "it is compressed once more than its content-encoding says"),
    ] {
        let upstream = Upstream::start().await;
        upstream.always(Some(fault));
        let error = failure(&mut source(&options(&upstream))).await;
        assert_eq!(error.kind(), "document");
        assert!(error.to_string().ends_with(told), "{error}");
    }
}

#[tokio::test]
async fn a_slow_page_is_given_up_and_tried_again() {
    let upstream = Upstream::start().await;
    upstream.list(&tenants(0..3));
    let slow = Fault::Slow(DEADLINE * 2);
    upstream.script([Some(slow.clone())]);
    // Long enough for the attempt that is answered at once.
    let timeout = Duration::from_secs(2);
    let mut patient = source(&Options { timeout, ..options(&upstream) });
    assert_eq!(full(&mut patient).await.tenants.len(), 3);
    upstream.always(Some(slow));
    let timeout = Duration::from_millis(50);
    let error = failure(&mut source(&Options { timeout, ..options(&upstream) })).await;
    assert!(matches!(&error, Error::Timeout { after, .. } if *after == timeout), "{error:?}");
}

#[tokio::test]
async fn a_reading_ends_at_its_deadline() {
    let upstream = Upstream::start().await;
    upstream.always(Some(Fault::Status(500, "")));
    let limit = Duration::from_millis(200);
    let retries = Retries { attempts: 100, first: Duration::from_millis(50), max: Duration::from_secs(30) };
    let options = Options { timeout: limit, deadline: limit, retries, ..options(&upstream) };
    let error = failure(&mut source(&options)).await;
    assert!(matches!(error, Error::Deadline { after } if after == limit), "{error:?}");
}

#[tokio::test]
async fn a_server_that_is_gone_is_unreachable() {
    let upstream = Upstream::start().await;
    let options = options(&upstream);
    drop(upstream);
    let error = failure(&mut source(&options)).await;
    assert_eq!(error.kind(), "unreachable", "{error:?}");
}

#[tokio::test]
async fn pages_that_lead_in_a_circle_are_no_list() {
    let upstream = Upstream::start().await;
    let page = |range, next: &str| body(&json!({"tenants": tenants(range), "next": next}));
    upstream.script([page(0..2, "a"), page(2..4, "b"), page(4..6, "a")]);
    let error = failure(&mut source(&paged(&upstream, PagingKind::Cursor, 2))).await;
    assert!(matches!(error, Error::Loop { .. }), "{error:?}");
    assert_eq!(upstream.statuses().len(), 3);

    upstream.list(&tenants(0..2));
    let link = |to: &str| Some(Fault::Link(format!("<?at={to}>; rel=next")));
    upstream.script([link("1"), link("2"), link("1")]);
    let error = failure(&mut source(&paged(&upstream, PagingKind::Link, 2))).await;
    assert!(matches!(error, Error::Loop { .. }), "{error:?}");
    assert_eq!(upstream.statuses().len(), 3);

    // The page's number is ignored, so that every page is the first.
    let error = failure(&mut source(&paged(&upstream, PagingKind::Page, 2))).await;
    assert!(matches!(error, Error::Loop { .. }), "{error:?}");
    assert_eq!((error.kind(), upstream.statuses().len()), ("paging", 2));
}

#[tokio::test]
async fn pages_without_end_are_given_up() {
    let upstream = Upstream::start().await;
    let pages = (0..9).map(|i| body(&json!({"tenants": [], "next": i + 1})));
    upstream.script(pages);
    let mut options = paged(&upstream, PagingKind::Cursor, 2);
    options.max_pages = 5;
    let error = failure(&mut source(&options)).await;
    assert!(matches!(error, Error::TooManyPages { limit: 5 }), "{error:?}");
    assert_eq!(upstream.statuses().len(), 5);
}

#[tokio::test]
async fn a_list_that_differs_from_its_total_is_no_list() {
    let upstream = Upstream::start().await;
    upstream.pages(Pages::Cursors);
    upstream.list(&tenants(0..8));
    let mut options = paged(&upstream, PagingKind::Cursor, 4);
    options.paging.total = "/total".to_owned();
    for told in [7, 9] {
        upstream.total(told);
        let error = failure(&mut source(&options)).await;
        assert!(matches!(error, Error::Total { listed: 8, told: t } if t == told), "{error:?}");
    }
    let page = |range, next: Value, total: u64| {
        body(&json!({"tenants": tenants(range), "next": next, "total": total}))
    };
    // While the pages were read, a tenant of the first one went; the one that moved up is on neither.
    upstream.script([page(0..4, json!("a"), 8), page(5..8, json!(null), 7)]);
    let error = failure(&mut source(&options)).await;
    assert!(matches!(error, Error::Changed { before: 8, after: 7 }), "{error:?}");
    upstream.script([body(&json!({"tenants": tenants(0..4)}))]);
    assert_eq!(failure(&mut source(&options)).await.kind(), "document");
}

#[tokio::test]
async fn documents_and_lists_beyond_the_limits_are_refused() {
    let upstream = Upstream::start().await;
    upstream.list(&tenants(0..8));
    let small = Options { max_page_bytes: 100, ..options(&upstream) };
    let error = failure(&mut source(&small)).await;
    assert!(matches!(error, Error::TooLarge { limit: 100, .. }), "{error:?}");
    // Without a promised length, too.
    upstream.script([Some(Fault::CutChunks)]);
    assert_eq!(failure(&mut source(&small)).await.kind(), "limit");
    let few = Options { max_tenants: 7, ..options(&upstream) };
    let error = failure(&mut source(&few)).await;
    assert!(matches!(error, Error::TooManyTenants { limit: 7 }), "{error:?}");
    upstream.pages(Pages::Cursors);
    let few = Options { max_tenants: 7, ..paged(&upstream, PagingKind::Cursor, 4) };
    let error = failure(&mut source(&few)).await;
    assert!(matches!(error, Error::TooManyTenants { limit: 7 }), "{error:?}");
}

#[tokio::test]
async fn error_texts_hold_little_of_what_was_sent() {
    let upstream = Upstream::start().await;
    let document = json!({"tenants": "personal data ".repeat(1000)}).to_string();
    let page: &'static str = "personal data and more of it, again and again; ".repeat(100).leak();
    for fault in [Fault::Body(document), Fault::Status(418, page), Fault::Body(page.to_owned())] {
        upstream.always(Some(fault));
        let error = failure(&mut source(&options(&upstream))).await;
        assert!(told(&error).len() < 400, "{error}");
    }
}
