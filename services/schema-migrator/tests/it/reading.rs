//! What files may hold, on the servers that they are written for.

use crate::files::{faults_of, folder, load};
use crate::run_world::{LONG, World, is_on_mysql, lenient, timeouts};
use grey_core::ids::{ServiceId, TenantId};
use grey_schema_migrator::files::{Dialect, Folder, Placeholders, Scripts, Step};
use grey_schema_migrator::plan::{Facts, History, Target, plan};
use grey_schema_migrator::run::{Ended, Goal, MigrateError, Outcome};
use grey_schema_migrator::tenant::{Connection, Error, Timeouts};
use sea_orm::ConnectionTrait as _;
use std::sync::Arc;
use std::time::Duration;

fn statements(dialect: Dialect, text: &str) -> Vec<String> {
    let scripts = load(dialect, &[("V1__x.sql", text)]);
    scripts.migrations.first().unwrap().steps.iter().map(ToString::to_string).collect()
}

fn succeeded(ended: Result<Ended, MigrateError>) {
    assert_eq!(ended.unwrap().outcome, Outcome::Succeeded);
}

#[tokio::test]
async fn a_rule_is_one_statement_and_bytes_in_strings_are_read() {
    let rule = "CREATE RULE r AS ON DELETE TO a DO ALSO (DELETE FROM b; DELETE FROM c;)";
    let text = format!(
        "CREATE TABLE a (t text); CREATE TABLE b (t text); CREATE TABLE c (t text);\n{rule};\n\
         INSERT INTO a VALUES (E'\\303\\251;'), (E'\\xc3\\xa9'), (E'it\\'s '';'), (e'\\\\');\n\
         INSERT INTO b VALUES ('b');\nDELETE FROM a WHERE t = 'é';"
    );
    let found = statements(Dialect::Postgres, &text);
    assert_eq!(found.get(3).map(String::as_str), Some(rule));
    assert_eq!(found.len(), 7);
    let world = World::new(Dialect::Postgres).await;
    succeeded(world.up(&load(Dialect::Postgres, &[("V1__x.sql", &text)])).await);
    assert_eq!(world.sql("SELECT string_agg(t, '|' ORDER BY t COLLATE \"C\") FROM a").await, "\\|it's ';|é;");
    // The rule's second statement ran as well: it is part of the rule.
    assert_eq!(world.sql("SELECT count(*) FROM b").await, "0");
    assert!(faults_of(Dialect::Postgres, "SELECT E'\\303").contains("has no end"));
    assert!(
        faults_of(Dialect::Postgres, "CREATE RULE r AS ON DELETE TO a DO ALSO (DELETE FROM b;")
            .contains("no end")
    );
}

const BODIES: &str = "CREATE TABLE a (id INT, n INT);
CREATE TABLE log (n INT);
CREATE TRIGGER t1 BEFORE INSERT ON a FOR EACH ROW IF NEW.n IS NULL THEN SET NEW.n = IF(NEW.id > 1, 7, 8); END IF;
CREATE TRIGGER t2 AFTER UPDATE ON a FOR EACH ROW FOLLOWS_NOTHING: BEGIN INSERT INTO log VALUES (NEW.n); END;
CREATE PROCEDURE w(IN top INT) DETERMINISTIC COMMENT 'x' WHILE top > 0 DO INSERT INTO log VALUES (top); SET top = top - 1; END WHILE;
CREATE PROCEDURE r(IN top INT) REPEAT INSERT INTO log VALUES (top); SET top = top - 1; UNTIL top < 1 END REPEAT;
CREATE PROCEDURE k(IN x INT) CASE x WHEN 1 THEN INSERT INTO log VALUES (IF(x = 1, 5, 6)); ELSE INSERT INTO log VALUES (0); END CASE;
CREATE FUNCTION f(x INT) RETURNS INT DETERMINISTIC RETURN IF(x = 1, REPEAT('1', 2), CASE x WHEN 2 THEN 3 ELSE 4 END);
CREATE EVENT e ON SCHEDULE EVERY 1 DAY DISABLE DO DELETE FROM log;
ALTER EVENT e DO BEGIN DELETE FROM log; DELETE FROM a; END;
INSERT INTO a (id) VALUES (1), (2);
CALL w(2);";

