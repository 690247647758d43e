//! A decision as the bytes of gRPC's answer, without a message in between.

use super::reason;
use bytes::{BufMut, Bytes};
use grey_core::decide::{Decision, Rule};
use grey_core::ids::Name;
use grey_core::instance::Instance;
use grey_core::table::Table;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use smol_str::{SmolStr, format_smolstr};
use std::collections::BTreeMap;

/// Bytes before each message of gRPC: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// Bytes of a field's key: no field here has a number above 15.
const KEY: usize = 1;

/// The decision as one message of gRPC, not compressed: what [`response`](super::response) encodes to, with the
/// prefix before it.
#[must_use]
pub fn frame(table: &Table, decision: &Decision<'_>, stale: bool) -> Bytes {
    let answer = Answer::new(table, decision, stale);
    let length = answer.len();
    let mut bytes = Vec::with_capacity(PREFIX + length);
    bytes.put_u8(0);
    // What an instance says of itself has limits far below 4 GiB.
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    answer.put(&mut bytes);
    debug_assert_eq!(bytes.len(), PREFIX + length, "the length is exact");
    bytes.into()
}

/// The fields of a `RouteResponse` with the numbers that the contract gives them.
struct Answer<'d> {
    version: &'d str,
    instance: &'d Instance,
    instance_len: usize,
    reason: u64,
    /// Overlay and variant; each may be empty.
    rule: (&'d str, &'d str),
    wanted_version: &'d str,
    schema: SmolStr,
    revision: u64,
    epoch: u64,
    stale: bool,
}

impl<'d> Answer<'d> {
    fn new(table: &Table, decision: &Decision<'d>, stale: bool) -> Self {
        let position = table.position();
        Self {
            version: decision.version.as_str(),
            instance: decision.instance,
            instance_len: instance_len(decision.instance),
            reason: u64::try_from(i32::from(reason(decision))).unwrap_or_default(),
            rule: match decision.rule {
                Rule::Experiment { overlay, variant } => (overlay.as_str(), variant.as_str()),
                Rule::Canary { overlay } => (overlay.as_str(), ""),
                Rule::Pin | Rule::Default | Rule::UnknownTenant | Rule::Override => ("", ""),
            },
            wanted_version: decision.detour.map_or("", |(wanted, _)| wanted.as_str()),
            // No allocation up to 23 bytes.
            schema: decision.schema.map_or_else(SmolStr::default, |schema| format_smolstr!("{schema}")),
            revision: position.revision.0,
            epoch: position.epoch.0,
            stale,
        }
    }

    fn rule_len(&self) -> usize {
        match self.rule {
            (overlay, "") => overlay.len(),
            (overlay, variant) => overlay.len() + 1 + variant.len(),
        }
    }

    fn len(&self) -> usize {
        text_len(self.version)
            + nested_len(self.instance_len)
            + number_len(self.reason)
            + content_len(self.rule_len())
            + text_len(self.wanted_version)
            + text_len(&self.schema)
            + number_len(self.revision)
            + number_len(self.epoch)
            + number_len(u64::from(self.stale))
    }

    fn put(&self, to: &mut Vec<u8>) {
        put_text(1, self.version, to);
        put_nested(2, self.instance_len, to);
        put_instance(self.instance, to);
        put_number(3, self.reason, to);
        if self.rule_len() > 0 {
            put_nested(4, self.rule_len(), to);
            to.put_slice(self.rule.0.as_bytes());
            if !self.rule.1.is_empty() {
                to.put_u8(b'/');
                to.put_slice(self.rule.1.as_bytes());
            }
        }
        put_text(5, self.wanted_version, to);
        put_text(6, &self.schema, to);
        put_number(7, self.revision, to);
        put_number(8, self.epoch, to);
        put_number(9, u64::from(self.stale), to);
    }
}

/// Length of an `Instance` as a decision tells it.
fn instance_len(instance: &Instance) -> usize {
    text_len(instance.id.as_str())
        + text_len(&instance.address)
        + text_len(name(&instance.region))
        + text_len(name(&instance.zone))
        + instance.metadata.iter().map(|(key, value)| nested_len(entry_len(key, value))).sum::<usize>()
}

fn put_instance(instance: &Instance, to: &mut Vec<u8>) {
    put_text(1, instance.id.as_str(), to);
    put_text(2, &instance.address, to);
    put_text(4, name(&instance.region), to);
    put_text(5, name(&instance.zone), to);
    put_map(9, &instance.metadata, to);
}

fn put_map(number: u32, map: &BTreeMap<String, String>, to: &mut Vec<u8>) {
    for (key, value) in map {
        put_nested(number, entry_len(key, value), to);
        put_text(1, key, to);
        put_text(2, value, to);
    }
}

fn name(name: &Option<Name>) -> &str {
    name.as_ref().map_or("", Name::as_str)
}

fn entry_len(key: &str, value: &str) -> usize {
    text_len(key) + text_len(value)
}

fn text_len(text: &str) -> usize {
    content_len(text.len())
}

/// Length of a field with that much content; without content there is no field.
fn content_len(length: usize) -> usize {
    if length == 0 { 0 } else { nested_len(length) }
}

/// Length of a field with a message of that length, which is there also if it is empty.
fn nested_len(length: usize) -> usize {
    KEY + encoded_len_varint(length as u64) + length
}

fn number_len(number: u64) -> usize {
    if number == 0 { 0 } else { KEY + encoded_len_varint(number) }
}

fn put_text(number: u32, text: &str, to: &mut Vec<u8>) {
    if !text.is_empty() {
        put_nested(number, text.len(), to);
        to.put_slice(text.as_bytes());
    }
}

/// Begins a field with content of that length.
fn put_nested(number: u32, length: usize, to: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, to);
    encode_varint(length as u64, to);
}

fn put_number(number: u32, value: u64, to: &mut Vec<u8>) {
    if value != 0 {
        encode_key(number, WireType::Varint, to);
        encode_varint(value, to);
    }
}
