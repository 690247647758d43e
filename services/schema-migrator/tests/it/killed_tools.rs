//! A migrator that is killed while a tool changes a table for it: the tool dies with it, and the next one goes on.
//!
//! The migrator is this test program itself, started with [`child`] as its only test.

use crate::external::{fill_orders, gh_ost, program, pt};
use crate::files::load;
use crate::run_world::{LONG, World, job, lenient, target, timeouts};
use grey_schema_migrator::external::Tools;
use grey_schema_migrator::files::{Dialect, Scripts};
use grey_schema_migrator::plan::Target;
use grey_schema_migrator::run::{Goal, Job, Migration, Outcome, Tooling, migrate};
use grey_schema_migrator::tenant::Stop;
use grey_testkit::{Spawned, eventually};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

const CHILD: &str = "MIGRATE_BY_TOOL";

fn scripts(tool: &str) -> Scripts {
    let table = format!(
        "CREATE TABLE orders (id INTEGER PRIMARY KEY AUTO_INCREMENT, total INTEGER NOT NULL) ENGINE=InnoDB;\n{};\n",
        fill_orders(3_000)
    );
    let online =
        format!("-- grey: online tool={tool} table=orders\nALTER TABLE orders ADD COLUMN note INTEGER;\n");
    let undo = ("U2__note.sql", "ALTER TABLE orders DROP COLUMN note;\n");
    load(
        Dialect::MySql,
        &[
            ("V1__orders.sql", &table),
            ("U1__orders.sql", "DROP TABLE orders;\n"),
            ("V2__note.sql", &online),
            undo,
        ],
    )
}

async fn run(world: &World, tool: &str, tools: Tools) -> Outcome {
    let (scripts, tooling) = (scripts(tool), Tooling { tools, ..Tooling::default() });
    let stop = Stop::within(LONG, CancellationToken::new());
    let job = Job { tooling: &tooling, ..job("u1", &scripts, stop) };
    let goal = Goal::Up(Target::Newest);
    let migration = Migration { target: &world.target, timeouts: timeouts(), goal, options: lenient() };
    Box::pin(migrate(&migration, &job, &mut |_| {})).await.unwrap().outcome
}

/// `tool path argument url`
fn read_child() -> Option<[String; 4]> {
    let text = std::env::var(CHILD).ok()?;
    let parts: Vec<String> = text.splitn(4, ' ').map(str::to_owned).collect();
    Some(parts.try_into().unwrap())
}

/// Not a test by itself: the program that the tests kill.
#[tokio::test]
async fn child() {
    let Some([tool, path, argument, url]) = read_child() else { return };
    let mut program = program(Path::new(&path), &[&argument]);
    let mut tools = Tools::default();
    if tool == "gh-ost" {
        tools.gh_ost = Some(program);
    } else {
        program.args.extend(["--recursion-method=none", "--chunk-size=50"].map(str::to_owned));
        tools.pt_online_schema_change = Some(program);
    }
    let folder = tempfile::tempdir().unwrap();
    let world =
        World { dialect: Dialect::MySql, target: target(Dialect::MySql, url), name: String::new(), folder };
    println!("ended {:?}", run(&world, &tool, tools).await);
}

fn start(world: &World, tool: &str, path: &Path, argument: &str) -> Spawned {
    let text = format!("{tool} {} {argument} {}", path.display(), world.target.url.expose());
    let spawned = Spawned::builder(std::env::current_exe().unwrap()).env(CHILD, text);
    spawned.arg("--exact").arg("killed_tools::child").arg("--nocapture").start().unwrap()
}

/// Living processes whose arguments name the tool and the tenant's database: each tool is told of both.
fn tools_at(world: &World, path: &Path) -> Vec<i32> {
    let path = path.to_str().unwrap();
    let here = |process: &fs::DirEntry| {
        let arguments = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments);
        // In full, as the name of one database begins with that of another.
        let database = |argument: &str| {
            argument == format!("--database={}", world.name)
                || argument.split(',').any(|part| part == format!("D={}", world.name))
        };
        arguments.split('\0').any(database) && arguments.contains(path) && !arguments.contains("killed_tools")
    };
    let processes = fs::read_dir("/proc").unwrap().flatten().filter(here);
    processes.filter_map(|process| process.file_name().to_str()?.parse().ok()).collect()
}

