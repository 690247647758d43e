//! Databases that were mended by hand: what is half done is shown, and the history is told what became of it.

use crate::run_world::{LONG, mariadb, patient, postgres, target};
use crate::service_world::{Replica, SOON, Stage, reason, unique, up};
use grey_core::error::Reason;
use grey_proto::control::DatabaseKind;
use grey_proto::schema::{
    GetJournalRequest, HalfDone, RepairOutcome, RepairRequest, StartUpgradeRequest, StepState, TenantSchema,
    Upgrade, UpgradeDirection, UpgradeOptions, UpgradeState,
};
use grey_schema_migrator::files::Dialect;
use grey_schema_migrator::lint::Rule;
use grey_schema_migrator::tenant::{Connection, Stop};
use grey_testkit::eventually;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// The second one fails in its third step, commits the two before it, has no undo file, and checks that there is a note.
const FILES: [(&str, &str); 4] = [
    ("V1.1__make_notes.sql", "CREATE TABLE notes (id INT NOT NULL PRIMARY KEY);"),
    ("U1.1__make_notes.sql", "DROP TABLE notes;"),
    (BROKEN, BROKEN_TEXT),
    (
        "C1.2__add_body.sql",
        "SELECT 'none' AS notes FROM (SELECT count(*) AS n FROM notes) AS it WHERE it.n = 0;",
    ),
];
const BROKEN: &str = "V1.2__add_body.sql";
const BROKEN_TEXT: &str = "-- grey: no-transaction\n\
                           ALTER TABLE notes ADD COLUMN body VARCHAR(50);\n\
                           CREATE TABLE tags (id INT NOT NULL PRIMARY KEY);\n\
                           INSERT INTO nowhere VALUES (1);\n";
const SERVERS: [Dialect; 2] = [Dialect::MySql, Dialect::Postgres];

/// A tenant `acme` whose upgrade to 1.2 has failed half way.
struct World {
    stage: Stage,
    replica: Replica,
    dialect: Dialect,
    name: String,
    url: String,
    failed: Upgrade,
}

impl World {
    async fn start(dialect: Dialect) -> Self {
        let stage = Stage::new(&FILES).await;
        let mut config = stage.config();
        config.tenants.lock = Duration::from_secs(10);
        let replica = Replica::start(config).await;
        let name = unique("repair");
        let url = match dialect {
            Dialect::Postgres => postgres().await.database(&name).await.unwrap(),
            _ => mariadb().await.database(&name).await.unwrap(),
        };
        stage.plane.put_tenant("acme").await;
        stage.plane.register("acme", DatabaseKind::Database, "", &url).await;
        let mut world = Self { stage, replica, dialect, name, url, failed: Upgrade::default() };
        world.failed = world.up().await;
        let told = (world.failed.state(), world.failed.error_reason.as_str());
        assert_eq!(told, (UpgradeState::NeedsRepair, "MIGRATION_REFUSED"), "{dialect}");
        world
    }

    async fn up(&self) -> Upgrade {
        let queued = self.replica.try_start(lenient()).await.unwrap();
        self.replica.ended(&queued.id).await
    }

    async fn sql(&self, sql: &str) -> String {
        self.stage.ask(self.dialect, &self.name, sql).await
    }

    async fn journal(&self) -> Vec<HalfDone> {
        let request = GetJournalRequest { tenant: "acme".into(), service: "shop".into() };
        self.replica.grpc().get_journal(request).await.unwrap().into_inner().half_done
    }

    async fn repair(&self, schema: &str, outcome: RepairOutcome) -> Result<TenantSchema, Status> {
        let request = RepairRequest {
            tenant: "acme".into(),
            service: "shop".into(),
            schema: schema.into(),
            outcome: outcome.into(),
            reason: "mended".into(),
        };
        self.replica.grpc().repair(request).await.map(|answer| answer.into_inner().schema.unwrap())
    }

    /// The newest row of the history: version, outcome and whether it has a checksum.
    async fn newest(&self) -> String {
        let sql = "SELECT concat(version, ' ', outcome, ' ', COALESCE(length(checksum), 0)) \
                   FROM grey_schema_history_shop ORDER BY seq DESC LIMIT 1";
        self.sql(sql).await
    }
}

/// To the newest schema, whatever speaks against it.
fn lenient() -> StartUpgradeRequest {
    let accept = Rule::ALL.iter().map(|rule| rule.as_str().to_owned()).collect();
    StartUpgradeRequest {
        options: Some(UpgradeOptions { accept, ..UpgradeOptions::default() }),
        ..up("acme")
    }
}

fn states(half_done: &HalfDone) -> Vec<StepState> {
    half_done.steps.iter().map(grey_proto::schema::JournalStep::state).collect()
}

