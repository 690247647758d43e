//! A way out of what is refused, and what was done to a database.

use crate::service_world::{PLAIN, Replica, Stage, reason, to_schema, up};
use grey_core::error::Reason;
use grey_proto::schema::{
    AcceptDriftRequest, AcceptFileRequest, AcceptFileResponse, DriftChange, GetDriftRequest,
    GetDriftResponse, GetHistoryRequest, HistoryOutcome, ListSchemasRequest, PlanRequest,
    StartUpgradeRequest, TenantSchema, UpgradeDirection, UpgradeState, ValidateRequest,
};
use grey_schema_migrator::files::Dialect;
use tonic::Status;

async fn upgraded(stage: &Stage, replica: &Replica, dialect: Dialect) -> String {
    let name = stage.tenant(dialect, "acme").await;
    let ended = replica.ended(&replica.up("acme").await.id).await;
    assert_eq!(ended.state(), UpgradeState::Succeeded, "{dialect}: {}", ended.error);
    name
}

async fn accept(replica: &Replica, file: &str, why: &str) -> Result<AcceptFileResponse, Status> {
    let request = AcceptFileRequest {
        tenant: "acme".into(),
        service: "shop".into(),
        file: file.into(),
        reason: why.into(),
    };
    replica.grpc().accept_file(request).await.map(tonic::Response::into_inner)
}

async fn standing(replica: &Replica) -> TenantSchema {
    let request = ListSchemasRequest { service: "shop".into(), ..ListSchemasRequest::default() };
    replica.grpc().list_schemas(request).await.unwrap().into_inner().schemas.remove(0)
}

#[tokio::test]
async fn a_file_that_was_changed_or_is_gone_is_accepted_by_name() {
    for dialect in Dialect::ALL {
        let stage = Stage::new(&PLAIN).await;
        let replica = stage.replica().await;
        upgraded(&stage, &replica, dialect).await;
        let (one, two) = ("V1.1__make_notes.sql", "V1.2__make_tags.sql");
        let refused = accept(&replica, one, "why").await.unwrap_err();
        assert!(refused.message().contains("it is what was applied"), "{dialect}: {}", refused.message());
        stage.write(one, "CREATE TABLE notes (id INT NOT NULL PRIMARY KEY, body VARCHAR(100)); -- tidied");
        let blocked = replica.try_start(up("acme")).await.unwrap_err();
        assert!(
            blocked.message().contains("--accept-checksum V1.1__make_notes.sql"),
            "{}",
            blocked.message()
        );
        assert_eq!(reason(accept(&replica, one, " ").await), Reason::InvalidArgument, "{dialect}");
        assert_eq!(reason(accept(&replica, "V9__nowhere.sql", "why").await), Reason::MigrationRefused);
        accept(&replica, one, "only a comment").await.unwrap();
        let ended = replica.ended(&replica.up("acme").await.id).await;
        assert_eq!(ended.state(), UpgradeState::Succeeded, "{dialect}: {}", ended.error);
        for file in [two, "U1.2__make_tags.sql"] {
            std::fs::remove_file(stage.files.path().join("shop").join(file)).unwrap();
        }
        let blocked = replica.try_start(up("acme")).await.unwrap_err();
        assert!(blocked.message().contains("its file is gone"), "{}", blocked.message());
        accept(&replica, two, "squashed").await.unwrap();
        let ended = replica.ended(&replica.up("acme").await.id).await;
        assert_eq!(ended.state(), UpgradeState::Succeeded, "{dialect}: {}", ended.error);

        let request = GetHistoryRequest { tenant: "acme".into(), service: "shop".into() };
        let history = replica.grpc().get_history(request).await.unwrap().into_inner();
        let told: Vec<_> = history
            .entries
            .iter()
            .map(|it| (it.schema.as_str(), it.outcome(), it.description.as_str(), it.checksum.len()))
            .collect();
        let expected = [
            ("1.1", HistoryOutcome::Applied, "make notes", 64),
            ("1.2", HistoryOutcome::Applied, "make tags", 64),
            ("1.1", HistoryOutcome::Accepted, "only a comment", 64),
            ("1.2", HistoryOutcome::Accepted, "squashed", 0),
        ];
        assert_eq!(told, expected, "{dialect}");
        assert!(history.entries.iter().all(|it| !it.actor.is_empty()), "{dialect}");
        assert_eq!(history.upgrades.len(), 3, "{dialect}");
        replica.stop().await;
    }
}

