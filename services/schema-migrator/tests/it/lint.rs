//! Rules: what is found in statements, and what is not.

use crate::examples::example;
use crate::files::load;
use grey_schema_migrator::files::Dialect;
use grey_schema_migrator::lint::{Level, validate};
use grey_schema_migrator::plan::{Facts, History, Options, Server, Target, plan};

/// Findings of statements that meet these tables, by line, without those about the missing undo file.
fn findings(dialect: Dialect, facts: &Facts, text: &str) -> String {
    let scripts = load(dialect, &[("V1__x.sql", text)]);
    let plan = plan(&scripts, &History::default(), &Target::Newest, &Options::default(), facts);
    let aside = ["missing-undo", "mixed-phases", "drop-index"];
    let told = plan.all_findings().filter(|it| !aside.contains(&it.rule));
    told.map(|it| it.to_string().replace("V1__x.sql:", "")).collect::<Vec<_>>().join("\n")
}

fn facts(rows: &[(&str, u64)]) -> Facts {
    Facts {
        rows: rows.iter().map(|(table, rows)| ((*table).to_owned(), *rows)).collect(),
        ..Facts::default()
    }
}

fn unknown(dialect: Dialect, statements: &[&str]) -> String {
    findings(dialect, &Facts::default(), &statements.join(";\n"))
}

fn big(dialect: Dialect, statements: &[&str]) -> String {
    findings(dialect, &facts(&[("orders", 5_000_000), ("small", 10)]), &statements.join(";\n"))
}

