//! What a tool writes: its end is kept, its progress is read.

use std::collections::VecDeque;

/// Longest line that is kept, in bytes; the rest of it is dropped.
const LONGEST_LINE: usize = 1_000;
/// Lines that are kept.
const KEPT_LINES: usize = 20;

/// How far a tool is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Rows that are copied, of an estimate, where the tool tells.
    pub rows: Option<(u64, u64)>,
    /// Percent of the table that is copied; rows that come meanwhile are not counted, so at most 100.
    pub percent: u8,
}

/// The lines of one stream.
#[derive(Default)]
pub(super) struct Lines {
    line: Vec<u8>,
}

impl Lines {
    /// Takes bytes of the stream; gives the lines that end in them.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in bytes {
            if matches!(byte, b'\n' | b'\r') {
                lines.extend(self.end());
            } else if self.line.len() < LONGEST_LINE {
                self.line.push(*byte);
            }
        }
        lines
    }

    /// The line that has no end, if there is one.
    pub(super) fn end(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        (!line.is_empty()).then_some(line)
    }
}

/// One of the streams of a tool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stream {
    Output,
    Errors,
}

/// The end of what a tool wrote, without its password; each stream has its own, so that much output does not make errors
/// be forgotten.
pub(super) struct Tail {
    secret: String,
    output: VecDeque<String>,
    errors: VecDeque<String>,
}

impl Tail {
    pub(super) fn new(secret: &str) -> Self {
        Self { secret: secret.to_owned(), output: VecDeque::new(), errors: VecDeque::new() }
    }

    /// Keeps a line.
    pub(super) fn keep(&mut self, stream: Stream, line: &str) {
        let line = if self.secret.is_empty() { line.to_owned() } else { line.replace(&self.secret, "***") };
        let lines = match stream {
            Stream::Output => &mut self.output,
            Stream::Errors => &mut self.errors,
        };
        if lines.len() == KEPT_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// Whether a line has `text`.
    pub(super) fn tells(&self, text: &str) -> bool {
        self.output.iter().chain(&self.errors).any(|line| line.contains(text))
    }

    /// The lines in one, those of errors last.
    pub(super) fn text(&self) -> String {
        let lines: Vec<_> = self.output.iter().chain(&self.errors).map(String::as_str).collect();
        if lines.is_empty() { "it wrote nothing".to_owned() } else { lines.join(" | ") }
    }
}

/// Reads a line that tells of progress.
pub(super) fn progress(line: &str) -> Option<Progress> {
    gh_ost(line).or_else(|| pt(line))
}

/// `Copy: 100/1000 10.0%; Applied: 0; …`
fn gh_ost(line: &str) -> Option<Progress> {
    let (counts, rest) = line.strip_prefix("Copy: ")?.split_once(' ')?;
    let (copied, total) = counts.split_once('/')?;
    let (percent, _) = rest.split_once('%')?;
    Some(Progress { rows: Some((copied.parse().ok()?, total.parse().ok()?)), percent: whole(percent)? })
}

/// ``Copying `shop`.`orders`:  42% 00:12 remain``
fn pt(line: &str) -> Option<Progress> {
    let (_, rest) = line.strip_prefix("Copying ")?.rsplit_once(": ")?;
    let (percent, _) = rest.trim_start().split_once('%')?;
    Some(Progress { rows: None, percent: whole(percent)? })
}

/// Percent without what is behind the point.
fn whole(percent: &str) -> Option<u8> {
    let whole: u64 = percent.split('.').next()?.trim().parse().ok()?;
    u8::try_from(whole.min(100)).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;

    #[test]
    fn progress_is_read_from_what_the_tools_write() {
        let line = "Copy: 33559300/30109847 111.5%; Applied: 442632; Backlog: 0/1000; Time: 6h51m30s(total)";
        assert_eq!(progress(line), Some(Progress { rows: Some((33_559_300, 30_109_847)), percent: 100 }));
        assert_eq!(progress("Copy: 100/1000 10.0%; Applied: 0").unwrap().percent, 10);
        let line = "Copying `shop`.`orders`:  42% 00:12 remain";
        assert_eq!(progress(line), Some(Progress { rows: None, percent: 42 }));
        for other in
            ["Copying approximately 100 rows...", "Copy: 1/x 3%;", "", "Copy:", "Copying: %", "Copy: 1/2 -3%"]
        {
            assert_eq!(progress(other), None, "{other}");
        }
    }

    #[test]
    fn lines_are_bounded_however_they_come() {
        let mut lines = Lines::default();
        assert!(lines.feed(b"half a li").is_empty());
        assert_eq!(lines.feed(b"ne\r\nand \xff another\rrest"), ["half a line", "and \u{fffd} another"]);
        assert_eq!(lines.end().as_deref(), Some("rest"));
        lines.feed(&vec![b'x'; 1_000_000]);
        assert_eq!(lines.end().unwrap().len(), LONGEST_LINE);
        let mut tail = Tail::new("s3cret");
        tail.keep(Stream::Errors, "FATAL s3cret");
        for number in 0..1_000 {
            tail.keep(Stream::Output, &format!("line {number} s3cret"));
        }
        assert_eq!((tail.output.len(), tail.errors.len()), (KEPT_LINES, 1));
        assert!(tail.text().ends_with("line 999 *** | FATAL ***") && !tail.text().contains("s3cret"));
    }
}
