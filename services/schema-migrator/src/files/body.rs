//! Whether a `;` ends a statement: what of a trigger, routine, event, rule or anonymous block is still open.

use super::Dialect;
use super::lexis::Piece;
use sqlparser::tokenizer::Token;

/// What `CREATE` may be followed by, as far as it tells whether there is a body.
const KINDS: [&str; 13] = [
    "TABLE",
    "INDEX",
    "VIEW",
    "SCHEMA",
    "DATABASE",
    "TYPE",
    "SEQUENCE",
    "USER",
    "TRIGGER",
    "PROCEDURE",
    "FUNCTION",
    "EVENT",
    "RULE",
];

/// Words before which no statement of a body without BEGIN can begin: `IF` after them is a function, or part of `IF EXISTS`.
const WITHIN: [&str; 22] = [
    "TRIGGER",
    "PROCEDURE",
    "FUNCTION",
    "EVENT",
    "TABLE",
    "VIEW",
    "INDEX",
    "DATABASE",
    "SCHEMA",
    "WHERE",
    "AND",
    "OR",
    "XOR",
    "NOT",
    "ON",
    "BY",
    "IN",
    "WHEN",
    "END",
    "DIV",
    "HAVING",
    "LIKE",
];

/// What the statement is, as far as it tells whether it has a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Kind {
    /// Not told yet; it begins with CREATE.
    #[default]
    Undecided,
    /// Not told yet; it begins with ALTER, and only an event has a body then.
    Altered,
    /// Not told yet; it begins with BEGIN, and `NOT ATOMIC` makes it a block.
    Begun,
    /// It has no body.
    Plain,
    /// It is a trigger, routine, event or block.
    Routine,
    /// It is a rule of PostgreSQL, whose statements are in parentheses.
    Rule,
}

/// What opened a nested part of a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Open {
    /// BEGIN.
    Block,
    /// CASE as an expression.
    Case,
    /// CASE as a statement.
    CaseStatement,
    /// A statement that ends in END and this word.
    Named(&'static str),
}

/// Keeps count of what is open in the body of a trigger, routine, event or rule.
#[derive(Default)]
pub(super) struct Body {
    kind: Kind,
    /// Significant tokens so far.
    tokens: usize,
    open: Vec<Open>,
    /// Open parentheses of a rule.
    parentheses: usize,
    /// The last token; `None` before the first.
    last: Option<Last>,
    /// An END that may close a block, or be that of `END IF` and its like.
    ending: bool,
    /// The END comes where a statement could begin.
    closes: bool,
    /// A body that is one statement has begun, so no other one begins.
    begun: bool,
}

/// As much of a token as the next one has to know.
#[derive(Clone, PartialEq, Eq)]
enum Last {
    Word(String),
    Semicolon,
    Colon,
    Period,
    /// A parenthesis or a text, after which the body of a routine may begin.
    Closed,
    /// A token after which BEGIN is a name.
    Operand,
    Other,
}

impl Body {
    /// Whether a `;` ends the statement.
    pub(super) fn is_closed(&mut self) -> bool {
        self.settle(None);
        self.open.is_empty() && self.parentheses == 0
    }

    /// Decides about an END now that the word after it is known.
    fn settle(&mut self, next: Option<&str>) {
        if !std::mem::take(&mut self.ending) {
            return;
        }
        let named =
            next.and_then(|word| ["IF", "LOOP", "WHILE", "REPEAT", "FOR"].into_iter().find(|it| *it == word));
        match (self.open.last().copied(), named) {
            (Some(Open::Case | Open::CaseStatement), _) => {
                self.open.pop();
            }
            (Some(Open::Named(open)), Some(word)) if open == word => {
                self.open.pop();
            }
            (Some(_), None) if self.closes => {
                // Whatever is open inside the block was none: an IF that is a function.
                if let Some(block) = self.open.iter().rposition(|open| *open == Open::Block) {
                    self.open.truncate(block);
                }
            }
            _ => {}
        }
    }

