//! The workspace's rules, as tests. What each holds is written in ARCHITECTURE.md.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]

mod dependencies;
mod files;
mod manifests;
mod words;

use cargo_metadata::{Metadata, MetadataCommand, Package};
use std::path::PathBuf;

fn root() -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../..").canonicalize().unwrap()
}

fn metadata() -> Metadata {
    MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().unwrap()
}

fn members(metadata: &Metadata) -> Vec<&Package> {
    metadata.workspace_packages()
}

/// Every file that the repository holds or is about to, as git sees it; relative to the root.
fn files() -> Vec<PathBuf> {
    let listed = std::process::Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(listed.status.success(), "list the repository's files with git");
    let listed = String::from_utf8(listed.stdout).unwrap();
    let files: Vec<_> = listed.lines().map(PathBuf::from).filter(|f| root().join(f).is_file()).collect();
    assert!(files.len() > 50, "only {} files were found", files.len());
    files
}
