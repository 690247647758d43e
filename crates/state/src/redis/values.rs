//! Reads answers.

use crate::{Error, FencingToken};
use redis::Value;
use std::fmt::Display;
use std::str::FromStr;

/// A stored value that does not read back.
pub(super) fn corrupt(key: &str, why: &(impl Display + ?Sized)) -> Error {
    Error::Corrupt { key: key.to_owned(), why: why.to_string() }
}

/// A text or binary answer; none for every other kind.
pub(super) fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        Value::Okay => Some(b"OK"),
        _ => None,
    }
}

/// A text answer.
pub(super) fn text<'a>(key: &str, value: &'a Value) -> Result<&'a str, Error> {
    let bytes = bytes(value).ok_or_else(|| corrupt(key, "an answer is no text"))?;
    std::str::from_utf8(bytes).map_err(|_| corrupt(key, "a text is not UTF-8"))
}

/// A number or another value with a text form.
pub(super) fn parsed<T: FromStr>(key: &str, what: &str, text: &str) -> Result<T, Error> {
    text.parse()
        .map_err(|_| corrupt(key, &format!("{what} is `{}`", text.chars().take(80).collect::<String>())))
}

/// A token. One that no leader can be given is damage and fences nobody, as in the scripts.
pub(super) fn token(key: &str, text: &str) -> Result<FencingToken, Error> {
    const LIMIT: u64 = 1_000_000_000_000_000_000;
    match parsed(key, "the token", text)? {
        token if token < LIMIT && (token == 0 || !text.starts_with(['0', '+'])) => Ok(FencingToken(token)),
        _ => Err(corrupt(key, &format!("the token is `{text}`"))),
    }
}

/// The elements of an array or a set.
pub(super) fn items(key: &str, value: Value) -> Result<Vec<Value>, Error> {
    match value {
        Value::Array(items) | Value::Set(items) => Ok(items),
        Value::Nil => Ok(Vec::new()),
        Value::ServerError(error) => Err(corrupt(key, &format!("{error:?}"))),
        other => Err(corrupt(key, &format!("an answer is no list: {other:?}"))),
    }
}

/// The fields of a hash, in turn.
pub(super) fn fields<'a>(
    key: &str,
    value: &'a Value,
) -> Result<impl Iterator<Item = (&'a Value, &'a Value)> + use<'a>, Error> {
    let (flat, pairs): (&[Value], &[(Value, Value)]) = match value {
        Value::Array(flat) => (flat, &[]),
        Value::Map(pairs) => (&[], pairs),
        Value::ServerError(error) => return Err(corrupt(key, &format!("{error:?}"))),
        _ => return Err(corrupt(key, "an answer is no hash")),
    };
    let flat = flat.chunks_exact(2).map(|pair| (&pair[0], &pair[1]));
    Ok(flat.chain(pairs.iter().map(|(field, value)| (field, value))))
}
