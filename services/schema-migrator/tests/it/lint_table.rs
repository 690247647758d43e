//! The table of rules in `docs/migrations.md` says what is the case.

use crate::files::folder;
use grey_core::ids::ServiceId;
use grey_schema_migrator::files::{Dialect, Folder};
use grey_schema_migrator::lint::{Policy, Rule, Weight};
use grey_schema_migrator::plan::{Entry, Facts, History, Options, Outcome, Target, plan};
use std::collections::BTreeSet;

const DOCUMENT: &str = include_str!("../../../../docs/migrations.md");
/// The table that the examples meet.
const BEFORE: &str = "CREATE TABLE t (id bigint PRIMARY KEY, a bigint, b varchar(20), c int);";

/// Rules that the example makes the linter tell, on a table with many rows.
fn told(dialect: Dialect, rule: &str, example: &str) -> BTreeSet<String> {
    let alone = example.starts_with("VACUUM") || example.contains("CONCURRENTLY");
    let head = if alone { "-- grey: no-transaction\n" } else { "" };
    let root = folder(&[("V1__t.sql", BEFORE), ("V2__x.sql", &format!("{head}{example};\n"))]);
    let loaded = Folder::new(root.path()).load(&ServiceId::new("shop").unwrap(), dialect);
    let scripts = loaded.unwrap_or_else(|error| panic!("{dialect}: {example}: {error}"));
    let first = scripts.migrations.first().unwrap();
    let entry = Entry {
        version: first.schema.clone(),
        checksum: Some(first.checksum.clone()),
        undo_checksum: None,
        outcome: Outcome::Applied,
        description: String::new(),
        at_ms: 1,
    };
    let history = History { entries: vec![entry], leftovers: Vec::new() };
    let mut policy = Policy::default().with(Rule::ColumnType, Weight::Warn);
    if rule != Rule::Contract.as_str() {
        // Otherwise what is stopped before is not looked into.
        policy = policy.with(Rule::Contract, Weight::Allow);
    }
    let options = Options { policy, ..Options::default() };
    let facts = Facts { rows: [("t".to_owned(), 5_000_000)].into(), ..Facts::default() };
    let plan = plan(&scripts, &history, &Target::Newest, &options, &facts);
    plan.all_findings().map(|finding| finding.rule.to_owned()).collect()
}

#[test]
fn every_example_of_the_table_is_judged_as_it_says() {
    let mut seen = BTreeSet::new();
    let rows = DOCUMENT.lines().skip_while(|line| !line.starts_with("| rule | example |"));
    for row in rows.skip(2).take_while(|line| line.starts_with('|')) {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [rule, example, postgres, mysql, sqlite, ..] = cells.as_slice() else { panic!("{row}") };
        let rule = rule.trim_matches('`');
        assert!(rule.parse::<Rule>().is_ok(), "{row}");
        seen.insert(rule.to_owned());
        if *example == "–" {
            continue;
        }
        let example = example.trim_matches('`');
        for (dialect, cell) in
            [(Dialect::Postgres, postgres), (Dialect::MySql, mysql), (Dialect::Sqlite, sqlite)]
        {
            match *cell {
                "·" => {}
                "✓" | "–" => {
                    let told = told(dialect, rule, example);
                    assert_eq!(told.contains(rule), *cell == "✓", "{dialect}: {example}: {told:?}");
                }
                other => panic!("`{other}` in {row}"),
            }
        }
    }
    let all: BTreeSet<_> = Rule::ALL.iter().map(|rule| rule.as_str().to_owned()).collect();
    assert_eq!(seen, all, "every rule is in the table");
}

#[test]
fn the_default_weights_are_those_of_the_configuration() {
    let defaults = grey_schema_migrator::DEFAULTS;
    let section = defaults.split("[migrations.policy]").nth(1).unwrap();
    for rule in Rule::ALL {
        let weight = match Policy::default().weight(rule) {
            Weight::Allow => "allow",
            Weight::Warn => "warn",
            Weight::Refuse => "refuse",
        };
        assert!(section.contains(&format!("\n{rule} = \"{weight}\"\n")), "{rule} is {weight} by default");
    }
}
