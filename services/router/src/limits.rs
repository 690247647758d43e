//! What one caller may ask for, checked before anything else looks at a call.

use std::time::Duration;

use grey_core::decide::Metadata;
use grey_core::error::Reason;
use grey_core::ids::{MAX_ID_LENGTH, ServiceId, TenantId};
use grey_core::version::MAX_VERSION_LENGTH;
use grey_proto::convert::InvalidMessage;
use grey_proto::route_call::RouteCall;
use grey_proto::status::ApiError;
use grey_runtime::config::duration;
use grey_runtime::{Faults, Validate};
use serde::{Deserialize, Serialize};

/// What one caller may ask for.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Bytes of one Route or Explain request.
    pub call_bytes: usize,
    /// Bytes of one message with several calls or outcomes.
    pub batch_bytes: usize,
    /// Calls or outcomes in one message.
    pub batch_calls: usize,
    /// Metadata entries of one call.
    pub metadata_entries: usize,
    /// Bytes in the metadata of one call, keys and values together.
    pub metadata_bytes: usize,
    /// Bytes of a call's user or request key.
    pub key_bytes: usize,
    /// Watch streams at once.
    pub watchers: usize,
    /// From the headers of a call to the end of its message; a stream may take as long as it likes.
    #[serde(with = "duration")]
    pub body_deadline: Duration,
    /// How long a call waits for the revision that it asks for.
    #[serde(with = "duration")]
    pub min_revision_wait: Duration,
    /// How long a call waits for a fleet-wide turn before it takes a local one.
    #[serde(with = "duration")]
    pub turn_deadline: Duration,
}

impl Validate for Limits {
    fn validate(&self, faults: &mut Faults) {
        for (key, value) in [("call_bytes", self.call_bytes), ("batch_bytes", self.batch_bytes)] {
            let fits = (1_024..=64 << 20).contains(&value);
            faults.check(fits, key, "must be between 1024 and 67108864");
        }
        let fits = (1..=10_000).contains(&self.batch_calls);
        faults.check(fits, "batch_calls", "must be between 1 and 10000");
        faults.check(self.watchers <= 100_000, "watchers", "must be at most 100000");
        let sane = !self.body_deadline.is_zero() && self.body_deadline <= Duration::from_secs(600);
        faults.check(sane, "body_deadline", "must be longer than nothing and at most 10m");
        let short = self.min_revision_wait <= Duration::from_secs(60);
        faults.check(short, "min_revision_wait", "must be at most 1m");
        let short = !self.turn_deadline.is_zero() && self.turn_deadline <= Duration::from_secs(1);
        faults.check(short, "turn_deadline", "must be longer than nothing and at most 1s");
    }
}

impl Limits {
    /// Checks a call without allocating. Ids are only measured: one that is well-formed is found in the table
    /// or not, and [`explain_miss`] tells the malformed ones among those that are not.
    pub(crate) fn check(&self, call: &RouteCall<'_>) -> Result<(), InvalidMessage> {
        let texts = [
            ("tenant", call.tenant.len(), MAX_ID_LENGTH),
            ("service", call.service.len(), MAX_ID_LENGTH),
            ("region", call.region.len(), MAX_ID_LENGTH),
            ("zone", call.zone.len(), MAX_ID_LENGTH),
            ("user", call.user.len(), self.key_bytes),
            ("request_key", call.request_key.len(), self.key_bytes),
            ("override_version", call.override_version.len(), MAX_VERSION_LENGTH),
        ];
        if let Some((field, length, limit)) = texts.into_iter().find(|(_, length, limit)| length > limit) {
            return Err(too_many(field, "bytes", length, limit));
        }
        if call.tenant.is_empty() {
            return Err(InvalidMessage::missing("tenant"));
        }
        if call.service.is_empty() {
            return Err(InvalidMessage::missing("service"));
        }
        if call.metadata.is_empty() { Ok(()) } else { self.check_metadata(call.metadata) }
    }

    fn check_metadata(&self, metadata: Metadata<'_>) -> Result<(), InvalidMessage> {
        if metadata.len() > self.metadata_entries {
            return Err(too_many("metadata", "entries", metadata.len(), self.metadata_entries));
        }
        let bytes = metadata.byte_count();
        if bytes > self.metadata_bytes {
            return Err(too_many("metadata", "bytes", bytes, self.metadata_bytes));
        }
        Ok(())
    }

    /// Refuses a message with more than the allowed calls or outcomes.
    pub(crate) fn check_count(&self, field: &str, count: usize) -> Result<(), ApiError> {
        if count > self.batch_calls {
            return Err(too_many(field, "entries", count, self.batch_calls).into());
        }
        Ok(())
    }
}

fn too_many(field: &str, what: &str, given: usize, limit: usize) -> InvalidMessage {
    InvalidMessage::new(field, format!("has {given} {what}, at most {limit} are allowed"))
}

/// The fault of an id that cannot be in any table; none if both are well-formed.
pub(crate) fn explain_miss(call: &RouteCall<'_>) -> Option<ApiError> {
    let tenant = TenantId::new(call.tenant).err().map(|why| ("tenant", why));
    let fault = tenant.or_else(|| ServiceId::new(call.service).err().map(|why| ("service", why)));
    fault.map(|(field, why)| {
        ApiError::new(Reason::InvalidArgument, format!("{field}: {why}")).with("field", field)
    })
}
