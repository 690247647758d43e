//! Collects what does not read back.

use crate::Error;
use crate::projection::{Damage, MAX_DAMAGE};
use grey_core::key::RecordId;

/// What did not read back so far.
#[derive(Default)]
pub(super) struct Damages(Vec<Damage>);

impl Damages {
    /// What was read, or nothing if it is damaged; only other errors remain errors.
    pub(super) fn sift<T>(
        &mut self,
        read: Result<T, Error>,
        record: impl FnOnce() -> Option<RecordId>,
    ) -> Result<Option<T>, Error> {
        match read {
            Ok(value) => Ok(Some(value)),
            Err(Error::Corrupt { key, why }) => {
                if self.0.len() < MAX_DAMAGE {
                    self.0.push(Damage { key, why, record: record() });
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn into_found(self) -> Vec<Damage> {
        self.0
    }
}