async fn drift(replica: &Replica) -> GetDriftResponse {
    let request = GetDriftRequest { tenant: "acme".into(), service: "shop".into() };
    replica.grpc().get_drift(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn drift_is_told_and_accepted() {
    for dialect in Dialect::ALL {
        let stage = Stage::new(&PLAIN).await;
        let replica = stage.replica().await;
        let name = upgraded(&stage, &replica, dialect).await;
        let well = drift(&replica).await;
        assert!(well.left_at.is_some() && well.differences.is_empty() && well.schema == "1.2", "{well:?}");
        stage.ask(dialect, &name, "CREATE TABLE by_hand (id INT)").await;
        let found = drift(&replica).await.differences;
        let told: Vec<_> = found.iter().map(|it| (it.object.as_str(), it.change())).collect();
        assert_eq!(told, [("by_hand", DriftChange::Added)], "{dialect}");
        let (tenant, service, reason) = ("acme".to_owned(), "shop".to_owned(), "needed".to_owned());
        replica.grpc().accept_drift(AcceptDriftRequest { tenant, service, reason }).await.unwrap();
        assert!(drift(&replica).await.differences.is_empty(), "{dialect}");
        replica.stop().await;
    }
}

#[tokio::test]
async fn the_status_tells_what_failed_and_why_until_an_upgrade_succeeds() {
    for dialect in Dialect::ALL {
        let stage = Stage::new(&PLAIN).await;
        let replica = stage.replica().await;
        let first = StartUpgradeRequest { target: to_schema("1.1"), ..up("acme") };
        stage.tenant(dialect, "acme").await;
        replica.ended(&replica.try_start(first).await.unwrap().id).await;
        assert_eq!(standing(&replica).await.last_state(), UpgradeState::Unspecified, "{dialect}");
        stage.write("V1.2__make_tags.sql", "INSERT INTO nowhere VALUES (1);");
        let failed = replica.ended(&replica.up("acme").await.id).await;
        assert_eq!(failed.state(), UpgradeState::Failed, "{dialect}");
        let told = standing(&replica).await;
        assert_eq!((told.last_state(), &told.last_upgrade), (UpgradeState::Failed, &failed.id), "{dialect}");
        let place = "V1.2__make_tags.sql: line 1: INSERT INTO nowhere";
        assert!(told.last_error.contains(place), "{dialect}: {}", told.last_error);
        stage.write("V1.2__make_tags.sql", "CREATE TABLE tags (id INT NOT NULL PRIMARY KEY);");
        let ended = replica.ended(&replica.up("acme").await.id).await;
        assert_eq!(ended.state(), UpgradeState::Succeeded, "{dialect}: {}", ended.error);
        assert_eq!(standing(&replica).await.last_state(), UpgradeState::Unspecified, "{dialect}");
        replica.stop().await;
    }
}

#[tokio::test]
async fn undoing_is_shown_before_it_is_done() {
    let stage = Stage::new(&PLAIN).await;
    let replica = stage.replica().await;
    upgraded(&stage, &replica, Dialect::Sqlite).await;
    let request = PlanRequest {
        tenant: "acme".into(),
        service: "shop".into(),
        target: to_schema("0"),
        direction: UpgradeDirection::Down.into(),
        ..PlanRequest::default()
    };
    let plan = replica.grpc().plan(request).await.unwrap().into_inner().plan.unwrap();
    let told: Vec<_> = plan.steps.iter().map(|it| (it.file.as_str(), it.statements.clone())).collect();
    let expected = [
        ("U1.2__make_tags.sql", vec!["DROP TABLE tags".to_owned()]),
        ("U1.1__make_notes.sql", vec!["DROP TABLE notes".to_owned()]),
    ];
    assert_eq!((told, plan.refused), (expected.to_vec(), false));
    assert_eq!(standing(&replica).await.schema, "1.2");
    replica.stop().await;
}

#[tokio::test]
async fn files_are_checked_for_the_engines_that_are_in_use() {
    let plain = "ALTER TABLE notes ADD x INT;";
    let stage = Stage::new(&[("V1__notes.sql", "CREATE TABLE notes (id INT);"), ("V2__x.sql", plain)]).await;
    let replica = stage.replica().await;
    let validate = async |dialect: &str| {
        let request = ValidateRequest { service: "shop".into(), dialect: dialect.into() };
        replica.grpc().validate(request).await.unwrap().into_inner()
    };
    let every = validate("").await;
    assert_eq!(every.dialects, ["postgres", "mysql", "sqlite"]);
    assert!(every.findings.iter().any(|it| it.message.contains("ALGORITHM=INPLACE")), "{every:?}");
    stage.sqlite("acme").await;
    let one = validate("").await;
    assert_eq!(one.dialects, ["sqlite"]);
    assert!(!one.findings.iter().any(|it| it.message.contains("ALGORITHM=INPLACE")), "{one:?}");
    assert_eq!(validate("mysql").await.dialects, ["mysql"]);
    replica.stop().await;
}
