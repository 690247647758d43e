//! Generated protobuf types, their conversions to core's, and the one mapping of errors to gRPC and HTTP.
