//! The projection: hashes for each tenant, a text for each service, and a status that is written last.

mod apply;
mod batch;
mod damage;
mod index;
mod load;
mod rebuild;
mod repair;
mod tenant;

use super::connection::{Link, failure};
use super::scripts;
use super::stream::verdict;
use super::values::{self, corrupt, items, parsed, text};
use crate::projection::{Beat, Damage, Indexes, ProjectionStatus, Rebuild, Repair, STATUS_KEY};
use crate::{Digests, Error, FencingToken, Projection};
use async_trait::async_trait;
use grey_core::change::{Epoch, Event, FormatLevel, Position, Revision};
use grey_core::record::Record;
use redis::{Value, cmd};
use std::sync::Arc;

pub(super) struct RedisProjection {
    link: Arc<Link>,
}

/// What the status says.
#[derive(Default)]
struct Status {
    token: Option<FencingToken>,
    /// The rebuild under way.
    rebuild: Option<String>,
    complete: Option<ProjectionStatus>,
}

impl RedisProjection {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self { link }
    }

    /// Some fields of the status.
    async fn fields<const N: usize>(
        &self,
        attempted: &'static str,
        names: [&str; N],
    ) -> Result<[Option<String>; N], Error> {
        let mut read = cmd("HMGET");
        read.arg(STATUS_KEY).arg(&names);
        let values = items(STATUS_KEY, self.link.run(attempted, STATUS_KEY, &read).await?)?;
        let mut fields = [const { None }; N];
        for (field, value) in fields.iter_mut().zip(&values) {
            if *value != Value::Nil {
                *field = Some(text(STATUS_KEY, value)?.to_owned());
            }
        }
        Ok(fields)
    }

    async fn read_status(&self, attempted: &'static str) -> Result<Status, Error> {
        let names = ["token", "rebuild", "epoch", "revision", "digest", "level"];
        let [token, rebuild, epoch, revision, digests, level] = self.fields(attempted, names).await?;
        let complete = match (epoch, revision, digests, level) {
            (Some(epoch), Some(revision), Some(digests), Some(level)) => Some(ProjectionStatus {
                position: Position {
                    epoch: Epoch(parsed(STATUS_KEY, "the epoch", &epoch)?),
                    revision: Revision(parsed(STATUS_KEY, "the revision", &revision)?),
                },
                digests: parsed::<Digests>(STATUS_KEY, "the digest", &digests)?,
                level: FormatLevel(parsed(STATUS_KEY, "the level", &level)?),
            }),
            (None, None, None, None) => None,
            _ => return Err(corrupt(STATUS_KEY, "it is incomplete")),
        };
        let token = token.map(|token| values::token(STATUS_KEY, &token)).transpose()?;
        Ok(Status { token, rebuild, complete })
    }
}

impl Status {
    /// Refuses leaders older than the one that wrote last.
    fn fence(&self, attempted: &'static str, mine: FencingToken) -> Result<(), Error> {
        match self.token {
            Some(newest) if newest > mine => Err(Error::Fenced { attempted, newest: newest.0 }),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Projection for RedisProjection {
    async fn status(&self) -> Result<Option<ProjectionStatus>, Error> {
        Ok(self.read_status("read the projection's status").await?.complete)
    }

    async fn beat(&self, token: FencingToken, beat: &Beat) -> Result<(), Error> {
        let attempted = "leave a sign of life";
        let script = &scripts::PROJECTION_BEAT;
        let mut call = script.on(&[STATUS_KEY]);
        call.arg(token.0);
        call.arg(format!("{} {} {}", beat.number, beat.position.epoch, beat.position.revision));
        let answer = self.link.call(attempted, STATUS_KEY, script, &call).await?;
        verdict(attempted, STATUS_KEY, &answer).map(drop)
    }

    async fn last_beat(&self) -> Result<Option<Beat>, Error> {
        let [beat] = self.fields("read the publisher's sign of life", ["beat"]).await?;
        let Some(beat) = beat else { return Ok(None) };
        let numbers: Vec<u64> = beat
            .split(' ')
            .map(|number| parsed(STATUS_KEY, "a number of the beat", number))
            .collect::<Result<_, _>>()?;
        let [number, epoch, revision] = numbers[..] else {
            return Err(corrupt(STATUS_KEY, "the beat is not three numbers"));
        };
        let position = Position { epoch: Epoch(epoch), revision: Revision(revision) };
        Ok(Some(Beat { number, position }))
    }

    async fn apply(
        &self,
        token: FencingToken,
        events: &[Event],
        reached: &ProjectionStatus,
    ) -> Result<(), Error> {
        apply::apply(self, token, events, reached).await
    }

    async fn rebuild(
        &self,
        token: FencingToken,
        position: &Position,
    ) -> Result<Box<dyn Rebuild + '_>, Error> {
        Ok(Box::new(rebuild::RedisRebuild::begin(self, token, position).await?))
    }

    async fn load(&self, take: &mut (dyn FnMut(Vec<Record>) + Send)) -> Result<Vec<Damage>, Error> {
        load::load(&self.link, take).await
    }

    async fn repair(&self, token: FencingToken, at: &Position, repairs: &[Repair]) -> Result<(), Error> {
        repair::repair(self, token, at, repairs).await
    }

    async fn indexes(&self) -> Result<Indexes, Error> {
        index::read(&self.link).await
    }

    async fn reindex(&self, token: FencingToken, indexes: &Indexes) -> Result<(), Error> {
        let attempted = "repair the indexes";
        self.read_status(attempted).await?.fence(attempted, token)?;
        index::write(&self.link, indexes).await
    }
}

/// The position of a unit's last write, as its guard holds it.
fn guard(token: FencingToken, position: &Position) -> String {
    format!("{} {} {}", token.0, position.revision, position.epoch)
}

/// The first error among the answers to writes; `key` names what each was about.
fn all_written(
    attempted: &'static str,
    answers: Vec<Value>,
    key: impl Fn(usize) -> String,
) -> Result<(), Error> {
    for (place, answer) in answers.into_iter().enumerate() {
        if let Value::ServerError(error) = answer {
            return Err(failure(attempted, &key(place), error.into()));
        }
    }
    Ok(())
}
