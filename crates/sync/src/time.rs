//! Times as messages state them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use grey_proto::convert;
use pbjson_types::Timestamp;

/// A time as messages state it, to the millisecond; before 1970: 1970.
#[must_use]
pub fn timestamp(at: SystemTime) -> Timestamp {
    convert::timestamp(millis(at))
}

/// The time that a message states; one that is not from 1970 to 9999 is read as 1970.
pub(crate) fn system_time(at: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(convert::read_time("time", at).unwrap_or_default())
}

/// Milliseconds since 1970.
pub(crate) fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
