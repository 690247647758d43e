//! Reads one document.

use std::sync::Arc;

use serde_json::Value;
use serde_json::error::Category;
use sha2::{Digest as _, Sha256};

use super::options::{Paging, PagingKind};
use crate::mapping::{Entry, InvalidPointer, Mapping, Pointer, cut};

/// Most characters told of what is wrong with a document.
const MAX_FAULT: usize = 200;

/// What some servers put before a text in UTF-8.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// What a page says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Page {
    pub(super) entries: Vec<Entry>,
    /// The cursor or address of the next page, if it tells one.
    pub(super) next: Option<String>,
    /// How many tenants there are, where pages are to tell it.
    pub(super) total: Option<u64>,
}

/// A page as it was received.
#[derive(Debug, Clone)]
pub(super) struct Received {
    pub(super) page: Arc<Page>,
    /// Of the document.
    digest: [u8; 32],
    /// The cursor or the absolute address of the next page, told in the document or beside it.
    pub(super) next: Option<String>,
}

/// Why a document is no page.
#[derive(Debug, PartialEq)]
pub(super) enum Fault {
    /// It ends too early.
    Unfinished,
    /// It is something else than JSON.
    NoJson(String),
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
            PagingKind::None | PagingKind::Page | PagingKind::Offset => "",
            PagingKind::Cursor => &paging.cursor,
            PagingKind::Link => &paging.next,
        };
        Ok(Self { mapping, next: optional(next)?, total: optional(&paging.total)?, max_entries })
    }

    /// Whether the address of the next page stands in the document.
    pub(super) fn tells_next(&self) -> bool {
        self.next.is_some()
    }

    /// Reads a document, unless it is word for word what was received before.
    pub(super) fn receive(&self, body: &[u8], before: Option<Received>) -> Result<Received, Fault> {
        let digest = Sha256::digest(body).into();
        let page = match before.filter(|before| before.digest == digest) {
            Some(before) => before.page,
            None => Arc::new(self.read(body)?),
        };
        Ok(Received { digest, next: page.next.clone(), page })
    }

    /// Reads a document.
    pub(super) fn read(&self, body: &[u8]) -> Result<Page, Fault> {
        let body = body.strip_prefix(BOM).unwrap_or(body);
        let document: Value = serde_json::from_slice(body).map_err(|error| match error.classify() {
            Category::Eof => Fault::Unfinished,
            _ if is_cut(body, &error) => Fault::Unfinished,
            _ => Fault::NoJson(cut(&error.to_string(), MAX_FAULT).to_owned()),
        })?;
        let items = self.mapping.items();
        let list = items.find(&document).and_then(Value::as_array);
        let list = list.ok_or_else(|| Fault::Wrong(format!("there is no list of tenants at `{items}`")))?;
        if list.len() > self.max_entries {
            return Err(Fault::TooMany);
        }
        let entries = list.iter().map(|entry| self.mapping.map(entry)).collect();
        Ok(Page { entries, next: self.next(&document)?, total: self.total(&document)? })
    }

    fn next(&self, document: &Value) -> Result<Option<String>, Fault> {
        let Some(pointer) = &self.next else { return Ok(None) };
        match pointer.find(document) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(_) => Err(Fault::Wrong(format!("`{pointer}` is neither text nor a number"))),
        }
    }

    fn total(&self, document: &Value) -> Result<Option<u64>, Fault> {
        let Some(pointer) = &self.total else { return Ok(None) };
        let told = pointer.find(document).and_then(Value::as_u64);
        told.map(Some).ok_or_else(|| Fault::Wrong(format!("there is no count at `{pointer}`")))
    }
}

/// Whether what is wrong is the end, for instance in the middle of a number, which the parser does not call an end.
fn is_cut(body: &[u8], error: &serde_json::Error) -> bool {
    let mut lines = body.split(|byte| *byte == b'\n');
    let last = lines.next_back().unwrap_or_default();
    let at_end = error.line() == lines.count() + 1 && error.column() >= last.len();
    at_end && !body.trim_ascii_end().ends_with(b"}") && !body.trim_ascii_end().ends_with(b"]")
}

#[cfg(test)]
mod tests;
