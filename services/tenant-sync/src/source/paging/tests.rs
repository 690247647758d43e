#![allow(clippy::unwrap_used, reason = "test code panics")]

use super::*;
use proptest::prelude::*;

#[test]
fn the_next_link_is_found_among_others() {
    let base = Url::parse("https://api.example/v1/tenants?page=2").unwrap();
    for (header, next) in [
        ("</v1/tenants?page=3>; rel=\"next\"", Some("https://api.example/v1/tenants?page=3")),
        ("<?page=1>; rel=prev, <?page=3>; rel=next", Some("https://api.example/v1/tenants?page=3")),
        (
            "<?a,b;c=1>; title=\"x, <y>; rel=next\"; REL=\"last Next\"",
            Some("https://api.example/v1/tenants?a,b;c=1"),
        ),
        ("<?page=9>; title=\"a \\\" b\"; rel=\"next\"", Some("https://api.example/v1/tenants?page=9")),
        ("<https://other.example/x>; rel=next", Some("https://other.example/x")),
        ("<?page=1>; title=\", <?page=5>; rel=next\"", None),
        ("<?page=1>; rel=\"nextish\"", None),
        ("<?page=1", None),
        ("rel=next", None),
        ("", None),
    ] {
        assert_eq!(next_link(&base, &[header.to_owned()]).as_deref(), next, "{header}");
    }
    let several = ["<?page=1>; rel=prev".to_owned(), "<?page=3>; rel=next".to_owned()];
    assert_eq!(next_link(&base, &several).as_deref(), Some("https://api.example/v1/tenants?page=3"));
}

#[test]
fn parameters_replace_those_of_the_same_name_and_keep_the_others() {
    let list = Url::parse("https://api.example/tenants?include=labels&page=0&size=1").unwrap();
    let paging = Paging { kind: PagingKind::Page, first_page: 1, size: 50, ..Paging::default() };
    assert_eq!(first(&list, &paging).query(), Some("include=labels&size=50&page=1"));
    let scim = Paging {
        kind: PagingKind::Offset,
        offset_param: "startIndex".to_owned(),
        first_offset: 1,
        size_param: "count".to_owned(),
        ..Paging::default()
    };
    let resources = Url::parse("https://api.example/scim/v2/Tenants").unwrap();
    assert_eq!(first(&resources, &scim).query(), Some("count=1000&startIndex=1"));
    assert_eq!(numbered(&resources, &scim, 40).query(), Some("startIndex=41"));
    let cursor = Paging { kind: PagingKind::Cursor, size_param: String::new(), ..Paging::default() };
    assert_eq!(first(&list, &cursor), list);
    assert_eq!(
        with(&list, "cursor", "a b&c=d").query(),
        Some("include=labels&page=0&size=1&cursor=a+b%26c%3Dd")
    );
}

proptest! {
    #[test]
    fn any_header_is_survived(header in "[<>;,=\"\\\\a-z ]{0,60}") {
        let target = next_target(&header);
        prop_assert!(target.is_none_or(|target| header.contains(target)));
    }
}
