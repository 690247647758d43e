//! What a migration file may not hold, whatever policy says: it would break how migrations are run.

use super::lexis::{Piece, pieces};
use super::{Dialect, FaultKind};
use sqlparser::tokenizer::Token;

/// Prefix of the migrator's own tables in a tenant's database.
const OWN_TABLES: &str = "grey_schema_";

/// PRAGMAs that neither change the session nor leave the transaction.
const PRAGMAS: [&str; 11] = [
    "FOREIGN_KEY_CHECK",
    "INTEGRITY_CHECK",
    "QUICK_CHECK",
    "DEFER_FOREIGN_KEYS",
    "TABLE_INFO",
    "TABLE_XINFO",
    "TABLE_LIST",
    "INDEX_LIST",
    "INDEX_INFO",
    "USER_VERSION",
    "APPLICATION_ID",
];

/// Settings that are the migrator's.
const SETTINGS: [&str; 14] = [
    "SEARCH_PATH",
    "ROLE",
    "SESSION_AUTHORIZATION",
    "AUTOCOMMIT",
    "LOCK_TIMEOUT",
    "STATEMENT_TIMEOUT",
    "IDLE_IN_TRANSACTION_SESSION_TIMEOUT",
    "TRANSACTION_TIMEOUT",
    "LOCK_WAIT_TIMEOUT",
    "INNODB_LOCK_WAIT_TIMEOUT",
    "MAX_STATEMENT_TIME",
    "MAX_EXECUTION_TIME",
    "STANDARD_CONFORMING_STRINGS",
    "COMPLETION_TYPE",
];

/// One statement as its significant tokens.
pub(super) struct Guarded<'a> {
    text: &'a str,
    dialect: Dialect,
    pieces: Vec<Piece>,
}

impl<'a> Guarded<'a> {
    pub(super) fn new(text: &'a str, dialect: Dialect) -> Self {
        let (pieces, _) = pieces(text, dialect);
        Self { text, dialect, pieces }
    }

    fn words(&self) -> impl Iterator<Item = String> {
        let significant = self.pieces.iter().filter(|piece| !piece.is_blank());
        significant.map(|piece| piece.word().map(str::to_ascii_uppercase).unwrap_or_default())
    }

    fn head<const N: usize>(&self) -> [String; N] {
        let mut words = self.words();
        std::array::from_fn(|_| words.next().unwrap_or_default())
    }

    /// The first words, for messages.
    fn shown(&self, words: usize) -> String {
        self.text.split_whitespace().take(words).collect::<Vec<_>>().join(" ").chars().take(60).collect()
    }

    /// Commands that only a client program knows.
    pub(super) fn client_command(&self) -> Option<FaultKind> {
        let first = self.pieces.iter().find(|piece| !piece.is_blank())?;
        let [head] = self.head();
        let command = match &first.token {
            Token::Backslash | Token::Period => true,
            _ => ["SOURCE", "DELIMITER", "GO", "TEE", "CONNECT"].contains(&head.as_str()),
        };
        let streamed = match head.as_str() {
            "COPY" => self.words().any(|word| word == "STDIN" || word == "STDOUT"),
            "LOAD" => self.words().any(|word| word == "LOCAL"),
            _ => false,
        };
        (command || streamed).then(|| FaultKind::ClientCommand(self.shown(2)))
    }

