//! Generated protobuf types, their conversions to core's, and the one mapping of errors to gRPC and HTTP.
//!
//! [`control`], [`router`], [`schema`] and [`sync`] are generated from the contracts under `proto/`. [`convert`] turns their messages
//! into core's checked types and back, [`codec`] writes and reads what is stored, and [`status`] is the only
//! place that knows which code a failure has. [`route_call`] and [`decision`] read and write the messages of Route without the
//! generated types, which would cost more than deciding does. The feature `arbitrary` adds generators for property tests.

pub mod codec;
pub mod convert;
pub mod decision;
pub mod route_call;
pub mod status;
mod wire;

#[cfg(any(test, feature = "arbitrary"))]
pub mod arbitrary;

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
    pub mod schema {
        pub mod v1 {
            tonic::include_proto!("grey.schema.v1");
            include!(concat!(env!("OUT_DIR"), "/grey.schema.v1.serde.rs"));
        }
    }
    pub mod sync {
        pub mod v1 {
            tonic::include_proto!("grey.sync.v1");
            include!(concat!(env!("OUT_DIR"), "/grey.sync.v1.serde.rs"));
        }
    }
}
/// Messages and services of the admin API.
pub use generated::control::v1 as control;
/// Messages and services of the data plane.
pub use generated::router::v1 as router;
/// Messages and the service of the schema migrator.
pub use generated::schema::v1 as schema;
/// Messages and the service of the sync services.
pub use generated::sync::v1 as sync;

/// The contracts as an encoded `FileDescriptorSet`, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/grey_descriptor.bin"));