#[tokio::test]
async fn bodies_without_begin_are_whole_on_the_mysql_family() {
    let found = statements(Dialect::MySql, BODIES);
    let expected: Vec<_> = BODIES.split(";\n").map(|it| it.trim_end_matches(';')).collect();
    assert_eq!(found, expected);
    let world = World::new(Dialect::MySql).await;
    succeeded(world.up(&load(Dialect::MySql, &[("V1__x.sql", BODIES)])).await);
    assert_eq!(world.sql("SELECT GROUP_CONCAT(n ORDER BY id) FROM a").await, "8,7");
    assert_eq!(world.sql("SELECT GROUP_CONCAT(n ORDER BY n) FROM log").await, "1,2");
    assert_eq!(world.sql("SELECT CONCAT(f(1), ' ', f(2), ' ', f(3))").await, "11 3 4");
}

#[tokio::test]
async fn a_block_without_a_name_runs_and_ends_no_transaction() {
    let block = "BEGIN NOT ATOMIC\n  IF 1 = 1 THEN CREATE TABLE a (id INT); END IF;\n  INSERT INTO a VALUES (1);\nEND";
    assert_eq!(statements(Dialect::MySql, &format!("{block};\nSELECT 1;")), [block, "SELECT 1"]);
    let ends = faults_of(Dialect::MySql, "BEGIN NOT ATOMIC COMMIT; END;");
    assert!(ends.contains("transactions and locks are the migrator's"), "{ends}");
    assert!(faults_of(Dialect::MySql, "BEGIN; SELECT 1;").contains("transactions and locks"));
    if is_on_mysql() {
        return;
    }
    let world = World::new(Dialect::MySql).await;
    succeeded(world.up(&load(Dialect::MySql, &[("V1__x.sql", block)])).await);
    assert_eq!(world.sql("SELECT count(*) FROM a").await, "1");
}

fn with_values(dialect: Dialect, files: &[(&str, &str)]) -> Result<Arc<Scripts>, String> {
    let values = [("role".to_owned(), "clerk".to_owned()), ("top".to_owned(), "7".to_owned())];
    let root = folder(files);
    let folder = Folder::new(root.path()).with_placeholders(Placeholders::new(values.into()));
    let loaded = folder.load(&ServiceId::new("shop").unwrap(), dialect);
    loaded.map(Arc::new).map_err(|error| error.to_string())
}

#[tokio::test]
async fn placeholders_are_replaced_and_undeclared_ones_refused() {
    let text = "-- ${anything} in a comment\nCREATE TABLE a (tenant VARCHAR(20) DEFAULT '${tenant}', top INT DEFAULT ${top});\n\
                INSERT INTO a (top) VALUES (${top}); /* ${more} */\nINSERT INTO a VALUES ('${service} ${role}', 1);";
    for dialect in Dialect::ALL {
        let world = World::new(dialect).await;
        let scripts = with_values(
            dialect,
            &[("V1__x.sql", text), ("R__r.sql", "DELETE FROM a WHERE tenant = '${tenant}x';")],
        );
        let scripts = scripts.unwrap().for_tenant(&TenantId::new("acme").unwrap());
        succeeded(world.up(&scripts).await);
        let tenants = world.sql("SELECT tenant FROM a ORDER BY top").await;
        assert_eq!(tenants, "shop clerk\nacme", "{dialect}");
        // What stands for something does not change what the file is.
        let plain = load(dialect, &[("V1__x.sql", "-- grey: no-placeholders\nSELECT '${tenant} ${other}';")]);
        let first = plain.migrations.first().unwrap();
        let Some(Step::Sql(statement)) = first.steps.first() else { panic!("{first:?}") };
        assert_eq!(statement.sql, "SELECT '${tenant} ${other}'");
    }
    let refused = with_values(
        Dialect::Postgres,
        &[("V1__x.sql", "SELECT 1;\nSELECT '${other}',\n ${role}, ${another};")],
    );
    let refused = refused.unwrap_err();
    assert!(refused.contains("V1__x.sql:2: `${other}` is not declared"), "{refused}");
    assert!(
        refused.contains("V1__x.sql:3: `${another}` is not declared") && !refused.contains("`${role}`"),
        "{refused}"
    );
    let backfill = "-- grey: no-transaction\n-- grey: backfill table=a key=id\nUPDATE a SET x = '${tenant}' WHERE id BETWEEN :low AND :high;";
    assert!(
        with_values(Dialect::Postgres, &[("V1__x.sql", backfill)])
            .unwrap_err()
            .contains("has no place above")
    );
}

