//! Folders of migration files: what is found, what is refused.

use grey_core::ids::ServiceId;
use grey_core::schema::SchemaVersion;
use grey_schema_migrator::files::{
    Dialect, FilesError, Folder, MAX_FILE_BYTES, MAX_SERVICE_BYTES, Scripts, Step, Tool,
};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// A folder of the service `shop` with these files.
pub(crate) fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("shop")).unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join("shop").join(name), text).unwrap();
    }
    folder
}

fn load_from(root: &Path, dialect: Dialect) -> Result<Scripts, FilesError> {
    Folder::new(root).load(&ServiceId::new("shop").unwrap(), dialect)
}

/// Loads these files.
pub(crate) fn load(dialect: Dialect, files: &[(&str, &str)]) -> Scripts {
    load_from(folder(files).path(), dialect).unwrap()
}

/// The same, unless they are refused.
pub(crate) fn try_load(dialect: Dialect, files: &[(&str, &str)]) -> Result<Scripts, FilesError> {
    load_from(folder(files).path(), dialect)
}

fn faults_in(root: &Path, dialect: Dialect) -> String {
    match load_from(root, dialect) {
        Err(FilesError::Faulty { faults, .. }) => {
            faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        }
        other => panic!("no faults: {other:?}"),
    }
}

fn faults(dialect: Dialect, files: &[(&str, &str)]) -> String {
    faults_in(folder(files).path(), dialect)
}

/// Faults of one file's text.
pub(crate) fn faults_of(dialect: Dialect, text: &str) -> String {
    faults(dialect, &[("V1__x.sql", text)]).replace("V1__x.sql", "")
}

fn version(text: &str) -> SchemaVersion {
    SchemaVersion::new(text).unwrap()
}

#[test]
fn versions_are_in_order_with_their_undo_and_checks() {
    let scripts = load(
        Dialect::Postgres,
        &[
            ("V1.10__later.sql", "SELECT 10;"),
            ("V1_9__sooner.sql", "SELECT 9; SELECT 99;"),
            ("U1.9__sooner.sql", "SELECT 0;"),
            ("C1.9__sooner.sql", "SELECT 1 WHERE false;"),
            ("README.md", "not SQL: it's prose"),
            (".gitignore", "*"),
        ],
    );
    let versions: Vec<_> = scripts.migrations.iter().map(|it| it.schema.to_string()).collect();
    assert_eq!(versions, ["1.9", "1.10"]);
    let first = scripts.get(&version("1.9")).unwrap();
    assert_eq!(first.description, "sooner");
    assert_eq!(first.steps.len(), 2);
    assert_eq!(first.undo.as_ref().unwrap().file, "U1.9__sooner.sql");
    assert_eq!(first.checks.first().unwrap().sql, "SELECT 1 WHERE false");
    assert_eq!(scripts.newest(), Some(&version("1.10")));
    assert!(scripts.get(&version("1.11")).is_none());
}

#[test]
fn a_variant_replaces_the_plain_file_of_its_dialect_only() {
    let files = [
        ("V1__a.sql", "SELECT 'plain';"),
        ("V1__a.postgres.sql", "SELECT 'postgres';"),
        ("V2__b.mysql.sql", "SELECT 2;"),
        ("U2__b.sql", "SELECT 0;"),
        ("U1__a.sqlite.sql", "SELECT 'sqlite';"),
    ];
    let first = |dialect| load(dialect, &files).migrations.first().unwrap().file.clone();
    assert_eq!(first(Dialect::Postgres), "V1__a.postgres.sql");
    assert_eq!(first(Dialect::Sqlite), "V1__a.sql");
    assert_eq!(load(Dialect::MySql, &files).migrations.len(), 2);
    // The second migration does not exist here, so its undo file is nobody's.
    let sqlite = load(Dialect::Sqlite, &files);
    assert_eq!(sqlite.migrations.len(), 1);
    assert!(sqlite.migrations.first().unwrap().undo.is_some());
    assert!(load(Dialect::Postgres, &files).migrations.first().unwrap().undo.is_none());
}

