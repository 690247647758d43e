//! Numbers as a few words.

/// The compiled form of a [`Band`](super::Band).
#[derive(Debug, Clone)]
pub(super) struct Bands {
    /// Ascending.
    pub(super) below: Vec<(f64, String)>,
    pub(super) above: String,
}

impl Bands {
    /// The word for `number`.
    pub(super) fn of(&self, number: f64) -> &str {
        let passed = self.below.partition_point(|(limit, _)| *limit <= number);
        self.below.get(passed).map_or(&self.above, |(_, value)| value)
    }
}
