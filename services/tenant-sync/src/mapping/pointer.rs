//! JSON pointers (RFC 6901).

use std::fmt;

use serde_json::Value;

/// Where something stands in a JSON document; the empty one means the document itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pointer {
    text: String,
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
        let mut parts = text.split('/');
        if parts.next().is_some_and(|before| !before.is_empty()) {
            return Err(InvalidPointer::NoSlash(text.to_owned()));
        }
        let steps: Option<Vec<String>> = parts.map(unescape).collect();
        let steps = steps.ok_or_else(|| InvalidPointer::Tilde(text.to_owned()))?;
        Ok(Self { text: text.to_owned(), steps })
    }

    /// Names and indexes to follow, outermost first.
    pub(crate) fn steps(&self) -> &[String] {
        &self.steps
    }

    /// What stands there, if anything does.
    #[must_use]
    pub fn find<'v>(&self, document: &'v Value) -> Option<&'v Value> {
        self.steps.iter().try_fold(document, |value, step| match value {
            Value::Object(members) => members.get(step),
            Value::Array(elements) => elements.get(index(step)?),
            _ => None,
        })
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The index that a step means in a list: digits without a leading zero.
pub(crate) fn index(step: &str) -> Option<usize> {
    let digits = step.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = step == "0" || !step.starts_with('0');
    if digits && canonical { step.parse().ok() } else { None }
}

fn unescape(step: &str) -> Option<String> {
    let mut parts = step.split('~');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (sign, rest) = if let Some(rest) = part.strip_prefix('0') {
            ('~', rest)
        } else {
            ('/', part.strip_prefix('1')?)
        };
        text.push(sign);
        text.push_str(rest);
    }
    Some(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "test code panics")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn the_examples_of_the_rfc_find_what_it_says() {
        let document = json!({"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "i\\j": 5, "k\"l": 6,
            " ": 7, "m~n": 8});
        for (pointer, found) in [
            ("", document.clone()),
            ("/foo", json!(["bar", "baz"])),
            ("/foo/0", json!("bar")),
            ("/", json!(0)),
            ("/a~1b", json!(1)),
            ("/c%d", json!(2)),
            ("/e^f", json!(3)),
            ("/i\\j", json!(5)),
            ("/k\"l", json!(6)),
            ("/ ", json!(7)),
            ("/m~0n", json!(8)),
        ] {
            assert_eq!(Pointer::parse(pointer).unwrap().find(&document), Some(&found), "{pointer}");
        }
        for absent in ["/foo/2", "/foo/00", "/foo/-", "/foo/+1", "/foo/0/x", "/nothing"] {
            assert_eq!(Pointer::parse(absent).unwrap().find(&document), None, "{absent}");
        }
    }

    #[test]
    fn texts_that_are_no_pointers_are_refused() {
        for text in ["tenants", "a/b", " /a", "/a~", "/a~2", "/~/b"] {
            assert!(Pointer::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_pointer_finds_what_serde_json_finds(
            steps in proptest::collection::vec("[a~/0-2]{0,3}", 0..4),
            document in document(),
        ) {
            let text: String =
                steps.iter().map(|step| format!("/{}", step.replace('~', "~0").replace('/', "~1"))).collect();
            prop_assert_eq!(Pointer::parse(&text).unwrap().find(&document), document.pointer(&text));
        }
    }

    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(json!(1)), Just(json!("x")), Just(Value::Null)];
        leaf.prop_recursive(3, 30, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a~/0-2]{0,3}", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }
}