#[test]
fn all_faults_of_names_are_told_at_once() {
    let found = faults(
        Dialect::Postgres,
        &[
            ("R1__views.sql", "SELECT 1;"),
            ("B2__start.sql", "SELECT 1;"),
            ("afterMigrate.sql", "SELECT 1;"),
            ("V1.0__one.sql", "SELECT 1;"),
            ("V1__uno.sql", "SELECT 1;"),
            ("V2__two.sql", "SELECT 1;"),
            ("V2__deux.mysql.sql", "SELECT 1;"),
            ("U3__three.sql", "SELECT 1;"),
            ("C3__three.sql", "SELECT 1;"),
            ("V4__x.oracle.sql", "SELECT 1;"),
            ("V1.1.1.1.1.1.1__x.sql", "SELECT 1;"),
            ("notes.sql", ""),
        ],
    );
    insta::assert_snapshot!(found, @r"
    B2__start.sql: Flyway's baseline files (B): name it V…, and declare where old databases are by `grey migrate baseline`; they are not supported
    C3__three.sql: there is no migration to this version
    R1__views.sql: the name is not one of a migration: write V, U or C, a version, two underscores, a description and .sql, such as V1.1__add_preferences.sql, or R__ and a description for one that is run whenever it changes
    U3__three.sql: there is no migration to this version
    V1.1.1.1.1.1.1__x.sql: the name's `1.1.1.1.1.1.1` is not a schema version: write up to six numbers joined by dots, such as 1.1
    V1__uno.sql: `V1.0__one.sql` is for the same version
    V2__two.sql: `V2__deux.mysql.sql` is the same migration under another description
    V4__x.oracle.sql: `oracle` in the name is not a dialect: write postgres, mysql or sqlite
    afterMigrate.sql: Flyway's callbacks are not supported
    notes.sql: the name is not one of a migration: write V, U or C, a version, two underscores, a description and .sql, such as V1.1__add_preferences.sql, or R__ and a description for one that is run whenever it changes
    ");
}

#[test]
fn content_that_is_no_statement_is_refused() {
    let root = folder(&[("V1__empty.sql", ""), ("V2__comments.sql", "-- only\n/* comments */ ;;\n")]);
    let shop = root.path().join("shop");
    std::fs::write(shop.join("V3__latin.sql"), b"SELECT '\xe9';").unwrap();
    std::fs::write(shop.join("V4__zero.sql"), b"SELECT '\0';").unwrap();
    std::fs::File::create(shop.join("V5__large.sql")).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
    std::fs::create_dir(shop.join("V7__folder.sql")).unwrap();
    std::os::unix::fs::symlink(shop.join("nowhere"), shop.join("V6__none.sql")).unwrap();
    insta::assert_snapshot!(faults_in(root.path(), Dialect::Sqlite), @r"
    V1__empty.sql: it holds no statement
    V2__comments.sql: it holds no statement
    V3__latin.sql: it is not UTF-8 text
    V4__zero.sql: it is not UTF-8 text
    V5__large.sql: it has 4194305 bytes, at most 4194304 are read
    V6__none.sql: it is not a regular file
    ");
}

#[test]
fn files_are_bounded_together() {
    let root = folder(&[]);
    let count = MAX_SERVICE_BYTES / MAX_FILE_BYTES + 1;
    for number in 1..=count {
        let file = root.path().join("shop").join(format!("V{number}__x.sql"));
        std::fs::write(&file, "SELECT 1;\n").unwrap();
        std::fs::File::options().append(true).open(&file).unwrap().set_len(MAX_FILE_BYTES).unwrap();
    }
    let found = faults_in(root.path(), Dialect::Sqlite);
    let together = found.lines().filter(|line| line.contains("the service's files have more than"));
    assert_eq!(together.collect::<Vec<_>>().len(), 1, "{found}");
}

#[test]
fn links_are_followed_inside_the_folder_and_refused_outside() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret.sql"), "SELECT 1;").unwrap();
    let root = folder(&[(".data.sql", "SELECT 2;")]);
    let shop = root.path().join("shop");
    // As a mounted ConfigMap has it.
    std::os::unix::fs::symlink(".data.sql", shop.join("V1__inside.sql")).unwrap();
    assert_eq!(load_from(root.path(), Dialect::Sqlite).unwrap().migrations.len(), 1);

    std::os::unix::fs::symlink(outside.path().join("secret.sql"), shop.join("V2__outside.sql")).unwrap();
    std::os::unix::fs::symlink("/nowhere.sql", shop.join("V3__nowhere.sql")).unwrap();
    insta::assert_snapshot!(faults_in(root.path(), Dialect::Sqlite), @r"
    V2__outside.sql: it leads outside the folder of migrations
    V3__nowhere.sql: it is not a regular file
    ");

    std::os::unix::fs::symlink(outside.path(), root.path().join("elsewhere")).unwrap();
    let folder = Folder::new(root.path());
    let elsewhere = folder.load(&ServiceId::new("elsewhere").unwrap(), Dialect::Sqlite);
    assert!(matches!(elsewhere, Err(FilesError::Outside { .. })), "{elsewhere:?}");
    let nobody = folder.load(&ServiceId::new("nobody").unwrap(), Dialect::Sqlite);
    assert!(matches!(nobody, Err(FilesError::NoFolder { .. })), "{nobody:?}");
    let nowhere = load_from(Path::new("/nowhere"), Dialect::Sqlite);
    assert!(matches!(nowhere, Err(FilesError::Read { .. })), "{nowhere:?}");
}

#[test]
fn what_has_no_end_is_refused_with_its_line() {
    let texts = [
        "SELECT 1;\nSELECT 'it''s",
        "SELECT 1 /* /* */",
        "\n\nDO $a$ BEGIN $b$ ;",
        "SELECT \"x",
        "SELECT E'\\'",
    ];
    let found: Vec<_> = texts.iter().map(|text| faults_of(Dialect::Postgres, text)).collect();
    insta::assert_snapshot!(found.join("\n"), @r"
    :2: a string has no end
    :1: a comment has no end
    :3: a dollar quote has no end
    :1: a quoted name or string has no end
    :1: a string has no end
    ");
    insta::assert_snapshot!(faults_of(Dialect::MySql, "SELECT `x"), @":1: a quoted name or string has no end");
    insta::assert_snapshot!(faults_of(Dialect::Sqlite, "SELECT 1; /* x"), @":1: a comment has no end");
    let open = "SELECT 1;\nCREATE TRIGGER t AFTER INSERT ON a BEGIN\nSELECT CASE 1 WHEN 1 THEN 2 END;";
    insta::assert_snapshot!(faults_of(Dialect::Sqlite, open), @":2: the statement's BEGIN, IF, CASE, loop or parenthesis has no end");
}

#[test]
fn commands_of_clients_are_refused() {
    insta::assert_snapshot!(faults_of(Dialect::Postgres, "SELECT 1;\n\\i it's another file"), @r":2: `\i it` is a command of a client program, not SQL");
    insta::assert_snapshot!(faults_of(Dialect::Postgres, "COPY a FROM stdin;\n1\tit's\n\\.\n"), @":1: `COPY a` is a command of a client program, not SQL");
    insta::assert_snapshot!(faults_of(Dialect::Postgres, "DELIMITER //\nSELECT 1//"), @":1: `DELIMITER //` is a command of a client program, not SQL");
    insta::assert_snapshot!(faults_of(Dialect::MySql, "source /etc/passwd"), @":1: `source /etc/passwd` is a command of a client program, not SQL");
    insta::assert_snapshot!(faults_of(Dialect::MySql, "DELIMITER '\nSELECT 1'"), @":1: `'` cannot be a delimiter");
    insta::assert_snapshot!(faults_of(Dialect::Sqlite, ".read other.sql"), @":1: `.read other.sql` is a command of a client program, not SQL");
}

#[test]
fn transactions_locks_and_sessions_are_the_migrators() {
    let of = |dialect, statements: &[&str]| faults_of(dialect, &statements.join(";\n"));
    let found = of(
        Dialect::Postgres,
        &[
            "BEGIN",
            "start transaction",
            "COMMIT",
            "ROLLBACK TO x",
            "SET search_path = other",
            "SET LOCAL lock_timeout = 0",
            "SET SCHEMA 'other'",
            "SET TRANSACTION READ ONLY",
            "SET SESSION AUTHORIZATION x",
            "RESET ALL",
            "DISCARD ALL",
            "LOCK TABLE x",
            "SELECT pg_advisory_unlock_all()",
            "SELECT set_config('search_path', 'x', false)",
            "DROP TABLE grey_schema_history_shop",
        ],
    );
    insta::assert_snapshot!(found, @r"
    :1: `BEGIN` is not allowed: transactions and locks are the migrator's
    :2: `start transaction` is not allowed: transactions and locks are the migrator's
    :3: `COMMIT` is not allowed: transactions and locks are the migrator's
    :4: `ROLLBACK TO` is not allowed: transactions and locks are the migrator's
    :5: `SET search_path =` is not allowed: it changes the session that the migrator works in
    :6: `SET LOCAL lock_timeout` is not allowed: it changes the session that the migrator works in
    :7: `SET SCHEMA 'other'` is not allowed: it changes the session that the migrator works in
    :8: `SET TRANSACTION` is not allowed: transactions and locks are the migrator's
    :9: `SET SESSION AUTHORIZATION` is not allowed: it changes the session that the migrator works in
    :10: `RESET ALL` is not allowed: it changes the session that the migrator works in
    :11: `DISCARD ALL` is not allowed: transactions and locks are the migrator's
    :12: `LOCK TABLE` is not allowed: transactions and locks are the migrator's
    :13: `SELECT pg_advisory_unlock_all()` is not allowed: transactions and locks are the migrator's
    :14: `SELECT set_config('search_path', 'x',` is not allowed: it changes the session that the migrator works in
    :15: `grey_schema_history_shop` belongs to the migrator
    ");
    let found = of(
        Dialect::MySql,
        &[
            "SET autocommit = 0",
            "SET @@session.autocommit=0",
            "LOCK TABLES a WRITE",
            "UNLOCK TABLES",
            "USE other",
            "XA START 'x'",
            "SELECT RELEASE_ALL_LOCKS()",
            "SET GLOBAL x = 1",
            "/*!40101 COMMIT */ SELECT 1",
        ],
    );
    insta::assert_snapshot!(found, @r"
    :1: `SET autocommit =` is not allowed: it changes the session that the migrator works in
    :2: `SET @@session.autocommit=0` is not allowed: it changes the session that the migrator works in
    :3: `LOCK TABLES` is not allowed: transactions and locks are the migrator's
    :4: `UNLOCK TABLES` is not allowed: transactions and locks are the migrator's
    :5: `USE other` is not allowed: it changes the session that the migrator works in
    :6: `XA START` is not allowed: transactions and locks are the migrator's
    :7: `SELECT RELEASE_ALL_LOCKS()` is not allowed: transactions and locks are the migrator's
    :8: `SET GLOBAL x` is not allowed: it changes the session that the migrator works in
    :9: a comment that is executed hides what it does: write it as a statement
    ");
    let hidden = of(Dialect::MySql, &["SELECT 1 /*M!100100 , 2 */"]);
    insta::assert_snapshot!(hidden, @":1: a comment that is executed hides what it does: write it as a statement");
    let found =
        of(Dialect::Sqlite, &["BEGIN IMMEDIATE", "END", "ATTACH 'x' AS y", "PRAGMA journal_mode = wal"]);
    insta::assert_snapshot!(found, @r"
    :1: `BEGIN IMMEDIATE` is not allowed: transactions and locks are the migrator's
    :2: `END` is not allowed: transactions and locks are the migrator's
    :3: `ATTACH 'x' AS` is not allowed: it changes the session that the migrator works in
    :4: `PRAGMA journal_mode =` is not allowed: it changes the session that the migrator works in
    ");
}

#[test]
fn what_only_looks_forbidden_is_allowed() {
    load(
        Dialect::Postgres,
        &[(
            "V1__x.sql",
            "INSERT INTO a VALUES ('COMMIT; \\i x'); -- BEGIN\n\
             CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql SET search_path = x AS $$ BEGIN RETURN 1; END $$;\n\
             SET LOCAL work_mem = '64MB'; CREATE TABLE \"begin\" (id int); COMMENT ON TABLE a IS 'x';",
        )],
    );
    load(Dialect::Sqlite, &[("V1__x.sql", "PRAGMA defer_foreign_keys = ON; REPLACE INTO a VALUES (1);")]);
    load(
        Dialect::MySql,
        &[("V1__x.sql", "SET FOREIGN_KEY_CHECKS = 0; SELECT /*+ NO_MERGE */ 1; # it's\nSELECT 2;")],
    );
}

#[test]
fn what_cannot_run_in_a_transaction_needs_the_header() {
    let statements = "CREATE INDEX CONCURRENTLY i ON a (b);\nCREATE UNIQUE INDEX CONCURRENTLY j ON a (b);\n\
        VACUUM a;\nCREATE DATABASE x;\nREINDEX TABLE CONCURRENTLY a;\nREFRESH MATERIALIZED VIEW CONCURRENTLY v;\n\
        DROP INDEX CONCURRENTLY i;\nALTER SYSTEM SET a = 1;";
    insta::assert_snapshot!(faults_of(Dialect::Postgres, statements), @r"
    :1: `CREATE INDEX CONCURRENTLY` cannot run in a transaction: put `-- grey: no-transaction` at the top of the file
    :2: `CREATE UNIQUE INDEX` cannot run in a transaction: put `-- grey: no-transaction` at the top of the file
    :3: `VACUUM a` cannot run in a transaction: put `-- grey: no-transaction` at the top of the file
    :4: `CREATE DATABASE` cannot run in a transaction: put `-- grey: no-transaction` at the top of the file
    :5: `REINDEX TABLE CONCURRENTLY` cannot run in a transaction: put `-- grey: no-transaction` at the top of the file
    :7: `DROP INDEX CONCURRENTLY` cannot run in a transaction: put `-- grey: no-transaction` at the top of the file
    :8: `ALTER SYSTEM` cannot run in a transaction: put `-- grey: no-transaction` at the top of the file
    ");
    let with_header = format!("-- grey: no-transaction\n{statements}");
    let scripts = load(Dialect::Postgres, &[("V1__x.sql", &with_header)]);
    let migration = scripts.migrations.first().unwrap();
    assert!(!migration.transactional);
    assert_eq!(migration.steps.len(), 8);
}

#[test]
fn the_mysql_family_keeps_a_transaction_for_rows_only() {
    let transactional =
        |text| load(Dialect::MySql, &[("V1__x.sql", text)]).migrations.first().unwrap().transactional;
    assert!(transactional("INSERT INTO a VALUES (1); UPDATE a SET b = 2; DELETE FROM a WHERE b = 3;"));
    assert!(!transactional("INSERT INTO a VALUES (1); CREATE TABLE c (d int);"));
    assert!(!transactional("-- grey: no-transaction\nINSERT INTO a VALUES (1);"));
}

#[test]
fn checks_are_queries() {
    let found = faults(
        Dialect::Postgres,
        &[
            ("V1__x.sql", "SELECT 1;"),
            (
                "C1__x.sql",
                "SELECT 1;\nDELETE FROM a;\nWITH x AS (DELETE FROM a RETURNING 1) SELECT * FROM x;\n\
                 -- grey: no-transaction\nWITH x AS (SELECT 1) SELECT * FROM x;",
            ),
        ],
    );
    insta::assert_snapshot!(found, @r"
    C1__x.sql:2: a check must be a query: it begins with SELECT or WITH and returns no row if all is well
    C1__x.sql:3: a check must be a query: it begins with SELECT or WITH and returns no row if all is well
    C1__x.sql:4: directive has no place in a check file
    ");
}

#[test]
fn directives_become_steps() {
    let scripts = load(
        Dialect::Postgres,
        &[(
            "V1.1__x.sql",
            "-- grey: no-transaction\n\
             -- A remark.\n\
             -- grey: backfill table=shop.orders key=id batch=500 pause=50ms\n\
             UPDATE shop.orders SET a = ':low' WHERE shop.orders.id >= :low AND id <= :high AND b = '';\n\
             -- grey: views of=orders,customers\n\
             -- grey: views version=1.2 of=orders\n\
             SELECT 1;\n\
             -- grey: views version=1.3 of=orders",
        )],
    );
    let steps = &scripts.migrations.first().unwrap().steps;
    let [
        Step::Backfill(backfill),
        Step::Views(first),
        Step::Views(second),
        Step::Sql(select),
        Step::Views(last),
    ] = steps.as_slice()
    else {
        panic!("{steps:?}");
    };
    assert_eq!((backfill.table.as_str(), backfill.table.last()), ("shop.orders", "orders"));
    assert_eq!(
        (backfill.key.as_str(), backfill.batch, backfill.pause),
        ("id", 500, Duration::from_millis(50))
    );
    assert_eq!(
        backfill.between("$1", "'x'"),
        "UPDATE shop.orders SET a = ':low' WHERE shop.orders.id >= $1 AND id <= 'x' AND b = ''"
    );
    assert_eq!((first.version.to_string(), first.of.len(), first.line), ("1.1".to_owned(), 2, 5));
    assert_eq!(second.version, version("1.2"));
    assert_eq!(select.line, 7);
    assert_eq!(last.version, version("1.3"));

    let scripts = load(
        Dialect::MySql,
        &[(
            "V1__x.sql",
            "-- grey: online tool=gh-ost table=orders\nALTER TABLE `orders` ADD COLUMN a int, ADD b int;",
        )],
    );
    let Some(Step::External(external)) = scripts.migrations.first().unwrap().steps.first().cloned() else {
        panic!("{scripts:?}");
    };
    assert_eq!((external.tool, external.clause.as_str()), (Tool::GhOst, "ADD COLUMN a int, ADD b int"));
}

#[test]
fn directives_that_are_not_understood_are_refused() {
    let found: Vec<_> = [
        "-- grey: no-transactions\nSELECT 1",
        "SELECT 1;\n-- grey: no-transaction\nSELECT 2",
        "-- grey: no-transaction\n-- grey: backfill table=a key=id\nDELETE FROM a",
        "-- grey: no-transaction\n-- grey: backfill table=a key=id\nUPDATE a SET b = 1 WHERE id BETWEEN :low AND 7",
        "-- grey: no-transaction\n-- grey: backfill table=a key=id\nUPDATE a SET b = 1 WHERE id > :low AND id <= :high",
        "-- grey: backfill table=a key=id\nUPDATE a SET b = 1 WHERE id BETWEEN :low AND :high",
        "-- grey: backfill table=a\nSELECT 1",
        "-- grey: backfill table=a key=id batch=0\nSELECT 1",
        "-- grey: backfill table=a key=id pause=2h\nSELECT 1",
        "-- grey: backfill table=a;b key=id\nSELECT 1",
        "-- grey: backfill table=a key=id key=id\nSELECT 1",
        "-- grey: backfill table=a key=id sleep=1s\nSELECT 1",
        "-- grey: online tool=gh-ost table=a\nALTER TABLE a ADD b int",
        "SELECT 1;\n-- grey: backfill table=a key=id",
        "SELECT -- grey: no-transaction\n1",
        "-- grey: views of=a'b\nSELECT 1",
        "-- GREY: nothing\nSELECT 1",
    ]
    .iter()
    .map(|text| faults_of(Dialect::Postgres, text))
    .collect();
    insta::assert_snapshot!(found.join("\n"), @r"
    :1: directive `no-transactions` is not known
    :2: directive `no-transaction` belongs to the top of the file, once
    :3: directive `backfill` belongs to an UPDATE
    :3: directive `backfill` needs :low and :high in the UPDATE, each once
    :3: directive `backfill` needs the key BETWEEN :low AND :high: both ends belong to a range
    :2: `-- grey: backfill` cannot run in a transaction: put `-- grey: no-transaction` at the top of the file
    :1: directive `backfill` needs key=
    :1: directive `backfill` needs batch= a number from 1 to 100000
    :1: directive `backfill` needs pause= a time of at most 60s, such as 50ms
    :1: directive `a;b` is not a plain name: letters, digits and _ are, at most 63, with at most one dot between two names
    :1: directive `backfill` has key= twice
    :1: directive `backfill` does not know sleep=
    :2: directive `online` is for the MySQL family: this dialect changes tables online by itself
    :2: directive has no statement below it
    :1: directive is inside a statement
    :1: directive `a'b` is not a plain name: letters, digits and _ are, at most 63, with at most one dot between two names
    :1: directive `nothing` is not known
    ");
    let online: Vec<_> = [
        "-- grey: online tool=bash table=a\nALTER TABLE a ADD b int",
        "-- grey: online tool=gh-ost table=a\nALTER TABLE b ADD c int",
        "-- grey: online tool=gh-ost table=a\nDROP TABLE a",
        "-- grey: online tool=gh-ost table=a\nALTER TABLE a",
        "-- grey: views of=a\nSELECT 1",
    ]
    .iter()
    .map(|text| faults_of(Dialect::MySql, text))
    .collect();
    insta::assert_snapshot!(online.join("\n"), @r"
    :1: directive `online` needs tool=gh-ost or tool=pt-online-schema-change
    :2: directive `online` has another table= than the ALTER TABLE
    :2: directive `online` belongs to an ALTER TABLE
    :2: directive `online` needs an ALTER TABLE that changes something
    :1: directive `views` is for PostgreSQL: other dialects have no search path
    ");
}

#[test]
fn fingerprints_follow_what_runs() {
    let of =
        |text: &str| load(Dialect::Sqlite, &[("V1__x.sql", text), ("U1__x.sql", "SELECT 0;")]).fingerprint();
    assert_eq!(of("SELECT 1;"), of("SELECT 1;\r\n\r\n"));
    assert_ne!(of("SELECT 1;"), of("SELECT 2;"));
}
