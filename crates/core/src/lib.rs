//! The routing decision and everything it depends on.
//!
//! A [`table::Table`] is an immutable snapshot of one revision. [`decide::decide`] answers which
//! version and which instance serve a tenant's call, from that snapshot and the arguments alone:
//! this crate does no I/O, has no async code and reads no clock.
//!
//! Reading order: the nouns ([`ids`], [`version`], [`schema`], [`tenant`], [`service`],
//! [`policy`], [`instance`]), what changes them ([`change`]), the [`table`] they fold into, and
//! the decision ([`decide`], [`explain`], [`balance`]).
//!
//! What it does *not* do: it knows neither gRPC nor Redis nor SQL, and its types are not
//! serializable on purpose; the wire, the projection and the database have types of their own.

pub mod balance;
pub mod change;
pub mod decide;
pub mod digest;
pub mod error;
pub mod explain;
pub mod hash;
pub mod ids;
pub mod instance;
pub mod policy;
pub mod schema;
pub mod service;
pub mod table;
pub mod tenant;
pub mod version;