async fn dies_with_its_migrator(world: &World, migrator: Spawned, path: &Path, under_way: &str) {
    let names = "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() UNION ALL \
                 SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = DATABASE()";
    eventually(LONG, "the tool is at work", async || {
        assert!(!migrator.output().contains("ended "), "{}", migrator.output());
        world.sql(names).await.contains(under_way)
    })
    .await;
    assert_eq!(tools_at(world, path).len(), 1, "{}", migrator.output());
    migrator.kill9().unwrap();
    eventually(LONG, "the tool is dead", async || tools_at(world, path).is_empty()).await;
    let column = "SELECT count(*) FROM information_schema.columns WHERE table_schema = DATABASE() AND \
                  table_name = 'orders' AND column_name = 'note'";
    assert_eq!(world.sql(column).await, "0");
    assert_eq!(world.sql("SELECT count(*) FROM orders").await, "3000");
}

async fn next_one_goes_on(world: &World, tool: &str, tools: Tools) {
    assert_eq!(run(world, tool, tools).await, Outcome::Succeeded);
    assert_eq!(world.history().await, ["1 applied", "2 applied"]);
    assert_eq!(world.applied().await, ["1", "2"]);
    assert_eq!(world.sql("SELECT count(*) FROM orders WHERE note IS NULL").await, "3000");
    let left = "SELECT count(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND \
                table_name LIKE '\\_orders%'";
    assert_eq!(world.sql(left).await, "0");
    let triggers = "SELECT count(*) FROM information_schema.triggers WHERE trigger_schema = DATABASE()";
    assert_eq!(world.sql(triggers).await, "0");
}

#[tokio::test]
async fn real_pt_online_schema_change_dies_with_its_migrator_and_the_next_one_goes_on() {
    let Some(tools) = pt(&[]) else { return };
    let path = PathBuf::from("/usr/bin/pt-online-schema-change");
    let world = World::new(Dialect::MySql).await;
    let migrator = start(&world, "pt-online-schema-change", &path, "--sleep=0.5");
    dies_with_its_migrator(&world, migrator, &path, "_ins").await;
    next_one_goes_on(&world, "pt-online-schema-change", tools).await;
}

#[tokio::test]
async fn real_gh_ost_dies_with_its_migrator_and_the_next_one_goes_on() {
    let Some(tools) = gh_ost(&[]) else { return };
    let path = tools.gh_ost.as_ref().unwrap().path.clone();
    let world = World::new(Dialect::MySql).await;
    // It waits for as long as the file is there.
    let flag = world.folder.path().join("wait");
    fs::write(&flag, "").unwrap();
    let argument = format!("--throttle-additional-flag-file={}", flag.display());
    let migrator = start(&world, "gh-ost", &path, &argument);
    dies_with_its_migrator(&world, migrator, &path, "_gho").await;
    next_one_goes_on(&world, "gh-ost", tools).await;
}

/// What a tool that has swapped the tables and not told of it yet leaves: the change is there, and is not made twice.
#[tokio::test]
async fn a_change_that_a_tool_ended_as_its_migrator_died_is_not_made_again() {
    let world = World::new(Dialect::MySql).await;
    let path = world.folder.path().join("gh-ost");
    let client = format!(
        "mariadb --no-defaults --protocol=tcp --host=127.0.0.1 --port={} --user=grey --password=grey {} --execute",
        crate::run_world::mariadb().await.addr().port(),
        world.name
    );
    let change =
        format!("{client} 'ALTER TABLE orders ADD COLUMN note INTEGER; CREATE TABLE made (id INTEGER)'");
    fs::write(&path, format!("#!/bin/sh\n{change}\nwhile :; do sleep 1; done\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let migrator = start(&world, "gh-ost", &path, "--max-load=Threads_running=25");
    eventually(LONG, "the change is made", async || {
        world.sql("SELECT count(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'made'").await == "1"
    })
    .await;
    migrator.kill9().unwrap();
    eventually(LONG, "the tool is dead", async || tools_at(&world, &path).is_empty()).await;
    let marker = world.folder.path().join("again");
    fs::write(&path, format!("#!/bin/sh\ntouch {}\nexit 1\n", marker.display())).unwrap();
    let tools = Tools { gh_ost: Some(program(&path, &[])), ..Tools::default() };
    next_one_goes_on(&world, "gh-ost", tools).await;
    assert!(!marker.exists());
}
