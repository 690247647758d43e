//! Following a stream whose entries are numbered without gaps.
//!
//! An entry's id is `<number>-0`; `<number>-1` is a marker, not an entry: readers at exactly that number
//! continue after it. Every entry names the generation that the numbers belong to. Entries may carry a nonce and that
//! of the entry before: a store that lost some and was given others under the same numbers does not go unnoticed.

use super::connection::{LONGEST_WAIT, Link};
use super::scripts;
use super::values::{corrupt, fields, items, parsed, text};
use crate::{Error, FencingToken};
use redis::{Value, cmd};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

pub(super) struct Stream {
    link: Arc<Link>,
    key: &'static str,
    attempted: &'static str,
}

/// One entry.
#[derive(Default)]
pub(super) struct Entry {
    pub(super) number: u64,
    is_marker: bool,
    generation: String,
    /// Empty in streams whose entries are not linked, as `previous` is.
    pub(super) nonce: String,
    previous: String,
    pub(super) payload: Vec<u8>,
    pub(super) digest: Option<String>,
}

/// Where a stream begins and ends.
pub(super) struct Ends {
    pub(super) generation: String,
    /// A reader at this number or later can continue.
    pub(super) first: u64,
    pub(super) last: u64,
    /// The token of the last entry.
    pub(super) token: FencingToken,
    /// The nonce of the last entry.
    nonce: String,
    /// The digest in the last entry; none if there is none, or it does not read.
    pub(super) digest: Option<u64>,
}

/// A reader's place: behind the entry of this number and nonce.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// None: the reader has seen no stream yet, and takes whichever begins, if all of it is there.
    pub(super) generation: Option<&'a str>,
    pub(super) number: u64,
    pub(super) nonce: &'a str,
}

/// What a reader got.
pub(super) enum Tail {
    /// Entries of a generation, at least one.
    Entries(String, Vec<Entry>),
    /// With the digest in the last entry.
    Idle(Option<u64>),
    Lost,
}

impl Stream {
    pub(super) fn new(link: Arc<Link>, key: &'static str, attempted: &'static str) -> Self {
        Self { link, key, attempted }
    }

    /// Where the stream begins and ends; none if there is none.
    pub(super) async fn ends(&self) -> Result<Option<Ends>, Error> {
        let script = &scripts::STREAM_ENDS;
        let answer = self.link.call(self.attempted, self.key, script, &script.on(&[self.key])).await?;
        let answer = items(self.key, answer)?;
        let [first, _, _, _, _, last, generation, token, nonce, digest] = answer.as_slice() else {
            return Ok(None);
        };
        let (first, is_marker) = self.id(first)?;
        let (last, _) = self.id(last)?;
        Ok(Some(Ends {
            generation: text(self.key, generation)?.to_owned(),
            first: if is_marker { first } else { first.saturating_sub(1) },
            last,
            token: FencingToken(parsed(self.key, "a token", text(self.key, token)?)?),
            nonce: text(self.key, nonce)?.to_owned(),
            digest: u64::from_str_radix(text(self.key, digest)?, 16).ok(),
        }))
    }

    /// Reads up to `limit` entries after `place`, waiting up to `wait` for the first.
    pub(super) async fn follow(&self, place: Place<'_>, limit: usize, wait: Duration) -> Result<Tail, Error> {
        let Place { generation, number, nonce } = place;
        let end = Instant::now() + wait.min(Duration::from_secs(86_400));
        loop {
            let (newest, digest) = match (self.ends().await?, generation) {
                (None, Some(_)) => return Ok(Tail::Lost),
                (None, None) => (number, None),
                (Some(ends), Some(generation)) if ends.generation != generation => return Ok(Tail::Lost),
                (Some(ends), _) if number < ends.first || number > ends.last => return Ok(Tail::Lost),
                (Some(ends), _) if number == ends.last && nonce != ends.nonce => return Ok(Tail::Lost),
                (Some(ends), _) => (ends.last, ends.digest),
            };
            if newest > number {
                let entries = self.read(number, limit, None).await?;
                return Ok(continuation(place, entries));
            }
            // After each wait the stream's ends are looked at again: one that was wiped is silent.
            let left = end.saturating_duration_since(Instant::now()).min(LONGEST_WAIT);
            if left < Duration::from_millis(1) {
                return Ok(Tail::Idle(digest));
            }
            let entries = self.read(number, limit, Some(left)).await?;
            if !entries.is_empty() {
                return Ok(continuation(place, entries));
            }
        }
    }