    /// Takes the next significant token.
    pub(super) fn feed(&mut self, piece: &Piece, dialect: Dialect) {
        let word = piece.word().map(str::to_ascii_uppercase);
        self.settle(word.as_deref());
        match (&word, self.kind) {
            (Some(word), Kind::Undecided | Kind::Altered | Kind::Begun) => self.decide(word, dialect),
            (Some(word), Kind::Routine) => self.nest(word, dialect),
            (None, Kind::Undecided) if self.tokens == 0 => self.kind = Kind::Plain,
            (None, Kind::Rule) => match piece.token {
                Token::LParen => self.parentheses += 1,
                Token::RParen => self.parentheses = self.parentheses.saturating_sub(1),
                _ => {}
            },
            _ => {}
        }
        self.tokens += 1;
        self.last = Some(match (word, &piece.token) {
            (Some(word), _) => Last::Word(word),
            (None, Token::SemiColon) => Last::Semicolon,
            (None, Token::Colon) => Last::Colon,
            (None, Token::Period) => Last::Period,
            (None, Token::RParen | Token::SingleQuotedString(_) | Token::DoubleQuotedString(_)) => {
                Last::Closed
            }
            (None, Token::Comma | Token::LParen | Token::Eq | Token::Plus | Token::Minus) => Last::Operand,
            _ => Last::Other,
        });
    }

    /// Finds out what the statement is.
    fn decide(&mut self, word: &str, dialect: Dialect) {
        let mysql = dialect == Dialect::MySql;
        self.kind = match (self.kind, self.tokens, word) {
            (Kind::Undecided, 0, "CREATE") => Kind::Undecided,
            (Kind::Undecided, 0, "ALTER") if mysql => Kind::Altered,
            (Kind::Undecided, 0, "BEGIN") if mysql => Kind::Begun,
            (Kind::Undecided, 0, _) => Kind::Plain,
            (Kind::Begun, 1, "NOT") => Kind::Begun,
            (Kind::Begun, 2, "ATOMIC") => {
                self.open.push(Open::Block);
                Kind::Routine
            }
            (Kind::Begun, ..) => Kind::Plain,
            (Kind::Undecided, _, "RULE") if dialect == Dialect::Postgres => Kind::Rule,
            (Kind::Undecided, _, "TRIGGER" | "PROCEDURE" | "FUNCTION" | "EVENT") => Kind::Routine,
            (Kind::Altered, _, "EVENT") => Kind::Routine,
            (kind, _, word) => {
                if KINDS.contains(&word) {
                    Kind::Plain
                } else {
                    kind
                }
            }
        };
    }

    fn nest(&mut self, word: &str, dialect: Dialect) {
        let after =
            |words: &[&str]| matches!(&self.last, Some(Last::Word(last)) if words.contains(&last.as_str()));
        if self.last == Some(Last::Period) {
            return;
        }
        let is_name =
            self.last == Some(Last::Operand) || after(&["SELECT", "SET", "WHERE", "AND", "OR", "BY", "ON"]);
        let statement = dialect == Dialect::MySql && self.is_statement(word);
        match word {
            // PostgreSQL's bodies are strings, save for BEGIN ATOMIC.
            "BEGIN" if dialect != Dialect::Postgres && !is_name => self.open.push(Open::Block),
            "ATOMIC" if dialect == Dialect::Postgres && after(&["BEGIN"]) => self.open.push(Open::Block),
            "CASE" if statement => self.open.push(Open::CaseStatement),
            "CASE" if !after(&["END"]) => self.open.push(Open::Case),
            "IF" if statement => self.open.push(Open::Named("IF")),
            "WHILE" if statement => self.open.push(Open::Named("WHILE")),
            "LOOP" if statement => self.open.push(Open::Named("LOOP")),
            "REPEAT" if statement => self.open.push(Open::Named("REPEAT")),
            "FOR" if statement => self.open.push(Open::Named("FOR")),
            "END" => {
                // Statements of a block end with `;`, so any other END there is a name.
                self.closes = self.last == Some(Last::Semicolon) || after(&["BEGIN", "ATOMIC"]);
                self.ending = match self.open.last() {
                    Some(Open::Case | Open::CaseStatement | Open::Named(_)) => true,
                    Some(Open::Block) => self.closes,
                    None => false,
                };
            }
            "SELECT" | "RETURN" | "SET" | "CALL" if self.open.is_empty() => self.begun = true,
            _ => {}
        }
    }

    /// Whether a word that may begin a statement does so here, rather than being a function or part of an expression.
    fn is_statement(&self, word: &str) -> bool {
        if self.open.last() == Some(&Open::Case) {
            return false;
        }
        match &self.last {
            Some(Last::Semicolon | Last::Colon) => true,
            Some(Last::Word(last))
                if ["BEGIN", "THEN", "ELSE", "DO", "LOOP", "REPEAT", "ATOMIC"].contains(&last.as_str()) =>
            {
                true
            }
            // The body of a routine that is no block begins here.
            Some(Last::Closed) => self.open.is_empty() && !self.begun,
            Some(Last::Word(last)) if self.open.is_empty() && !self.begun => {
                last == "ROW" || (word != "FOR" && !WITHIN.contains(&last.as_str()))
            }
            _ => false,
        }
    }
}
