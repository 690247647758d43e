//! JSON pointers (RFC 6901).

use std::fmt;

use serde_json::Value;

/// Where something stands in a JSON document; the empty one means the document itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pointer {
    text: String,
    /// From the document down, unescaped.
    steps: Vec<String>,
}

/// Why a text is not a JSON pointer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPointer {
    /// It is neither empty nor does it start with a slash.
    #[error("`{0}` is not a JSON pointer such as \"/tenants\": it must start with a slash")]
    NoSlash(String),
    /// A tilde that stands for nothing.
    #[error("`{0}` is not a JSON pointer: a tilde must be followed by 0 or 1")]
    Tilde(String),
}

impl Pointer {
    /// Reads a pointer such as `/data/tenants`.
    ///
    /// # Errors
    /// When the text is not a pointer.
    pub fn parse(text: &str) -> Result<Self, InvalidPointer> {
        if !text.is_empty() && !text.starts_with('/') {
            return Err(InvalidPointer::NoSlash(text.to_owned()));
        }
        if text.split('~').skip(1).any(|after| !after.starts_with(['0', '1'])) {
            return Err(InvalidPointer::Tilde(text.to_owned()));
        }
        let steps = text.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~"));
        Ok(Self { text: text.to_owned(), steps: steps.collect() })
    }

    /// What stands there, if anything does.
    #[must_use]
    pub fn find<'v>(&self, document: &'v Value) -> Option<&'v Value> {
        self.steps.iter().try_fold(document, |at, step| match at {
            Value::Object(members) => members.get(step),
            Value::Array(items) => items.get(index(step)?),
            _ => None,
        })
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A place in a list: digits without a zero in front.
fn index(step: &str) -> Option<usize> {
    let is_plain = step.bytes().all(|byte| byte.is_ascii_digit()) && (step == "0" || !step.starts_with('0'));
    if is_plain { step.parse().ok() } else { None }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "test code panics")]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_named_is_found() {
        let document = json!({"foo": ["bar", "baz"], "a/b": 1, "m~n": 8, "~1": 9, "": 0});
        for (pointer, found) in [
            ("", document.clone()),
            ("/foo/0", json!("bar")),
            ("/a~1b", json!(1)),
            ("/m~0n", json!(8)),
            ("/~01", json!(9)),
            ("/", json!(0)),
        ] {
            assert_eq!(Pointer::parse(pointer).unwrap().find(&document), Some(&found), "{pointer}");
        }
        for pointer in ["/foo/2", "/foo/01", "/foo/+1", "/foo/-", "/foo/", "/foo/0/0", "/bar"] {
            assert_eq!(Pointer::parse(pointer).unwrap().find(&document), None, "{pointer}");
        }
    }

    #[test]
    fn texts_that_are_no_pointers_are_refused() {
        for text in ["tenants", "a/b", " /a", "/a~", "/a~2", "/~/b"] {
            assert!(Pointer::parse(text).is_err(), "{text}");
        }
    }
}
