//! Events, as log and feed hold them: binary.
//!
//! One command may pin a hundred thousand tenants. Pins are therefore written and read where they lie, without a message
//! of their own; everything else, and whatever is unusual, goes through the generated types, to the same bytes and values.

use super::DecodeError;
use crate::control;
use crate::convert::{InvalidMessage, change_at};
use crate::wire::{bytes, text, varint};
use grey_core::change::{Change, Event};
use grey_core::ids::{ServiceId, TenantId};
use grey_core::key::Fact;
use grey_core::service::Pin;
use prost::{Message, encode_length_delimiter, length_delimiter_len};

/// Key of `Event.changes`.
const CHANGES: u8 = 0x2a;
/// Key of `Change.pin_put`.
const PIN_PUT: u8 = 0x42;
/// Keys of a `Pin`'s fields.
const TENANT: u8 = 0x0a;
const SERVICE: u8 = 0x12;
const VERSION: u8 = 0x1a;
const LOCKED: u8 = 0x20;
/// Bytes of a change of a pin, or nearly.
const USUAL_CHANGE: usize = 64;

/// An event, as the feed carries it: binary.
#[must_use]
pub fn encode_event(event: &Event) -> Vec<u8> {
    let mut rest = control::Event::without_changes(event);
    let (at, principal, reason) = (rest.at.take(), rest.principal.take(), std::mem::take(&mut rest.reason));
    let before = control::Event { revision: rest.revision, at, principal, reason, ..Default::default() };
    rest.revision = 0;
    let mut bytes =
        Vec::with_capacity(before.encoded_len() + event.changes.len() * USUAL_CHANGE + rest.encoded_len());
    // A message is the concatenation of its parts; the fields are in the order in which encoders write them.
    write(&before, &mut bytes);
    event.changes.iter().for_each(|change| encode_change(change, &mut bytes));
    write(&rest, &mut bytes);
    bytes
}

fn encode_change(change: &Change, to: &mut Vec<u8>) {
    to.push(CHANGES);
    match change {
        Change::Put(Fact::Pin(tenant, service, pin)) => encode_pin(tenant, service, pin, to),
        change => {
            let message = control::Change::from(change);
            write_behind(message.encoded_len(), to, |to| write(&message, to));
        }
    }
}

fn encode_pin(tenant: &TenantId, service: &ServiceId, pin: &Pin, to: &mut Vec<u8>) {
    let texts = [(TENANT, tenant.as_str()), (SERVICE, service.as_str()), (VERSION, pin.version.as_str())];
    let length = |(_, text): &(u8, &str)| 1 + length_delimiter_len(text.len()) + text.len();
    let locked = if pin.locked { 2 } else { 0 };
    let pin_length = texts.iter().map(length).sum::<usize>() + locked;
    write_behind(1 + length_delimiter_len(pin_length) + pin_length, to, |to| {
        to.push(PIN_PUT);
        write_behind(pin_length, to, |to| {
            for (key, text) in texts {
                to.push(key);
                write_behind(text.len(), to, |to| to.extend_from_slice(text.as_bytes()));
            }
            if pin.locked {
                to.extend_from_slice(&[LOCKED, 1]);
            }
        });
    });
}

/// Writes what has a length behind it.
fn write_behind(length: usize, to: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    encode_length_delimiter(length, to).expect("a vector has room");
    write(to);
}

fn write(message: &impl Message, to: &mut Vec<u8>) {
    message.encode(to).expect("a vector has room");
}

/// Reads what [`encode_event`] wrote.
///
/// # Errors
/// When the bytes are no valid event.
pub fn decode_event(bytes: &[u8]) -> Result<Event, DecodeError> {
    let Some((head, changes)) = split(bytes) else {
        return super::from_binary::<control::Event, _>("event", bytes);
    };
    let mut event: Event = super::from_binary::<control::Event, _>("event", &head)?;
    event.changes.reserve_exact(changes.len());
    for (place, bytes) in changes.into_iter().enumerate() {
        let alike = event.changes.last().and_then(|before| decode_alike(before, bytes));
        let change = match alike {
            Some(change) => change,
            None => decode_change(place, bytes, event.at_ms)?,
        };
        event.changes.push(change);
    }
    Ok(event)
}

/// What of an event is no change, and each change; none if it takes the generated type to tell.
fn split(event: &[u8]) -> Option<(Vec<u8>, Vec<&[u8]>)> {
    let (mut head, mut changes) = (Vec::new(), Vec::new());
    let mut rest = event;
    while let Some((key, mut after)) = rest.split_first() {
        // Keys of one byte, of what has a length and of numbers.
        match *key {
            CHANGES => changes.push(bytes(&mut after)?),
            key if key < 0x80 && key & 7 == 2 => {
                bytes(&mut after)?;
            }
            key if key < 0x80 && key & 7 == 0 => {
                varint(&mut after)?;
            }
            _ => return None,
        }
        if *key != CHANGES {
            head.extend_from_slice(rest.get(..rest.len() - after.len())?);
        }
        rest = after;
    }
    Some((head, changes))
}

/// Reads a pin to the same version of the same service as in the change before: only the tenant is new.
fn decode_alike(before: &Change, change: &[u8]) -> Option<Change> {
    let Change::Put(Fact::Pin(_, service, Pin { version, .. })) = before else { return None };
    let (&PIN_PUT, mut rest) = change.split_first()? else { return None };
    let mut pin = bytes(&mut rest)?;
    let (mut tenant, mut of, mut to, mut locked) = ("", "", "", false);
    while let Some((key, after)) = pin.split_first() {
        pin = after;
        match *key {
            TENANT => tenant = text(&mut pin)?,
            SERVICE => of = text(&mut pin)?,
            VERSION => to = text(&mut pin)?,
            LOCKED => locked = varint(&mut pin)? != 0,
            _ => return None,
        }
    }
    if !rest.is_empty() || of != service.as_str() || to != version.as_str() {
        return None;
    }
    let pin = Pin { version: version.clone(), locked };
    Some(Change::Put(Fact::Pin(TenantId::new(tenant).ok()?, service.clone(), pin)))
}

fn decode_change(place: usize, bytes: &[u8], at_ms: u64) -> Result<Change, DecodeError> {
    let faulty = |why| DecodeError { what: "event", why };
    let message = control::Change::decode(bytes).map_err(|why| faulty(why.to_string()))?;
    let change = change_at(message, at_ms);
    change.map_err(|why: InvalidMessage| faulty(why.under(&format!("changes[{place}]")).to_string()))
}
