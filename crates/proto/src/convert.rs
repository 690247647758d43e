//! Conversions between the messages on the wire and core's types.
//!
//! Towards the wire every conversion succeeds (`From<&T>`). From the wire (`TryFrom`) everything is checked:
//! form, ranges and lengths, so whatever is behind these conversions needs no check of its own. Unspecified
//! enum values and absent messages read as the default that the contract states; unknown enum numbers
//! are refused. Output-only `revision` fields are written as 0 and not read.

mod change;
mod database;
mod instance;
mod json;
pub mod mask;
mod moves;
mod overlay;
mod policy;
mod service;
mod tenant;

pub use change::{MAX_TIME_MS, change_at, parse_time, read_time, timestamp};
pub use instance::{MAX_ADDRESS, MAX_METADATA_BYTES, MAX_METADATA_ENTRIES};
pub use json::json_fault;
pub use moves::{MAX_GROUPS, MAX_LISTED};
pub use overlay::{MAX_METADATA_KEY, MAX_METADATA_VALUE};
pub use tenant::{MAX_RESIDENCY, SchemaSighting, tenant_status};

use grey_core::text::{NOT_PLAIN, is_plain};
use std::fmt::Display;
use std::str::FromStr;

/// Why a message cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct InvalidMessage {
    /// Where the fault is, as a path such as `overlay_put.canary.weight`.
    pub field: String,
    /// What is wrong with it.
    pub why: String,
}

impl InvalidMessage {
    /// A fault of the field `field`.
    #[must_use]
    pub fn new(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self { field: field.into(), why: why.into() }
    }

    /// The required field `field` is not there.
    #[must_use]
    pub fn missing(field: &str) -> Self {
        Self::new(field, "is required")
    }

    /// The same fault seen from the message that has the faulty one in its field `parent`.
    #[must_use]
    pub fn under(mut self, parent: &str) -> Self {
        self.field = format!("{parent}.{}", self.field);
        self
    }
}

type Checked<T> = Result<T, InvalidMessage>;

/// Refuses text that cannot be stored, logged and shown as it is.
fn check_plain(field: &str, text: &str) -> Checked<()> {
    if is_plain(text) { Ok(()) } else { Err(InvalidMessage::new(field, NOT_PLAIN)) }
}

/// Reads a text that must be there.
fn read<T: FromStr<Err: Display>>(field: &str, text: &str) -> Checked<T> {
    text.parse().map_err(|why: T::Err| InvalidMessage::new(field, why.to_string()))
}

/// Reads a text that may be empty.
fn read_optional<T: FromStr<Err: Display>>(field: &str, text: &str) -> Checked<Option<T>> {
    if text.is_empty() { Ok(None) } else { read(field, text).map(Some) }
}

/// Reads a list of texts.
fn read_list<T: FromStr<Err: Display>, C: FromIterator<T>>(
    field: &str,
    texts: &[String],
    limit: usize,
) -> Checked<C> {
    at_most(field, "entries", texts.len(), limit)?;
    texts.iter().enumerate().map(|(i, text)| read(&format!("{field}[{i}]"), text)).collect()
}

/// Reads texts of which none may be there twice.
fn read_distinct<T: FromStr<Err: Display> + PartialEq>(
    field: &str,
    texts: &[String],
    limit: usize,
) -> Checked<Vec<T>> {
    let read: Vec<T> = read_list(field, texts, limit)?;
    match (1..read.len()).find(|&i| read[..i].contains(&read[i])) {
        Some(i) => {
            Err(InvalidMessage::new(format!("{field}[{i}]"), format!("`{}` is there twice", texts[i])))
        }
        None => Ok(read),
    }
}

/// Converts a list of messages.
fn convert_list<M, T: TryFrom<M, Error = InvalidMessage>>(
    field: &str,
    messages: Vec<M>,
    limit: usize,
) -> Checked<Vec<T>> {
    at_most(field, "entries", messages.len(), limit)?;
    let convert = |(i, message)| T::try_from(message).map_err(|e| e.under(&format!("{field}[{i}]")));
    messages.into_iter().enumerate().map(convert).collect()
}

/// Converts a message that must be there.
fn convert_required<M, T: TryFrom<M, Error = InvalidMessage>>(field: &str, message: Option<M>) -> Checked<T> {
    let message = message.ok_or_else(|| InvalidMessage::missing(field))?;
    message.try_into().map_err(|e: InvalidMessage| e.under(field))
}

/// Reads the number of an enum value.
fn known<E: TryFrom<i32>>(field: &str, number: i32) -> Checked<E> {
    E::try_from(number)
        .map_err(|_| InvalidMessage::new(field, format!("{number} is not a value of this enumeration")))
}

fn at_most(field: &str, what: &str, given: usize, limit: usize) -> Checked<()> {
    if given > limit {
        let why = format!("has {given} {what}, at most {limit} are allowed");
        return Err(InvalidMessage::new(field, why));
    }
    Ok(())
}

fn text_of<T: Display>(optional: Option<&T>) -> String {
    optional.map(ToString::to_string).unwrap_or_default()
}

fn texts_of<'a, T: Display + 'a>(items: impl IntoIterator<Item = &'a T>) -> Vec<String> {
    items.into_iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests;
