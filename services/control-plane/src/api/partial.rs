//! Writes of some fields: merged with what is there, and written only if that is still what is there.

use grey_core::error::Reason;
use grey_proto::control::overlay::Kind;
use grey_proto::control::{Overlay, WriteOptions};
use grey_proto::convert::InvalidMessage;
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
pub(super) const OVERLAY: &[&str] = &[
    "order",
    "layer",
    "unit",
    "match",
    "experiment",
    "experiment.variants",
    "experiment.includes_pinned",
    "canary",
    "canary.baseline",
    "canary.canary",
    "canary.weight",
];

/// Makes room for the kind that is written: the present one goes where it is replaced as a whole. Names of the fields of
/// a kind are refused where `present` or `given` are of the other.
pub(super) fn make_room(
    present: &mut Overlay,
    given: &Overlay,
    update_mask: &[String],
) -> Result<(), InvalidMessage> {
    for (at, path) in update_mask.iter().enumerate() {
        let (named, field) = path.split_once('.').map_or((path.as_str(), None), |(kind, f)| (kind, Some(f)));
        if !["experiment", "canary"].contains(&named) {
            continue;
        }
        let refused = |why: String| Err(InvalidMessage::new(format!("update_mask[{at}]"), why));
        if kind_of(given) != Some(named) {
            return refused(format!("names the {named}, which the overlay in the request does not have"));
        }
        if kind_of(present).is_some_and(|kind| kind != named) {
            if field.is_some() {
                return refused(format!(
                    "names a field of the {named}, but the overlay is none: name it as a whole"
                ));
            }
            present.kind = None;
        }
    }
    Ok(())
}

fn kind_of(overlay: &Overlay) -> Option<&'static str> {
    overlay.kind.as_ref().map(|kind| match kind {
        Kind::Experiment(_) => "experiment",
        Kind::Canary(_) => "canary",
    })
}

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
