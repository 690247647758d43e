//! The rows of the control database, and their conversions to core's types.
//!
//! A row that does not read back means that something else has written to the database.

pub(crate) mod checkpoints;
pub(crate) mod events;
pub(crate) mod holds;
pub(crate) mod observed_schemas;
pub(crate) mod overlays;
pub(crate) mod pins;
pub(crate) mod policies;
pub(crate) mod record_history;
pub(crate) mod routers;
pub(crate) mod services;
pub(crate) mod tenant_databases;
pub(crate) mod tenant_keys;
pub(crate) mod tenants;
pub(crate) mod versions;

use std::fmt::Display;
use std::str::FromStr;

use crate::database::Error;

/// Reads a stored text.
pub(crate) fn read<T: FromStr<Err: Display>>(table: &'static str, text: &str) -> Result<T, Error> {
    text.parse().map_err(|why: T::Err| Error::Corrupt { table, why: why.to_string() })
}

/// Reads a stored number that is never negative.
pub(crate) fn unsigned(table: &'static str, number: i64) -> Result<u64, Error> {
    u64::try_from(number).map_err(|_| Error::Corrupt { table, why: format!("{number} is negative") })
}

/// A revision or a time as SQL holds it. Both stay below 2^63 for longer than the product will.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
