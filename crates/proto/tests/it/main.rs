//! The contracts keep their own rules.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]

mod golden;
mod lint;

use prost::Message;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

/// Our own files of the descriptor set, without what they import.
fn contracts() -> Vec<FileDescriptorProto> {
    let mut files = FileDescriptorSet::decode(grey_proto::DESCRIPTORS).unwrap().file;
    files.retain(|file| file.package().starts_with("grey."));
    assert!(files.len() >= 3, "the contracts are there");
    files
}
