//! How large the next range is, and how long to wait before it.

use crate::tenant::Error;
use std::time::Duration;

/// How a backfill gives way to others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pacing {
    /// How long a range should take at most: one that takes longer makes the next one smaller.
    #[serde(with = "grey_runtime::config::duration")]
    pub target: Duration,
    /// How often in a row a range may be refused for a lock or a time limit; each time the next try is smaller.
    pub tries: u32,
    /// How long to wait after the first such refusal; twice as long after each further one, up to 30 seconds.
    #[serde(with = "grey_runtime::config::duration")]
    pub backoff: Duration,
}

impl Default for Pacing {
    fn default() -> Self {
        Self { target: Duration::from_millis(500), tries: 8, backoff: Duration::from_millis(200) }
    }
}

/// Longest wait after a refusal.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The pace of one backfill.
pub(super) struct Pace {
    pacing: Pacing,
    size: u32,
    most: u32,
    refused: u32,
}

impl Pace {
    /// Begins with ranges of `most` keys, which is also the most.
    pub(super) fn new(pacing: &Pacing, most: u32) -> Self {
        let most = most.max(1);
        Self { pacing: *pacing, size: most, most, refused: 0 }
    }

    /// Keys of the next range, at least 1.
    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// A range was done in `took`.
    pub(super) fn done(&mut self, took: Duration) {
        self.refused = 0;
        if took > self.pacing.target {
            self.size = (self.size / 2).max(1);
        } else if took < self.pacing.target / 2 {
            self.size = self.size.saturating_add(self.size / 2 + 1).min(self.most);
        }
    }

    /// A range was refused: how long to wait before the next try.
    ///
    /// # Errors
    /// With `error` if another try would not help, or there were enough of them.
    pub(super) fn refused(&mut self, error: Error) -> Result<Duration, Error> {
        self.refused += 1;
        if !may_pass(&error) || self.refused >= self.pacing.tries {
            return Err(error);
        }
        self.size = (self.size / 2).max(1);
        let doubled = self.pacing.backoff.saturating_mul(1 << (self.refused - 1).min(16));
        Ok(doubled.min(LONGEST_WAIT))
    }
}

/// Whether a smaller range or another moment may do: a lock, a deadlock or a time limit.
fn may_pass(error: &Error) -> bool {
    const CODES: [&str; 7] = ["57014", "40001", "40P01", "1213", "1317", "1969", "3024"];
    error.is_lock_timeout()
        || matches!(error, Error::Statement { code, .. } if CODES.contains(&code.as_str()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;

    fn error(code: &str) -> Error {
        Error::Statement {
            attempted: "x",
            code: code.to_owned(),
            message: String::new(),
            line: 1,
            text: String::new(),
        }
    }

    #[test]
    fn slow_ranges_shrink_and_fast_ones_grow_within_bounds() {
        let pacing = Pacing::default();
        let mut pace = Pace::new(&pacing, 1000);
        assert_eq!(pace.size(), 1000);
        pace.done(Duration::ZERO);
        assert_eq!(pace.size(), 1000);
        for _ in 0..20 {
            pace.done(pacing.target * 2);
        }
        assert_eq!(pace.size(), 1);
        pace.done(pacing.target * 3 / 4);
        assert_eq!(pace.size(), 1);
        for _ in 0..40 {
            pace.done(Duration::ZERO);
        }
        assert_eq!(pace.size(), 1000);
    }

    #[test]
    fn refusals_for_a_lock_are_tried_again_smaller_and_not_for_ever() {
        let pacing = Pacing { tries: 3, ..Pacing::default() };
        let mut pace = Pace::new(&pacing, 100);
        assert_eq!(pace.refused(error("55P03")).unwrap(), pacing.backoff);
        assert_eq!(pace.refused(error("1205")).unwrap(), pacing.backoff * 2);
        assert_eq!(pace.size(), 25);
        assert_eq!(pace.refused(error("55P03")).unwrap_err(), error("55P03"));
        pace.done(Duration::ZERO);
        assert!(pace.refused(error("57014")).is_ok());
        assert!(pace.refused(error("23505")).is_err());
        assert!(pace.refused(Error::Cancelled).is_err());
    }
}
