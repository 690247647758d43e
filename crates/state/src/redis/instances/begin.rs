//! Where a reader of all lists begins.

use super::super::keys;
use super::super::values::{corrupt, fields, items, parsed, text};
use super::cursor;
use super::found::digest_of;
use crate::Error;
use crate::instances::{Cursor, Damaged};
use grey_core::ids::ServiceId;
use redis::Value;
use std::collections::BTreeMap;

/// The end of the stream, and which services there are, as of one moment.
pub(super) struct Begin {
    pub(super) cursor: Cursor,
    /// Of all lists, as announced.
    pub(super) digest: Option<u64>,
    /// The digest of every service's list, as announced.
    pub(super) announced: BTreeMap<ServiceId, u64>,
    pub(super) damaged: Vec<Damaged>,
}

impl Begin {
    /// Reads the answer of the script.
    pub(super) fn read(answer: Value) -> Result<Self, Error> {
        let mut parts = items(keys::INSTANCES, answer)?.into_iter();
        let (ends, digests) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let mut damaged = Vec::new();
        let mut damage = |service: Option<ServiceId>, why: &Error| {
            damaged.push(Damaged { service, why: why.to_string() });
        };
        let (announced, foreign) = announced(&digests)?;
        let end = end(ends);
        let sum = announced.values().fold(0_u64, |sum, digest| sum.wrapping_add(*digest));
        match (&end, &foreign) {
            (Err(why), _) | (_, Some(why)) => damage(None, why),
            (Ok(Some((_, digest))), _) if *digest != sum => {
                damage(None, &corrupt(keys::INSTANCE_DIGESTS, "the digests do not add up to the stream's"));
            }
            (Ok(None), _) if !announced.is_empty() => {
                damage(None, &corrupt(keys::INSTANCES, "it is gone, and the lists are there"));
            }
            _ => {}
        }
        let (cursor, digest) = match end {
            Ok(Some((cursor, digest))) => (cursor, Some(digest)),
            Ok(None) => (Cursor::default(), None),
            // No reader can go on from there.
            Err(_) => (Cursor("damaged".to_owned()), None),
        };
        Ok(Self { cursor, digest, announced, damaged })
    }
}

/// The last entry's place and digest; none if there is none.
fn end(ends: Value) -> Result<Option<(Cursor, u64)>, Error> {
    let key = keys::INSTANCES;
    let last = items(key, ends).map_err(|_| corrupt(key, "it is no stream"))?;
    let [id, generation, nonce, digest] = last.as_slice() else { return Ok(None) };
    let (id, generation, nonce) = (text(key, id)?, text(key, generation)?, text(key, nonce)?);
    let number = id.strip_suffix("-0").filter(|_| !generation.is_empty() && !nonce.is_empty());
    let number = number.ok_or_else(|| corrupt(key, &format!("`{id}` is no announcement")))?;
    let number = parsed(key, "an id", number)?;
    Ok(Some((cursor(generation, number, nonce), digest_of(key, digest)?)))
}

/// The digests, and what there is besides. A digest that does not read counts as none.
fn announced(digests: &Value) -> Result<(BTreeMap<ServiceId, u64>, Option<Error>), Error> {
    let key = keys::INSTANCE_DIGESTS;
    let (mut announced, mut foreign) = (BTreeMap::new(), None);
    for (name, digest) in fields(key, digests)? {
        let name = text(key, name);
        if name.as_ref().is_ok_and(|name| name.starts_with('#')) {
            continue;
        }
        let service = name.and_then(|name| ServiceId::new(name).map_err(|why| corrupt(key, &why)));
        match (service, digest_of(key, digest)) {
            (Ok(service), digest) => {
                announced.insert(service, *digest.as_ref().unwrap_or(&0));
                foreign = foreign.or(digest.err());
            }
            (Err(why), _) => foreign = foreign.or(Some(why)),
        }
    }
    Ok((announced, foreign))
}
