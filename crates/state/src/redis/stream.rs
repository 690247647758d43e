//! Following a stream whose entries are numbered without gaps.
//!
//! An entry's id is `<number>-0`; `<number>-1` is a marker, not an entry: readers at exactly that number
//! continue after it. Every entry names the generation that the numbers belong to.

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
pub(super) struct Entry {
    pub(super) number: u64,
    is_marker: bool,
    generation: String,
    pub(super) payload: Vec<u8>,
    pub(super) digest: Option<u64>,
}

/// Where a stream begins and ends.
pub(super) struct Ends {
    pub(super) generation: String,
    /// A reader at this number or later can continue.
    pub(super) first: u64,
    pub(super) last: u64,
    /// The token of the last entry.
    pub(super) token: FencingToken,
}

/// What a reader got.
pub(super) enum Tail {
    /// Entries of a generation, at least one.
    Entries(String, Vec<Entry>),
    Idle,
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
        let [first, _, _, last, generation, token] = answer.as_slice() else { return Ok(None) };
        let (first, is_marker) = self.id(first)?;
        let (last, _) = self.id(last)?;
        Ok(Some(Ends {
            generation: text(self.key, generation)?.to_owned(),
            first: if is_marker { first } else { first.saturating_sub(1) },
            last,
            token: FencingToken(parsed(self.key, "a token", text(self.key, token)?)?),
        }))
    }

    /// Reads up to `limit` entries after `number`, waiting up to `wait` for the first.
    ///
    /// Without a generation the reader has seen no stream yet: it takes whichever begins, if all of it is there.
    pub(super) async fn follow(
        &self,
        generation: Option<&str>,
        number: u64,
        limit: usize,
        wait: Duration,
    ) -> Result<Tail, Error> {
        let end = Instant::now() + wait.min(Duration::from_secs(86_400));
        loop {
            let newest = match (self.ends().await?, generation) {
                (None, Some(_)) => return Ok(Tail::Lost),
                (None, None) => number,
                (Some(ends), Some(generation)) if ends.generation != generation => return Ok(Tail::Lost),
                (Some(ends), _) if number < ends.first || number > ends.last => return Ok(Tail::Lost),
                (Some(ends), _) => ends.last,
            };
            if newest > number {
                let entries = self.read(number, limit, None).await?;
                return Ok(continuation(generation, number, entries));
            }
            // After each wait the stream's ends are looked at again: one that was wiped is silent.
            let left = end.saturating_duration_since(Instant::now()).min(LONGEST_WAIT);
            if left < Duration::from_millis(1) {
                return Ok(Tail::Idle);
            }
            let entries = self.read(number, limit, Some(left)).await?;
            if !entries.is_empty() {
                return Ok(continuation(generation, number, entries));
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
        let mut entry =
            Entry { number, is_marker, generation: String::new(), payload: Vec::new(), digest: None };
        for (name, value) in fields(self.key, &body)? {
            match (text(self.key, name)?, value) {
                ("g", value) => text(self.key, value)?.clone_into(&mut entry.generation),
                ("e", Value::BulkString(payload)) => entry.payload.clone_from(payload),
                ("d", value) => {
                    let digest = u64::from_str_radix(text(self.key, value)?, 16);
                    entry.digest = Some(digest.map_err(|_| corrupt(self.key, "a digest is no number"))?);
                }
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

/// The entries, if they continue from `number` without a gap.
fn continuation(generation: Option<&str>, number: u64, entries: Vec<Entry>) -> Tail {
    let Some(first) = entries.first() else { return Tail::Lost };
    let generation = generation.unwrap_or(&first.generation).to_owned();
    let numbers = (number..).skip(1);
    let fits = |(entry, number): (&Entry, u64)| {
        entry.number == number && !entry.is_marker && entry.generation == generation
    };
    if entries.iter().zip(numbers).all(fits) { Tail::Entries(generation, entries) } else { Tail::Lost }
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
