#![allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]

use super::*;
use grey_core::tenant::MAX_LABELS;
use grey_runtime::Faults;
use proptest::prelude::*;
use serde_json::json;

/// Everything mapped.
fn full() -> Options {
    let texts =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let step = |limit, value: &str| Step { limit, value: value.to_owned() };
    let band = Band {
        field: "/revenue/arr".to_owned(),
        below: vec![step(10_000.0, "small"), step(250_000.0, "middle")],
        above: "enterprise".to_owned(),
    };
    Options {
        tier: "/plan".to_owned(),
        tiers: texts(&[("GOLD PLUS", "gold-plus")]),
        region: "/home".to_owned(),
        regions: texts(&[("Frankfurt", "eu-central")]),
        residency: "/residency".to_owned(),
        labels: texts(&[("industry", "/tags/industry"), ("seats", "/seats")]),
        bands: BTreeMap::from([("revenue-band".to_owned(), band)]),
        ..Options::default()
    }
}

fn mapping(options: &Options) -> Mapping {
    let mut faults = Faults::default();
    let mapping = Mapping::compile(options, &mut faults);
    assert_eq!(faults.found(), []);
    mapping
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn tenant(options: &Options, entry: &Value) -> Sourced {
    match mapping(options).map(entry) {
        Entry::Tenant(_, sourced) => Arc::unwrap_or_clone(sourced),
        Entry::Unfit(_, invalid) => panic!("{entry} is unfit: {invalid:?}"),
    }
}

fn unfit(options: &Options, entry: &Value) -> (Option<TenantId>, String) {
    match mapping(options).map(entry) {
        Entry::Unfit(id, invalid) => (id, invalid.reason),
        Entry::Tenant(id, _) => panic!("{entry} became {id}"),
    }
}

fn faults(options: &Options) -> Vec<String> {
    let mut faults = Faults::default();
    Mapping::compile(options, &mut faults);
    faults.found().iter().map(ToString::to_string).collect()
}

#[test]
fn every_mapped_attribute_is_read() {
    let entry = json!({
        "id": "acme", "name": " Acme Ltd ", "status": "Suspended", "plan": "GOLD PLUS", "home": "Frankfurt",
        "residency": ["Frankfurt", "us-east", "eu-central"], "tags": {"industry": "retail"}, "seats": 12.5,
        "revenue": {"arr": "10000"}, "ignored": {"x": [1]},
    });
    assert_eq!(
        mapping(&full()).map(&entry),
        Entry::Tenant(
            TenantId::new("acme").unwrap(),
            Sourced {
                name: Some("Acme Ltd".to_owned()),
                status: Some(TenantStatus::Suspended),
                tier: Some(Some(name("gold-plus"))),
                region: Some(Some(name("eu-central"))),
                residency: Some(vec![name("eu-central"), name("us-east")]),
                labels: BTreeMap::from([
                    (name("industry"), Some("retail".to_owned())),
                    (name("seats"), Some("12.5".to_owned())),
                    (name("revenue-band"), Some("middle".to_owned())),
                ]),
            }
            .into()
        )
    );
}

#[test]
fn what_an_entry_does_not_tell_is_cleared_where_that_is_harmless_and_kept_where_it_is_not() {
    let bare = tenant(&full(), &json!({"id": "acme"}));
    let cleared =
        BTreeMap::from([(name("industry"), None), (name("seats"), None), (name("revenue-band"), None)]);
    let expected = Sourced { tier: Some(None), region: Some(None), labels: cleared, ..Sourced::default() };
    assert_eq!(bare, expected);
    let nulls = json!({"id": "acme", "name": null, "plan": null, "home": "", "residency": null,
        "tags": null, "seats": null, "revenue": {"arr": null}});
    assert_eq!(tenant(&full(), &nulls), Sourced { residency: Some(vec![]), ..expected });
}

#[test]
fn what_is_not_mapped_is_left_alone() {
    let entry = json!({"id": "acme", "name": "Acme", "status": "active", "tier": "gold", "region": "eu",
        "residency": ["eu"]});
    let sourced = tenant(&Options::default(), &entry);
    let expected =
        Sourced { name: Some("Acme".to_owned()), status: Some(TenantStatus::Active), ..Sourced::default() };
    assert_eq!(sourced, expected);
}

#[test]
fn what_is_not_shown_is_cleaned_wherever_a_tenant_api_says_it() {
    let entry = json!({"id": "acme", "name": "a\u{3164}b", "status": "active"});
    assert_eq!(tenant(&Options::default(), &entry).name.as_deref(), Some("a b"));
    let entry = json!({"id": "a\u{2800}b", "status": "active"});
    let Entry::Unfit(None, invalid) = mapping(&Options::default()).map(&entry) else {
        panic!("{entry} has no id")
    };
    assert_eq!(invalid.id, "a b");
    assert_eq!(plain(&invalid.reason), invalid.reason);
}

#[test]
fn ids_are_text_or_whole_numbers_and_lowercase_only_if_wanted() {
    let lower = Options { lowercase_ids: true, ..Options::default() };
    let id = |options, entry: Value| match mapping(options).map(&entry) {
        Entry::Tenant(id, _) => Some(id.to_string()),
        Entry::Unfit(id, _) => {
            assert_eq!(id, None);
            None
        }
    };
    let strict = Options::default();
    assert_eq!(id(&strict, json!({"id": 42})).as_deref(), Some("42"));
    assert_eq!(id(&lower, json!({"id": "Acme-1"})).as_deref(), Some("acme-1"));
    for unreadable in
        [json!("Acme"), json!(""), json!(null), json!(1.5), json!(true), json!(["a"]), json!("a:b")]
    {
        assert_eq!(id(&strict, json!({"id": unreadable})), None, "{unreadable}");
    }
    for entry in [json!({}), json!([]), json!("acme"), json!(null)] {
        assert_eq!(id(&strict, entry), None);
    }
}

#[test]
fn an_unfit_entry_names_its_id_and_what_is_wrong() {
    let acme = Some(TenantId::new("acme").unwrap());
    let long = "x".repeat(129);
    for (entry, reason) in [
        (json!({"id": "acme", "status": null}), "`/status` is `null`, which mapping.statuses does not list"),
        (
            json!({"id": "acme", "status": "deleted"}),
            "`/status` is `deleted`, which mapping.statuses does not list",
        ),
        (
            json!({"id": "acme", "name": {"de": "x"}}),
            "`/name` is an object, not a string, a whole number or a boolean",
        ),
        (
            json!({"id": "acme", "plan": "Gold!"}),
            "`/plan` does not fit: name `Gold!` does not match [a-z0-9][a-z0-9._-]{0,62}",
        ),
        (
            json!({"id": "acme", "residency": ["eu", 7]}),
            "`/residency` is a number, not a string or a list of strings",
        ),
        (
            json!({"id": "acme", "tags": {"industry": ["a"]}}),
            "`/tags/industry` is a list, not a string, a whole number or a boolean",
        ),
        (
            json!({"id": "acme", "tags": {"industry": long}}),
            "`/tags/industry` has 129 bytes, at most 128 are allowed in a label",
        ),
        (json!({"id": "acme", "revenue": {"arr": "much"}}), "`/revenue/arr` is a string, not a number"),
        (json!({"id": "acme", "revenue": {"arr": "NaN"}}), "`/revenue/arr` is a string, not a number"),
    ] {
        assert_eq!(unfit(&full(), &entry), (acme.clone(), reason.to_owned()));
    }
    let many: Vec<String> = (0..65).map(|i| format!("r{i}")).collect();
    let (id, reason) = unfit(&full(), &json!({"id": "acme", "residency": many}));
    assert_eq!((id, reason.as_str()), (acme, "`/residency` lists 65 regions, at most 64 are allowed"));
    assert_eq!(unfit(&full(), &json!({"name": "x"})), (None, "`/id` is absent".to_owned()));
}

#[test]
fn a_name_too_long_is_cut_between_characters() {
    let sourced = tenant(&Options::default(), &json!({"id": "acme", "name": "ä".repeat(150)}));
    assert_eq!(sourced.name, Some("ä".repeat(100)));
}

#[test]
fn unknown_words_mean_what_the_operator_says() {
    let entry = json!({"id": "acme", "status": "Frozen"});
    for (unknown_status, status) in
        [(UnknownStatus::Active, TenantStatus::Active), (UnknownStatus::Suspended, TenantStatus::Suspended)]
    {
        let options = Options { unknown_status, ..Options::default() };
        assert_eq!(tenant(&options, &entry).status, Some(status));
    }
    let flag = Options {
        status: "/enabled".to_owned(),
        statuses: BTreeMap::from(
            [("true", "active"), ("false", "suspended")].map(|(k, v)| (k.into(), v.into())),
        ),
        ..Options::default()
    };
    assert_eq!(tenant(&flag, &json!({"id": "acme", "enabled": false})).status, Some(TenantStatus::Suspended));
}

#[test]
fn every_fault_is_found_at_once() {
    let texts =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let step = |limit, value: &str| Step { limit, value: value.to_owned() };
    let options = Options {
        items: "tenants".to_owned(),
        id: String::new(),
        tier: "/a~".to_owned(),
        tiers: texts(&[("Gold", "Gold")]),
        statuses: texts(&[("on", "active"), ("ON", "suspended"), ("off", "gone")]),
        labels: texts(&[("Bad Key", "/x"), ("deleted-at", "/y"), ("band", "/z"), ("none", "")]),
        bands: BTreeMap::from([
            (
                "band".to_owned(),
                Band {
                    field: "arr".to_owned(),
                    below: vec![step(2.0, "a"), step(1.0, "")],
                    above: "c".to_owned(),
                },
            ),
            ("empty".to_owned(), Band { field: "/arr".to_owned(), below: vec![], above: "c".to_owned() }),
        ]),
        ..Options::default()
    };
    let found = faults(&options);
    for expected in [
        "id: is empty: every tenant needs an id",
        "items: `tenants` is not a JSON pointer such as \"/tenants\": it must start with a slash",
        "tier: `/a~` is not a JSON pointer: a tilde must be followed by 0 or 1",
        "tiers.Gold: name `Gold` does not match [a-z0-9][a-z0-9._-]{0,62}",
        "statuses.off: `gone` is neither active, suspended nor maintenance",
        "statuses.on: has another meaning in another letter case",
        "labels.Bad Key: name `Bad Key` does not match [a-z0-9][a-z0-9._-]{0,62}",
        "labels.deleted-at: is a label that the synchronisation itself writes",
        "labels.none: is empty",
        "bands.band: is mapped under [labels] too",
        "bands.band.field: `arr` is not a JSON pointer such as \"/tenants\": it must start with a slash",
        "bands.band.below: must have its limits in ascending order",
        "bands.band: needs values of 1 to 128 bytes",
        "bands.empty.below: is empty: one band tells nothing",
    ] {
        assert!(found.iter().any(|fault| fault == expected), "{expected}\nis not in {found:#?}");
    }
    assert_eq!(found.len(), 14, "{found:#?}");
    let crowd = Options {
        labels: (0..MAX_LABELS).map(|i| (format!("k{i}"), "/x".to_owned())).collect(),
        ..Options::default()
    };
    assert_eq!(faults(&crowd), ["labels: has 32 labels with bands, at most 30 are allowed"]);
}

/// Values as an API may send them, fit or not.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z0-9-]{0,8}".prop_map(Value::from),
        "\\PC{0,140}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-z]{1,8}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn entry() -> impl Strategy<Value = Value> {
    let members = ["id", "name", "status", "plan", "home", "residency", "tags", "seats", "revenue"];
    let values = proptest::collection::vec(proptest::option::of(anything()), members.len());
    (values, "[a-z][a-z0-9]{0,9}", any::<bool>()).prop_map(move |(values, id, fit)| {
        let mut entry: serde_json::Map<String, Value> = members
            .iter()
            .zip(values)
            .filter_map(|(name, value)| Some(((*name).to_owned(), value?)))
            .collect();
        if fit {
            entry.insert("id".to_owned(), id.into());
        }
        Value::Object(entry)
    })
}