    async fn read(&self, after: u64, limit: usize, wait: Option<Duration>) -> Result<Vec<Entry>, Error> {
        let mut read = cmd("XREAD");
        read.arg("COUNT").arg(limit.max(1));
        if let Some(wait) = wait {
            read.arg("BLOCK").arg(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1));
        }
        // Past the marker at this number, which is no news to a reader that is there.
        read.arg("STREAMS").arg(self.key).arg(format!("{after}-1"));
        let answer = match wait {
            Some(wait) => self.link.wait(self.attempted, self.key, wait, &read).await?,
            None => self.link.run(self.attempted, self.key, &read).await?,
        };
        let mut entries = Vec::new();
        for stream in items(self.key, answer)? {
            let mut stream = items(self.key, stream)?;
            for entry in items(self.key, stream.pop().unwrap_or_default())? {
                entries.push(self.entry(entry)?);
            }
        }
        Ok(entries)
    }

    fn entry(&self, value: Value) -> Result<Entry, Error> {
        let mut parts = items(self.key, value)?.into_iter();
        let (Some(id), Some(body)) = (parts.next(), parts.next()) else {
            return Err(corrupt(self.key, "an entry has no fields"));
        };
        let (number, is_marker) = self.id(&id)?;
        let mut entry = Entry { number, is_marker, ..Entry::default() };
        for (name, value) in fields(self.key, &body)? {
            match (text(self.key, name)?, value) {
                ("g", value) => text(self.key, value)?.clone_into(&mut entry.generation),
                ("n", value) => text(self.key, value)?.clone_into(&mut entry.nonce),
                ("p", value) => text(self.key, value)?.clone_into(&mut entry.previous),
                ("e", Value::BulkString(payload)) => entry.payload.clone_from(payload),
                ("d", value) => entry.digest = Some(text(self.key, value)?.to_owned()),
                _ => {}
            }
        }
        Ok(entry)
    }

    /// The number in an id, and whether it is a marker's.
    fn id(&self, value: &Value) -> Result<(u64, bool), Error> {
        let id = text(self.key, value)?;
        match id.split_once('-') {
            Some((number, "0")) => Ok((parsed(self.key, "an id", number)?, false)),
            Some((number, "1")) => Ok((parsed(self.key, "an id", number)?, true)),
            _ => Err(corrupt(self.key, &format!("`{id}` is no id of an entry"))),
        }
    }
}

/// The entries, if they continue from `place` without a gap, each linked to the one before.
fn continuation(place: Place<'_>, entries: Vec<Entry>) -> Tail {
    let Some(first) = entries.first() else { return Tail::Lost };
    let generation = place.generation.unwrap_or(&first.generation).to_owned();
    let numbers = (place.number..).skip(1);
    let before = std::iter::once(place.nonce).chain(entries.iter().map(|entry| entry.nonce.as_str()));
    let fits = |((entry, number), before): ((&Entry, u64), &str)| {
        let in_place = entry.number == number && !entry.is_marker && entry.generation == generation;
        in_place && entry.previous == before
    };
    let continued = entries.iter().zip(numbers).zip(before).all(fits);
    if continued { Tail::Entries(generation, entries) } else { Tail::Lost }
}

/// The script's verdict, unless it was `fenced <token>`.
pub(super) fn verdict<'a>(attempted: &'static str, key: &str, answer: &'a Value) -> Result<&'a str, Error> {
    let answer = match answer {
        Value::ServerError(error) => {
            return Err(super::connection::failure(attempted, key, error.clone().into()));
        }
        answer => text(key, answer)?,
    };
    match answer.strip_prefix("fenced ") {
        Some(newest) => Err(Error::Fenced { attempted, newest: parsed(key, "a token", newest)? }),
        None => Ok(answer),
    }
}
