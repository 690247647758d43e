//! What a projection says of itself, and its publisher's sign of life.

use crate::{Digests, Error};
use grey_core::change::{Epoch, Event, FormatLevel, Position};

/// Where a projection's status is stored.
pub(crate) const STATUS_KEY: &str = "grey:projection";

/// What a projection says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProjectionStatus {
    /// Every event up to here is contained. Single keys may already hold later ones.
    pub position: Position,
    /// Digests of a table loaded at exactly that position.
    pub digests: Digests,
    /// The format level that a reader of the records needs.
    pub level: FormatLevel,
}

/// A sign of life of the publisher: it has just seen that the feed holds the whole log.
///
/// A reader learns from it that its table is the present one, if the table contains the position. No clock of another
/// machine is read: a beat is new if its number is another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Beat {
    /// Another one each time.
    pub number: u64,
    /// The feed's end.
    pub position: Position,
}

impl ProjectionStatus {
    /// Those of the events that are not contained yet.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if there is no projection of that epoch up to the revision before.
    pub(crate) fn missing<'e>(
        status: Option<&Self>,
        epoch: Epoch,
        events: &'e [Event],
    ) -> Result<&'e [Event], Error> {
        let first = events.first().map(|event| event.revision).unwrap_or_default();
        let follow =
            events.iter().zip(events.iter().skip(1)).all(|(e, next)| e.revision.next() == next.revision);
        let why = match status.map(|status| &status.position) {
            None => "there is no complete projection".to_owned(),
            Some(held) if held.epoch != epoch => format!("it belongs to epoch {}", held.epoch),
            Some(held) if held.revision.next() < first => {
                format!("it is at revision {}, before the one to go on from", held.revision)
            }
            Some(_) if !follow => "the events do not follow one another".to_owned(),
            Some(held) => {
                let contained = events.partition_point(|event| event.revision <= held.revision);
                return Ok(events.get(contained..).unwrap_or_default());
            }
        };
        Err(Error::Corrupt { key: STATUS_KEY.to_owned(), why })
    }
}
