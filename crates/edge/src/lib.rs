//! The edge of control-side services: who may do what, the two ports, failures told alike over gRPC and REST, and the
//! client of one another.
//!
//! A service brings its gRPC services and REST routes; [`Ports`] serves them with identity, deadlines, health, metrics
//! and reflection around. Handlers ask [`admit`] for the [`Caller`], which nobody else can make. Services call each other
//! by a [`client::Client`], and tell whom they ask for by [`on_behalf_of`].
//!
//! What it does *not* do: it knows no operation of any service, and the router, whose calls take microseconds, does not
//! use it.

mod access;
mod failure;
mod layers;
mod ports;
mod principal;

pub mod client;

pub use access::{Caller, Gate, Role, admit, check_tokens};
pub use failure::Failure;
pub use layers::Edge;
pub use ports::{Port, Ports, Serving};
pub use principal::{PRINCIPAL_HEADER, PRINCIPAL_ROLE_HEADER, PRINCIPAL_VIA_HEADER, on_behalf_of};
