//! Tools that change tables: the real pt-online-schema-change and gh-ost where they are installed, and a stand-in.

use crate::files::load;
use crate::run_world::{LONG, World, is_on_mysql};
use grey_runtime::Secret;
use grey_schema_migrator::external::{Error, Program, Progress, Tools, clean_up, run};
use grey_schema_migrator::files::{Dialect, External, Step};
use grey_schema_migrator::tenant::{Connection, Error as TenantError, Stop};
use grey_testkit::eventually;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub(crate) fn step(tool: &str, clause: &str) -> External {
    let text = format!("-- grey: online tool={tool} table=orders\nALTER TABLE orders {clause};\n");
    let scripts = load(Dialect::MySql, &[("V1__x.sql", &text)]);
    match scripts.migrations.first().unwrap().steps.first() {
        Some(Step::External(external)) => external.clone(),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn program(path: &Path, args: &[&str]) -> Program {
    let args = args.iter().map(|it| (*it).to_owned()).collect();
    Program { path: path.to_owned(), args, grace: Duration::from_secs(10) }
}

pub(crate) fn stop() -> Stop {
    Stop::within(LONG, CancellationToken::new())
}

pub(crate) async fn with_orders(rows: u32) -> (World, Connection) {
    let world = World::new(Dialect::MySql).await;
    world.sql("CREATE TABLE orders (id INTEGER PRIMARY KEY AUTO_INCREMENT, total INTEGER NOT NULL) ENGINE=InnoDB").await;
    world.sql(&fill_orders(rows)).await;
    let mut connection = world.open().await;
    connection.lock(&stop()).await.unwrap();
    (world, connection)
}

/// Rows for the table, by a statement that MySQL and MariaDB know.
pub(crate) fn fill_orders(rows: u32) -> String {
    let digit = "(SELECT 0 AS d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL \
                 SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)";
    format!(
        "INSERT INTO orders (total) SELECT n FROM (SELECT a.d + 10 * b.d + 100 * c.d + 1000 * e.d AS n FROM {digit} AS a, \
         {digit} AS b, {digit} AS c, {digit} AS e) AS numbers WHERE n < {rows}"
    )
}

/// Tables and triggers of the tenant's database.
pub(crate) async fn present(world: &World) -> String {
    world
        .sql(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() UNION ALL \
             SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = DATABASE() ORDER BY 1",
        )
        .await
}

pub(crate) async fn columns(world: &World) -> String {
    let query = "SELECT GROUP_CONCAT(column_name ORDER BY ordinal_position) FROM information_schema.columns \
                 WHERE table_schema = DATABASE() AND table_name = 'orders'";
    world.sql(query).await
}

/// The tool, which `scripts/install-servers.sh` installs; where there is none, its tests have nothing to run.
pub(crate) fn pt(args: &[&str]) -> Option<Tools> {
    let path = PathBuf::from("/usr/bin/pt-online-schema-change");
    // The test's servers have no replicas to look for.
    let args: Vec<&str> = ["--recursion-method=none"].iter().chain(args).copied().collect();
    path.is_file().then(|| Tools { pt_online_schema_change: Some(program(&path, &args)), gh_ost: None })
}

#[tokio::test]
async fn pt_online_schema_change_changes_a_table_while_rows_are_written() {
    let Some(tools) = pt(&["--chunk-size=200", "--sleep=0.05"]) else { return };
    let (world, connection) = with_orders(5_000).await;
    let step = step("pt-online-schema-change", "ADD COLUMN note VARCHAR(20) NOT NULL DEFAULT 'a, b; $HOME'");
    let done = CancellationToken::new();
    let writer = async {
        let mut written = 0;
        while !done.is_cancelled() {
            world.sql("SET SESSION lock_wait_timeout = 5; INSERT INTO orders (total) VALUES (-1)").await;
            written += 1;
        }
        written
    };
    let mut seen: Vec<Progress> = Vec::new();
    let tool = async {
        let result = Box::pin(run(&connection, &step, &tools, &mut |it| seen.push(it), &stop())).await;
        done.cancel();
        result
    };
    let (result, written) = tokio::join!(tool, writer);
    result.unwrap();
    assert_eq!(columns(&world).await, "id,total,note");
    assert_eq!(
        world.sql("SELECT count(*) FROM orders WHERE note = 'a, b; $HOME'").await,
        (5_000 + written).to_string()
    );
    assert_eq!(present(&world).await, "orders");
    assert!(written > 1 && !seen.is_empty(), "{written} {seen:?}");
}

#[tokio::test]
async fn a_change_that_pt_online_schema_change_refuses_leaves_the_table_and_nothing_else() {
    let Some(tools) = pt(&[]) else { return };
    let (world, connection) = with_orders(10).await;
    let step = step("pt-online-schema-change", "ADD COLUMN total INTEGER");
    let error = Box::pin(run(&connection, &step, &tools, &mut |_| {}, &stop())).await.unwrap_err();
    let Error::Failed { status, tail, line: 2, .. } = &error else { panic!("{error:?}") };
    assert!(status.starts_with("exit code ") && tail.contains("Duplicate column name"), "{error}");
    assert_eq!((columns(&world).await.as_str(), present(&world).await.as_str()), ("id,total", "orders"));
}

#[tokio::test]
async fn cancelling_pt_online_schema_change_leaves_the_table_and_nothing_else() {
    let Some(tools) = pt(&["--chunk-size=50", "--sleep=0.2"]) else { return };
    let (world, connection) = with_orders(5_000).await;
    let step = step("pt-online-schema-change", "ADD COLUMN note INTEGER");
    let token = CancellationToken::new();
    let stopping = Stop::within(LONG, token.clone());
    let triggers = async {
        eventually(LONG, "the tool's triggers", async || present(&world).await.contains("_ins")).await;
        token.cancel();
    };
    let mut ignore = |_| {};
    let (ended, ()) =
        tokio::join!(Box::pin(run(&connection, &step, &tools, &mut ignore, &stopping)), triggers);
    assert_eq!(ended, Err(Error::Tenant(TenantError::Cancelled)));
    assert_eq!((columns(&world).await.as_str(), present(&world).await.as_str()), ("id,total", "orders"));
}

#[tokio::test]
async fn what_a_killed_pt_online_schema_change_left_does_not_stop_the_next_one() {
    let Some(tools) = pt(&["--chunk-size=50", "--sleep=0.2"]) else { return };
    let (world, connection) = with_orders(2_000).await;
    let step = step("pt-online-schema-change", "ADD COLUMN note INTEGER");
    // Dropping the run kills the tool at once, as the end of the migrator would.
    let triggers = async {
        eventually(LONG, "the tool's triggers", async || present(&world).await.contains("_ins")).await;
    };
    let (mut ignore, stopping) = (|_| {}, stop());
    tokio::select! {
        ended = Box::pin(run(&connection, &step, &tools, &mut ignore, &stopping)) => panic!("{ended:?}"),
        () = triggers => {}
    }
    assert_ne!(present(&world).await, "orders");
    clean_up(&connection, &step).await.unwrap();
    assert_eq!(present(&world).await, "orders");
    let quick = pt(&[]).unwrap();
    Box::pin(run(&connection, &step, &quick, &mut |_| {}, &stop())).await.unwrap();
    assert_eq!((columns(&world).await.as_str(), present(&world).await.as_str()), ("id,total,note", "orders"));
}

/// The tool and MySQL, which `scripts/install-servers.sh` has where it can; [`crate::mysql`] runs its tests.
pub(crate) fn gh_ost(args: &[&str]) -> Option<Tools> {
    let path = grey_testkit::gh_ost().filter(|_| is_on_mysql())?;
    Some(Tools { gh_ost: Some(program(&path, args)), pt_online_schema_change: None })
}

#[tokio::test]
async fn real_gh_ost_changes_a_table_while_rows_are_written() {
    let Some(tools) = gh_ost(&["--chunk-size=200"]) else { return };
    let (world, connection) = with_orders(3_000).await;
    let step = step("gh-ost", "ADD COLUMN note VARCHAR(20) NOT NULL DEFAULT 'a, b; $HOME'");
    let done = CancellationToken::new();
    let writer = async {
        let mut written = 0;
        while !done.is_cancelled() {
            world.sql("SET SESSION lock_wait_timeout = 20; INSERT INTO orders (total) VALUES (-1)").await;
            written += 1;
        }
        written
    };
    let mut seen: Vec<Progress> = Vec::new();
    let tool = async {
        let result = Box::pin(run(&connection, &step, &tools, &mut |it| seen.push(it), &stop())).await;
        done.cancel();
        result
    };
    let (result, written) = tokio::join!(tool, writer);
    result.unwrap();
    assert_eq!(columns(&world).await, "id,total,note");
    let changed = world.sql("SELECT count(*) FROM orders WHERE note = 'a, b; $HOME'").await;
    assert_eq!(changed, (3_000 + written).to_string());
    assert_eq!(present(&world).await, "orders");
    assert!(written > 1 && seen.iter().any(|it| it.percent == 100), "{written} {seen:?}");
}

#[tokio::test]
async fn a_change_that_real_gh_ost_refuses_leaves_the_table_and_nothing_else() {
    let Some(tools) = gh_ost(&[]) else { return };
    let (world, connection) = with_orders(10).await;
    let step = step("gh-ost", "ADD COLUMN total INTEGER");
    let error = Box::pin(run(&connection, &step, &tools, &mut |_| {}, &stop())).await.unwrap_err();
    let Error::Failed { status, tail, line: 2, .. } = &error else { panic!("{error:?}") };
    assert!(status.starts_with("exit code ") && tail.contains("Duplicate column name"), "{error}");
    assert_eq!((columns(&world).await.as_str(), present(&world).await.as_str()), ("id,total", "orders"));
}

#[tokio::test]
async fn cancelling_real_gh_ost_leaves_the_table_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let flag = folder.path().join("wait");
    fs::write(&flag, "").unwrap();
    let Some(tools) = gh_ost(&[&format!("--throttle-additional-flag-file={}", flag.display())]) else {
        return;
    };
    let (world, connection) = with_orders(1_000).await;
    let step = step("gh-ost", "ADD COLUMN note INTEGER");
    let token = CancellationToken::new();
    let stopping = Stop::within(LONG, token.clone());
    let copying = async {
        eventually(LONG, "the tool's copy", async || present(&world).await.contains("_gho")).await;
        token.cancel();
    };
    let mut ignore = |_| {};
    let (ended, ()) =
        tokio::join!(Box::pin(run(&connection, &step, &tools, &mut ignore, &stopping)), copying);
    assert_eq!(ended, Err(Error::Tenant(TenantError::Cancelled)));
    assert_eq!((columns(&world).await.as_str(), present(&world).await.as_str()), ("id,total", "orders"));
}

#[tokio::test]
async fn real_gh_ost_encrypts_when_the_url_says_so() {
    let Some(tools) = gh_ost(&[]) else { return };
    let (mut world, connection) = with_orders(10).await;
    drop(connection);
    let name = world.name.clone();
    world
        .sql(&format!("CREATE USER {name} IDENTIFIED BY 's3cret' REQUIRE SSL; GRANT ALL ON *.* TO {name}"))
        .await;
    let url = world.target.url.expose().replace("grey:grey@", &format!("{name}:s3cret@"));
    world.target.url = Secret::new(format!("{url}?ssl-mode=REQUIRED"));
    let mut connection = world.open().await;
    connection.lock(&stop()).await.unwrap();
    let step = step("gh-ost", "ADD COLUMN note INTEGER");
    Box::pin(run(&connection, &step, &tools, &mut |_| {}, &stop())).await.unwrap();
    assert_eq!(columns(&world).await, "id,total,note");
}

/// A stand-in for gh-ost, for what the real one does not do on command: it writes down what it gets and does `then`.
fn stand_in(then: &str) -> (TempDir, Tools) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gh-ost");
    let own = folder.path().display();
    let text = format!(
        "#!/bin/sh\nfor word in \"$@\"; do printf '%s\\n' \"$word\" >> {own}/words; case \"$word\" in --conf=*)\n\
         stat -c %a \"${{word#--conf=}}\" > {own}/mode; cat \"${{word#--conf=}}\" > {own}/conf;\n\
         printf '%s' \"${{word#--conf=}}\" > {own}/where;; esac; done\nenv > {own}/env\necho $$ > {own}/pid\n{then}\n"
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let mut program = program(&path, &["--max-load=Threads_running=25"]);
    program.grace = Duration::from_millis(300);
    (folder, Tools { gh_ost: Some(program), pt_online_schema_change: None })
}

fn written(folder: &TempDir, name: &str) -> String {
    fs::read_to_string(folder.path().join(name)).unwrap()
}

#[tokio::test]
async fn gh_ost_gets_its_arguments_one_by_one_and_its_password_in_a_private_file() {
    let (folder, tools) = stand_in(
        "echo '# Migrating'; echo 'Copy: 0/1000 0.0%; Applied: 0; Backlog: 0/1000; Time: 0s(total)'\n\
         echo 'Copy: 500/1000 50.0%; Applied: 1; Backlog: 0/1000; Time: 1s(total)'; echo 'Done migrating' >&2",
    );
    let (world, connection) = with_orders(1).await;
    let step = step("gh-ost", "ADD COLUMN note VARCHAR(20) DEFAULT '$(id) `id` \"; --user=root'");
    let mut seen: Vec<Progress> = Vec::new();
    Box::pin(run(&connection, &step, &tools, &mut |it| seen.push(it), &stop())).await.unwrap();
    let words = written(&folder, "words");
    let place = written(&folder, "where");
    let port = crate::run_world::mariadb().await.addr().port();
    let (name, socket) = (&world.name, place.replace("client.cnf", "gh-ost.sock"));
    let expected = format!(
        "--conf={place}\n--host=127.0.0.1\n--port={port}\n--database={name}\n--table=orders\n\
         --alter=ADD COLUMN note VARCHAR(20) DEFAULT '$(id) `id` \"; --user=root'\n--allow-on-master\n\
         --initially-drop-ghost-table\n--initially-drop-old-table\n--ok-to-drop-table\n--verbose\n--execute\n\
         --serve-socket-file={socket}\n--max-load=Threads_running=25\n"
    );
    // Two at one server must differ in this.
    let (replica, words): (Vec<&str>, Vec<&str>) =
        words.lines().partition(|word| word.starts_with("--replica-server-id="));
    let (_, number) = replica.first().unwrap().split_once('=').unwrap();
    assert!(number.parse::<u32>().is_ok_and(|number| number > 1_000_000), "{number}");
    assert_eq!(words, expected.lines().collect::<Vec<_>>());
    assert_eq!(written(&folder, "mode").trim(), "600");
    assert_eq!(written(&folder, "conf"), "[client]\nuser=\"grey\"\npassword=\"grey\"\n");
    assert!(!Path::new(&place).exists());
    // Nothing of this process's environment.
    assert!(!written(&folder, "env").contains("CARGO"));
    let expected = [(0, 0), (500, 50)].map(|(rows, percent)| Progress { rows: Some((rows, 1000)), percent });
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_tool_that_fails_is_told_of_with_its_last_words_but_without_the_password() {
    let (_folder, tools) =
        stand_in("for i in $(seq 100); do echo \"line $i\"; done; echo 'FATAL grey' >&2; exit 3");
    let (_world, connection) = with_orders(1).await;
    let error =
        Box::pin(run(&connection, &step("gh-ost", "FORCE"), &tools, &mut |_| {}, &stop())).await.unwrap_err();
    let Error::Failed { status, tail, line: 2, .. } = &error else { panic!("{error:?}") };
    assert_eq!(status, "exit code 3");
    assert!(tail.contains("FATAL ***") && !tail.contains("line 1 "), "{tail}");
    assert_eq!(TenantError::from(error).reason(), grey_core::error::Reason::MigrationRefused);
    let (_folder, tools) = stand_in("echo 'dial tcp 127.0.0.1:1: connect: connection refused'; exit 1");
    let error =
        Box::pin(run(&connection, &step("gh-ost", "FORCE"), &tools, &mut |_| {}, &stop())).await.unwrap_err();
    assert!(TenantError::from(error).is_unreachable());
}

#[tokio::test]
async fn a_tool_that_does_not_end_is_killed_with_all_that_it_started() {
    for out_of_time in [false, true] {
        let (folder, tools) = stand_in(
            "trap '' TERM\nsh -c 'trap \"\" TERM; while :; do sleep 1; done' &\necho $! > \"$(dirname \"$0\")/child\"\n\
             while :; do sleep 1; done",
        );
        let (_world, connection) = with_orders(1).await;
        let token = CancellationToken::new();
        let time = if out_of_time { Duration::from_secs(2) } else { LONG };
        let stopping = Stop::within(time, token.clone());
        let child = folder.path().join("child");
        let started = async {
            let is_there = async || fs::read_to_string(&child).is_ok_and(|text| text.ends_with('\n'));
            eventually(LONG, "the tool's own child", is_there).await;
            if !out_of_time {
                token.cancel();
            }
        };
        let step = step("gh-ost", "FORCE");
        let mut ignore = |_| {};
        let (ended, ()) =
            tokio::join!(Box::pin(run(&connection, &step, &tools, &mut ignore, &stopping)), started);
        let expected = if out_of_time { TenantError::OutOfTime } else { TenantError::Cancelled };
        assert_eq!(ended, Err(Error::Tenant(expected)));
        for name in ["pid", "child"] {
            let process = PathBuf::from(format!("/proc/{}/stat", written(&folder, name).trim()));
            let has_ended = async || {
                let state = fs::read_to_string(&process).unwrap_or_default();
                state.is_empty() || state.contains(") Z ")
            };
            eventually(LONG, name, has_ended).await;
        }
    }
}

#[tokio::test]
async fn only_tools_that_are_configured_and_there_are_run() {
    let (_world, connection) = with_orders(1).await;
    let step = step("gh-ost", "FORCE");
    let error = Box::pin(run(&connection, &step, &Tools::default(), &mut |_| {}, &stop())).await.unwrap_err();
    assert_eq!(error, Error::NotConfigured(step.tool));
    for (path, args, why) in [
        ("/nonexistent/gh-ost", vec![], "/nonexistent/gh-ost"),
        ("/etc/passwd", vec![], "/etc/passwd"),
        ("/usr", vec![], "not a file"),
        ("gh-ost", vec![], "does not begin at the root"),
        ("/bin/true", vec!["--password=s3cret"], "`--password` is for the migrator to say"),
    ] {
        let tools = Tools { gh_ost: Some(program(Path::new(path), &args)), pt_online_schema_change: None };
        let error = Box::pin(run(&connection, &step, &tools, &mut |_| {}, &stop())).await.unwrap_err();
        assert!(error.to_string().contains(why) && !error.to_string().contains("s3cret"), "{path}: {error}");
    }
}
