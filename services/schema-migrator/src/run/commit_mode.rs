//! How a statement of a migration that is not one transaction is run, so that a crash leaves no doubt about it.

use crate::files::{Dialect, pieces};

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

/// How `sql` is run. `unsafe_tables`: tables, in lower case, whose rows do not roll back.
pub(super) fn commit_mode(dialect: Dialect, sql: &str, unsafe_tables: &[String]) -> CommitMode {
    let (pieces, _) = pieces(sql, dialect);
    let words: Vec<String> =
        pieces.iter().filter_map(|piece| piece.word()).map(str::to_ascii_uppercase).collect();
    let word = |index: usize| words.get(index).map_or("", String::as_str);
    let has = |wanted: &str| words.iter().any(|word| word == wanted);
    match dialect {
        Dialect::Postgres => postgres(word(0), word(1), word(2), sql, &has),
        Dialect::MySql => {
            let rows_stay = || unsafe_tables.iter().any(|table| has(&table.to_ascii_uppercase()));
            let several = || pieces.iter().any(|piece| piece.token == sqlparser::tokenizer::Token::Comma);
            mysql(word(0), word(1), &has, &rows_stay, &several)
        }
        Dialect::Sqlite => match word(0) {
            "VACUUM" | "PRAGMA" | "REINDEX" | "ANALYZE" => CommitMode::Autocommit(Probe::Repeat),
            _ => CommitMode::Transactional,
        },
    }
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
    first: &str,
    second: &str,
    has: &dyn Fn(&str) -> bool,
    rows_stay: &dyn Fn() -> bool,
    several: &dyn Fn() -> bool,
) -> CommitMode {
    match first {
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
        "TRUNCATE" | "ANALYZE" | "OPTIMIZE" | "CHECK" | "REPAIR" | "SET" | "GRANT" => {
            CommitMode::Autocommit(Probe::Repeat)
        }
        _ => CommitMode::Autocommit(Probe::Nothing),
    }
}

/// Whether `sql` only changes the session, so that it is run again whenever a migration is gone on with.
pub(super) fn is_setting(dialect: Dialect, sql: &str) -> bool {
    let (pieces, _) = pieces(sql, dialect);
    pieces.iter().find(|piece| !piece.is_blank()).is_some_and(|piece| piece.is("SET"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_runs_with_its_record_unless_it_commits_by_itself() {
        let postgres = |sql| commit_mode(Dialect::Postgres, sql, &[]);
        assert_eq!(postgres("ALTER TABLE t ADD c int"), CommitMode::Transactional);
        assert_eq!(postgres("CREATE INDEX CONCURRENTLY i ON t (c)"), CommitMode::Autocommit(Probe::Catalog));
        assert_eq!(
            postgres("CREATE UNIQUE INDEX CONCURRENTLY i ON t (c)"),
            CommitMode::Autocommit(Probe::Catalog)
        );
        assert_eq!(postgres("/* x */ VACUUM t"), CommitMode::Autocommit(Probe::Repeat));
        assert_eq!(postgres("CALL p()"), CommitMode::Autocommit(Probe::Nothing));
        let mysql = |sql| commit_mode(Dialect::MySql, sql, &["logs".to_owned()]);
        assert_eq!(mysql("INSERT INTO t VALUES (1)"), CommitMode::Transactional);
        assert_eq!(mysql("INSERT INTO logs VALUES (1)"), CommitMode::Autocommit(Probe::Nothing));
        assert_eq!(mysql("alter table t add c int"), CommitMode::Autocommit(Probe::Catalog));
        assert_eq!(mysql("DROP TABLE a"), CommitMode::Autocommit(Probe::Catalog));
        assert_eq!(mysql("DROP TABLE a, b"), CommitMode::Autocommit(Probe::Nothing));
        assert_eq!(mysql("TRUNCATE t"), CommitMode::Autocommit(Probe::Repeat));
        assert_eq!(commit_mode(Dialect::Sqlite, "VACUUM", &[]), CommitMode::Autocommit(Probe::Repeat));
        assert!(is_setting(Dialect::MySql, "SET @a = 1"));
    }
}
