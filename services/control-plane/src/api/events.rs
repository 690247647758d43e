//! Pages of the event log.

use grey_core::change::{Change, Event, Position, Revision};
use grey_core::key::Key;
use grey_core::text::{NOT_PLAIN, is_plain};
use grey_edge::Caller;
use grey_proto::control::{self, ListEventsRequest, ListEventsResponse};
use grey_proto::convert::read_time;
use grey_proto::status::ApiError;
use pbjson_types::Timestamp;
use prost::Message;

use super::history::{PART, envelope};
use super::{Api, MAX_PAGE_BYTES, invalid, optional_id, page_size};
use crate::database::Database;
use crate::log::{Selection, Stretch};

/// Events read from the database at once: each may hold a thousand changes.
const CHUNK: usize = 50;
/// Looks at the log for one page. A page that has not found enough by then says from where to go on.
const LOOKS: usize = 30;

impl Api {
    /// Lists events.
    ///
    /// # Errors
    /// A malformed filter, a limit out of range, too many such calls at once, or the database is away.
    pub async fn list_events(
        &self,
        _: &Caller,
        request: ListEventsRequest,
    ) -> Result<ListEventsResponse, ApiError> {
        let limit = page_size("limit", request.limit)?;
        let selection = selection(&request)?;
        let lane = &self.0.lanes.events;
        lane.run(Box::pin(page(lane.database(), &request, &selection, limit))).await
    }
}

fn selection(request: &ListEventsRequest) -> Result<Selection, ApiError> {
    if !is_plain(&request.actor) {
        return Err(invalid("actor", NOT_PLAIN));
    }
    let time = |field, at: Option<Timestamp>| at.map(|at| read_time(field, at)).transpose();
    Ok(Selection {
        tenant: optional_id("tenant", &request.tenant)?,
        service: optional_id("service", &request.service)?,
        actor: Some(request.actor.clone()).filter(|actor| !actor.is_empty()),
        from_ms: time("from", request.from)?,
        to_ms: time("to", request.to)?,
    })
}

async fn page(
    database: &Database,
    request: &ListEventsRequest,
    selection: &Selection,
    limit: usize,
) -> Result<ListEventsResponse, ApiError> {
    // Read first: what is committed meanwhile is no part of this page.
    let head = database.head().await?;
    let end = head.revision.next();
    let before = if request.before == 0 { end } else { end.min(Revision(request.before)) };
    let stretch = Stretch { after: Revision(request.after), before, newest_first: request.newest_first };
    let (mut events, mut bytes): (Vec<control::Event>, _) = (Vec::new(), 0);
    let mut rest = stretch.some();
    for _ in 0..LOOKS {
        let Some(stretch) = rest else { break };
        // One more than fits, to know whether another follows.
        let wanted = CHUNK.min(limit + 1 - events.len());
        let found = database.select(selection, stretch, u64::try_from(wanted).unwrap_or(u64::MAX)).await?;
        rest = found.rest;
        for event in &found.events {
            let message = told(event, selection);
            bytes += message.encoded_len();
            if let Some(last) = events.last()
                && (events.len() >= limit || bytes > MAX_PAGE_BYTES)
            {
                let next = last.revision;
                return Ok(listed(events, &head, next));
            }
            events.push(message);
        }
    }
    let next = rest.map_or(0, |rest| if rest.newest_first { rest.before.0 } else { rest.after.0 });
    Ok(listed(events, &head, next))
}

fn listed(events: Vec<control::Event>, head: &Position, next: u64) -> ListEventsResponse {
    ListEventsResponse { events, revision: head.revision.0, epoch: head.epoch.0, next }
}

/// The event with the changes that are asked for, without the pins beyond the first thousand of them.
fn told(event: &Event, selection: &Selection) -> control::Event {
    let mut pins = 0;
    let is_told = |change: &&Change| {
        let key = change.key();
        if !selection.is_of(&key) {
            return false;
        }
        let is_pin = matches!(key, Key::Pin(..));
        pins += usize::from(is_pin);
        !is_pin || pins <= PART
    };
    let changes: Vec<control::Change> = event.changes.iter().filter(is_told).map(Into::into).collect();
    let omitted = (event.changes.len() - changes.len()) as u64;
    control::Event { changes, omitted, ..envelope(event) }
}
