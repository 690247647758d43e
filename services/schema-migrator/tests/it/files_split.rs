//! Splitting of files into statements.

use crate::files::load;
use grey_schema_migrator::files::{Dialect, Step};
use proptest::prelude::*;

/// The statements of a file, with their lines.
fn split(dialect: Dialect, text: &str) -> Vec<(u32, String)> {
    let scripts = load(dialect, &[("V1__x.sql", text)]);
    let steps = &scripts.migrations.first().unwrap().steps;
    let statement = |step: &Step| match step {
        Step::Sql(statement) => (statement.line, statement.sql.clone()),
        other => panic!("{other:?}"),
    };
    steps.iter().map(statement).collect()
}

fn texts(dialect: Dialect, text: &str) -> Vec<String> {
    split(dialect, text).into_iter().map(|(_, sql)| sql).collect()
}

#[test]
fn statements_are_exact_slices_with_their_lines() {
    let text = "\u{feff}-- first\r\nSELECT 1 ;\n\n/* between; */ SELECT\n 'é;' -- inside; it's\n , 2\n-- after\n;;\nSELECT 3";
    let found = split(Dialect::Postgres, text);
    let expected = [(2, "SELECT 1"), (4, "SELECT\n 'é;' -- inside; it's\n , 2"), (9, "SELECT 3")];
    assert_eq!(found, expected.map(|(line, sql)| (line, sql.to_owned())));
}

#[test]
fn bodies_of_postgres_functions_are_whole() {
    let plpgsql = "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $body$\nBEGIN\n PERFORM ';'; RETURN $1; -- it's $$\nEND;\n$body$";
    let atomic = "CREATE FUNCTION g(a int) RETURNS int BEGIN ATOMIC SELECT CASE a WHEN 1 THEN 2 ELSE 3 END; SELECT 4; END";
    let block = "DO $$ BEGIN IF true THEN NULL; END IF; END $$";
    let strings = r"SELECT E'\';', U&'d\0061;', 'a\', $a$;$b$;$a$, 1";
    let text = format!("{plpgsql};\n{atomic};{block};{strings};");
    assert_eq!(texts(Dialect::Postgres, &text), [plpgsql, atomic, block, strings]);
}

#[test]
fn bodies_of_triggers_and_procedures_are_whole() {
    let trigger = "CREATE TRIGGER t AFTER UPDATE ON a WHEN CASE WHEN NEW.x THEN 1 ELSE 0 END BEGIN\n\
        UPDATE a SET b = CASE c WHEN 1 THEN ';' ELSE 'END;' END; SELECT 1; END";
    let text = format!("CREATE TABLE a (x, \"begin\");{trigger};\nSELECT 2;");
    assert_eq!(texts(Dialect::Sqlite, &text), ["CREATE TABLE a (x, \"begin\")", trigger, "SELECT 2"]);

    let procedure = "CREATE DEFINER=`root`@`%` PROCEDURE p(IN end INT)\nBEGIN\n\
        DECLARE CONTINUE HANDLER FOR SQLEXCEPTION BEGIN SET @x = 1; END;\n\
        IF a THEN SELECT 1; ELSEIF IF(b, 1, 2) THEN SELECT 2; END IF;\n\
        l: LOOP LEAVE l; END LOOP;\n\
        WHILE a DO BEGIN SET a = 2; END; END WHILE;\n\
        CASE a WHEN 1 THEN SELECT 'x;'; ELSE BEGIN END; END CASE;\n\
        INSERT INTO t (start, end) VALUES (1, CASE WHEN 1 THEN 2 END);\n\
        END";
    let short = "CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW SET NEW.begin = 1";
    let text = format!("{procedure};\n{short};\nSELECT 1;");
    assert_eq!(texts(Dialect::MySql, &text), [procedure, short, "SELECT 1"]);
}

#[test]
fn delimiters_are_handled_as_by_the_client() {
    let text = "SELECT 0;\nDELIMITER //\nCREATE PROCEDURE p() IF 1 THEN SELECT '//'; END IF//\nSELECT 1 //\n\
        delimiter $$\nCREATE PROCEDURE q() BEGIN SELECT 2; END$$SELECT 3$$\nDELIMITER ;\nSELECT 4;";
    let expected = [
        (1, "SELECT 0"),
        (3, "CREATE PROCEDURE p() IF 1 THEN SELECT '//'; END IF"),
        (4, "SELECT 1"),
        (6, "CREATE PROCEDURE q() BEGIN SELECT 2; END"),
        (6, "SELECT 3"),
        (8, "SELECT 4"),
    ];
    assert_eq!(split(Dialect::MySql, text), expected.map(|(line, sql)| (line, sql.to_owned())));
}

