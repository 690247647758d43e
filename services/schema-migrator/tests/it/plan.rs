//! Plans: what would run, and what speaks against it.

use crate::files::load;
use grey_core::error::Reason;
use grey_core::ids::TenantId;
use grey_core::schema::{SchemaVersion, SchemaWindow};
use grey_schema_migrator::files::{Checksum, Dialect, FaultKind, Scripts};
use grey_schema_migrator::lint::{Finding, Level, Policy, Rule, Weight};
use grey_schema_migrator::plan::{
    Direction, Entry, Facts, History, Leftover, Options, Outcome, Plan, Target, plan, plan_undo,
};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn version(text: &str) -> SchemaVersion {
    SchemaVersion::new(text).unwrap()
}

/// Five migrations, 1 to 5, each with an undo file.
fn five() -> Scripts {
    let names: Vec<_> = (1..=5)
        .flat_map(|n| {
            let up = (format!("V{n}__t{n}.sql"), format!("CREATE TABLE t{n} (id int);"));
            let down = (format!("U{n}__t{n}.sql"), format!("DROP TABLE t{n};"));
            [up, down]
        })
        .collect();
    let files: Vec<_> = names.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    load(Dialect::Postgres, &files)
}

fn entry(scripts: &Scripts, text: &str, outcome: Outcome) -> Entry {
    let migration = scripts.get(&version(text));
    Entry {
        version: version(text),
        checksum: migration.filter(|_| outcome != Outcome::Baseline).map(|it| it.checksum.clone()),
        undo_checksum: migration.and_then(|it| it.undo.as_ref()).map(|undo| undo.checksum.clone()),
        outcome,
        description: String::new(),
        at_ms: 1,
    }
}

fn applied(scripts: &Scripts, versions: &[&str]) -> History {
    let entries = versions.iter().map(|text| entry(scripts, text, Outcome::Applied)).collect();
    History { entries, leftovers: Vec::new() }
}

fn up(scripts: &Scripts, history: &History, target: &Target) -> Plan {
    plan(scripts, history, target, &Options::default(), &Facts::default())
}

fn down(scripts: &Scripts, history: &History, to: Option<&str>) -> Plan {
    plan_undo(scripts, history, to.map(version).as_ref(), &Options::default(), &Facts::default())
}

fn versions(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(|step| step.migration.schema.to_string()).collect()
}

