//! Reads one document in passes that keep nothing but what was asked for: a document is large, what it says is small.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserializer, de};
use serde_json::Value;
use serde_json::error::Category;

use super::options::{Paging, PagingKind};
use crate::mapping::{Entry, InvalidPointer, Mapping, Pointer, cut, index};

/// Most characters told of what is wrong with a document.
const MAX_FAULT: usize = 200;

/// What a page says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Page {
    pub(super) entries: Vec<Entry>,
    /// The cursor or address of the next page, if it tells one.
    pub(super) next: Option<String>,
    /// How many tenants there are, where pages are to tell it.
    pub(super) total: Option<u64>,
}

/// Why a document is no page.
#[derive(Debug, PartialEq)]
pub(super) enum Fault {
    /// It ends too early.
    Unfinished,
    /// It lists more entries than allowed.
    TooMany,
    /// It is something else.
    Wrong(String),
}

/// Where the parts of a page stand.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    mapping: Mapping,
    next: Option<Pointer>,
    total: Option<Pointer>,
    max_entries: usize,
}

impl Shape {
    pub(super) fn new(mapping: Mapping, paging: &Paging, max_entries: usize) -> Result<Self, InvalidPointer> {
        let optional =
            |text: &str| Some(text).filter(|text| !text.is_empty()).map(Pointer::parse).transpose();
        let next = match paging.kind {
            PagingKind::None | PagingKind::Page => "",
            PagingKind::Cursor => &paging.cursor,
            PagingKind::Link => &paging.next,
        };
        Ok(Self { mapping, next: optional(next)?, total: optional(&paging.total)?, max_entries })
    }

    /// Whether the address of the next page stands in the document.
    pub(super) fn tells_next(&self) -> bool {
        self.next.is_some()
    }

    /// Reads a document.
    pub(super) fn read(&self, body: &[u8]) -> Result<Page, Fault> {
        let items = self.mapping.items();
        let entries = Entries { mapping: &self.mapping, limit: self.max_entries };
        let entries = find(body, items, entries)?;
        let entries = entries.ok_or_else(|| Fault::Wrong(format!("there is no list at `{items}`")))?;
        if entries.len() > self.max_entries {
            return Err(Fault::TooMany);
        }
        Ok(Page { entries, next: self.next(body)?, total: self.total(body)? })
    }

    fn next(&self, body: &[u8]) -> Result<Option<String>, Fault> {
        let Some(pointer) = &self.next else { return Ok(None) };
        match find(body, pointer, PhantomData::<Value>)? {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(_) => Err(Fault::Wrong(format!("`{pointer}` is neither text nor a number"))),
        }
    }

    fn total(&self, body: &[u8]) -> Result<Option<u64>, Fault> {
        let Some(pointer) = &self.total else { return Ok(None) };
        let told = find(body, pointer, PhantomData::<Value>)?.as_ref().and_then(Value::as_u64);
        told.map(Some).ok_or_else(|| Fault::Wrong(format!("there is no count at `{pointer}`")))
    }
}

fn find<'de, S>(body: &'de [u8], pointer: &Pointer, seed: S) -> Result<Option<S::Value>, Fault>
where
    S: DeserializeSeed<'de>,
{
    let mut reader = serde_json::Deserializer::from_slice(body);
    let found = At { steps: pointer.steps(), seed }.deserialize(&mut reader);
    found.and_then(|found| reader.end().map(|()| found)).map_err(|error| match error.classify() {
        Category::Eof => Fault::Unfinished,
        _ if is_cut(body, &error) => Fault::Unfinished,
        _ => Fault::Wrong(cut(&error.to_string(), MAX_FAULT).to_owned()),
    })
}

/// Whether what is wrong is the end, for instance in the middle of a number, which the parser does not call an end.
fn is_cut(body: &[u8], error: &serde_json::Error) -> bool {
    let mut lines = body.split(|byte| *byte == b'\n');
    let last = lines.next_back().unwrap_or_default();
    let at_end = error.line() == lines.count() + 1 && error.column() >= last.len();
    at_end && !body.trim_ascii_end().ends_with(b"}") && !body.trim_ascii_end().ends_with(b"]")
}

/// What stands at the end of `steps`; everything else is skipped.
struct At<'p, S> {
    steps: &'p [String],
    seed: S,
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for At<'_, S> {
    type Value = Option<S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        match self.steps {
            [] => self.seed.deserialize(deserializer).map(Some),
            [..] => deserializer.deserialize_any(self),
        }
    }
}

impl<'de, S: DeserializeSeed<'de>> Visitor<'de> for At<'_, S> {
    type Value = Option<S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a document")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let Some((step, steps)) = self.steps.split_first() else { return Ok(None) };
        let (mut seed, mut found) = (Some(self.seed), None);
        while let Some(name) = members.next_key::<String>()? {
            if name != *step {
                members.next_value::<IgnoredAny>()?;
                continue;
            }
            let seed = seed.take().ok_or_else(|| A::Error::custom(format!("`{step}` is there twice")))?;
            found = members.next_value_seed(At { steps, seed })?;
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let Some((step, steps)) = self.steps.split_first() else { return Ok(None) };
        for _ in 0..index(step).unwrap_or(usize::MAX) {
            if elements.next_element::<IgnoredAny>()?.is_none() {
                return Ok(None);
            }
        }
        let found = elements.next_element_seed(At { steps, seed: self.seed })?.flatten();
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// The entries of a list, each mapped as soon as it is read.
struct Entries<'m> {
    mapping: &'m Mapping,
    limit: usize,
}

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = Vec<Entry>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = Vec<Entry>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of tenants at `{}`", self.mapping.items())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(element) = elements.next_element::<Value>()? {
            // One beyond the limit tells that it was passed.
            if entries.len() <= self.limit {
                entries.push(self.mapping.map(&element));
            }
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests;
