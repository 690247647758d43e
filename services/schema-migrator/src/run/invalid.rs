//! Indexes of PostgreSQL that a statement may leave behind invalid, when it fails or is killed.

use crate::files::{Dialect, Piece, pieces};
use sqlparser::tokenizer::Token;

/// PostgreSQL cuts longer names, in bytes.
const LONGEST_NAME: usize = 63;

/// Which indexes a statement may leave behind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Leaves {
    /// None.
    Nothing,
    /// Those of these names.
    Named(Vec<String>),
    /// One of this table, whose name the server chooses.
    Unnamed(String),
}

impl Leaves {
    /// Those that `sql` may leave.
    pub(super) fn of(sql: &str) -> Self {
        let (pieces, _) = pieces(sql, Dialect::Postgres);
        let mut rest = pieces.iter().filter(|piece| !piece.is_blank());
        let Some(first) = rest.next() else { return Self::Nothing };
        let mut rest = rest.skip_while(|piece| !piece.is("INDEX")).skip(1);
        if rest.next().is_none_or(|piece| !piece.is("CONCURRENTLY")) {
            return Self::Nothing;
        }
        let rest: Vec<&Piece> = rest.collect();
        if first.is("DROP") {
            return Self::Named(rest.iter().filter_map(|piece| name(piece)).collect());
        }
        if !first.is("CREATE") {
            return Self::Nothing;
        }
        let rest = match rest.as_slice() {
            [one, two, three, rest @ ..] if one.is("IF") && two.is("NOT") && three.is("EXISTS") => rest,
            rest => rest,
        };
        match rest {
            [on, rest @ ..] if on.is("ON") => {
                let of = rest.iter().take_while(|it| it.token != Token::LParen && !it.is("USING"));
                of.filter_map(|piece| name(piece)).last().map_or(Self::Nothing, Self::Unnamed)
            }
            [index, ..] => name(index).map_or(Self::Nothing, |name| Self::Named(vec![name])),
            [] => Self::Nothing,
        }
    }

    /// Whether it may have left the invalid index `name` of `table`. `before`: those that were invalid already, as [`before`]
    /// writes them; none: that is not known.
    pub(super) fn has(&self, place: &str, name: &str, table: &str, before: Option<&str>) -> bool {
        match self {
            Self::Nothing => false,
            Self::Named(names) => names.iter().any(|it| it == name),
            Self::Unnamed(of) => {
                let index = listed(place, name);
                of == table && before.is_some_and(|before| before.lines().all(|line| line != index))
            }
        }
    }
}

/// Invalid indexes, each with its schema and table, as they are kept while a statement runs.
pub(super) fn before(invalid: &[(String, String, String)]) -> String {
    let lines: Vec<String> = invalid.iter().map(|(place, name, _)| listed(place, name)).collect();
    lines.join("\n")
}

fn listed(place: &str, name: &str) -> String {
    format!("{place}.{name}")
}

/// The name that a word is, as the server reads it.
fn name(piece: &Piece) -> Option<String> {
    let Token::Word(word) = &piece.token else { return None };
    let mut name = match word.quote_style {
        Some(_) => word.value.clone(),
        None => word.value.to_lowercase(),
    };
    let mut end = name.len().min(LONGEST_NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.truncate(end);
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Leaves {
        Leaves::Named(vec![name.to_owned()])
    }

    #[test]
    fn an_index_goes_by_its_name_and_only_a_nameless_one_by_its_table() {
        assert_eq!(Leaves::of("CREATE INDEX CONCURRENTLY A_n ON a (n)"), named("a_n"));
        let sql = "create unique index concurrently /* x */ if not exists \"A\" on only s.a using gin (n)";
        assert_eq!(Leaves::of(sql), named("A"));
        let table = Leaves::Unnamed("a".to_owned());
        assert_eq!(Leaves::of("CREATE INDEX CONCURRENTLY ON ONLY s.a (n)"), table);
        assert_eq!(Leaves::of("CREATE UNIQUE INDEX CONCURRENTLY ON a USING btree (n)"), table);
        let both = Leaves::Named(vec!["s".to_owned(), "i".to_owned()]);
        assert_eq!(Leaves::of("DROP INDEX CONCURRENTLY s.i"), both);
        let (long, cut) = ("i".repeat(70), "i".repeat(63));
        assert_eq!(Leaves::of(&format!("CREATE INDEX CONCURRENTLY {long} ON a (n)")), named(&cut));
        for none in
            ["REINDEX INDEX CONCURRENTLY i", "ALTER TYPE a ADD VALUE 'b'", "CREATE INDEX i ON a (n)", ""]
        {
            assert_eq!(Leaves::of(none), Leaves::Nothing, "{none}");
        }
    }

    #[test]
    fn what_was_invalid_before_was_not_left() {
        let is = |place: &str, name: &str| (place.to_owned(), name.to_owned(), "a".to_owned());
        let before = before(&[is("s", "old"), is("s", "older")]);
        let (unnamed, before) = (Leaves::Unnamed("a".to_owned()), before.as_str());
        assert!(unnamed.has("s", "new", "a", Some(before)));
        assert!(unnamed.has("s", "new", "a", Some("")));
        assert!(!unnamed.has("s", "old", "a", Some(before)));
        assert!(!unnamed.has("s", "new", "b", Some(before)));
        assert!(!unnamed.has("s", "new", "a", None), "nothing tells");
        assert!(named("i").has("s", "i", "a", None) && !named("i").has("s", "old", "a", None));
    }
}
