//! Generated protobuf types, their conversions to core's, and the one mapping of errors to gRPC and HTTP.

pub mod codec;
pub mod convert;
pub mod status;

/// Generated code.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::doc_markdown,
    clippy::str_to_string,
    reason = "generated code"
)]
mod generated {
    pub mod control {
        pub mod v1 {
            tonic::include_proto!("grey.control.v1");
            include!(concat!(env!("OUT_DIR"), "/grey.control.v1.serde.rs"));
        }
    }
    pub mod router {
        pub mod v1 {
            tonic::include_proto!("grey.router.v1");
            include!(concat!(env!("OUT_DIR"), "/grey.router.v1.serde.rs"));
        }
    }
}
/// Messages and services of the admin API.
pub use generated::control::v1 as control;
/// Messages and services of the data plane.
pub use generated::router::v1 as router;

/// The contracts as an encoded `FileDescriptorSet`, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/grey_descriptor.bin"));
