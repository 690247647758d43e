#![allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]

use super::*;
use crate::mapping::Options;
use grey_runtime::Faults;
use proptest::prelude::*;
use serde_json::json;

fn shape(items: &str, next: &str, total: &str) -> Shape {
    let mut faults = Faults::default();
    let mapping = Mapping::compile(&Options { items: items.to_owned(), ..Options::default() }, &mut faults);
    assert_eq!(faults.found(), []);
    let paging = Paging {
        kind: PagingKind::Cursor,
        cursor: next.to_owned(),
        total: total.to_owned(),
        ..Paging::default()
    };
    Shape::new(mapping, &paging, 3).unwrap()
}

fn read(shape: &Shape, document: &Value) -> Result<(usize, Option<String>, Option<u64>), Fault> {
    shape.read(document.to_string().as_bytes()).map(|page| (page.entries.len(), page.next, page.total))
}

#[test]
fn list_cursor_and_total_are_found_wherever_they_stand() {
    let entry = json!({"id": "a", "tenants": [1]});
    let deep = shape("/data/0/tenants", "/meta/next", "/meta/total");
    let document = json!({"x": [{"tenants": 1}], "data": [{"tenants": [entry, entry]}, 7], "meta": {"total": 2, "next": 9}});
    assert_eq!(read(&deep, &document), Ok((2, Some("9".to_owned()), Some(2))));
    assert_eq!(read(&shape("", "", ""), &json!([entry])), Ok((1, None, None)));
    for last in
        [json!({"tenants": [], "next": null}), json!({"tenants": [], "next": ""}), json!({"tenants": []})]
    {
        assert_eq!(read(&shape("/tenants", "/next", ""), &last), Ok((0, None, None)));
    }
}

#[test]
fn a_document_without_its_list_is_refused() {
    let plain = shape("/tenants", "", "");
    for document in
        [json!({}), json!([]), json!("x"), json!(null), json!({"Tenants": []}), json!({"error": "busy"})]
    {
        assert_eq!(
            read(&plain, &document),
            Err(Fault::Wrong("there is no list of tenants at `/tenants`".to_owned()))
        );
    }
    for list in [json!(null), json!({}), json!("x"), json!(7), json!({"0": {"id": "a"}})] {
        assert!(matches!(read(&plain, &json!({"tenants": list})), Err(Fault::Wrong(_))), "{list}");
    }
}

#[test]
fn a_page_that_does_not_tell_what_it_must_is_refused() {
    for document in
        [json!({"tenants": []}), json!({"tenants": [], "total": "2"}), json!({"tenants": [], "total": -1})]
    {
        let fault = read(&shape("/tenants", "", "/total"), &document);
        assert_eq!(fault, Err(Fault::Wrong("there is no count at `/total`".to_owned())));
    }
    let fault = read(&shape("/tenants", "/next", ""), &json!({"tenants": [], "next": {}}));
    assert_eq!(fault, Err(Fault::Wrong("`/next` is neither text nor a number".to_owned())));
}

#[test]
fn more_entries_than_allowed_are_refused() {
    let four = json!({"tenants": [{}, {}, {}, {}]});
    assert_eq!(read(&shape("/tenants", "", ""), &four), Err(Fault::TooMany));
}

#[test]
fn what_is_not_json_is_told_apart_from_what_ends_early() {
    let plain = shape("/tenants", "", "");
    assert_eq!(plain.read(b""), Err(Fault::Unfinished));
    for text in ["<html>", r#"{"tenants": []} {}"#, r#"{"tenants": [}"#, r#"{"tenants": [1e999]}"#] {
        assert!(matches!(plain.read(text.as_bytes()), Err(Fault::NoJson(_))), "{text}");
    }
}

proptest! {
    /// However a document is cut, it is noticed: never are fewer entries read from it.
    #[test]
    fn no_beginning_of_a_document_is_a_page(count in 0..3_usize, cut in any::<prop::sample::Index>(), before in any::<bool>()) {
        let entries: Vec<Value> = (0..count).map(|i| json!({"id": format!("t{i}"), "name": "ä\"\\"})).collect();
        let document = if before {
            json!({"a": {"next": 1}, "next": "c", "tenants": entries, "z": [1.5e3, true]})
        } else {
            json!({"tenants": entries})
        };
        let bytes = document.to_string().into_bytes();
        let shape = shape("/tenants", "/next", "");
        prop_assert_eq!(shape.read(&bytes).unwrap().entries.len(), count);
        let (start, _) = bytes.split_at(cut.index(bytes.len()));
        prop_assert_eq!(shape.read(start), Err(Fault::Unfinished));
    }
}

#[test]
fn a_page_is_read_anew_only_if_it_has_changed() {
    let plain = shape("/tenants", "/next", "");
    let receive = |name: &str, before| {
        let document = json!({"tenants": [{"id": "a", "name": name, "status": "active"}], "next": "c"});
        plain.receive(document.to_string().as_bytes(), before).unwrap()
    };
    let first = receive("A", None);
    let again = receive("A", Some(first.clone()));
    assert!(Arc::ptr_eq(&first.page, &again.page));
    assert_eq!(again.next.as_deref(), Some("c"));
    let changed = receive("B", Some(again));
    assert!(
        matches!(changed.page.entries.as_slice(), [Entry::Tenant(_, of)] if of.name.as_deref() == Some("B"))
    );
    assert!(Arc::ptr_eq(&changed.page, &receive("B", Some(changed.clone())).page));
}
