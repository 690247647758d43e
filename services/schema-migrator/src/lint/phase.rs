//! What of a change the version before can live with, and other rules that look at what a file does as a whole.

use super::effect::{Added, Effect, Effects, Known, Preset};
use super::judge::Linter;
use super::kinds::may_narrow;
use super::{Finding, Rule};
use crate::files::Dialect;
use std::collections::BTreeSet;

impl Linter<'_> {
    /// What a file takes away that the version before needs. Tables that it makes itself do not count, nor those that the plan
    /// has made before it.
    pub(super) fn takes_away(&self, known: &Known) -> Option<String> {
        let mut made = BTreeSet::new();
        known.steps.iter().flat_map(|it| &it.effects).find_map(|effect| {
            if let Effect::CreatesTable { table, .. } = effect {
                made.insert(table.as_str());
            }
            self.contraction(effect, &made)
        })
    }

    fn contraction(&self, effect: &Effect, made: &BTreeSet<&str>) -> Option<String> {
        let there = |table: &String| !self.created.contains(table) && !made.contains(table.as_str());
        match effect {
            Effect::DropsTable { table } if there(table) => Some(format!("it drops the table `{table}`")),
            Effect::DropsColumn { table, column } if there(table) => {
                Some(format!("it drops the column `{table}.{column}`"))
            }
            Effect::DropsSchema { name } => Some(format!("it drops the schema or database `{name}`")),
            Effect::Renames { table } if there(table) => {
                Some(format!("it renames `{table}` or a column of it"))
            }
            Effect::SetsNotNull { table, column } if there(table) => {
                Some(format!("`{table}.{column}` takes no NULL any more"))
            }
            Effect::AddsColumn(Added { table, column, not_null: true, default: Preset::Nothing, .. })
                if there(table) =>
            {
                Some(format!("`{table}.{column}` has to be written from now on"))
            }
            Effect::ChangesType { table, column, to } if there(table) => {
                let narrows = may_narrow(self.type_of(table, column), to);
                narrows.then(|| format!("`{table}.{column}` becomes `{to}`"))
            }
            _ => None,
        }
    }

    /// Tells a file that both adds and takes away: neither half can wait for the other.
    pub(super) fn mixed(&self, findings: &mut Vec<Finding>, known: &Known, file: &str) {
        let adds = |effect: &Effect| match effect {
            Effect::CreatesTable { .. } => true,
            Effect::AddsColumn(added) => !added.not_null || added.default != Preset::Nothing,
            _ => false,
        };
        let expands = known.steps.iter().flat_map(|it| &it.effects).any(adds);
        if let Some(what) = self.takes_away(known).filter(|_| expands) {
            let text =
                format!("it adds and takes away ({what}): write two files, so that the second can wait");
            self.find(findings, Rule::MixedPhases, file, 0, text);
        }
    }

    /// Columns of types that are regretted later, and why.
    pub(super) fn regretted(&self, known: &Effects) -> Vec<(String, &'static str)> {
        let mut found = Vec::new();
        for effect in &known.effects {
            match effect {
                Effect::CreatesTable { table, columns } => {
                    let told = |(column, to): &(String, String)| {
                        regret(self.dialect, to).map(|what| (format!("{table}.{column}"), what))
                    };
                    found.extend(columns.iter().filter_map(told));
                }
                Effect::AddsColumn(Added { table, column, to, .. })
                | Effect::ChangesType { table, column, to } => {
                    found.extend(regret(self.dialect, to).map(|what| (format!("{table}.{column}"), what)));
                }
                _ => {}
            }
        }
        found
    }
}

fn regret(dialect: Dialect, to: &str) -> Option<&'static str> {
    let to = to.to_ascii_lowercase();
    let base = to.split(['(', ' ']).next().unwrap_or_default();
    match (dialect, base) {
        (Dialect::Postgres, "json") => {
            Some("`json`, which cannot be compared: DISTINCT and GROUP BY fail; use `jsonb`")
        }
        (Dialect::Postgres, "serial" | "serial4" | "smallserial") => {
            Some("of a sequence that runs out: use `bigint GENERATED ALWAYS AS IDENTITY`")
        }
        (Dialect::Postgres, "timestamp") if !to.contains("with time zone") => {
            Some("a time without a zone, which means another moment in another session: use `timestamptz`")
        }
        (Dialect::Postgres, "char" | "character") if !to.contains("varying") => {
            Some("padded with blanks that count in some comparisons: use `text`")
        }
        (Dialect::Postgres, "money") => Some("`money`, whose currency is a setting: use `numeric`"),
        (Dialect::MySql, "float" | "double" | "real") => Some(
            "a binary fraction, in which sums of money go wrong: use `decimal`, or accept it for measurements",
        ),
        _ => None,
    }
}
