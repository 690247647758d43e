//! How a statement of a migration that is not one transaction is run, so that a crash leaves no doubt about it.

use crate::files::{Dialect, pieces};

/// How a statement is run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// In one transaction with its record in the journal.
    Together,
    /// By itself: it commits, or the database does not run it in a transaction.
    Alone(Probe),
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
pub(super) fn way(dialect: Dialect, sql: &str, unsafe_tables: &[String]) -> Way {
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
            "VACUUM" | "PRAGMA" | "REINDEX" | "ANALYZE" => Way::Alone(Probe::Repeat),
            _ => Way::Together,
        },
    }
}

fn postgres(first: &str, second: &str, third: &str, sql: &str, has: &dyn Fn(&str) -> bool) -> Way {
    match first {
        "VACUUM" | "REINDEX" | "CLUSTER" | "SET" => Way::Alone(Probe::Repeat),
        "CREATE" | "DROP" if ["DATABASE", "TABLESPACE", "SUBSCRIPTION"].contains(&second) => {
            Way::Alone(Probe::Nothing)
        }
        "CREATE" | "DROP" if has("CONCURRENTLY") && (second == "INDEX" || third == "INDEX") => {
            Way::Alone(Probe::Catalog)
        }
        "ALTER" if second == "SYSTEM" => Way::Alone(Probe::Repeat),
        "ALTER" if second == "TYPE" && has("VALUE") => Way::Alone(Probe::Catalog),
        // Between its two transactions the partition is neither in nor out.
        "ALTER" if has("CONCURRENTLY") => Way::Alone(Probe::Nothing),
        "CALL" => Way::Alone(Probe::Nothing),
        "DO" if sql.to_ascii_uppercase().contains("COMMIT") => Way::Alone(Probe::Nothing),
        _ => Way::Together,
    }
}

fn mysql(
    first: &str,
    second: &str,
    has: &dyn Fn(&str) -> bool,
    rows_stay: &dyn Fn() -> bool,
    several: &dyn Fn() -> bool,
) -> Way {
    match first {
        "INSERT" | "UPDATE" | "DELETE" | "REPLACE" | "SELECT" | "WITH" if !rows_stay() => Way::Together,
        "CREATE" | "ALTER" | "DROP" if ["USER", "ROLE", "DATABASE", "SCHEMA", "SERVER"].contains(&second) => {
            Way::Alone(Probe::Nothing)
        }
        // Its effect is not in the catalog, and doing it twice undoes it.
        "ALTER" if has("EXCHANGE") => Way::Alone(Probe::Nothing),
        // Each of several objects goes by itself.
        "DROP" | "RENAME" if several() => Way::Alone(Probe::Nothing),
        "CREATE" | "ALTER" | "DROP" | "RENAME" => Way::Alone(Probe::Catalog),
        "TRUNCATE" | "ANALYZE" | "OPTIMIZE" | "CHECK" | "REPAIR" | "SET" | "GRANT" => {
            Way::Alone(Probe::Repeat)
        }
        _ => Way::Alone(Probe::Nothing),
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
        let postgres = |sql| way(Dialect::Postgres, sql, &[]);
        assert_eq!(postgres("ALTER TABLE t ADD c int"), Way::Together);
        assert_eq!(postgres("CREATE INDEX CONCURRENTLY i ON t (c)"), Way::Alone(Probe::Catalog));
        assert_eq!(postgres("CREATE UNIQUE INDEX CONCURRENTLY i ON t (c)"), Way::Alone(Probe::Catalog));
        assert_eq!(postgres("/* x */ VACUUM t"), Way::Alone(Probe::Repeat));
        assert_eq!(postgres("CALL p()"), Way::Alone(Probe::Nothing));
        let mysql = |sql| way(Dialect::MySql, sql, &["logs".to_owned()]);
        assert_eq!(mysql("INSERT INTO t VALUES (1)"), Way::Together);
        assert_eq!(mysql("INSERT INTO logs VALUES (1)"), Way::Alone(Probe::Nothing));
        assert_eq!(mysql("alter table t add c int"), Way::Alone(Probe::Catalog));
        assert_eq!(mysql("DROP TABLE a"), Way::Alone(Probe::Catalog));
        assert_eq!(mysql("DROP TABLE a, b"), Way::Alone(Probe::Nothing));
        assert_eq!(mysql("TRUNCATE t"), Way::Alone(Probe::Repeat));
        assert_eq!(way(Dialect::Sqlite, "VACUUM", &[]), Way::Alone(Probe::Repeat));
        assert!(is_setting(Dialect::MySql, "SET @a = 1"));
    }
}
