//! What the demo says: kept for the live view, or printed at once.

use std::io::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Mode;

/// Lines kept for the live view.
const KEPT: usize = 200;

/// Takes what is said. Cheap to clone.
#[derive(Clone)]
pub(super) struct Screen {
    mode: Mode,
    said: Arc<Mutex<Said>>,
}

/// What the live view shows.
#[derive(Default, Clone)]
pub(super) struct Said {
    pub(super) head: Vec<String>,
    pub(super) lines: Vec<String>,
}

impl Screen {
    pub(super) fn new(mode: Mode) -> Self {
        Self { mode, said: Arc::default() }
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    fn lock(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lines that stay at the top.
    pub(super) fn head(&self, lines: &[String]) {
        self.lock().head = lines.to_vec();
        if self.mode != Mode::Live {
            print(lines);
        }
    }

    /// One more line, or several, of the story.
    pub(super) fn say(&self, text: &str) {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        if self.mode == Mode::Live {
            let mut said = self.lock();
            said.lines.extend(lines);
            let surplus = said.lines.len().saturating_sub(KEPT);
            said.lines.drain(..surplus);
        } else {
            print(&lines);
        }
    }

    pub(super) fn said(&self) -> Said {
        self.lock().clone()
    }

    /// Lines that stay after the live view is gone.
    pub(super) fn end(&self, lines: &[String]) {
        print(lines);
    }
}

fn print(lines: &[String]) {
    let mut text = lines.join("\n");
    text.push('\n');
    let mut out = io::stdout().lock();
    // Whoever closed the output does not want to read on; the story's result is the exit code.
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}
