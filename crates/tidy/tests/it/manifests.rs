//! Every manifest inherits what the workspace decides.

use crate::{files, members, metadata, root};

#[test]
fn lints_and_versions_come_from_the_workspace() {
    let metadata = metadata();
    let mut faults = Vec::new();
    for package in members(&metadata) {
        let manifest = std::fs::read_to_string(&package.manifest_path).unwrap();
        if !manifest.contains("[lints]\nworkspace = true") {
            faults.push(format!("{} does not inherit the lints", package.name));
        }
        let own = manifest.lines().filter(|line| {
            let pinned = line.contains(" = \"") || line.contains("version = \"");
            let field =
                ["name", "description", "path", "edition", "default-run"].iter().any(|f| line.starts_with(f));
            pinned && !field && !line.contains("workspace = true") && !line.starts_with('#')
        });
        faults.extend(own.map(|line| format!("{}: `{line}` belongs to the root manifest", package.name)));
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn every_package_says_what_it_is() {
    let metadata = metadata();
    for package in members(&metadata) {
        assert!(package.description.is_some(), "{} has no description", package.name);
        for target in &package.targets {
            let source = std::fs::read_to_string(&target.src_path).unwrap();
            assert!(
                source.trim_start().starts_with("//!"),
                "{} does not begin with a `//!` line",
                target.src_path
            );
        }
    }
}

#[test]
fn every_proto_package_is_versioned_and_lies_in_its_folder() {
    let mut seen = 0;
    for file in files().into_iter().filter(|f| f.extension().is_some_and(|e| e == "proto")) {
        let text = std::fs::read_to_string(root().join(&file)).unwrap();
        let package = text.lines().find_map(|l| l.strip_prefix("package ")?.strip_suffix(';')).unwrap();
        let folder = format!("proto/{}", package.replace('.', "/"));
        assert_eq!(file.parent().unwrap().to_str().unwrap(), folder);
        let version = package.rsplit('.').next().unwrap();
        let number = version.strip_prefix('v').and_then(|number| number.parse::<u32>().ok());
        assert!(number.is_some(), "{package} has no version");
        seen += 1;
    }
    assert!(seen >= 3, "only {seen} contracts were found");
}