#[tokio::test]
async fn what_is_half_done_is_shown_statement_by_statement() {
    for dialect in SERVERS {
        let world = World::start(dialect).await;
        let journal = world.journal().await;
        let [half_done] = journal.as_slice() else { panic!("{dialect}: {journal:?}") };
        let head = (half_done.schema.as_str(), half_done.description.as_str(), half_done.direction());
        assert_eq!(head, ("1.2", "add body", UpgradeDirection::Up), "{dialect}");
        assert_eq!(half_done.upgrade, world.failed.id, "{dialect}");
        assert!(!half_done.file_changed && half_done.started_at.is_some(), "{dialect}: {half_done:?}");
        assert_eq!(states(half_done), [StepState::Done, StepState::Done, StepState::Waiting], "{dialect}");
        let steps: Vec<_> = half_done.steps.iter().map(|step| (step.line, step.statement.as_str())).collect();
        assert_eq!(steps[1], (3, "CREATE TABLE tags (id INT NOT NULL PRIMARY KEY)"), "{dialect}");
        // As a crash within the second statement would leave it.
        let crash = "UPDATE grey_schema_journal_shop SET state = 'started' WHERE step = 2 AND unfinished = 1";
        world.sql(crash).await;
        let journal = world.journal().await;
        assert_eq!(states(&journal[0])[1], StepState::Running, "{dialect}");
        // With another file, what its lines say is not what was run.
        world.stage.write(BROKEN, "SELECT 1;");
        let journal = world.journal().await;
        assert!(
            journal[0].file_changed && journal[0].steps[0].statement.is_empty(),
            "{dialect}: {journal:?}"
        );
        assert_eq!(states(&journal[0]), [StepState::Done, StepState::Running], "{dialect}");
        world.replica.stop().await;
    }
}

#[tokio::test]
async fn a_migration_that_was_finished_by_hand_is_declared_applied() {
    for dialect in SERVERS {
        let world = World::start(dialect).await;
        let refused = world.repair("", RepairOutcome::Applied).await.unwrap_err();
        assert!(refused.message().contains("check on line 1 finds a row"), "{}", refused.message());
        assert_eq!(reason::<()>(Err(refused)), Reason::MigrationRefused, "{dialect}");
        world.sql("INSERT INTO notes VALUES (1, 'x')").await;
        let repaired = world.repair("1.2", RepairOutcome::Applied).await.unwrap();
        assert_eq!((repaired.schema.as_str(), repaired.pending), ("1.2", 0), "{dialect}");
        assert_eq!(world.newest().await, "1.2 applied 64", "{dialect}");
        assert_eq!(world.journal().await, [], "{dialect}");
        eventually(SOON, "the schema is reported", async || {
            world.stage.plane.observed("acme").await == "1.2"
        })
        .await;
        // The next upgrade believes it, checksum and all.
        let next = world.up().await;
        assert_eq!(
            (next.state(), next.steps.len()),
            (UpgradeState::Succeeded, 0),
            "{dialect}: {}",
            next.error
        );
        assert_eq!(next.error_reason, "", "{dialect}");
        world.replica.stop().await;
    }
}

#[tokio::test]
async fn a_migration_that_was_taken_back_by_hand_is_declared_undone_and_can_be_run_again() {
    for dialect in SERVERS {
        let world = World::start(dialect).await;
        world.sql("DROP TABLE tags").await;
        world.sql("ALTER TABLE notes DROP COLUMN body").await;
        world.sql("INSERT INTO notes VALUES (1)").await;
        let repaired = world.repair("", RepairOutcome::Undone).await.unwrap();
        assert_eq!((repaired.schema.as_str(), repaired.pending), ("1.1", 1), "{dialect}");
        assert_eq!(world.newest().await, "1.2 undone 64", "{dialect}");
        eventually(SOON, "the schema is reported", async || {
            world.stage.plane.observed("acme").await == "1.1"
        })
        .await;
        world.stage.write(BROKEN, &BROKEN_TEXT.replace("nowhere", "tags"));
        let next = world.up().await;
        assert_eq!((next.state(), next.schema.as_str()), (UpgradeState::Succeeded, "1.2"), "{dialect}");
        world.replica.stop().await;
    }
}

#[tokio::test]
async fn what_must_not_be_repaired_is_left_as_it_is() {
    for dialect in SERVERS {
        let world = World::start(dialect).await;
        let before = (world.journal().await, world.newest().await);
        for (schema, outcome, why) in [
            ("", RepairOutcome::Unspecified, Reason::InvalidArgument),
            ("new", RepairOutcome::Undone, Reason::InvalidArgument),
            ("1.1", RepairOutcome::Undone, Reason::MigrationRefused),
            ("9.9", RepairOutcome::Undone, Reason::MigrationRefused),
        ] {
            assert_eq!(reason(world.repair(schema, outcome).await), why, "{dialect} {schema}");
        }
        // Another session holds the history; then an upgrade runs, which waits for it.
        let target = target(dialect, world.url.clone());
        let mut busy = Connection::open(&target, &patient()).await.unwrap();
        busy.lock(&Stop::within(LONG, CancellationToken::new())).await.unwrap();
        assert_eq!(
            reason(world.repair("", RepairOutcome::Undone).await),
            Reason::UpgradeRunning,
            "{dialect}"
        );
        let queued = world.replica.try_start(lenient()).await.unwrap();
        let refused = world.repair("", RepairOutcome::Undone).await.unwrap_err();
        assert!(refused.message().contains(&queued.id), "{dialect}: {}", refused.message());
        world.replica.ended(&queued.id).await;
        assert_eq!((world.journal().await, world.newest().await), before, "{dialect}");
        drop(busy);
        // A file that is gone cannot be in the history as applied.
        std::fs::remove_file(world.stage.files.path().join("shop").join(BROKEN)).unwrap();
        std::fs::remove_file(world.stage.files.path().join("shop/C1.2__add_body.sql")).unwrap();
        let refused = world.repair("", RepairOutcome::Applied).await.unwrap_err();
        assert!(refused.message().contains("its file is gone"), "{dialect}: {}", refused.message());
        world.repair("", RepairOutcome::Undone).await.unwrap();
        assert_eq!(
            reason(world.repair("", RepairOutcome::Undone).await),
            Reason::MigrationRefused,
            "{dialect}"
        );
        world.replica.stop().await;
    }
}
