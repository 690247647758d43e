//! The `grey` binary: every service in one process, the demo, and the command line.
//!
//! [`cli`] is the command line: one module per noun, each command one call of the services' gRPC API.
//!
//! What it does *not* do: it has no rule of its own about tenants, versions or pins. Whatever a command may or may
//! not do is decided by the service that it calls.

pub mod cli;

pub mod instances;
