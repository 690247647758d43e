//! Compiles the contracts under `proto/` without a system protoc.

use prost::Message;
use std::path::PathBuf;

const FILES: [&str; 5] = [
    "grey/router/v1/router.proto",
    "grey/control/v1/model.proto",
    "grey/control/v1/control.proto",
    "grey/sync/v1/sync.proto",
    "grey/schema/v1/schema.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Asked when it runs, not when it is compiled: a build directory shared by two checkouts keeps one program.
    let package = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let root = package.join("../../proto");
    println!("cargo:rerun-if-changed=../../proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);

    let descriptors = protox::Compiler::new([&root])?
        .include_source_info(true)
        .include_imports(true)
        .open_files(FILES)?
        .file_descriptor_set();
    let encoded = descriptors.encode_to_vec();
    std::fs::write(out.join("grey_descriptor.bin"), &encoded)?;

    tonic_prost_build::configure()
        .compile_well_known_types(true)
        .btree_map(".")
        .extern_path(".google.protobuf", "::pbjson_types")
        .compile_fds(descriptors)?;
    pbjson_build::Builder::new().register_descriptors(&encoded)?.btree_map(["."]).build(&[".grey"])?;
    Ok(())
}
