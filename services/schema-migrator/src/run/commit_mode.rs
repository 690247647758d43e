//! How a statement of a migration that is not one transaction is run, so that a crash leaves no doubt about it.

use crate::files::{Dialect, Piece, pieces};
use sqlparser::tokenizer::Token;

/// How a statement is run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CommitMode {
    /// In one transaction with its record in the journal.
    Transactional,
    /// By itself: it commits, or the database does not run it in a transaction.
    Autocommit(Probe),
}

/// How it is found out whether a statement that ran by itself took effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Probe {
    /// The catalog tells, by what the statement names.
    Catalog,
    /// It need not be known: running it again does no harm.
    Repeat,
    /// Nothing tells.
    Nothing,
}

/// What a database holds that decides how statements are run; names are in lower case.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Holdings {
    /// Tables whose rows do not roll back.
    pub(super) tables: Vec<String>,
    /// Functions of the MySQL family that somebody wrote: they may write.
    pub(super) functions: Vec<String>,
}

/// How `sql` is run: by what it does, which its first word alone does not tell.
pub(super) fn commit_mode(dialect: Dialect, sql: &str, holdings: &Holdings) -> CommitMode {
    let (pieces, _) = pieces(sql, dialect);
    let words: Vec<String> =
        pieces.iter().filter_map(|piece| piece.word()).map(str::to_ascii_uppercase).collect();
    let word = |index: usize| words.get(index).map_or("", String::as_str);
    let has = |wanted: &str| words.iter().any(|word| word == wanted);
    match dialect {
        Dialect::Postgres => postgres(word(0), word(1), word(2), sql, &has),
        Dialect::MySql => {
            if let Some(inner) = for_one_statement(&pieces) {
                return commit_mode(dialect, sql.get(inner..).unwrap_or_default(), holdings);
            }
            let rows_stay = || holdings.tables.iter().any(|table| has(&table.to_ascii_uppercase()));
            let several = || pieces.iter().any(|piece| piece.token == Token::Comma);
            let mode = mysql(&words, &has, &rows_stay, &several);
            let repeatable = mode == CommitMode::Autocommit(Probe::Repeat);
            if repeatable && may_do_more(&pieces, holdings) {
                return CommitMode::Autocommit(Probe::Nothing);
            }
            mode
        }
        Dialect::Sqlite => match word(0) {
            "VACUUM" | "PRAGMA" | "REINDEX" | "ANALYZE" => CommitMode::Autocommit(Probe::Repeat),
            _ => CommitMode::Transactional,
        },
    }
}

/// Where the statement begins that MariaDB's `SET STATEMENT … FOR` runs with other settings.
fn for_one_statement(pieces: &[Piece]) -> Option<usize> {
    let mut significant = pieces.iter().filter(|piece| !piece.is_blank());
    if !significant.next()?.is("SET") || !significant.next()?.is("STATEMENT") {
        return None;
    }
    let mut depth = 0_u32;
    for piece in significant {
        match &piece.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            _ if depth == 0 && piece.is("FOR") => return Some(piece.range.end),
            _ => {}
        }
    }
    None
}

/// Whether something is in a statement of the MySQL family that does more than its words say: a comment that the server
/// executes, or a call of a function that somebody wrote, which may write.
fn may_do_more(pieces: &[Piece], holdings: &Holdings) -> bool {
    let executed = |text: &str| text.starts_with('!') || text.starts_with("M!");
    if pieces.iter().any(|piece| piece.comment().is_some_and(executed)) {
        return true;
    }
    let significant: Vec<&Piece> = pieces.iter().filter(|piece| !piece.is_blank()).collect();
    significant.windows(2).enumerate().any(|(index, pair)| {
        let [name, next] = pair else { return false };
        let Token::Word(word) = &name.token else { return false };
        // One of another database is not known.
        let elsewhere = index
            .checked_sub(1)
            .and_then(|it| significant.get(it))
            .is_some_and(|it| it.token == Token::Period);
        next.token == Token::LParen && (elsewhere || holdings.functions.contains(&word.value.to_lowercase()))
    })
}