    /// Statements about transactions, locks, the session and the migrator's tables.
    pub(super) fn forbidden(&self) -> Option<FaultKind> {
        let [first, second, third] = self.head();
        let transaction = match first.as_str() {
            // MariaDB's block without a name.
            "BEGIN" if self.dialect == Dialect::MySql && second == "NOT" && third == "ATOMIC" => {
                self.words().any(|word| word == "COMMIT" || word == "ROLLBACK")
            }
            "BEGIN" | "COMMIT" | "ROLLBACK" | "END" | "ABORT" | "SAVEPOINT" | "RELEASE" | "XA" | "LOCK"
            | "UNLOCK" | "FLUSH" => true,
            "START" | "PREPARE" => second == "TRANSACTION",
            "SET" => [&second, &third].iter().any(|word| *word == "TRANSACTION" || *word == "CONSTRAINTS"),
            "DISCARD" => true,
            _ => self.takes_lasting_lock(&first),
        };
        if transaction {
            return Some(FaultKind::Transaction(self.shown(2)));
        }
        let session = match first.as_str() {
            "USE" | "ATTACH" | "DETACH" | "RESET" => true,
            "SET" => second == "GLOBAL" || second == "PERSIST" || self.changes_setting(),
            "PRAGMA" => !PRAGMAS.contains(&second.as_str()),
            "CREATE" => false,
            _ => self.words().any(|word| word == "SET_CONFIG"),
        };
        if session {
            return Some(FaultKind::Session(self.shown(3)));
        }
        self.own_table()
    }

    fn changes_setting(&self) -> bool {
        let own = |word: &str| {
            let word = word.trim_start_matches('@');
            SETTINGS.contains(&word)
                || (word == "SESSION" && self.words().any(|word| word == "AUTHORIZATION"))
        };
        // `SET SCHEMA 'x'` is another way to write the search path.
        let [_, second] = self.head();
        second == "SCHEMA" || self.words().any(|word| own(&word))
    }

    /// Functions that take or drop locks of the session, called rather than put into a routine.
    fn takes_lasting_lock(&self, first: &str) -> bool {
        let locks = |word: &str| {
            ["GET_LOCK", "RELEASE_LOCK", "RELEASE_ALL_LOCKS"].contains(&word)
                || word.starts_with("PG_ADVISORY_")
                || word.starts_with("PG_TRY_ADVISORY_")
        };
        first != "CREATE" && self.words().any(|word| locks(&word))
    }

    fn own_table(&self) -> Option<FaultKind> {
        self.pieces.iter().find_map(|piece| match &piece.token {
            Token::Word(word) if word.value.to_ascii_lowercase().starts_with(OWN_TABLES) => {
                Some(FaultKind::OwnTable(word.value.chars().take(60).collect()))
            }
            _ => None,
        })
    }

    /// Statements that the database refuses in a transaction.
    pub(super) fn needs_no_transaction(&self) -> Option<FaultKind> {
        let [first, second, third] = self.head();
        let concurrent = || self.words().any(|word| word == "CONCURRENTLY");
        let outside = match (self.dialect, first.as_str()) {
            (Dialect::Postgres | Dialect::Sqlite, "VACUUM") => true,
            (Dialect::Postgres, "CREATE" | "DROP") => {
                ["DATABASE", "TABLESPACE", "SUBSCRIPTION"].contains(&second.as_str())
                    || ((second == "INDEX" || third == "INDEX") && concurrent())
            }
            (Dialect::Postgres, "ALTER") => second == "SYSTEM" || (second == "TABLE" && concurrent()),
            (Dialect::Postgres, "REINDEX") => {
                ["DATABASE", "SYSTEM", "SCHEMA"].contains(&second.as_str()) || concurrent()
            }
            _ => false,
        };
        outside.then(|| FaultKind::NeedsNoTransaction(self.shown(if concurrent() { 3 } else { 2 })))
    }

    /// Whether it is a query.
    pub(super) fn is_query(&self) -> bool {
        let [first, ..] = self.head::<2>();
        let pragma = || self.dialect == Dialect::Sqlite && first == "PRAGMA";
        let writes = |word: String| ["INSERT", "UPDATE", "DELETE", "MERGE", "INTO"].contains(&word.as_str());
        match first.as_str() {
            "SELECT" | "WITH" => !self.words().any(writes),
            _ => pragma(),
        }
    }

    /// Whether the MySQL family runs it inside a transaction without committing that.
    pub(super) fn keeps_transaction(&self) -> bool {
        let [first] = self.head();
        ["INSERT", "UPDATE", "DELETE", "REPLACE", "SELECT", "WITH"].contains(&first.as_str())
    }
}