#[tokio::test]
async fn a_repeatable_file_runs_after_the_versions_whenever_it_has_changed() {
    for dialect in Dialect::ALL {
        let world = World::new(dialect).await;
        let view =
            |what: &str| format!("DROP VIEW IF EXISTS v;\nCREATE VIEW v AS SELECT {what} AS x FROM a;\n");
        let table = ("V1__a.sql", "CREATE TABLE a (id INT);\nINSERT INTO a VALUES (1);");
        let (one, two) = (view("1"), view("2"));
        let first = load(dialect, &[("R__all_views.sql", &one), table]);
        succeeded(world.up(&first).await);
        assert_eq!(world.sql("SELECT x FROM v").await, "1", "{dialect}");
        assert_eq!(world.history().await, ["1 applied", "1 repeated"], "{dialect}");
        // Nothing has changed.
        succeeded(world.up(&first).await);
        assert_eq!(world.history().await.len(), 2, "{dialect}");
        let second = load(dialect, &[("R__all_views.sql", &two), table]);
        let history = world.open().await.history().await.unwrap();
        let planned = plan(&second, &history, &Target::Newest, &lenient(), &Facts::default());
        assert!(!planned.is_empty() && planned.steps.is_empty() && planned.verdict().is_ok(), "{planned:?}");
        succeeded(world.up(&second).await);
        assert_eq!(world.sql("SELECT x FROM v").await, "2", "{dialect}");
        // One that fails takes the versions of its upgrade back.
        let broken = view("1") + "INSERT INTO nowhere VALUES (1);\n";
        let undo = ("U2__b.sql", "DROP TABLE b;");
        let third = load(
            dialect,
            &[("R__all_views.sql", &broken), table, ("V2__b.sql", "CREATE TABLE b (id INT);"), undo],
        );
        let ended = world.up(&third).await.unwrap();
        let Outcome::Failed(failure) = ended.outcome else { panic!("{dialect}: {ended:?}") };
        assert_eq!(
            (failure.file.as_str(), ended.schema.map(|it| it.to_string())),
            ("R__all_views.sql", Some("1".to_owned()))
        );
        assert!(failure.to_string().contains("line 3: INSERT INTO nowhere"), "{dialect}: {failure}");
        assert_eq!(world.applied().await, ["1"], "{dialect}");
        if dialect != Dialect::MySql {
            assert_eq!(world.sql("SELECT x FROM v").await, "2", "{dialect}: a transaction leaves the view");
        }
    }
}

#[test]
fn a_repeatable_file_waits_for_the_newest_version() {
    let scripts = load(
        Dialect::Postgres,
        &[
            ("V1__a.sql", "CREATE TABLE a (id int);"),
            ("V2__b.sql", "CREATE TABLE b (id int);"),
            ("R__v.sql", "SELECT 1;"),
        ],
    );
    let to = |text: &str| Target::Version(text.parse().unwrap());
    let planned =
        |target: &Target| plan(&scripts, &History::default(), target, &lenient(), &Facts::default());
    assert!(planned(&to("1")).repeatables.is_empty());
    assert_eq!(planned(&to("2")).repeatables.len(), 1);
    let faults = |name: &str, text: &str| {
        let root = folder(&[("V1__a.sql", "SELECT 1;"), (name, text)]);
        Folder::new(root.path())
            .load(&ServiceId::new("shop").unwrap(), Dialect::Postgres)
            .unwrap_err()
            .to_string()
    };
    assert!(faults("R__v.sql", "-- grey: views of=a\n").contains("a repeatable file has statements only"));
    assert!(faults("R__v.sql", "-- grey: contract\nSELECT 1;").contains("neither `expand` nor `contract`"));
}

