//! Files that take away what the version before needs: upgrades stop before them until someone says that it is drained.

use crate::files::load;
use crate::service_world::{Stage, to_schema, up};
use grey_core::schema::SchemaVersion;
use grey_proto::schema::{
    StartUpgradeRequest, StartUpgradesRequest, StepState, UpgradeOptions, UpgradeState,
};
use grey_schema_migrator::files::{Dialect, Scripts};
use grey_schema_migrator::lint::{Policy, Rule, Weight};
use grey_schema_migrator::plan::{Entry, Facts, History, Options, Outcome, Plan, Target, plan};

const FILES: [(&str, &str); 3] = [
    ("V1.1__make_notes.sql", "CREATE TABLE notes (id INT NOT NULL PRIMARY KEY, body VARCHAR(100));"),
    ("V1.2__add_text.sql", "ALTER TABLE notes ADD COLUMN words VARCHAR(200);"),
    ("V1.3__drop_body.sql", "ALTER TABLE notes DROP COLUMN body;"),
];
const CONTRACT: &str = "V1.3__drop_body.sql";

fn version(text: &str) -> SchemaVersion {
    SchemaVersion::new(text).unwrap()
}

fn at(scripts: &Scripts, schema: &str) -> History {
    let of = |migration: &std::sync::Arc<grey_schema_migrator::files::Migration>| Entry {
        version: migration.schema.clone(),
        checksum: Some(migration.checksum.clone()),
        undo_checksum: None,
        outcome: Outcome::Applied,
        description: migration.description.clone(),
        at_ms: 1,
    };
    let applied = scripts.migrations.iter().filter(|it| it.schema <= version(schema));
    History { entries: applied.map(of).collect(), leftovers: Vec::new() }
}

/// Destructive steps are accepted: what is left is whether the version before is drained.
fn options() -> Options {
    Options {
        accept: [Rule::Destructive, Rule::NotNullWithoutDefault, Rule::Rewrite].into(),
        ..Options::default()
    }
}

fn planned(scripts: &Scripts, history: &History, target: &Target, options: &Options) -> Plan {
    plan(scripts, history, target, options, &Facts::default())
}

fn steps(plan: &Plan) -> Vec<&str> {
    plan.steps.iter().map(|step| step.migration.file.as_str()).collect()
}

#[test]
fn a_plan_stops_before_a_contraction_unless_it_is_accepted_by_name() {
    let scripts = load(Dialect::Postgres, &FILES);
    let history = at(&scripts, "1.1");
    let stopped = planned(&scripts, &history, &Target::Newest, &options());
    assert_eq!((steps(&stopped), stopped.to.clone()), (vec!["V1.2__add_text.sql"], Some(version("1.2"))));
    assert!(stopped.verdict().is_ok());
    let why = &stopped.stopped.as_ref().unwrap().why;
    assert!(why.contains("`notes.body`") && why.contains("--contract V1.3__drop_body.sql"), "{why}");
    // Asked for by name, it is a refusal.
    let asked = planned(&scripts, &history, &Target::Version(version("1.3")), &options());
    assert_eq!(asked.verdict().unwrap_err().findings.first().unwrap().rule, "contract");
    let window = |min: &str| {
        let window = grey_core::schema::SchemaWindow { min: Some(version(min)), max: None };
        planned(&scripts, &history, &Target::Window(window), &options()).verdict().is_ok()
    };
    assert!(window("1.2") && !window("1.3"));
    for accepted in [
        Options { contract: [CONTRACT.to_owned()].into(), ..options() },
        Options { accept: Rule::ALL.into(), ..options() },
        Options { policy: Policy::default().with(Rule::Contract, Weight::Warn), ..options() },
    ] {
        let plan = planned(&scripts, &history, &Target::Newest, &accepted);
        assert_eq!((plan.steps.len(), plan.stopped), (2, None));
    }
    let other = Options { contract: ["V1.2__add_text.sql".to_owned()].into(), ..options() };
    assert_eq!(planned(&scripts, &history, &Target::Newest, &other).steps.len(), 1);
    // Where nothing is yet, nothing runs that could break.
    assert_eq!(planned(&scripts, &History::default(), &Target::Newest, &options()).steps.len(), 3);
}

