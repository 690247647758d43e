//! Tokens of SQL text with the place that each has in it.
//!
//! The tokenizer is sqlparser's. It is told to be strict where a dialect of it is lenient or rewrites its input:
//! unended comments are faults, `COPY … FROM STDIN` takes no data, executed comments stay comments, and
//! operators are not glued to a comment that follows them.

use super::Dialect;
use sqlparser::dialect::{self, MySqlDialect, PostgreSqlDialect, SQLiteDialect};
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer, Whitespace};
use std::any::TypeId;
use std::ops::Range;

/// One token and its place.
#[derive(Debug)]
pub(crate) struct Piece {
    /// The token.
    pub(crate) token: Token,
    /// Its place, in bytes.
    pub(crate) range: Range<usize>,
    /// The line that it begins on, counted from 1.
    pub(crate) line: u32,
}

impl Piece {
    /// Whether it is white space or a comment.
    pub(crate) fn is_blank(&self) -> bool {
        matches!(self.token, Token::Whitespace(_))
    }

    /// Whether it is neither blank nor quoted, so that a delimiter may be in it.
    pub(crate) fn is_bare(&self) -> bool {
        match &self.token {
            Token::Word(word) => word.quote_style.is_none(),
            Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::DollarQuotedString(_)
            | Token::NationalStringLiteral(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::HexStringLiteral(_)
            | Token::SingleQuotedByteStringLiteral(_)
            | Token::DoubleQuotedByteStringLiteral(_)
            | Token::SingleQuotedRawStringLiteral(_)
            | Token::DoubleQuotedRawStringLiteral(_) => false,
            _ => !self.is_blank(),
        }
    }

    /// The unquoted word that it is, if it is one.
    pub(crate) fn word(&self) -> Option<&str> {
        match &self.token {
            Token::Word(word) if word.quote_style.is_none() => Some(&word.value),
            _ => None,
        }
    }

    /// Whether it is the unquoted word `word`, in any case.
    pub(crate) fn is(&self, word: &str) -> bool {
        self.word().is_some_and(|it| it.eq_ignore_ascii_case(word))
    }

    /// The text of a comment.
    pub(crate) fn comment(&self) -> Option<&str> {
        match &self.token {
            Token::Whitespace(
                Whitespace::SingleLineComment { comment, .. } | Whitespace::MultiLineComment(comment),
            ) => Some(comment),
            _ => None,
        }
    }
}

/// A text that cannot be cut into tokens.
#[derive(Debug)]
pub(crate) struct Unreadable {
    /// The line that the token which has no end begins on.
    pub(crate) line: u32,
    /// Why not.
    pub(crate) message: String,
}

/// Cuts `sql` into tokens that lie end to end; when one has no end, those before it and why.
pub(crate) fn pieces(sql: &str, dialect: Dialect) -> (Vec<Piece>, Option<Unreadable>) {
    let strict = Strict(match dialect {
        Dialect::Postgres => &PostgreSqlDialect {},
        Dialect::MySql => &MySqlDialect {},
        Dialect::Sqlite => &SQLiteDialect {},
    });
    let (mut found, mut done, mut line) = (Vec::new(), 0, 1);
    loop {
        let rest = sql.get(done..).unwrap_or_default();
        let mut tokens = Vec::new();
        let result =
            Tokenizer::new(&strict, rest).with_unescape(false).tokenize_with_location_into_buf(&mut tokens);
        let mut cursor = Cursor { sql: rest, at: 0, location: Location { line: 1, column: 1 } };
        for TokenWithSpan { token, span } in tokens {
            let (start, begun) = (done + cursor.at, line + cursor.line() - 1);
            cursor.advance_to(span.end);
            found.push(Piece { token, range: start..done + cursor.at, line: begun });
        }
        let Err(error) = result else { return (found, None) };
        (done, line) = (done + cursor.at, line + cursor.line() - 1);
        let rest = sql.get(done..).unwrap_or_default();
        let escaped = escaped_string(rest).filter(|_| dialect == Dialect::Postgres);
        let Some(text) = escaped.and_then(|length| rest.get(..length)) else {
            return (found, Some(Unreadable { line, message: no_end(rest, &error.message) }));
        };
        let inside = text.get(2..text.len() - 1).unwrap_or_default().to_owned();
        let range = done..done + text.len();
        found.push(Piece { token: Token::EscapedStringLiteral(inside), range, line });
        done += text.len();
        line += u32::try_from(text.matches('\n').count()).unwrap_or(0);
    }
}

/// How long the string with escapes is that `text` begins with. The tokenizer takes no bytes of characters one by one,
/// as in `E'\303\251'`.
fn escaped_string(text: &str) -> Option<usize> {
    let mut bytes = text.bytes().enumerate().skip(2).peekable();
    if !text.get(..2)?.eq_ignore_ascii_case("E'") {
        return None;
    }
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'\'' if bytes.next_if(|(_, next)| *next == b'\'').is_none() => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// Says what has no end, by how it begins.
fn no_end(rest: &str, message: &str) -> String {
    let what = match rest.bytes().next() {
        Some(b'/') => "a comment",
        Some(b'$') => "a dollar quote",
        Some(b'"' | b'`' | b'[') => "a quoted name or string",
        _ if rest.starts_with('\'') || message.contains("nterminated") => "a string",
        _ => return format!("it is not SQL: {}", message.trim_end_matches('.').to_lowercase()),
    };
    format!("{what} has no end")
}

/// Walks a text along the lines and columns that the tokenizer counts.
struct Cursor<'a> {
    sql: &'a str,
    at: usize,
    location: Location,
}

impl Cursor<'_> {
    fn line(&self) -> u32 {
        u32::try_from(self.location.line).unwrap_or(u32::MAX)
    }