#[test]
fn quotes_are_those_of_the_dialect() {
    assert_eq!(texts(Dialect::Postgres, r"SELECT '\'; SELECT 2").len(), 2);
    assert_eq!(texts(Dialect::Sqlite, r"SELECT '\'; SELECT 2").len(), 2);
    assert_eq!(texts(Dialect::MySql, r"SELECT '\'; SELECT 2'").len(), 1);
    assert_eq!(texts(Dialect::MySql, r#"SELECT "\"; SELECT 2""#).len(), 1);
    assert_eq!(texts(Dialect::Postgres, r#"SELECT "a""; b"; SELECT 2"#).len(), 2);
    assert_eq!(texts(Dialect::Sqlite, "SELECT [a;b], `c;d`; SELECT 2").len(), 2);
    assert_eq!(texts(Dialect::MySql, "SELECT 1 # it's; fine\n; SELECT 5--2; SELECT 2").len(), 3);
    assert_eq!(texts(Dialect::Postgres, "SELECT /* /* ; */ ; */ 1; SELECT 1 >-- it's;\n 2").len(), 2);
}

/// A part of a statement that ends neither it nor anything else.
fn part(dialect: Dialect) -> BoxedStrategy<String> {
    let text = "[a-z;éß'\"$ \n-]{0,8}";
    let string = text.prop_map(|it: String| format!("'{}'", it.replace('\'', "''")));
    let name = "[a-z;é' \n]{1,6}".prop_map(move |it: String| match dialect {
        Dialect::MySql => format!("`{it}`"),
        _ => format!("\"{it}\""),
    });
    let comment = "[a-z;'\"$ \n]{0,8}".prop_map(|it: String| format!("/*{it}*/"));
    let line = "[a-z;'\"$ ]{0,8}".prop_map(|it: String| format!("-- {it}\n"));
    let plain = "[a-z][a-z0-9_]{0,5}|[0-9]{1,3}|[(),=+<>*.]".prop_map(|it: String| it);
    let special = match dialect {
        Dialect::Postgres => prop_oneof![
            "[a-z;'\"\n]{0,6}".prop_map(|it: String| format!("$${it}$$")),
            "[a-z;'\"$\n]{0,6}".prop_map(|it: String| format!("$q1${it};$q1$")),
            "[a-z;\n]{0,6}".prop_map(|it: String| format!(r"E'{it}\'{it}'")),
        ]
        .boxed(),
        Dialect::MySql => prop_oneof![
            "[a-z;\n]{0,6}".prop_map(|it: String| format!(r#""{it}\"{it}'""#)),
            "[a-z;'\" ]{0,6}".prop_map(|it: String| format!("#{it}\n")),
        ]
        .boxed(),
        Dialect::Sqlite => "[a-z;'\n]{1,6}".prop_map(|it: String| format!("[{it}]")).boxed(),
    };
    prop_oneof![3 => plain, 2 => string, 1 => name, 1 => comment, 1 => line, 2 => special].boxed()
}

fn statement(dialect: Dialect) -> BoxedStrategy<String> {
    let parts = prop::collection::vec(part(dialect), 0..6);
    parts.prop_map(|parts| format!("INSERT {} x", parts.join(" "))).boxed()
}

fn file() -> impl Strategy<Value = (Dialect, Vec<(String, String)>)> {
    prop::sample::select(Dialect::ALL.to_vec()).prop_flat_map(|dialect| {
        let between = prop::sample::select(vec!["", "\n", " \r\n", "\n-- it's; $$\n", "/* ;' */", ";\n ;"]);
        let pair = (statement(dialect), between.prop_map(str::to_owned));
        (Just(dialect), prop::collection::vec(pair, 1..6))
    })
}

/// What statements are made of, in no order.
const WORDS: [&str; 40] = [
    "ALTER",
    "TABLE",
    "a",
    "b.c",
    "ADD",
    "COLUMN",
    "DROP",
    "TYPE",
    "int",
    "NOT",
    "NULL",
    "DEFAULT",
    "now()",
    "(",
    ")",
    ",",
    ";",
    "CREATE",
    "INDEX",
    "ON",
    "UPDATE",
    "SET",
    "=",
    "WHERE",
    "IS",
    "TRIGGER",
    "BEGIN",
    "END",
    "CASE",
    "IF",
    "DELETE",
    "FROM",
    "TRUNCATE",
    "MODIFY",
    "CHANGE",
    "ALGORITHM",
    "CONSTRAINT",
    "CHECK",
    "VACUUM FULL",
    "'x'",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn splitting_gives_back_exactly_the_statements((dialect, parts) in file()) {
        let text: String = parts.iter().map(|(sql, between)| format!("{sql};{between}")).collect();
        let expected: Vec<_> = parts.iter().map(|(sql, _)| sql.clone()).collect();
        let found = split(dialect, &text);
        let statements: Vec<_> = found.iter().map(|(_, sql)| sql.clone()).collect();
        prop_assert_eq!(statements, expected);
        // Lines are true, and the pieces and what is between them are the whole file.
        let mut at = 0;
        for (line, sql) in &found {
            let start = at + text[at..].find(sql.as_str()).unwrap();
            prop_assert_eq!(text[..start].matches('\n').count() + 1, *line as usize);
            prop_assert!(text[at..start].chars().all(|c| c != 'I'));
            at = start + sql.len();
        }
    }

    #[test]
    fn no_text_is_too_strange_to_be_judged(
        text in prop_oneof![
            "[a-zA-Z;:'\"$`\\\\/*# \r\n\\[\\]@{}é-]{0,60}",
            prop::collection::vec(prop::sample::select(WORDS.to_vec()), 0..14).prop_map(|words| words.join(" ")),
        ],
        dialect in prop::sample::select(Dialect::ALL.to_vec()),
    ) {
        let root = crate::files::folder(&[("V1__x.sql", &text)]);
        let service = grey_core::ids::ServiceId::new("shop").unwrap();
        let loaded = grey_schema_migrator::files::Folder::new(root.path()).load(&service, dialect);
        if let Ok(scripts) = loaded {
            let options = grey_schema_migrator::plan::Options::default();
            prop_assert!(!grey_schema_migrator::lint::validate(&scripts, &options).is_empty());
            for step in &scripts.migrations.first().unwrap().steps {
                prop_assert!(text.contains(step.to_string().as_str()));
            }
        }
    }
}