fn postgres(first: &str, second: &str, third: &str, sql: &str, has: &dyn Fn(&str) -> bool) -> CommitMode {
    match first {
        "VACUUM" | "REINDEX" | "CLUSTER" | "SET" => CommitMode::Autocommit(Probe::Repeat),
        "CREATE" | "DROP" if ["DATABASE", "TABLESPACE", "SUBSCRIPTION"].contains(&second) => {
            CommitMode::Autocommit(Probe::Nothing)
        }
        "CREATE" | "DROP" if has("CONCURRENTLY") && (second == "INDEX" || third == "INDEX") => {
            CommitMode::Autocommit(Probe::Catalog)
        }
        "ALTER" if second == "SYSTEM" => CommitMode::Autocommit(Probe::Repeat),
        "ALTER" if second == "TYPE" && has("VALUE") => CommitMode::Autocommit(Probe::Catalog),
        // Between its two transactions the partition is neither in nor out.
        "ALTER" if has("CONCURRENTLY") => CommitMode::Autocommit(Probe::Nothing),
        "CALL" => CommitMode::Autocommit(Probe::Nothing),
        "DO" if sql.to_ascii_uppercase().contains("COMMIT") => CommitMode::Autocommit(Probe::Nothing),
        _ => CommitMode::Transactional,
    }
}

fn mysql(
    words: &[String],
    has: &dyn Fn(&str) -> bool,
    rows_stay: &dyn Fn() -> bool,
    several: &dyn Fn() -> bool,
) -> CommitMode {
    let word = |index: usize| words.get(index).map_or("", String::as_str);
    let second = word(1);
    // With neither of these words MariaDB's ANALYZE runs the statement behind it.
    let of_table = || {
        let [second, third] = [word(1), word(2)];
        second.starts_with("TABLE") || third.starts_with("TABLE")
    };
    match word(0) {
        "INSERT" | "UPDATE" | "DELETE" | "REPLACE" | "SELECT" | "WITH" if !rows_stay() => {
            CommitMode::Transactional
        }
        "CREATE" | "ALTER" | "DROP" if ["USER", "ROLE", "DATABASE", "SCHEMA", "SERVER"].contains(&second) => {
            CommitMode::Autocommit(Probe::Nothing)
        }
        // Its effect is not in the catalog, and doing it twice undoes it.
        "ALTER" if has("EXCHANGE") => CommitMode::Autocommit(Probe::Nothing),
        // Each of several objects goes by itself.
        "DROP" | "RENAME" if several() => CommitMode::Autocommit(Probe::Nothing),
        "CREATE" | "ALTER" | "DROP" | "RENAME" => CommitMode::Autocommit(Probe::Catalog),
        "ANALYZE" | "OPTIMIZE" | "CHECK" | "REPAIR" if of_table() => CommitMode::Autocommit(Probe::Repeat),
        "TRUNCATE" | "SET" | "GRANT" => CommitMode::Autocommit(Probe::Repeat),
        _ => CommitMode::Autocommit(Probe::Nothing),
    }
}

/// What a statement does to the session that it runs in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Setting {
    /// It is none.
    No,
    /// It only changes the session, so that it is run again whenever a migration is gone on with.
    Repeatable,
    /// It changes the session and may do more, so that it must not be run again.
    Once,
}