    fn advance_to(&mut self, end: Location) {
        let rest = self.sql.get(self.at..).unwrap_or_default();
        for character in rest.chars() {
            if self.location >= end {
                break;
            }
            self.at += character.len_utf8();
            if character == '\n' {
                self.location = Location { line: self.location.line + 1, column: 1 };
            } else {
                self.location.column += 1;
            }
        }
    }
}

/// A dialect of sqlparser's as far as its tokenizer asks, but strict.
#[derive(Debug)]
struct Strict(&'static dyn dialect::Dialect);

impl dialect::Dialect for Strict {
    // The tokenizer compares types in places.
    fn dialect(&self) -> TypeId {
        self.0.dialect()
    }

    // Where it is strict.
    fn supports_copy_from_stdin_data(&self) -> bool {
        false
    }
    fn supports_multiline_comment_hints(&self) -> bool {
        false
    }
    fn supports_unterminated_block_comments(&self) -> bool {
        false
    }
    fn supports_geometric_types(&self) -> bool {
        false
    }
    fn is_custom_operator_part(&self, _: char) -> bool {
        false
    }

    // Where it is the dialect.
    fn is_identifier_start(&self, ch: char) -> bool {
        self.0.is_identifier_start(ch)
    }
    fn is_identifier_part(&self, ch: char) -> bool {
        self.0.is_identifier_part(ch)
    }
    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        self.0.is_delimited_identifier_start(ch)
    }
    fn requires_hash_comment_space(&self) -> bool {
        self.0.requires_hash_comment_space()
    }
    fn requires_single_line_comment_whitespace(&self) -> bool {
        self.0.requires_single_line_comment_whitespace()
    }
    fn supports_dollar_placeholder(&self) -> bool {
        self.0.supports_dollar_placeholder()
    }
    fn supports_hash_comment(&self) -> bool {
        self.0.supports_hash_comment()
    }
    fn supports_literal_prefix_in_qualified_name(&self) -> bool {
        self.0.supports_literal_prefix_in_qualified_name()
    }
    fn supports_national_string_literal(&self) -> bool {
        self.0.supports_national_string_literal()
    }
    fn supports_nested_comments(&self) -> bool {
        self.0.supports_nested_comments()
    }
    fn supports_non_decimal_integer_literals(&self) -> bool {
        self.0.supports_non_decimal_integer_literals()
    }
    fn supports_numeric_literal_underscores(&self) -> bool {
        self.0.supports_numeric_literal_underscores()
    }
    fn supports_numeric_prefix(&self) -> bool {
        self.0.supports_numeric_prefix()
    }
    fn supports_string_escape_constant(&self) -> bool {
        self.0.supports_string_escape_constant()
    }
    fn supports_string_literal_backslash_escape(&self) -> bool {
        self.0.supports_string_literal_backslash_escape()
    }
    fn supports_unicode_string_literal(&self) -> bool {
        self.0.supports_unicode_string_literal()
    }
}