#[test]
fn loss_of_data_is_refused() {
    let found = unknown(
        Dialect::Postgres,
        &[
            "DROP TABLE IF EXISTS shop.Orders, customers",
            "ALTER TABLE orders DROP COLUMN a, DROP b",
            "DROP SCHEMA s CASCADE",
            "TRUNCATE orders, customers",
            "DELETE FROM orders",
            "DELETE FROM orders WHERE id = 1",
            "ALTER TABLE orders DROP CONSTRAINT c",
            "DROP INDEX i",
            "DROP VIEW v",
            "CREATE TABLE fresh (id int)",
            "DELETE FROM fresh",
            "DROP TABLE fresh",
        ],
    );
    insta::assert_snapshot!(found, @r"
    refusal destructive: 1: it drops the table `orders`
    refusal destructive: 1: it drops the table `customers`
    refusal destructive: 2: it drops the column `orders.a`
    refusal destructive: 2: it drops the column `orders.b`
    refusal destructive: 3: it drops the schema or database `s`
    refusal destructive: 4: it deletes every row of `orders`
    refusal destructive: 4: it deletes every row of `customers`
    refusal destructive: 5: it deletes every row of `orders`
    ");
}

#[test]
fn a_narrower_type_is_a_loss_and_a_wider_one_is_not() {
    let found = validate(
        &load(
            Dialect::Postgres,
            &[
                ("V1__a.sql", "CREATE TABLE o (a bigint, b varchar(10), c int);"),
                (
                    "V2__b.sql",
                    "ALTER TABLE o ALTER COLUMN a TYPE int;\nALTER TABLE o ALTER b SET DATA TYPE varchar(20);",
                ),
                (
                    "V3__c.sql",
                    "ALTER TABLE o ALTER COLUMN c TYPE bigint;\nALTER TABLE x ALTER COLUMN y TYPE smallint;",
                ),
            ],
        ),
        &Options::default(),
    );
    let told: Vec<_> = found.iter().filter(|it| it.rule != "missing-undo").map(ToString::to_string).collect();
    insta::assert_snapshot!(told.join("\n"), @r"
    refusal destructive: V2__b.sql:1: `o.a` becomes `INT` from `BIGINT`, which may not fit
    refusal rewrite: V2__b.sql:1: changing the type of `o.a` writes the table anew
    refusal rewrite: V3__c.sql:1: changing the type of `o.c` writes the table anew
    refusal destructive: V3__c.sql:2: `x.y` becomes `SMALLINT` from another type, which may not fit
    refusal rewrite: V3__c.sql:2: changing the type of `x.y` writes the table anew
    ");
}

#[test]
fn writing_a_table_anew_is_refused_unless_it_is_small() {
    let statements = [
        "ALTER TABLE orders ADD COLUMN a uuid DEFAULT gen_random_uuid()",
        "ALTER TABLE orders ADD COLUMN b timestamptz NOT NULL DEFAULT now()",
        "ALTER TABLE orders ADD COLUMN c int DEFAULT (1 + 2)",
        "ALTER TABLE orders ADD COLUMN d bigserial",
        "ALTER TABLE small ALTER COLUMN a TYPE text",
        "ALTER TABLE orders SET UNLOGGED",
    ];
    insta::assert_snapshot!(big(Dialect::Postgres, &statements), @r"
    refusal rewrite: 1: the default of `orders.a` may differ by row, so the table is written anew
    refusal rewrite: 4: the default of `orders.d` may differ by row, so the table is written anew
    warning rewrite: 5: changing the type of `small.a` writes the table anew
    refusal rewrite: 6: SET LOGGED or UNLOGGED writes `orders` anew
    ");
    let outside = "-- grey: no-transaction\nVACUUM FULL orders;\nVACUUM (FULL, ANALYZE) orders;\nVACUUM orders;\nCLUSTER orders USING i;";
    insta::assert_snapshot!(findings(Dialect::Postgres, &Facts::default(), outside), @r"
    refusal rewrite: 2: VACUUM FULL writes `orders` anew
    refusal rewrite: 3: VACUUM FULL writes `orders` anew
    refusal rewrite: 5: CLUSTER writes `orders` anew
    ");
}

#[test]
fn the_mysql_family_has_to_say_how_it_alters() {
    let statements = [
        "ALTER TABLE orders ADD COLUMN a INT NULL",
        "ALTER TABLE orders ADD COLUMN a INT NULL, ALGORITHM=INSTANT",
        "ALTER TABLE orders ADD INDEX i (a), ALGORITHM = INPLACE, LOCK = NONE",
        "ALTER TABLE orders ADD COLUMN b INT NULL, ALGORITHM=NOCOPY",
        "ALTER TABLE orders FORCE, ALGORITHM=COPY",
        "ALTER TABLE small ADD COLUMN a INT NULL",
        "ALTER TABLE orders RENAME TO purchases",
        "CREATE INDEX i ON orders (a)",
    ];
    insta::assert_snapshot!(big(Dialect::MySql, &statements), @r"
    warning implicit-commit:  the server commits after each change of a table: a failure leaves the statements before it
    refusal rewrite: 1: the server may copy `orders`: write ALGORITHM=INPLACE or INSTANT, so that it refuses instead
    warning unparsed: 4: the statement is not understood, so only its words were looked at
    refusal rewrite: 5: the server may copy `orders`: write ALGORITHM=INPLACE or INSTANT, so that it refuses instead
    warning unparsed: 5: the statement is not understood, so only its words were looked at
    warning rewrite: 6: the server may copy `small`: write ALGORITHM=INPLACE or INSTANT, so that it refuses instead
    ");
    let online =
        "-- grey: online tool=gh-ost table=orders\nALTER TABLE orders ADD COLUMN a INT NULL, DROP COLUMN b;";
    insta::assert_snapshot!(findings(Dialect::MySql, &Facts::default(), online), @"refusal destructive: 2: it drops the column `orders.b`");
}

#[test]
fn locks_matter_on_big_tables_only() {
    let statements = [
        "CREATE INDEX i ON orders (a)",
        "ALTER TABLE orders ADD CONSTRAINT c CHECK (a > 0)",
        "ALTER TABLE orders ADD CONSTRAINT c CHECK (a > 0) NOT VALID",
        "ALTER TABLE orders VALIDATE CONSTRAINT c",
        "ALTER TABLE orders ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES small (id)",
        "ALTER TABLE orders ADD CONSTRAINT u UNIQUE (a)",
        "ALTER TABLE orders ADD CONSTRAINT u UNIQUE USING INDEX i",
        "ALTER TABLE orders ALTER COLUMN a SET NOT NULL",
        "UPDATE orders SET a = 1 WHERE b = 2",
        "CREATE INDEX i ON small (a)",
        "UPDATE small SET a = 1",
    ];
    insta::assert_snapshot!(big(Dialect::Postgres, &statements), @r"
    refusal big-table-lock: 1: building the index locks `orders`: write CONCURRENTLY
    refusal big-table-lock: 2: adding the check constraint locks `orders` while every row is checked: add it NOT VALID, then VALIDATE it
    warning validate-together: 4: the constraint is checked in the transaction that adds it, whose lock others wait for: put VALIDATE into a file of its own
    refusal big-table-lock: 5: adding the foreign key constraint locks `orders` while every row is checked: add it NOT VALID, then VALIDATE it
    refusal big-table-lock: 6: adding the unique constraint locks `orders` while every row is checked: build the index CONCURRENTLY, then add it USING INDEX
    refusal big-table-lock: 8: `orders` is locked while every `a` is checked for NULL
    refusal big-table-lock: 9: one UPDATE locks rows of `orders` until it ends: write `-- grey: backfill`
    ");
    let small = unknown(Dialect::Postgres, &statements);
    assert!(small.starts_with("warning validate-together: 4:") && small.lines().count() == 1, "{small}");
    let backfill = "-- grey: no-transaction\nCREATE INDEX CONCURRENTLY i ON orders (a);\n\
        -- grey: backfill table=orders key=id\nUPDATE orders SET a = 1 WHERE id BETWEEN :low AND :high;";
    assert_eq!(findings(Dialect::Postgres, &facts(&[("orders", 5_000_000)]), backfill), "");
}

#[test]
fn a_column_that_may_not_be_null_needs_a_default() {
    for dialect in Dialect::ALL {
        let found = big(
            dialect,
            &[
                "CREATE TABLE fresh (id int)",
                "ALTER TABLE fresh ADD COLUMN a int NOT NULL",
                "ALTER TABLE orders ADD COLUMN a int NOT NULL DEFAULT 0",
                "ALTER TABLE orders ADD COLUMN b int NOT NULL",
            ],
        );
        let lines = found.lines().filter(|line| line.contains("not-null-without-default"));
        assert_eq!(
            lines.collect::<Vec<_>>(),
            [
                "refusal not-null-without-default: 4: `orders.b` may not be NULL and has no default for rows that exist"
            ],
            "{dialect}"
        );
    }
}

#[test]
fn filling_what_a_default_has_filled_is_told() {
    let seed = [
        "ALTER TABLE orders ADD COLUMN status_updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP",
        "UPDATE orders SET status_updated_at = created_at WHERE status_updated_at IS NULL",
    ];
    insta::assert_snapshot!(unknown(Dialect::Postgres, &seed), @"warning backfill-after-default: 2: `orders.status_updated_at` was added with a default, so no row is NULL any more: add it without, fill it, then set the default");
    let right = [
        "ALTER TABLE orders ADD COLUMN status_updated_at TIMESTAMP",
        "UPDATE orders SET status_updated_at = created_at WHERE status_updated_at IS NULL",
        "ALTER TABLE orders ALTER COLUMN status_updated_at SET DEFAULT CURRENT_TIMESTAMP",
    ];
    assert_eq!(unknown(Dialect::Postgres, &right), "");
}

#[test]
fn commits_in_the_middle_are_told() {
    assert_eq!(unknown(Dialect::MySql, &["CREATE TABLE a (id int)"]), "");
    assert_eq!(unknown(Dialect::MySql, &["INSERT INTO a VALUES (1)", "DELETE FROM a WHERE id = 1"]), "");
    let found = unknown(Dialect::MySql, &["CREATE TABLE a (id int)", "CREATE TABLE b (id int)"]);
    insta::assert_snapshot!(found, @"warning implicit-commit:  the server commits after each change of a table: a failure leaves the statements before it");
}

#[test]
fn what_no_grammar_understands_is_looked_at_by_its_words() {
    let statements = [
        "ALTER TABLE IF EXISTS ONLY shop.orders ALTER COLUMN a SET STORAGE frobnicated, DROP COLUMN b, ADD c int NOT NULL",
        "ALTER TABLE orders ADD CONSTRAINT c CHECK (a > 0) FROBNICATED, ALTER x TYPE smallint",
        "CREATE UNIQUE INDEX i ON orders USING gin (a) FROBNICATED 1",
        "TRUNCATE TABLE orders FROBNICATED",
        "UPDATE orders SET a FROBNICATED",
        "FROBNICATE everything",
    ];
    insta::assert_snapshot!(big(Dialect::Postgres, &statements), @r"
    refusal destructive: 1: it drops the column `orders.b`
    refusal not-null-without-default: 1: `orders.c` may not be NULL and has no default for rows that exist
    warning unparsed: 1: the statement is not understood, so only its words were looked at
    refusal big-table-lock: 2: adding the check constraint locks `orders` while every row is checked: add it NOT VALID, then VALIDATE it
    refusal destructive: 2: `orders.x` becomes `smallint` from another type, which may not fit
    refusal rewrite: 2: changing the type of `orders.x` writes the table anew
    warning unparsed: 2: the statement is not understood, so only its words were looked at
    refusal big-table-lock: 3: building the index locks `orders`: write CONCURRENTLY
    warning unparsed: 3: the statement is not understood, so only its words were looked at
    refusal destructive: 4: it deletes every row of `orders`
    warning unparsed: 4: the statement is not understood, so only its words were looked at
    refusal big-table-lock: 5: one UPDATE locks rows of `orders` until it ends: write `-- grey: backfill`
    warning unparsed: 5: the statement is not understood, so only its words were looked at
    warning unparsed: 6: the statement is not understood, so only its words were looked at
    ");
    let body = "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN DROP TABLE x; END $$";
    assert_eq!(unknown(Dialect::Postgres, &[body]), "");
}

#[test]
fn an_old_server_needs_the_header_for_a_new_enum_value() {
    let statement = "ALTER TYPE state ADD VALUE 'paid'";
    let on = |major| Facts { server: Some(Server { major, minor: 0, mariadb: false }), ..Facts::default() };
    assert_eq!(findings(Dialect::Postgres, &on(15), statement), "");
    insta::assert_snapshot!(findings(Dialect::Postgres, &on(11), statement), @"error needs-no-transaction: 1: before PostgreSQL 12, ALTER TYPE … ADD VALUE cannot run in a transaction: put `-- grey: no-transaction` at the top of the file");
    let header = format!("-- grey: no-transaction\n{statement}");
    assert_eq!(findings(Dialect::Postgres, &on(11), &header), "");
}

#[test]
fn a_missing_undo_is_told_once() {
    let scripts = load(Dialect::Sqlite, &[("V1__x.sql", "SELECT 1; SELECT 2;")]);
    let told: Vec<_> = validate(&scripts, &Options::default()).iter().map(ToString::to_string).collect();
    assert_eq!(told, ["warning missing-undo: V1__x.sql: there is no undo file"]);
}

#[test]
fn the_examples_are_clean() {
    for dialect in Dialect::ALL {
        for service in ["orders", "payment"] {
            let findings = validate(&example(service, dialect), &Options::default());
            let refused: Vec<_> = findings.iter().filter(|it| it.level > Level::Warning).collect();
            assert!(refused.is_empty(), "{service} {dialect}: {refused:?}");
            let warned: Vec<_> = findings.iter().map(|it| it.rule).collect();
            assert!(
                warned.iter().all(|rule| *rule == "implicit-commit"),
                "{service} {dialect}: {findings:?}"
            );
        }
    }
}