#[tokio::test]
async fn a_file_has_timeouts_of_its_own() {
    for dialect in [Dialect::Postgres, Dialect::MySql] {
        let sleep = if dialect == Dialect::Postgres { "SELECT pg_sleep(2)" } else { "SELECT SLEEP(2)" };
        if dialect == Dialect::MySql && is_on_mysql() {
            continue;
        }
        let world = World::new(dialect).await;
        let slow = format!("-- grey: no-transaction\n-- grey: timeout statement=60s lock=1s\n{sleep};");
        let (table, plain) =
            ("CREATE TABLE a (id INT);".to_owned(), format!("-- grey: no-transaction\n{sleep};"));
        let scripts =
            load(dialect, &[("V1__a.sql", &table), ("V2__slow.sql", &slow), ("V3__slow.sql", &plain)]);
        let short = Timeouts { statement: Duration::from_secs(1), ..timeouts() };
        let options = lenient();
        let goal = Goal::Up(Target::Newest);
        let stop =
            grey_schema_migrator::tenant::Stop::within(LONG, tokio_util::sync::CancellationToken::new());
        let job = crate::run_world::job("u1", &scripts, stop);
        let migration =
            grey_schema_migrator::run::Migration { target: &world.target, timeouts: short, goal, options };
        let ended =
            Box::pin(grey_schema_migrator::run::migrate(&migration, &job, &mut |_| {})).await.unwrap();
        // The second file may take its time, the third has to keep to what is configured.
        let (Outcome::Failed(failure) | Outcome::NeedsRepair(failure)) = ended.outcome else {
            panic!("{dialect}")
        };
        assert_eq!(failure.file, "V3__slow.sql", "{dialect}: {failure}");
        assert!(world.history().await.contains(&"2 applied".to_owned()), "{dialect}");
    }
    let faults = faults_of(Dialect::Postgres, "-- grey: timeout lock=soon\nSELECT 1;");
    assert!(faults.contains("a time from 10ms to 24h"), "{faults}");
}

#[test]
fn what_others_leave_in_the_folder_blocks_nothing() {
    let root = folder(&[
        ("V1__a.sql", "SELECT 1;"),
        ("README", "how to"),
        ("README.txt", "how to"),
        ("V1__a.sql~", "SELECT"),
        ("V2__b.sql.bak", "SELECT"),
        ("#V1__a.sql#", "SELECT"),
        (".V1__a.sql.swp", "SELECT"),
    ]);
    std::fs::create_dir(root.path().join("shop/old")).unwrap();
    std::fs::create_dir(root.path().join("shop/V9__folder.sql")).unwrap();
    let scripts = Folder::new(root.path()).load(&ServiceId::new("shop").unwrap(), Dialect::Sqlite).unwrap();
    assert_eq!(scripts.migrations.len(), 1);
    // What may be meant as a migration is told.
    assert_eq!(scripts.ignored, ["#V1__a.sql#", "V1__a.sql~", "V2__b.sql.bak"]);
    let told = grey_schema_migrator::lint::validate(&scripts, &lenient());
    assert_eq!(told.iter().filter(|it| it.rule == "ignored-file").count(), 3);
}

#[tokio::test]
async fn why_a_database_is_not_to_be_had_is_told_by_name() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for dialect in [Dialect::Postgres, Dialect::MySql] {
        let mut world = World::new(dialect).await;
        let addr = match dialect {
            Dialect::Postgres => crate::run_world::postgres().await.addr(),
            _ => crate::run_world::mariadb().await.addr(),
        };
        let url = world.target.url.expose().replace(&addr.to_string(), &nobody.to_string());
        world.target.url = grey_runtime::Secret::new(url);
        let short = Timeouts { connect: Duration::from_millis(300), ..timeouts() };
        let error = Connection::open(&world.target, &short).await.unwrap_err();
        assert!(
            error.is_unreachable() && error.to_string().contains("connection refused"),
            "{dialect}: {error}"
        );
    }
    let world = World::new(Dialect::Postgres).await;
    // Superusers have connections of their own, so the role is limited.
    world.sql(&format!("CREATE ROLE \"{0}\" LOGIN PASSWORD 'x' CONNECTION LIMIT 0", world.name)).await;
    let url = world.target.url.expose().to_owned();
    let (scheme, rest) = url.split_once("://").unwrap();
    let (_, place) = rest.split_once('@').unwrap();
    let limited = crate::run_world::target(Dialect::Postgres, format!("{scheme}://{}:x@{place}", world.name));
    let short = Timeouts { connect: Duration::from_millis(500), ..timeouts() };
    let error = Connection::open(&limited, &short).await.unwrap_err();
    assert!(error.to_string().contains("no connection left"), "{error}");
    world.sql(&format!("DROP ROLE \"{}\"", world.name)).await;
    // A file that another process holds.
    let world = World::new(Dialect::Sqlite).await;
    let holder = world.holder().await;
    holder.execute_unprepared("BEGIN EXCLUSIVE; CREATE TABLE x (a)").await.unwrap();
    let short = Timeouts { lock: Duration::from_millis(200), ..timeouts() };
    let error = Connection::open(&world.target, &short).await.unwrap_err();
    assert!(
        matches!(&error, Error::Unreachable { why, .. } if why.contains("another process holds")),
        "{error}"
    );
}