fn told(plan: &Plan) -> String {
    plan.findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_delta_is_what_is_not_applied() {
    let scripts = five();
    let plan = up(&scripts, &History::default(), &Target::Newest);
    assert_eq!(versions(&plan), ["1", "2", "3", "4", "5"]);
    assert_eq!((plan.from.clone(), plan.to.clone()), (None, Some(version("5"))));
    assert_eq!(plan.verdict(), Ok(()));

    let history = applied(&scripts, &["1", "2"]);
    let plan = up(&scripts, &history, &Target::Version(version("4.0")));
    assert_eq!(versions(&plan), ["3", "4"]);
    assert_eq!((plan.from.clone(), plan.to.clone()), (Some(version("2")), Some(version("4"))));

    let nothing = up(&scripts, &applied(&scripts, &["1", "2", "3", "4", "5"]), &Target::Newest);
    assert!(nothing.is_empty() && nothing.verdict().is_ok());
    assert_eq!(nothing.fingerprint, plan.fingerprint);
}

#[test]
fn a_window_leads_to_the_newest_version_within_it() {
    let scripts = five();
    let window = |min: Option<&str>, max: Option<&str>| {
        Target::Window(SchemaWindow { min: min.map(version), max: max.map(version) })
    };
    let history = applied(&scripts, &["1", "2"]);
    assert_eq!(versions(&up(&scripts, &history, &window(Some("1"), Some("3.9")))), ["3"]);
    assert_eq!(versions(&up(&scripts, &history, &window(Some("3"), None))), ["3", "4", "5"]);
    assert_eq!(versions(&up(&scripts, &history, &window(None, None))), ["3", "4", "5"]);
    assert!(up(&scripts, &history, &window(None, Some("2"))).is_empty());
    insta::assert_snapshot!(told(&up(&scripts, &history, &window(None, Some("1")))), @"error below-present: the schema is 2, which is newer than 1: undo leads back");
    insta::assert_snapshot!(told(&up(&scripts, &history, &window(Some("6"), Some("7")))), @"error unknown-version: no version of service `shop` is within 6..7");
}

#[test]
fn a_target_that_is_not_there_is_refused_by_its_own_reason() {
    let scripts = five();
    let plan = up(&scripts, &History::default(), &Target::Version(version("9")));
    insta::assert_snapshot!(told(&plan), @"error unknown-version: 9 is not a version of service `shop`");
    assert!(plan.is_empty());
    assert_eq!(plan.verdict().unwrap_err().reason(), Reason::UnknownVersion);

    let plan = up(&scripts, &applied(&scripts, &["1", "2", "3"]), &Target::Version(version("2")));
    insta::assert_snapshot!(told(&plan), @"error below-present: the schema is 3, which is newer than 2: undo leads back");
    assert_eq!(plan.verdict().unwrap_err().reason(), Reason::MigrationRefused);
    assert_eq!(plan.to, Some(version("3")));
}

#[test]
fn what_was_applied_must_be_what_the_files_say() {
    let scripts = five();
    let mut history = applied(&scripts, &["1", "2", "2.5"]);
    for entry in &mut history.entries {
        entry.checksum = Some(Checksum::of("something else"));
    }
    let plan = up(&scripts, &history, &Target::Newest);
    insta::assert_snapshot!(told(&plan), @r"
    error checksum: V1__t1.sql: 1 was changed after it was applied: its checksum was a1621be95040239ee14362c16e20510ddc20f527d772d823b2a1679b33f5cd74 and is e193a4d8625c84e0dd2a73d6934516528737db916fab0d92f4591704682778f4; write another migration, or accept it if the database is right (`grey migrate repair --accept-checksum V1__t1.sql`)
    error checksum: V2__t2.sql: 2 was changed after it was applied: its checksum was a1621be95040239ee14362c16e20510ddc20f527d772d823b2a1679b33f5cd74 and is c38ebfaebf8d514a90e6b52b4daba7286f28b9bfe43f5f2e13ef08318671011f; write another migration, or accept it if the database is right (`grey migrate repair --accept-checksum V2__t2.sql`)
    error missing-file: 2.5 is applied, and its file is gone: bring it back, or accept that (`grey migrate repair --accept-checksum` and the file's name)
    ");
    assert_eq!(plan.verdict().unwrap_err().findings.len(), 3);
    // A dry run shows the steps nevertheless.
    assert_eq!(versions(&plan), ["3", "4", "5"]);

    let mut history = applied(&scripts, &["1"]);
    history.entries.iter_mut().for_each(|entry| entry.undo_checksum = Some(Checksum::of("older")));
    let plan = up(&scripts, &history, &Target::Newest);
    insta::assert_snapshot!(told(&plan), @"warning undo-changed: U1__t1.sql: the undo file of 1 was changed after it was applied");
    assert_eq!(plan.verdict(), Ok(()));
}

#[test]
fn older_migrations_run_only_where_that_is_allowed() {
    let scripts = five();
    let history = applied(&scripts, &["1", "3"]);
    let refused = up(&scripts, &history, &Target::Newest);
    insta::assert_snapshot!(told(&refused), @"error out-of-order: V2__t2.sql: 2 is not applied although 3 is: allow out of order, or give it a newer version");
    assert_eq!(versions(&refused), ["4", "5"]);
    assert!(refused.verdict().is_err());

    let options = Options { out_of_order: true, ..Options::default() };
    let allowed = plan(&scripts, &history, &Target::Newest, &options, &Facts::default());
    assert_eq!(
        (versions(&allowed), allowed.verdict()),
        (vec!["2".to_owned(), "4".to_owned(), "5".to_owned()], Ok(()))
    );
}

#[test]
fn a_baseline_needs_no_older_files_and_runs_none() {
    let scripts = five();
    let mut history = applied(&scripts, &["4"]);
    history.entries.insert(0, entry(&scripts, "3.7", Outcome::Baseline));
    let plan = up(&scripts, &history, &Target::Newest);
    assert_eq!((versions(&plan), plan.verdict()), (vec!["5".to_owned()], Ok(())));
    assert_eq!(history.baseline(), Some(&version("3.7")));

    let plan = down(&scripts, &history, None);
    assert_eq!(versions(&plan), ["4"]);
    insta::assert_snapshot!(told(&plan), @"error below-baseline: 3.7 was there before the history began: nothing is known to undo it");
    assert_eq!(down(&scripts, &history, Some("3.7")).verdict(), Ok(()));
}

#[test]
fn the_last_row_of_a_version_counts() {
    let scripts = five();
    let mut history = applied(&scripts, &["1", "2"]);
    history.entries.push(entry(&scripts, "2", Outcome::Undone));
    history.entries.push(entry(&scripts, "2", Outcome::Failed));
    assert_eq!(history.present(), Some(&version("1")));
    assert_eq!(up(&scripts, &history, &Target::Newest).verdict(), Ok(()));
    history.entries.push(entry(&scripts, "2", Outcome::Applied));
    // An attempt to undo it that failed left it applied.
    history.entries.push(entry(&scripts, "2", Outcome::Failed));
    assert_eq!(history.present(), Some(&version("2")));
    history.entries.push(entry(&scripts, "2", Outcome::Applied));
    insta::assert_snapshot!(told(&up(&scripts, &history, &Target::Newest)), @"error duplicate: the history applies 2 twice");
}

#[test]
fn what_is_half_done_comes_first() {
    let scripts = five();
    let mut history = applied(&scripts, &["1", "2"]);
    history.leftovers.push(Leftover { version: version("3"), direction: Direction::Up, steps_done: 1 });
    insta::assert_snapshot!(told(&up(&scripts, &history, &Target::Newest)), @"error leftover: 3 is half done (up, 1 steps done): resume or undo it first");
    assert!(down(&scripts, &history, None).verdict().is_err());
}

#[test]
fn undoing_goes_newest_first_and_warns_only_of_loss() {
    let scripts = five();
    let history = applied(&scripts, &["1", "2", "3", "4"]);
    let plan = down(&scripts, &history, Some("2"));
    assert_eq!(versions(&plan), ["4", "3"]);
    assert_eq!((plan.from.clone(), plan.to.clone()), (Some(version("4")), Some(version("2"))));
    assert_eq!(plan.verdict(), Ok(()));
    let rules: BTreeSet<_> = plan.all_findings().map(|it| (it.level, it.rule)).collect();
    assert_eq!(rules, BTreeSet::from([(Level::Warning, "destructive")]));
    let statements: Vec<_> =
        plan.steps.iter().flat_map(|it| it.steps(Direction::Down)).map(ToString::to_string).collect();
    assert_eq!(statements, ["DROP TABLE t4", "DROP TABLE t3"]);
    assert_eq!(versions(&down(&scripts, &history, None)), ["4", "3", "2", "1"]);
    assert!(down(&scripts, &history, Some("4")).is_empty());
}

#[test]
fn undoing_needs_an_undo_file_and_a_way_back() {
    let mut scripts = five();
    let migration = std::sync::Arc::make_mut(scripts.migrations.get_mut(2).unwrap());
    migration.undo = None;
    let history = applied(&scripts, &["1", "2", "3", "4", "6"]);
    insta::assert_snapshot!(told(&down(&scripts, &history, Some("1"))), @r"
    error missing-file: 6 is applied, and its file is gone: bring it back, or accept that (`grey migrate repair --accept-checksum` and the file's name)
    error no-undo: V3__t3.sql: 3 has no undo file
    ");
    insta::assert_snapshot!(told(&down(&scripts, &history, Some("2.5"))), @"error unknown-version: 2.5 is not applied, so nothing leads back to it");
    insta::assert_snapshot!(told(&down(&scripts, &history, Some("7"))), @"error above-present: the schema is 6, which is older than 7: an upgrade leads there");
}

#[test]
fn a_rule_that_is_accepted_by_name_is_told_and_no_more() {
    let scripts = load(Dialect::Postgres, &[("V1__x.sql", "DROP TABLE a;"), ("U1__x.sql", "SELECT 1;")]);
    let with =
        |options: Options| plan(&scripts, &History::default(), &Target::Newest, &options, &Facts::default());
    let level = |plan: &Plan| plan.all_findings().map(|it| it.level).next();
    assert_eq!(level(&with(Options::default())), Some(Level::Refusal));
    let accept = BTreeSet::from(["destructive".parse::<Rule>().unwrap()]);
    let accepted = with(Options { accept, ..Options::default() });
    assert_eq!((level(&accepted), accepted.verdict()), (Some(Level::Warning), Ok(())));
    let policy =
        |weight| Options { policy: Policy::default().with(Rule::Destructive, weight), ..Options::default() };
    assert_eq!(level(&with(policy(Weight::Warn))), Some(Level::Warning));
    assert_eq!(level(&with(policy(Weight::Allow))), None);
    assert!("destructiv".parse::<Rule>().is_err());
}

#[test]
fn policies_are_read_by_rule_name() {
    let policy: Policy =
        serde_json::from_str(r#"{"destructive": "warn", "big-table-lock": "allow"}"#).unwrap();
    assert_eq!(policy.weight(Rule::Destructive), Weight::Warn);
    assert_eq!(policy.weight(Rule::BigTableLock), Weight::Allow);
    assert_eq!(policy.weight(Rule::Rewrite), Weight::Refuse);
    assert!(serde_json::from_str::<Policy>(r#"{"destuctive": "warn"}"#).is_err());
    for rule in Rule::ALL {
        assert_eq!(serde_json::to_value(rule).unwrap(), rule.as_str());
    }
}

#[test]
fn messages_show_the_exact_statements() {
    let scripts = load(
        Dialect::Postgres,
        &[
            (
                "V1__a_b.sql",
                "-- grey: no-transaction\nCREATE TABLE a (id int);\n\
              -- grey: backfill table=a key=id batch=10\nUPDATE a SET id = 1 WHERE id BETWEEN :low AND :high;",
            ),
            ("C1__a_b.sql", "SELECT 1 WHERE false;"),
        ],
    );
    let plan = up(&scripts, &History::default(), &Target::Newest);
    let message = plan.to_message(&TenantId::new("acme").unwrap());
    insta::assert_snapshot!(serde_json::to_string_pretty(&message).unwrap(), @r#"
    {
      "tenant": "acme",
      "service": "shop",
      "dialect": "postgres",
      "toSchema": "1",
      "steps": [
        {
          "schema": "1",
          "description": "a b",
          "file": "V1__a_b.sql",
          "checksum": "e7e1bc7b652041f391b1b4e3f5676a6f0a4f234472b26440b26f5c73ce54075d",
          "statements": [
            "CREATE TABLE a (id int)",
            "-- grey: backfill table=a key=id batch=10 pause=0ms\nUPDATE a SET id = 1 WHERE id BETWEEN :low AND :high"
          ],
          "checks": [
            "SELECT 1 WHERE false"
          ],
          "findings": [
            {
              "level": "FINDING_LEVEL_WARNING",
              "rule": "missing-undo",
              "message": "there is no undo file",
              "file": "V1__a_b.sql"
            }
          ]
        }
      ]
    }
    "#);
    let back = down(&five(), &applied(&five(), &["1"]), None).to_message(&TenantId::new("acme").unwrap());
    let step = back.steps.first().unwrap();
    assert_eq!((step.file.as_str(), step.undoable, back.to_schema.as_str()), ("U1__t1.sql", true, ""));

    let fault =
        grey_schema_migrator::files::Fault { file: "V1__x.sql".into(), line: 3, kind: FaultKind::OpenBlock };
    assert_eq!(
        Finding::from(&fault).to_string(),
        "error syntax: V1__x.sql:3: the statement's BEGIN, IF, CASE, loop or parenthesis has no end"
    );
}

proptest! {
    /// Whatever was applied and undone before: the plan is the delta, and nothing is left after it.
    #[test]
    fn a_plan_leads_where_it_says(
        before in prop::collection::vec((1..=5u8, any::<bool>()), 0..12),
        target in 1..=5u8,
        out_of_order in any::<bool>(),
    ) {
        let scripts = five();
        let mut history = History::default();
        let mut standing = BTreeSet::new();
        for (number, wanted) in before {
            let changes = if wanted { standing.insert(number) } else { standing.remove(&number) };
            if changes {
                let outcome = if wanted { Outcome::Applied } else { Outcome::Undone };
                history.entries.push(entry(&scripts, &number.to_string(), outcome));
            }
        }
        let present = standing.last().copied();
        prop_assert_eq!(history.present().map(ToString::to_string), present.map(|it| it.to_string()));

        let options = Options { out_of_order, ..Options::default() };
        let goal = Target::Version(version(&target.to_string()));
        let there = plan(&scripts, &history, &goal, &options, &Facts::default());
        let hole = (1..present.unwrap_or(1)).any(|it| !standing.contains(&it));
        let allowed = present.is_none_or(|it| it <= target) && (out_of_order || !hole);
        prop_assert_eq!(there.verdict().is_ok(), allowed);
        if allowed {
            let delta: Vec<_> = (1..=target).filter(|it| !standing.contains(it)).map(|it| it.to_string()).collect();
            prop_assert_eq!(versions(&there), delta);
            for step in &there.steps {
                history.entries.push(entry(&scripts, &step.migration.schema.to_string(), Outcome::Applied));
            }
            prop_assert!(plan(&scripts, &history, &goal, &options, &Facts::default()).is_empty());
            prop_assert_eq!(history.present(), there.to.as_ref());
        }
        let all = down(&scripts, &history, None);
        let mut newest_first: Vec<_> = history.applied().into_keys().map(ToString::to_string).collect();
        newest_first.reverse();
        prop_assert_eq!(versions(&all), newest_first);
        prop_assert_eq!(all.verdict(), Ok(()));
    }
}
