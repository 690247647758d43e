//! A migration's file or its undo file, whichever is run.

use crate::files::{Checksum, FileTimeouts, Migration, Statement, Step};
use crate::plan::Direction;

/// One file to run.
pub(super) struct Script<'a> {
    pub(super) migration: &'a Migration,
    pub(super) direction: Direction,
    pub(super) file: &'a str,
    pub(super) checksum: &'a Checksum,
    pub(super) transactional: bool,
    pub(super) timeouts: FileTimeouts,
    pub(super) steps: &'a [Step],
    pub(super) checks: &'a [Statement],
}

impl<'a> Script<'a> {
    /// The file for that direction; `None`: there is no undo file.
    pub(super) fn of(migration: &'a Migration, direction: Direction) -> Option<Self> {
        match direction {
            Direction::Up => Some(Self {
                migration,
                direction,
                file: &migration.file,
                checksum: &migration.checksum,
                transactional: migration.transactional,
                timeouts: migration.timeouts,
                steps: &migration.steps,
                checks: &migration.checks,
            }),
            Direction::Down => migration.undo.as_ref().map(|undo| Self {
                migration,
                direction,
                file: &undo.file,
                checksum: &undo.checksum,
                transactional: undo.transactional,
                timeouts: undo.timeouts,
                steps: &undo.steps,
                checks: &[],
            }),
        }
    }

    /// How many steps it has.
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.steps.len()).unwrap_or(u32::MAX)
    }
}
