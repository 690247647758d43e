//! How a follower stands: whether it has a table, and whether that is known to be the present one.

use grey_core::change::{FormatLevel, Position};
use grey_core::table::Table;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How a follower stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// It has a table that was once verified, from the store or from a snapshot.
    pub ready: bool,
    /// Why the table may not be the present one; none: it is.
    pub not_current: Option<NotCurrent>,
    /// Time since a sign of life of the publisher last confirmed the table; none if none ever did.
    pub age: Option<Duration>,
    /// What the table contains.
    pub position: Position,
    /// Its digest.
    pub digest: u64,
    /// The format level of the events that it obeys.
    pub level: FormatLevel,
    /// Times that the table was loaded from the projection.
    pub loads: u64,
    /// Times that the table was found to differ from the publisher's.
    pub drifts: u64,
    /// How its instances stand.
    pub instances: InstancesStatus,
}

/// How the instances of a follower's table stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct InstancesStatus {
    /// They are not those that were announced: the table is not current.
    pub differ: bool,
    /// Services whose list did not read back, or was not announced, when the lists were loaded last.
    pub damaged: u64,
    /// Times that they were found to differ.
    pub drifts: u64,
}

impl Status {
    /// Whether the table is known to be the present one.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.not_current.is_none()
    }
}

/// Why a table may not be the present one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotCurrent {
    /// No sign of life of the publisher has confirmed it since the start.
    Unconfirmed,
    /// The last sign of life that confirmed it is too old.
    Silent(Duration),
    /// It differs from the publisher's at the same revision.
    Differs,
    /// Its instances are not those that were announced.
    InstancesDiffer,
    /// The next event, or the projection, needs a format level above this follower's.
    Above {
        /// What is needed.
        needed: FormatLevel,
        /// What it obeys.
        own: FormatLevel,
    },
}

impl fmt::Display for NotCurrent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unconfirmed => f.write_str("the publisher has not confirmed the table yet"),
            Self::Silent(age) => {
                write!(f, "the publisher has not confirmed the table for {}s", age.as_secs())
            }
            Self::Differs => f.write_str("the table differs from the publisher's"),
            Self::InstancesDiffer => f.write_str("the instances differ from those that were announced"),
            Self::Above { needed, own } => {
                write!(f, "format level {needed} is needed, this router obeys up to {own}; upgrade it")
            }
        }
    }
}

/// What is known of a follower's table.
pub(super) struct Condition {
    level: FormatLevel,
    stale_after: Duration,
    verified: AtomicBool,
    instances_loaded: AtomicBool,
    /// The table differs from the publisher's.
    differs: AtomicBool,
    instances_differ: AtomicBool,
    instances_damaged: AtomicU64,
    instances_drifts: AtomicU64,
    /// The level that is needed to go on; 0: none.
    needed: AtomicU32,
    origin: Instant,
    /// Milliseconds after `origin` of the last confirmation, plus one; 0 for never.
    confirmed: AtomicU64,
    loads: AtomicU64,
    drifts: AtomicU64,
}

impl Condition {
    pub(super) fn new(level: FormatLevel, stale_after: Duration) -> Self {
        Self {
            level,
            stale_after,
            verified: AtomicBool::new(false),
            instances_loaded: AtomicBool::new(false),
            differs: AtomicBool::new(false),
            instances_differ: AtomicBool::new(false),
            instances_damaged: AtomicU64::new(0),
            instances_drifts: AtomicU64::new(0),
            needed: AtomicU32::new(0),
            origin: Instant::now(),
            confirmed: AtomicU64::new(0),
            loads: AtomicU64::new(0),
            drifts: AtomicU64::new(0),
        }
    }

    /// The status of a follower that has `table`.
    pub(super) fn status(&self, table: &Table) -> Status {
        let age = match self.confirmed.load(Relaxed) {
            0 => None,
            at => Some(self.origin.elapsed().saturating_sub(Duration::from_millis(at - 1))),
        };
        Status {
            ready: self.verified.load(Relaxed),
            not_current: self.not_current(age),
            age,
            position: table.position(),
            digest: table.digest(),
            level: self.level,
            loads: self.loads.load(Relaxed),
            drifts: self.drifts.load(Relaxed),
            instances: InstancesStatus {
                differ: self.instances_differ.load(Relaxed),
                damaged: self.instances_damaged.load(Relaxed),
                drifts: self.instances_drifts.load(Relaxed),
            },
        }
    }

    fn not_current(&self, age: Option<Duration>) -> Option<NotCurrent> {
        if self.differs.load(Relaxed) {
            return Some(NotCurrent::Differs);
        }
        if self.instances_differ.load(Relaxed) {
            return Some(NotCurrent::InstancesDiffer);
        }
        match (self.needed.load(Relaxed), age) {
            (0, None) => Some(NotCurrent::Unconfirmed),
            (0, Some(age)) => (age > self.stale_after).then_some(NotCurrent::Silent(age)),
            (needed, _) => Some(NotCurrent::Above { needed: FormatLevel(needed), own: self.level }),
        }
    }

    /// Whether the table is known not to be the present one. Cheaper than the status: it reads no clock.
    pub(super) fn is_suspect(&self) -> bool {
        let differs = self.differs.load(Relaxed) || self.instances_differ.load(Relaxed);
        differs || self.needed.load(Relaxed) != 0
    }

    pub(super) fn level(&self) -> FormatLevel {
        self.level
    }

    /// A sign of life that was first seen at `at` confirms the table.
    pub(super) fn confirm(&self, at: Instant) {
        let at = u64::try_from(at.saturating_duration_since(self.origin).as_millis());
        self.confirmed.fetch_max(at.unwrap_or(u64::MAX - 1) + 1, Relaxed);
    }

    /// Notes whether the table differs from the publisher's; true if that is news.
    pub(super) fn set_differs(&self, differs: bool) -> bool {
        let news = self.differs.swap(differs, Relaxed) != differs;
        if news && differs {
            self.drifts.fetch_add(1, Relaxed);
        }
        news
    }

    pub(super) fn differs(&self) -> bool {
        self.differs.load(Relaxed)
    }

    /// Notes the level that is needed to go on; true if that is news.
    pub(super) fn set_needed(&self, needed: Option<FormatLevel>) -> bool {
        let needed = needed.map_or(0, |level| level.0);
        self.needed.swap(needed, Relaxed) != needed
    }

    pub(super) fn has_table(&self) -> bool {
        self.verified.load(Relaxed)
    }

    pub(super) fn set_table(&self) {
        self.verified.store(true, Relaxed);
    }

    pub(super) fn has_instances(&self) -> bool {
        self.instances_loaded.load(Relaxed)
    }

    pub(super) fn set_instances(&self) {
        self.instances_loaded.store(true, Relaxed);
    }

    /// Notes whether the instances differ from those that were announced; true if that is news.
    pub(super) fn set_instances_differ(&self, differ: bool) -> bool {
        let news = self.instances_differ.swap(differ, Relaxed) != differ;
        if news && differ {
            self.instances_drifts.fetch_add(1, Relaxed);
        }
        news
    }

    /// Notes how many lists were damaged; returns how many were before.
    pub(super) fn set_instances_damaged(&self, count: u64) -> u64 {
        self.instances_damaged.swap(count, Relaxed)
    }

    pub(super) fn count_load(&self) {
        self.loads.fetch_add(1, Relaxed);
    }
}