/// What `sql` does to the session.
pub(super) fn setting(dialect: Dialect, sql: &str, holdings: &Holdings) -> Setting {
    let (pieces, _) = pieces(sql, dialect);
    let set = pieces.iter().find(|piece| !piece.is_blank()).is_some_and(|piece| piece.is("SET"));
    if !set || (dialect == Dialect::MySql && for_one_statement(&pieces).is_some()) {
        return Setting::No;
    }
    if dialect == Dialect::MySql && may_do_more(&pieces, holdings) {
        Setting::Once
    } else {
        Setting::Repeatable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_runs_with_its_record_unless_it_commits_by_itself() {
        let postgres = |sql| commit_mode(Dialect::Postgres, sql, &Holdings::default());
        assert_eq!(postgres("ALTER TABLE t ADD c int"), CommitMode::Transactional);
        assert_eq!(postgres("CREATE INDEX CONCURRENTLY i ON t (c)"), CommitMode::Autocommit(Probe::Catalog));
        assert_eq!(
            postgres("CREATE UNIQUE INDEX CONCURRENTLY i ON t (c)"),
            CommitMode::Autocommit(Probe::Catalog)
        );
        assert_eq!(postgres("/* x */ VACUUM t"), CommitMode::Autocommit(Probe::Repeat));
        assert_eq!(postgres("CALL p()"), CommitMode::Autocommit(Probe::Nothing));
        let mysql = |sql| commit_mode(Dialect::MySql, sql, &holdings());
        assert_eq!(mysql("INSERT INTO t VALUES (1)"), CommitMode::Transactional);
        assert_eq!(mysql("INSERT INTO logs VALUES (1)"), CommitMode::Autocommit(Probe::Nothing));
        assert_eq!(mysql("alter table t add c int"), CommitMode::Autocommit(Probe::Catalog));
        assert_eq!(mysql("DROP TABLE a"), CommitMode::Autocommit(Probe::Catalog));
        assert_eq!(mysql("DROP TABLE a, b"), CommitMode::Autocommit(Probe::Nothing));
        assert_eq!(mysql("TRUNCATE t"), CommitMode::Autocommit(Probe::Repeat));
        let sqlite = commit_mode(Dialect::Sqlite, "VACUUM", &Holdings::default());
        assert_eq!(sqlite, CommitMode::Autocommit(Probe::Repeat));
    }

    fn holdings() -> Holdings {
        Holdings { tables: vec!["logs".to_owned()], functions: vec!["note".to_owned()] }
    }

    #[test]
    fn what_a_statement_does_counts_and_not_its_first_word() {
        let mysql = |sql| commit_mode(Dialect::MySql, sql, &holdings());
        let (nothing, repeat) =
            (CommitMode::Autocommit(Probe::Nothing), CommitMode::Autocommit(Probe::Repeat));
        assert_eq!(
            mysql("SET STATEMENT sql_mode='' FOR INSERT INTO a VALUES (1)"),
            CommitMode::Transactional
        );
        assert_eq!(mysql("SET STATEMENT a=(SELECT 1 FOR UPDATE) FOR INSERT INTO logs VALUES (1)"), nothing);
        assert_eq!(
            mysql("set statement lock_wait_timeout=1 for alter table t add c int"),
            CommitMode::Autocommit(Probe::Catalog)
        );
        assert_eq!(mysql("SET STATEMENT a=1 FOR CALL p()"), nothing);
        for twice in [
            "ANALYZE UPDATE t SET a = a + 1",
            "ANALYZE FORMAT=JSON DELETE FROM t",
            "SET @a = note('x')",
            "SET @a = other.f(1)",
            "SET /*!50000 STATEMENT a=1 FOR INSERT INTO t VALUES (1) */",
            "SET /*M! STATEMENT a=1 FOR INSERT INTO t VALUES (1) */",
        ] {
            assert_eq!(mysql(twice), nothing, "{twice}");
        }
        for once in
            ["SET @a = CONCAT('a', 'b')", "SET NAMES latin1", "ANALYZE TABLE t", "ANALYZE LOCAL TABLE t"]
        {
            assert_eq!(mysql(once), repeat, "{once}");
        }
    }

    #[test]
    fn settings_are_repeated_unless_they_may_do_more() {
        let setting = |sql| setting(Dialect::MySql, sql, &holdings());
        assert_eq!(setting("SET @a = (SELECT max(id) FROM t)"), Setting::Repeatable);
        assert_eq!(setting("SET @a = note(1)"), Setting::Once);
        assert_eq!(setting("SET STATEMENT a=1 FOR INSERT INTO t VALUES (1)"), Setting::No);
        assert_eq!(setting("INSERT INTO t VALUES (1)"), Setting::No);
        let postgres = super::setting(Dialect::Postgres, "SET DateStyle = 'SQL, DMY'", &Holdings::default());
        assert_eq!(postgres, Setting::Repeatable);
    }
}
