//! What keeps a status within bounds, whatever there is to tell.

use grey_proto::sync::SyncStatus;
use prost::Message;

/// Most held changes that a status lists.
pub const MAX_HELD: usize = 1_000;
/// Most things left out that a status lists.
pub const MAX_QUARANTINED: usize = 1_000;
/// Most syncs that a status lists.
pub const MAX_RUNS: usize = 10;
/// Most requests carried out that a status lists.
pub const MAX_HANDLED: usize = 100;
/// Most items that a held change lists.
pub const MAX_ITEMS: usize = 50;

/// Longest text for people, in bytes.
const MAX_TEXT: usize = 500;
/// Most bytes of an encoded status that still lists items: gRPC clients take 4 MiB unless told otherwise.
const MAX_BYTES: usize = 2 << 20;

/// Shortens lists and texts to what the contract allows; the totals say how much there was.
pub(crate) fn bound(status: &mut SyncStatus) {
    status.held_total = status.held_total.max(length(&status.held));
    status.held.truncate(MAX_HELD);
    status.quarantined_total = status.quarantined_total.max(length(&status.quarantined));
    status.quarantined.truncate(MAX_QUARANTINED);
    status.runs.truncate(MAX_RUNS);
    status.handled.truncate(MAX_HANDLED);
    let sources = status.sources.iter_mut().map(|source| &mut source.error);
    let held = status.held.iter_mut().flat_map(|held| [&mut held.subject, &mut held.summary]);
    let left_out = status.quarantined.iter_mut().flat_map(|left| [&mut left.subject, &mut left.why]);
    let runs = status.runs.iter_mut().map(|run| &mut run.error);
    let handled = status.handled.iter_mut().map(|handled| &mut handled.error);
    sources.chain(held).chain(left_out).chain(runs).chain(handled).for_each(shorten);
    for most in [MAX_ITEMS, 10, 1, 0] {
        status.held.iter_mut().for_each(|held| held.items.truncate(most));
        if status.encoded_len() <= MAX_BYTES {
            return;
        }
    }
}

/// The length of a list, as totals are told.
pub(crate) fn length<T>(list: &[T]) -> u64 {
    u64::try_from(list.len()).unwrap_or(u64::MAX)
}

fn shorten(text: &mut String) {
    if text.len() > MAX_TEXT {
        let end = text.floor_char_boundary(MAX_TEXT - '…'.len_utf8());
        text.truncate(end);
        text.push('…');
    }
}

#[cfg(test)]
mod tests;
