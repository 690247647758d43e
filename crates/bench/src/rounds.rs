//! Rounds, which are taken again if others kept the machine busy; and their figures: the middle one, and how far they lie
//! apart.

use crate::report::say;
use anyhow::Result;
use grey_testkit::others::{QUIET, Watch};
use std::fmt;

/// How often a round is taken, until the machine was quiet.
const ATTEMPTS: usize = 4;

/// A round's figures, and how many cores others kept busy meanwhile.
pub(crate) fn quiet<T>(mut round: impl FnMut() -> Result<T>) -> Result<(T, f64)> {
    quietest(|| {
        let watch = Watch::begin()?;
        let figures = round()?;
        Ok((figures, watch.others()?))
    })
}

/// The first of some rounds in which others were quiet, else the one in which they were most.
pub(crate) fn quietest<T>(mut round: impl FnMut() -> Result<(T, f64)>) -> Result<(T, f64)> {
    let (mut figures, mut others) = round()?;
    for _ in 1..ATTEMPTS {
        if others <= QUIET {
            break;
        }
        say(&format!("    others kept {others:.2} cores busy, again"));
        let (again, meanwhile) = round()?;
        if meanwhile < others {
            (figures, others) = (again, meanwhile);
        }
    }
    Ok((figures, others))
}

/// The figures of some rounds, sorted.
#[derive(Clone, Debug)]
pub(crate) struct Figures(Vec<f64>);

impl Figures {
    pub(crate) fn new(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        Self(figures)
    }

    /// Ratios of what was measured in the same round.
    pub(crate) fn ratios(above: &[f64], below: &[f64]) -> Self {
        Self::new(above.iter().zip(below).map(|(above, below)| above / below))
    }

    /// The middle figure.
    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The figure that so large a share of all does not exceed; not a number if there are none.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "few figures, a share from 0 to 1"
        )]
        let place = ((self.0.len().saturating_sub(1)) as f64 * share).round() as usize;
        self.0.get(place).copied().unwrap_or(f64::NAN)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} ({:.3} to {:.3})", self.median(), self.quantile(0.0), self.quantile(1.0))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;

    #[test]
    fn a_round_is_taken_again_until_others_are_quiet_but_not_for_ever() {
        let rounds = |others: &[f64]| {
            let mut taken = 0;
            let chosen = quietest(|| {
                taken += 1;
                Ok((taken, others[taken - 1]))
            });
            (taken, chosen.unwrap())
        };
        assert_eq!(rounds(&[QUIET, 9.0]), (1, (1, QUIET)));
        assert_eq!(rounds(&[0.9, 0.2, 0.1, 9.0]), (3, (3, 0.1)));
        assert_eq!(rounds(&[0.9, 0.2, 0.3, 0.4, 0.0]), (4, (2, 0.2)), "the quietest of the busy ones");
    }

    #[test]
    fn the_median_is_the_middle_of_the_pairs() {
        let ratios = Figures::ratios(&[2.0, 9.0, 4.0], &[1.0, 3.0, 4.0]);
        assert!((ratios.median() - 2.0).abs() < 1e-9);
        assert!((ratios.quantile(1.0) - 3.0).abs() < 1e-9);
    }
}
