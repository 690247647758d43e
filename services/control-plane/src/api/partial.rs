//! Writes of some fields: merged with what is there, and written only if that is still what is there.

use grey_core::error::Reason;
use grey_proto::control::WriteOptions;
use grey_proto::status::ApiError;

use super::Tag;

/// Attempts to write while others write the same thing.
const ATTEMPTS: usize = 8;

/// Fields of a tenant that can be set by name.
pub(super) const TENANT: &[&str] = &["name", "status", "tier", "region", "residency", "labels", "labels.*"];
/// Fields of a version that can be set by name.
pub(super) const VERSION: &[&str] = &["schema", "schema.min", "schema.max"];
/// Fields of a policy that can be set by name.
pub(super) const POLICY: &[&str] =
    &["unknown_tenant", "balancing", "failover", "override_roles", "stateless"];
/// Fields of an overlay that can be set by name.
pub(super) const OVERLAY: &[&str] = &["order", "layer", "unit", "match", "experiment", "canary"];

/// Attempts of one write.
pub(super) struct Attempts(usize);

impl Attempts {
    /// As many as it takes until nobody else writes in between; one, if the caller states a revision.
    pub(super) fn of(options: Option<&WriteOptions>) -> Self {
        Self(if options.is_some_and(|options| options.expected_revision.is_some()) { 1 } else { ATTEMPTS })
    }

    /// Whether what was merged is no longer there, and another attempt is left.
    pub(super) fn again<T>(&mut self, written: &Result<T, ApiError>) -> bool {
        self.0 = self.0.saturating_sub(1);
        self.0 > 0 && written.as_ref().is_err_and(|error| error.reason == Reason::RevisionMismatch)
    }
}

/// The options of a write that holds only for what it was merged with.
pub(super) fn conditional(options: Option<WriteOptions>, (epoch, revision): Tag) -> Option<WriteOptions> {
    let options = options.unwrap_or_default();
    if options.expected_revision.is_some() {
        return Some(options);
    }
    Some(WriteOptions { expected_revision: Some(revision), expected_epoch: epoch, ..options })
}
