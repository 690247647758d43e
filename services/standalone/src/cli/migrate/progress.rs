//! How upgrades are shown while they run: a bar for each in a terminal, a line for each that has ended elsewhere.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use grey_proto::schema::{StepState, Upgrade, UpgradeState, UpgradeStep};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::super::session::Session;
use super::super::{Failure, output};
use super::{provision, text};

/// A step's share of a bar.
const STEP: u64 = 1_000;
/// Between two pictures of a bar that does not move.
const TICK: Duration = Duration::from_millis(200);

/// Shows many upgrades at once.
pub(super) struct Progress(Shown);

enum Shown {
    /// The bars, and the one that counts those that have ended.
    Bars(MultiProgress, ProgressBar),
    Lines,
    /// Programs get one document at the end.
    Nothing,
}

/// Shows one of them.
pub(super) struct Row<'a> {
    progress: &'a Progress,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// For `total` upgrades.
    pub(super) fn new(session: &Session, total: usize) -> Self {
        Self(if session.json() {
            Shown::Nothing
        } else if io::stdout().is_terminal() && io::stderr().is_terminal() {
            let bars = MultiProgress::new();
            let all =
                ProgressBar::new(total as u64).with_style(style("{bar:30} {pos} of {len} ended, {elapsed}"));
            let all = bars.add(all);
            all.enable_steady_tick(TICK);
            Shown::Bars(bars, all)
        } else {
            Shown::Lines
        })
    }

    pub(super) fn row(&self) -> Row<'_> {
        Row { progress: self, bar: None }
    }

    /// A line that stays.
    pub(super) fn say(&self, line: &str) -> Result<(), Failure> {
        match &self.0 {
            Shown::Bars(bars, _) => bars.suspend(|| output::print(line)),
            Shown::Lines => output::print(line),
            Shown::Nothing => Ok(()),
        }
    }

    /// Takes the bars away.
    pub(super) fn end(&self) {
        if let Shown::Bars(_, all) = &self.0 {
            all.finish_and_clear();
        }
    }
}

impl Row<'_> {
    /// The upgrade as it is now.
    pub(super) fn update(&mut self, upgrade: &Upgrade) {
        let Shown::Bars(bars, all) = &self.progress.0 else { return };
        // Those that wait would push the ones that run out of the picture.
        if upgrade.state() != UpgradeState::Running {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let style = style("{bar:30} {prefix}  {msg}");
            let bar = ProgressBar::new(STEP).with_style(style);
            let bar = bars.insert_before(all, bar);
            bar.set_prefix(output::plain(&upgrade.tenant));
            bar
        });
        let (done, total) = share(&upgrade.steps);
        bar.set_length(total);
        bar.set_position(done);
        if let Some((_, step)) = text::running(upgrade) {
            bar.set_message(text::step(upgrade.direction(), step));
        } else if let Some(stage) = provision::stage(upgrade) {
            bar.set_message(stage);
        }
    }

    /// The upgrade has ended.
    pub(super) fn end(self, upgrade: &Upgrade) -> Result<(), Failure> {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if let Shown::Bars(bars, all) = &self.progress.0 {
            if let Some(bar) = &self.bar {
                bars.remove(bar);
            }
            all.inc(1);
        }
        self.progress.say(&line(&upgrade.tenant, &text::outcome(upgrade)))
    }
}

/// What is said about a tenant.
pub(super) fn line(tenant: &str, what: &str) -> String {
    format!("{:24} {}\n", output::plain(tenant), output::plain(what))
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are valid")
}

/// How much of the steps is done, and of how much.
fn share(steps: &[UpgradeStep]) -> (u64, u64) {
    let done = |step: &UpgradeStep| match step.state() {
        StepState::Done => STEP,
        StepState::Unspecified | StepState::Waiting | StepState::Undone => 0,
        StepState::Running | StepState::Failed => {
            let (done, all) = match step.rows_total {
                0 => (u64::from(step.statements_done), u64::from(step.statements)),
                // The whole is an estimate.
                rows => (step.rows_done, rows.max(step.rows_done)),
            };
            done.saturating_mul(STEP).checked_div(all).unwrap_or_default().min(STEP)
        }
    };
    (steps.iter().map(done).sum(), steps.len() as u64 * STEP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_moves_with_statements_and_with_rows() {
        let step = |state: StepState, statements_done, rows_done, rows_total| UpgradeStep {
            state: state.into(),
            statements: 4,
            statements_done,
            rows_done,
            rows_total,
            ..UpgradeStep::default()
        };
        let steps = [
            step(StepState::Done, 4, 0, 0),
            step(StepState::Running, 1, 0, 0),
            step(StepState::Waiting, 0, 0, 0),
        ];
        assert_eq!(share(&steps), (1_250, 3_000));
        assert_eq!(share(&[step(StepState::Running, 0, 50, 100)]), (500, 1_000));
        assert_eq!(share(&[step(StepState::Running, 0, 300, 100)]), (1_000, 1_000));
        assert_eq!(
            share(&[UpgradeStep { state: StepState::Running.into(), ..UpgradeStep::default() }]),
            (0, 1_000)
        );
    }
}
