//! The projection: hashes for each tenant, a text for each service, and a status that is written last.

mod apply;
mod load;
mod rebuild;
mod tenant;

use super::connection::{Link, failure};
use super::values::{corrupt, items, parsed, text};
use crate::projection::{ProjectionStatus, Rebuild, STATUS_KEY};
use crate::{Error, FencingToken, Projection};
use async_trait::async_trait;
use grey_core::change::{Event, Generation, Position, Record, Revision};
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

    async fn read_status(&self, attempted: &'static str) -> Result<Status, Error> {
        let mut read = cmd("HMGET");
        read.arg(STATUS_KEY).arg(&["token", "rebuild", "generation", "revision", "digest"]);
        let values = items(STATUS_KEY, self.link.run(attempted, STATUS_KEY, &read).await?)?;
        let field = |place: usize| match values.get(place) {
            None | Some(Value::Nil) => Ok(None),
            Some(value) => text(STATUS_KEY, value).map(Some),
        };
        let number = |what, text: Option<&str>| text.map(|text| parsed(STATUS_KEY, what, text)).transpose();
        let complete = match (field(2)?, number("the revision", field(3)?)?, field(4)?) {
            (Some(generation), Some(revision), Some(digest)) => {
                let digest = u64::from_str_radix(digest, 16);
                let digest = digest.map_err(|_| corrupt(STATUS_KEY, "the digest is no number"))?;
                let generation = Generation(generation.into());
                Some(ProjectionStatus {
                    position: Position { generation, revision: Revision(revision) },
                    digest,
                })
            }
            (None, None, None) => None,
            _ => return Err(corrupt(STATUS_KEY, "it is incomplete")),
        };
        let token = number("the token", field(0)?)?.map(FencingToken);
        Ok(Status { token, rebuild: field(1)?.map(str::to_owned), complete })
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

    async fn apply(
        &self,
        token: FencingToken,
        event: &Event,
        reached: &ProjectionStatus,
    ) -> Result<(), Error> {
        apply::apply(self, token, event, reached).await
    }

    async fn rebuild(
        &self,
        token: FencingToken,
        position: &Position,
    ) -> Result<Box<dyn Rebuild + '_>, Error> {
        Ok(Box::new(rebuild::RedisRebuild::begin(self, token, position).await?))
    }

    async fn load(&self, take: &mut (dyn FnMut(Vec<Record>) + Send)) -> Result<(), Error> {
        load::load(&self.link, take).await
    }
}

/// The position of a unit's last write, as its guard holds it.
fn guard(token: FencingToken, position: &Position) -> String {
    format!("{} {} {}", token.0, position.revision, position.generation)
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
