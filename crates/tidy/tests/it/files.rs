//! Files fit in the head.

use crate::{files, root};
use std::path::Path;

/// Most lines of a source file, inline tests left out.
const SOURCE_LIMIT: usize = 500;
/// Most lines of a test file.
const TEST_LIMIT: usize = 800;

fn is_test(file: &Path) -> bool {
    file.components().any(|part| part.as_os_str() == "tests")
}

#[test]
fn files_are_short() {
    let mut faults = Vec::new();
    for file in files().into_iter().filter(|f| f.extension().is_some_and(|e| e == "rs")) {
        let text = std::fs::read_to_string(root().join(&file)).unwrap();
        let (lines, limit) = if is_test(&file) {
            (text.lines().count(), TEST_LIMIT)
        } else {
            let source = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count();
            (source, SOURCE_LIMIT)
        };
        if lines > limit {
            faults.push(format!("{} has {lines} lines, at most {limit} are allowed", file.display()));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn modules_are_files_beside_their_folder() {
    let faults: Vec<_> =
        files().into_iter().filter(|f| f.file_name().is_some_and(|n| n == "mod.rs")).collect();
    assert!(faults.is_empty(), "write `foo.rs` beside `foo/` instead of {faults:#?}");
}

#[test]
fn names_say_what_a_thing_is() {
    let drawers = ["common", "utils", "util", "helpers", "helper", "misc", "manager"];
    let faults: Vec<_> = files()
        .into_iter()
        .filter(|f| f.extension().is_some_and(|e| e == "rs"))
        .filter(|f| drawers.contains(&f.file_stem().and_then(|s| s.to_str()).unwrap_or_default()))
        .collect();
    assert!(faults.is_empty(), "a drawer is not a concept: {faults:#?}");
}
