//! The `grey` binary: every service in one process, the demo, and the command line.
//!
//! [`standalone`] composes the services as they ship, on shared state in memory. [`demo`] is a story told on it with real
//! backends and traffic. [`cli`] is the command line: one module per noun, each command one call of the gRPC API.
//!
//! What it does *not* do: it has no rule of its own about tenants, versions or pins. Whatever a command may or may
//! not do is decided by the service that it calls.

pub mod config;
pub mod standalone;

pub mod demo;

pub mod cli;
