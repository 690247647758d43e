//! Dependencies point down only.

use crate::{members, metadata};
use cargo_metadata::DependencyKind;
use std::collections::BTreeSet;

/// Who may use whom of ours. A crate that is not listed here may not exist.
const ALLOWED: &[(&str, &[&str])] = &[
    ("grey-core", &[]),
    ("grey-runtime", &[]),
    ("grey-tidy", &[]),
    ("grey-migrations-control", &[]),
    ("grey-migrations-migrator", &[]),
    ("grey-testkit", &[]),
    ("grey-vault", &["grey-runtime"]),
    ("grey-database", &["grey-runtime"]),
    ("grey-database-url", &["grey-core", "grey-runtime"]),
    ("grey-proto", &["grey-core"]),
    ("grey-state", &["grey-core", "grey-proto"]),
    ("grey-router", &["grey-core", "grey-proto", "grey-state", "grey-runtime"]),
    ("grey-edge", &["grey-core", "grey-proto", "grey-runtime"]),
    ("grey-sync", &["grey-core", "grey-proto", "grey-state", "grey-runtime", "grey-edge"]),
    (
        "grey-control-plane",
        &[
            "grey-core",
            "grey-proto",
            "grey-state",
            "grey-runtime",
            "grey-edge",
            "grey-vault",
            "grey-database",
            "grey-database-url",
            "grey-migrations-control",
        ],
    ),
    (
        "grey-schema-migrator",
        &[
            "grey-core",
            "grey-proto",
            "grey-runtime",
            "grey-edge",
            "grey-vault",
            "grey-database",
            "grey-database-url",
            "grey-migrations-migrator",
        ],
    ),
    (
        "grey-registry-sync",
        &["grey-core", "grey-proto", "grey-state", "grey-runtime", "grey-edge", "grey-sync"],
    ),
    (
        "grey-tenant-sync",
        &["grey-core", "grey-proto", "grey-state", "grey-runtime", "grey-edge", "grey-sync"],
    ),
    (
        "grey-standalone",
        &[
            "grey-core",
            "grey-proto",
            "grey-state",
            "grey-runtime",
            "grey-edge",
            "grey-router",
            "grey-control-plane",
            "grey-registry-sync",
            "grey-tenant-sync",
            "grey-schema-migrator",
            "grey-vault",
            "grey-database-url",
        ],
    ),
    (
        "grey-bench",
        &[
            "grey-core",
            "grey-proto",
            "grey-state",
            "grey-runtime",
            "grey-router",
            "grey-control-plane",
            "grey-registry-sync",
            "grey-tenant-sync",
            "grey-schema-migrator",
            "grey-vault",
            "grey-testkit",
        ],
    ),
];

/// Libraries that only the named crates of ours may use.
const FENCED: &[(&str, &[&str])] = &[
    ("figment", &["grey-runtime"]),
    ("nacos-sdk", &["grey-registry-sync", "grey-bench"]),
    ("redis", &["grey-state", "grey-testkit", "grey-bench"]),
    (
        "sea-orm",
        &["grey-database", "grey-control-plane", "grey-schema-migrator", "grey-standalone", "grey-bench"],
    ),
    ("sea-orm-migration", &["grey-control-plane", "grey-migrations-control", "grey-migrations-migrator"]),
];

fn allowed(package: &str) -> &'static [&'static str] {
    let rule = ALLOWED.iter().find(|(name, _)| *name == package);
    rule.unwrap_or_else(|| panic!("{package} has no rule: say here what it may use, and why in an ADR")).1
}

#[test]
fn crates_use_only_those_below_them() {
    let metadata = metadata();
    let members = members(&metadata);
    let ours: BTreeSet<&str> = members.iter().map(|p| p.name.as_str()).collect();
    let mut faults = Vec::new();
    for package in &members {
        let rule = allowed(&package.name);
        for dependency in &package.dependencies {
            let normal = dependency.kind == DependencyKind::Normal;
            if normal && ours.contains(dependency.name.as_str()) && !rule.contains(&dependency.name.as_str())
            {
                faults.push(format!("{} uses {}", package.name, dependency.name));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn the_testkit_is_for_tests() {
    let metadata = metadata();
    for package in members(&metadata).into_iter().filter(|p| p.name.as_str() != "grey-bench") {
        let shipped =
            package.dependencies.iter().any(|d| d.name == "grey-testkit" && d.kind == DependencyKind::Normal);
        assert!(!shipped, "{} ships the testkit", package.name);
    }
}

#[test]
fn outside_systems_are_known_to_one_layer_only() {
    let metadata = metadata();
    let mut faults = Vec::new();
    for package in members(&metadata) {
        for (library, users) in FENCED {
            let uses =
                package.dependencies.iter().any(|d| d.name == *library && d.kind == DependencyKind::Normal);
            if uses && !users.contains(&package.name.as_str()) {
                faults.push(format!("{} uses {library}", package.name));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}
