//! Effects of a statement by the look of its words, where no grammar understands it.

use super::effect::{Added, Alters, Effect, Preset};
use super::parse::preset;
use crate::files::{Dialect, pieces};
use sqlparser::tokenizer::Token;

/// One significant token: an unquoted word in upper case, or the text of anything else.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Item {
    text: String,
    /// What it is called if it is a name, in lower case.
    name: Option<String>,
    /// The name as it is written, without quotes.
    written: String,
}

/// The significant tokens of a statement.
pub(super) struct Words(Vec<Item>);

impl Words {
    pub(super) fn read(sql: &str, dialect: Dialect) -> Self {
        let (pieces, _) = pieces(sql, dialect);
        let item = |piece: &crate::files::Piece| {
            let text = sql.get(piece.range.clone()).unwrap_or_default();
            let (name, written) = match &piece.token {
                Token::Word(word) => (Some(word.value.to_lowercase()), word.value.clone()),
                _ => (None, String::new()),
            };
            let text = if piece.word().is_some() { text.to_ascii_uppercase() } else { text.to_owned() };
            Item { text, name, written }
        };
        Self(pieces.iter().filter(|piece| !piece.is_blank()).map(item).collect())
    }

    /// Every name in it, as written and in lower case.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        let written = |item: &Item| item.name.is_some().then(|| item.written.clone());
        let lower = |item: &Item| item.name.clone();
        self.0.iter().flat_map(move |item| written(item).into_iter().chain(lower(item)))
    }

    fn at(&self, index: usize) -> &str {
        self.0.get(index).map_or("", |item| item.text.as_str())
    }

    fn has(&self, word: &str) -> bool {
        self.0.iter().any(|item| item.text == word)
    }

    /// Skips words that may stand before a name, from `index` on.
    fn skip(&self, mut index: usize, words: &[&str]) -> usize {
        while words.contains(&self.at(index)) {
            index += 1;
        }
        index
    }

    /// The last part of the name at `index`, and where it ends.
    fn name(&self, mut index: usize) -> Option<(String, usize)> {
        let mut name = self.0.get(index)?.name.clone()?;
        while self.at(index + 1) == "." {
            name = self.0.get(index + 2)?.name.clone()?;
            index += 2;
        }
        Some((name, index + 1))
    }

    /// Whether it defines a routine, whose body does nothing by being defined.
    pub(super) fn defines_routine(&self) -> bool {
        let kind = |item: &Item| ["TRIGGER", "PROCEDURE", "FUNCTION", "EVENT"].contains(&item.text.as_str());
        let other = |item: &Item| ["TABLE", "VIEW", "INDEX"].contains(&item.text.as_str());
        self.at(0) == "CREATE" && self.0.iter().find(|item| kind(item) || other(item)).is_some_and(kind)
    }

    /// Whether it drops an index under a lock that everyone waits for.
    pub(super) fn drops_index(&self) -> bool {
        self.at(0) == "DROP" && self.at(1) == "INDEX" && self.at(2) != "CONCURRENTLY"
    }

    /// Whether two words stand side by side in an ALTER TABLE.
    pub(super) fn alters_with(&self, first: &str, second: &str) -> bool {
        let beside = |pair: &[Item]| matches!(pair, [a, b] if a.text == first && b.text == second);
        self.at(0) == "ALTER" && self.at(1) == "TABLE" && self.0.windows(2).any(beside)
    }

    /// Whether it is PostgreSQL's `ALTER TYPE … ADD VALUE`.
    pub(super) fn adds_enum_value(&self) -> bool {
        let added =
            self.0.windows(2).any(|pair| matches!(pair, [a, b] if a.text == "ADD" && b.text == "VALUE"));
        self.at(0) == "ALTER" && self.at(1) == "TYPE" && added
    }

    /// The table that an ALTER TABLE changes, and whether it says how.
    pub(super) fn alters(&self) -> Option<Alters> {
        let (table, _) = self.altered()?;
        let place = self.0.iter().rposition(|item| item.text == "ALGORITHM");
        let chosen = place.map(|at| self.at(self.skip(at + 1, &["="])));
        let asserted = chosen.is_some_and(|it| ["INPLACE", "INSTANT", "NOCOPY"].contains(&it));
        Some(Alters { table, asserted })
    }

    fn altered(&self) -> Option<(String, usize)> {
        let start = self.skip(1, &["ONLINE", "OFFLINE", "IGNORE"]);
        if self.at(0) != "ALTER" || self.at(start) != "TABLE" {
            return None;
        }
        self.name(self.skip(start + 1, &["IF", "EXISTS", "ONLY"]))
    }

    /// Statements of PostgreSQL that write a whole table anew; no grammar knows all their forms.
    pub(super) fn rewrites(&self) -> Option<Effect> {
        match self.at(0) {
            "VACUUM" if self.has("FULL") => {
                let table = self.0.iter().rev().find_map(|item| item.name.clone()).unwrap_or_default();
                Some(Effect::Rewrites { table, by: "VACUUM FULL" })
            }
            "CLUSTER" => {
                let (table, _) = self.name(self.skip(1, &["VERBOSE"])).unwrap_or_default();
                Some(Effect::Rewrites { table, by: "CLUSTER" })
            }
            _ => None,
        }
    }

    /// The effects, by pattern.
    pub(super) fn effects(&self) -> Vec<Effect> {
        let table_at = |index| self.name(index).map(|(table, _)| table);
        let drops = ["IF", "EXISTS"];
        let one = match (self.at(0), self.at(1)) {
            ("CREATE", _) => self.created(),
            ("DROP", "TABLE") => table_at(self.skip(2, &drops)).map(|table| Effect::DropsTable { table }),
            ("DROP", "SCHEMA" | "DATABASE") => {
                table_at(self.skip(2, &drops)).map(|name| Effect::DropsSchema { name })
            }
            ("TRUNCATE", _) => {
                table_at(self.skip(1, &["TABLE", "ONLY"])).map(|table| Effect::Empties { table })
            }
            ("DELETE", _) if !self.has("WHERE") => {
                table_at(self.skip(1, &["FROM", "ONLY"])).map(|table| Effect::Empties { table })
            }
            ("UPDATE", _) => {
                let table = table_at(self.skip(1, &["ONLY", "LOW_PRIORITY", "IGNORE"]));
                table.map(|table| Effect::Updates { table, nulls: Vec::new() })
            }
            ("ALTER", _) => return self.alterations(),
            _ => None,
        };
        one.into_iter().collect()
    }

    fn created(&self) -> Option<Effect> {
        let on = || {
            let on = self.0.iter().position(|item| item.text == "ON")?;
            self.name(self.skip(on + 1, &["ONLY"])).map(|(table, _)| table)
        };
        let at = self
            .skip(1, &["UNIQUE", "FULLTEXT", "SPATIAL", "TEMP", "TEMPORARY", "UNLOGGED", "OR", "REPLACE"]);
        match self.at(at) {
            "INDEX" => Some(Effect::CreatesIndex { table: on()?, concurrently: self.has("CONCURRENTLY") }),
            "TABLE" => {
                let (table, _) = self.name(self.skip(at + 1, &["IF", "NOT", "EXISTS"]))?;
                Some(Effect::CreatesTable { table, columns: Vec::new() })
            }
            _ => None,
        }
    }

    fn alterations(&self) -> Vec<Effect> {
        let Some((table, start)) = self.altered() else { return Vec::new() };
        let mut depth = 0_u32;
        let mut parts = vec![Vec::new()];
        for item in self.0.iter().skip(start) {
            match item.text.as_str() {
                "(" => depth += 1,
                ")" => depth = depth.saturating_sub(1),
                "," if depth == 0 => {
                    parts.push(Vec::new());
                    continue;
                }
                _ => {}
            }
            if let Some(part) = parts.last_mut() {
                part.push(item.clone());
            }
        }
        parts.into_iter().filter_map(|part| Self(part).alteration(&table)).collect()
    }

    fn alteration(&self, table: &str) -> Option<Effect> {
        let table = table.to_owned();
        let name = |index| self.name(index).map(|(name, _)| name);
        let rest = |index: usize| {
            let items = self.0.iter().skip(index).map(|item| item.text.as_str());
            items.collect::<Vec<_>>().join(" ").to_lowercase()
        };
        let unlike_column =
            ["CONSTRAINT", "INDEX", "KEY", "PRIMARY", "FOREIGN", "PARTITION", "CHECK", "UNIQUE"];
        match self.at(0) {
            "DROP" if !unlike_column.contains(&self.at(1)) => {
                let column = name(self.skip(1, &["COLUMN", "IF", "EXISTS"]))?;
                Some(Effect::DropsColumn { table, column })
            }
            "ALTER" => {
                let (column, at) = self.name(self.skip(1, &["COLUMN"]))?;
                let kind = self.skip(at, &["SET", "DATA"]);
                match (self.at(kind), self.at(kind + 1)) {
                    ("TYPE", _) => Some(Effect::ChangesType { table, column, to: rest(kind + 1) }),
                    ("NOT", "NULL") => Some(Effect::SetsNotNull { table, column }),
                    _ => None,
                }
            }
            "MODIFY" | "CHANGE" => {
                let (column, mut at) = self.name(self.skip(1, &["COLUMN", "IF", "EXISTS"]))?;
                if self.at(0) == "CHANGE" {
                    (_, at) = self.name(at)?;
                }
                Some(Effect::ChangesType { table, column, to: rest(at) })
            }
            "RENAME" => Some(Effect::Renames { table }),
            "ADD" if unlike_column.contains(&self.at(1)) => self.constraint(table),
            "ADD" => {
                let (column, at) = self.name(self.skip(1, &["COLUMN", "IF", "NOT", "EXISTS"]))?;
                let not_null =
                    self.0.windows(2).any(|it| matches!(it, [a, b] if a.text == "NOT" && b.text == "NULL"));
                let default = match self.0.iter().position(|item| item.text == "DEFAULT") {
                    Some(place) => preset(&rest(place + 1)),
                    None if self.has("GENERATED") || self.has("AUTO_INCREMENT") => Preset::Volatile,
                    None => Preset::Nothing,
                };
                Some(Effect::AddsColumn(Added { table, column, to: rest(at), not_null, default }))
            }
            _ => None,
        }
    }

    fn constraint(&self, table: String) -> Option<Effect> {
        let unchecked = self.has("VALID") || (self.has("USING") && self.has("INDEX"));
        let kinds = [
            ("FOREIGN", "foreign key"),
            ("CHECK", "check"),
            ("UNIQUE", "unique"),
            ("PRIMARY", "primary key"),
        ];
        let kind = kinds.into_iter().find(|(word, _)| self.has(word)).map(|(_, kind)| kind);
        match kind {
            Some(kind) if !unchecked => Some(Effect::AddsConstraint { table, kind }),
            None if self.has("INDEX") || self.has("KEY") => {
                Some(Effect::CreatesIndex { table, concurrently: false })
            }
            _ => None,
        }
    }
}
