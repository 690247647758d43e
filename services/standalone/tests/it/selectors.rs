//! `grey migrate` with every way to select tenants, on every verb that takes any, for people and for programs.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::grey::{Grey, file};

/// Tenants with their tiers and a label.
const TENANTS: [(&str, &str, &str); 4] = [
    ("acme", "gold", "ring=0"),
    ("bluth", "free", "ring=0"),
    ("ecorp", "gold", "ring=1"),
    ("frobo", "free", "ring=1"),
];

/// A selector of each kind, and whom it stands for.
const SELECTORS: [(&str, &[&str]); 5] = [
    ("acme,frobo", &["acme", "frobo"]),
    ("label:ring=0", &["acme", "bluth"]),
    ("tier=gold", &["acme", "ecorp"]),
    ("tier=free+label:ring=1", &["frobo"]),
    ("all", &["acme", "bluth", "ecorp", "frobo"]),
];

/// The tenants that a document names under `key`.
fn named<'a>(document: &'a Value, key: &str) -> BTreeSet<&'a str> {
    let entries = document[key].as_array().unwrap_or_else(|| panic!("{key}: {document}"));
    entries.iter().map(|entry| entry["tenant"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn every_verb_takes_every_kind_of_selector() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("migrations");
    let env = [("GREY__SCHEMA_MIGRATOR__MIGRATIONS", folder.to_str().unwrap())];
    let grey = Grey::start_with(&[], &env).await;
    for (tenant, tier, label) in TENANTS {
        grey.run(&["tenant", "put", tenant, "--tier", tier, "--label", label]).await.ok();
    }
    for (number, (selector, tenants)) in SELECTORS.iter().enumerate() {
        let service = format!("service{number}");
        let files = folder.join(&service);
        std::fs::create_dir_all(&files).unwrap();
        for (name, text) in [
            ("V1.1__a.sql", "CREATE TABLE a (id INT);"),
            ("U1.1__a.sql", "DROP TABLE a;"),
            ("V1.2__b.sql", "CREATE TABLE b (id INT);"),
            ("U1.2__b.sql", "DROP TABLE b;"),
        ] {
            file(&files, name, text);
        }
        grey.run(&["service", "put", &service, "--default", "v1.0"]).await.ok();
        for (tenant, ..) in TENANTS {
            let database = file(dir.path(), &format!("{tenant}-{service}.db"), "");
            let url = format!("sqlite://{}", database.display());
            grey.run(&["database", "put", tenant, &service, "--url", &url]).await.ok();
        }
        let expected: BTreeSet<&str> = tenants.iter().copied().collect();
        let of = |verb: &'static str, more: &[&'static str]| {
            let service = service.clone();
            let args = [&["--tenants", selector][..], more].concat();
            let grey = &grey;
            async move {
                let args = [&["migrate", verb, service.as_str()][..], &args].concat();
                let plain = if ["plan", "status"].contains(&verb) {
                    Some(grey.run(&args).await.ok().out)
                } else {
                    None
                };
                for tenant in plain.iter().flat_map(|_| tenants.iter()) {
                    assert!(plain.as_ref().unwrap().contains(tenant), "{args:?}: {plain:?}");
                }
                grey.json(&args).await
            }
        };
        // Declared at 1.1, so one migration is left.
        let declared = of("baseline", &["--at", "1.1", "--yes"]).await;
        assert_eq!(named(&declared, "schemas"), expected, "{selector}");
        let plans = of("plan", &[]).await;
        assert_eq!(named(&plans, "plans"), expected, "{selector}");
        assert!(plans["plans"].as_array().unwrap().iter().all(|plan| plan["fromSchema"] == "1.1"), "{plans}");
        let up = of("up", &["--yes"]).await;
        assert_eq!(named(&up, "upgrades"), expected, "{selector}");
        let seen = of("status", &["--live"]).await;
        assert_eq!(named(&seen, "schemas"), expected, "{selector}");
        assert!(seen["schemas"].as_array().unwrap().iter().all(|it| it["schema"] == "1.2"), "{seen}");
        let compared = of("validate", &[]).await;
        assert_eq!(named(&compared, "tenants"), expected, "{selector}");
        let undone = of("undo", &["--to", "1.1", "--yes"]).await;
        assert_eq!(named(&undone, "upgrades"), expected, "{selector}");
        // And nobody else: the others' databases were never touched.
        let args = ["migrate", "status", service.as_str(), "--live"];
        let all = grey.json(&args).await;
        let schemas = all["schemas"].as_array().unwrap();
        assert_eq!(schemas.len(), TENANTS.len(), "{selector}: {all}");
        for schema in schemas {
            let tenant = schema["tenant"].as_str().unwrap();
            let at = if expected.contains(tenant) { "1.1" } else { "" };
            assert_eq!(schema["schema"].as_str().unwrap_or_default(), at, "{selector}: {schema}");
        }
        let checked = grey.json(&["migrate", "validate", &service]).await;
        assert_eq!(checked["migrations"], 2, "{checked}");
    }
}
