//! From merged TOML to the service's type, collecting every fault instead of stopping at the first.
//!
//! serde stops at the first error. So each error is recorded, the offending value is replaced by its default or taken
//! out, and the decoding starts again, until it succeeds or an error cannot be repaired.

use std::collections::BTreeMap;

use figment::error::{Actual, Kind};
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::{
    Fault,
    layers::{self, Layers},
};

/// More faults than anyone reads; bounds the work.
const MAX_FAULTS: usize = 64;

/// Returns what could be decoded, with `faults` saying what was repaired on the way; `None` if nothing could.
pub(super) fn decode<T: DeserializeOwned>(layers: &Layers, faults: &mut Vec<Fault>) -> Option<T> {
    let mut table = layers.merged.clone();
    // Values of variables that did not fit as TOML and are tried again as plain text, with the first complaint.
    let mut retyped: BTreeMap<String, String> = BTreeMap::new();
    for _ in 0..MAX_FAULTS {
        let error = match attempt::<T>(&table) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let path = path_of(&error);
        if let Some(text) = as_text(layers, &error, &path, &retyped) {
            retyped.insert(path.clone(), describe(&error.kind));
            let keys: Vec<&str> = path.split('.').collect();
            if set(&mut table, &keys, text) {
                continue;
            }
        }
        let known = faults.iter().any(|fault| fault.path == path);
        if !known {
            let message = retyped.remove(&path).unwrap_or_else(|| describe(&error.kind));
            faults.push(Fault { path: path.clone(), message, origin: None }.with_origin(layers));
        }
        let keys: Vec<&str> = path.split('.').collect();
        let repaired = match error.kind {
            Kind::UnknownField(..) => remove(&mut table, &keys),
            // What is not there, or was taken out before, can only be repaired together with what surrounds it.
            Kind::MissingField(_) => repair(&mut table, &layers.defaults, &keys, keys.len() - 1),
            _ => repair(&mut table, &layers.defaults, &keys, keys.len() - usize::from(known)),
        };
        if !repaired {
            return None;
        }
    }
    None
}

/// Gives the value at the first `depth` of `keys` its default, or takes it out if it has none; or the nearest value
/// around it where that changes anything. False if nothing does.
fn repair(table: &mut Table, defaults: &Table, keys: &[&str], depth: usize) -> bool {
    (1..=depth).rev().any(|depth| {
        let keys = keys.split_at(depth).0;
        match layers::get(defaults, keys) {
            None => remove(table, keys),
            Some(default) if layers::get(table, keys) == Some(default) => false,
            Some(default) => set(table, keys, default.clone()),
        }
    })
}

fn attempt<T: DeserializeOwned>(table: &Table) -> Result<T, Box<figment::Error>> {
    figment::value::Value::serialize(table).and_then(|value| value.deserialize()).map_err(Box::new)
}

/// The error about a missing key carries the path of its table and the key's name apart.
fn path_of(error: &figment::Error) -> String {
    let mut path = error.path.join(".");
    if let Kind::MissingField(key) = &error.kind {
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(key);
    }
    path
}

/// A password of digits only is a number to TOML; where the target wants a string it gets the text as written.
fn as_text(
    layers: &Layers,
    error: &figment::Error,
    path: &str,
    retyped: &BTreeMap<String, String>,
) -> Option<Value> {
    let Kind::InvalidType(actual, _) = &error.kind else { return None };
    if matches!(actual, Actual::Str(_)) || retyped.contains_key(path) {
        return None;
    }
    layers.variable(path).map(|variable| Value::String(variable.text.clone()))
}

/// Replaces a value that is there.
fn set(table: &mut Table, keys: &[&str], value: Value) -> bool {
    let Some((last, parents)) = keys.split_last() else { return false };
    layers::parent(table, parents).is_some_and(|parent| parent.insert((*last).to_owned(), value).is_some())
}

/// Takes a value out; true if it was there. Elements of arrays stay, so that the others keep their numbers.
fn remove(table: &mut Table, keys: &[&str]) -> bool {
    let Some((last, parents)) = keys.split_last() else { return false };
    layers::parent(table, parents).is_some_and(|parent| parent.remove(*last).is_some())
}

/// Names types but repeats no text: a value in the wrong place may be a secret.
fn describe(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => message.clone(),
        Kind::InvalidType(actual, expected) => format!("expected {expected}, found {}", type_of(actual)),
        Kind::InvalidValue(Actual::Signed(number), expected) => {
            format!("expected {expected}, found {number}")
        }
        Kind::InvalidValue(Actual::Unsigned(number), expected) => {
            format!("expected {expected}, found {number}")
        }
        Kind::InvalidValue(actual, expected) => {
            format!("expected {expected}, found another {}", type_of(actual))
        }
        Kind::InvalidLength(length, expected) => format!("expected {expected}, found {length} elements"),
        Kind::UnknownVariant(name, expected) => {
            format!("unknown value `{name}`, expected {}", one_of(expected))
        }
        Kind::UnknownField(_, expected) => format!("unknown key, expected {}", one_of(expected)),
        Kind::MissingField(_) => "missing".to_owned(),
        other => other.to_string(),
    }
}

fn one_of(names: &[&str]) -> String {
    match names {
        [] => "none here".to_owned(),
        [only] => format!("`{only}`"),
        _ => format!("one of `{}`", names.join("`, `")),
    }
}

fn type_of(actual: &Actual) -> &'static str {
    match actual {
        Actual::Bool(_) => "boolean",
        Actual::Unsigned(_) | Actual::Signed(_) => "integer",
        Actual::Float(_) => "float",
        Actual::Char(_) | Actual::Str(_) => "string",
        Actual::Bytes(_) => "bytes",
        Actual::Seq => "array",
        Actual::Map => "table",
        _ => "another type",
    }
}