#[test]
fn what_contracts_is_found_or_said() {
    let contracts = |dialect: Dialect, text: &str| {
        let table = ("V1__t.sql", "CREATE TABLE t (id int, a bigint, b varchar(20));");
        let scripts = load(dialect, &[table, ("V2__x.sql", text)]);
        planned(&scripts, &at(&scripts, "1"), &Target::Newest, &options()).stopped.is_some()
    };
    for text in [
        "DROP TABLE t;",
        "ALTER TABLE t DROP COLUMN a;",
        "ALTER TABLE t RENAME COLUMN a TO c;",
        "ALTER TABLE t RENAME TO u;",
        "ALTER TABLE t ADD COLUMN c int NOT NULL;",
        "-- grey: contract\nUPDATE t SET a = 1;",
    ] {
        for dialect in Dialect::ALL {
            assert!(contracts(dialect, text), "{dialect}: {text}");
        }
    }
    for text in ["ALTER TABLE t ALTER COLUMN a SET NOT NULL;", "ALTER TABLE t ALTER COLUMN a TYPE int;"] {
        assert!(contracts(Dialect::Postgres, text), "{text}");
    }
    assert!(contracts(Dialect::MySql, "ALTER TABLE t MODIFY a INT;"));
    for text in [
        "CREATE TABLE u (id int);",
        "ALTER TABLE t ADD COLUMN c int;",
        "ALTER TABLE t ADD COLUMN c int NOT NULL DEFAULT 1;",
        "CREATE INDEX t_a ON t (a);",
        "CREATE TABLE u (id int); DROP TABLE u;",
        "-- grey: expand\nALTER TABLE t DROP COLUMN a;",
    ] {
        for dialect in Dialect::ALL {
            assert!(!contracts(dialect, text), "{dialect}: {text}");
        }
    }
}

#[tokio::test]
async fn an_upgrade_stops_tells_so_and_goes_on_once_it_may() {
    for dialect in Dialect::ALL {
        let stage = Stage::new(&FILES).await;
        let replica = stage.replica().await;
        let name = stage.tenant(dialect, "acme").await;
        let first = StartUpgradeRequest { target: to_schema("1.1"), ..up("acme") };
        let queued = replica.try_start(first).await.unwrap();
        assert_eq!(replica.ended(&queued.id).await.state(), UpgradeState::Succeeded, "{dialect}");
        let ended = replica.ended(&replica.up("acme").await.id).await;
        assert_eq!((ended.state(), ended.schema.as_str()), (UpgradeState::Succeeded, "1.2"), "{dialect}");
        let last = ended.steps.last().unwrap();
        assert_eq!((last.schema.as_str(), last.state()), ("1.3", StepState::Waiting), "{dialect}");
        assert!(last.error.contains("--contract V1.3__drop_body.sql"), "{dialect}: {}", last.error);
        // Asked again, there is nothing to do, for the same reason.
        let many = StartUpgradesRequest {
            tenants: vec!["acme".into()],
            service: "shop".into(),
            ..StartUpgradesRequest::default()
        };
        let again =
            replica.grpc().start_upgrades(many.clone()).await.unwrap().into_inner().upgrades.remove(0);
        let again = again.upgrade.unwrap();
        assert_eq!((again.state(), again.steps.len()), (UpgradeState::Succeeded, 1), "{dialect}");
        assert!(again.steps.iter().any(|step| step.error.contains("contracts")), "{dialect}");
        let options = UpgradeOptions {
            contract: vec![CONTRACT.into()],
            accept: vec!["destructive".into(), "rewrite".into()],
            ..UpgradeOptions::default()
        };
        let many = StartUpgradesRequest { options: Some(options), ..many };
        let done = replica.grpc().start_upgrades(many).await.unwrap().into_inner().upgrades.remove(0);
        let done = done.upgrade.unwrap_or_else(|| panic!("{dialect}: {}", done.error));
        let ended = replica.ended(&done.id).await;
        assert_eq!((ended.state(), ended.schema.as_str()), (UpgradeState::Succeeded, "1.3"), "{dialect}");
        assert_eq!(stage.ask(dialect, &name, "SELECT count(words) FROM notes").await, "0", "{dialect}");
        replica.stop().await;
    }
}