proptest! {
    /// Whatever an API sends, what comes out is what the control plane takes, and reasons stay short.
    #[test]
    fn any_entry_yields_a_tenant_within_limits_or_a_short_reason(entry in entry()) {
        match mapping(&full()).map(&entry) {
            Entry::Tenant(id, sourced) => {
                prop_assert_eq!(Some(id.to_string()), entry.pointer("/id").map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned)));
                prop_assert!(sourced.name.as_ref().is_none_or(|name| (1..=MAX_TENANT_NAME).contains(&name.len())));
                prop_assert!(sourced.residency.as_ref().is_none_or(|regions| regions.len() <= MAX_RESIDENCY));
                prop_assert_eq!(sourced.labels.len(), 3);
                prop_assert!(sourced.labels.values().flatten().all(|value| value.len() <= MAX_LABEL_VALUE));
            }
            Entry::Unfit(_, invalid) => {
                prop_assert!(!invalid.reason.is_empty());
                prop_assert!(invalid.id.len() <= MAX_TOLD && invalid.reason.len() <= 2 * MAX_TOLD);
            }
        }
    }

    /// A number is in the band whose limits enclose it.
    #[test]
    fn bands_cover_every_number_once(limits in proptest::collection::btree_set(-1000..1000_i32, 1..6), number in -2000..2000_i32) {
        let limits: Vec<f64> = limits.into_iter().map(f64::from).collect();
        let bands = Bands {
            below: limits.iter().enumerate().map(|(i, limit)| (*limit, i.to_string())).collect(),
            above: "above".to_owned(),
        };
        let expected = limits.iter().position(|limit| f64::from(number) < *limit);
        prop_assert_eq!(bands.of(f64::from(number)), expected.map_or("above".to_owned(), |i| i.to_string()));
    }
}
