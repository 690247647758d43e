//! Cutting a file into statements.

use super::body::Body;
use super::lexis::{Piece, pieces};
use super::{Dialect, FaultKind};
use sqlparser::tokenizer::Token;
use std::ops::Range;

/// What is said about the next statement, or between statements.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Remark {
    /// The comment's text.
    pub(super) text: String,
    /// Its line, counted from 1.
    pub(super) line: u32,
}

/// One statement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Cut {
    /// Its place: from its first token to its last, without the delimiter.
    pub(super) range: Range<usize>,
    /// The line that it begins on, counted from 1.
    pub(super) line: u32,
    /// Comments between the statement before and this one.
    pub(super) remarks: Vec<Remark>,
}

/// What a file consists of.
#[derive(PartialEq, Eq, Debug, Default)]
pub(super) struct Cuts {
    /// The statements, in order.
    pub(super) statements: Vec<Cut>,
    /// Comments after the last one.
    pub(super) remarks: Vec<Remark>,
    /// What is wrong, with its line; nothing after it was read.
    pub(super) fault: Option<(u32, FaultKind)>,
    /// The statement that the fault is in, as far as it was read.
    pub(super) unended: Option<Cut>,
}

/// Cuts `sql` at its delimiters.
///
/// A `;` inside quotes, dollar quotes, comments, or the body of a trigger or routine does not end a statement.
pub(super) fn split(sql: &str, dialect: Dialect) -> Cuts {
    let (pieces, unreadable) = pieces(sql, dialect);
    let mut splitter = Splitter {
        sql,
        dialect,
        done: 0,
        delimiter: None,
        open: None,
        body: Body::default(),
        remarks: Vec::new(),
        cuts: Cuts::default(),
    };
    for piece in &pieces {
        if let Err(fault) = splitter.feed(piece) {
            splitter.cuts.fault = Some(fault);
            return splitter.cuts;
        }
    }
    if let Some(unreadable) = unreadable {
        splitter.cuts.fault = Some((unreadable.line, FaultKind::Token(unreadable.message)));
        splitter.cuts.unended = splitter.open;
        return splitter.cuts;
    }
    splitter.finish()
}

struct Splitter<'a> {
    sql: &'a str,
    dialect: Dialect,
    /// Bytes before this are done.
    done: usize,
    /// What ends a statement instead of `;`.
    delimiter: Option<String>,
    open: Option<Cut>,
    body: Body,
    remarks: Vec<Remark>,
    cuts: Cuts,
}

impl Splitter<'_> {
    fn feed(&mut self, piece: &Piece) -> Result<(), (u32, FaultKind)> {
        if piece.range.end <= self.done {
            return Ok(());
        }
        if piece.is_blank() {
            let Some(text) = piece.comment() else { return Ok(()) };
            if self.dialect == Dialect::MySql && (text.starts_with('!') || text.starts_with("M!")) {
                return Err((piece.line, FaultKind::ExecutableComment));
            }
            if self.open.is_none() {
                self.remarks.push(Remark { text: text.trim().to_owned(), line: piece.line });
            }
            return Ok(());
        }
        let start = piece.range.start.max(self.done);
        if self.open.is_none() && self.dialect == Dialect::MySql && piece.is("DELIMITER") {
            return self.change_delimiter(piece);
        }
        match self.delimiter.clone() {
            None if piece.token == Token::SemiColon && self.body.is_closed() => self.close(piece.range.end),
            None => {
                self.extend(start, piece);
                self.body.feed(piece, self.dialect);
            }
            Some(delimiter) => self.feed_until(&delimiter, start, piece),
        }
        Ok(())
    }

    /// Takes a token while another delimiter than `;` ends statements; it may begin inside the token.
    fn feed_until(&mut self, delimiter: &str, start: usize, piece: &Piece) {
        let mut from = start;
        if piece.is_bare() {
            for at in start..piece.range.end {
                let ends = self.sql.get(at..).is_some_and(|rest| rest.starts_with(delimiter));
                if at >= self.done && ends {
                    if from < at {
                        self.extend(from, &Piece { token: Token::EOF, range: from..at, line: piece.line });
                    }
                    self.close(at + delimiter.len());
                    from = self.done;
                }
            }
        }
        if from < piece.range.end {
            self.extend(from, piece);
        }
    }

    fn extend(&mut self, start: usize, piece: &Piece) {
        let open = self.open.get_or_insert_with(|| Cut {
            range: start..start,
            line: piece.line,
            remarks: std::mem::take(&mut self.remarks),
        });
        open.range.end = piece.range.end;
    }

    fn close(&mut self, done: usize) {
        self.cuts.statements.extend(self.open.take());
        self.body = Body::default();
        self.done = done;
    }

    fn change_delimiter(&mut self, piece: &Piece) -> Result<(), (u32, FaultKind)> {
        let rest = self.sql.get(piece.range.end..).unwrap_or_default();
        let line = rest.split('\n').next().unwrap_or_default();
        let text = line.trim();
        let unfit = |c: char| c.is_whitespace() || "'\"`#-*\\".contains(c) || c.is_alphanumeric();
        if text.is_empty() || text.len() > 16 || text.contains(unfit) {
            return Err((piece.line, FaultKind::Delimiter(text.chars().take(16).collect())));
        }
        self.delimiter = (text != ";").then(|| text.to_owned());
        self.done = piece.range.end + line.len();
        Ok(())
    }

    fn finish(mut self) -> Cuts {
        if let Some(open) = &self.open
            && self.delimiter.is_none()
            && !self.body.is_closed()
        {
            self.cuts.fault = Some((open.line, FaultKind::OpenBlock));
            return self.cuts;
        }
        self.cuts.statements.extend(self.open.take());
        self.cuts.remarks = self.remarks;
        self.cuts
    }
}
