//! What a migrator writes, answers and stores: no password of a tenant's database and no master key is in it.

use crate::run_world::{mariadb, postgres};
use crate::service_world::{PLAIN, SOON, Stage, unique, up, vault};
use grey_proto::control::DatabaseKind;
use grey_proto::schema::schema_service_client::SchemaServiceClient;
use grey_proto::schema::{
    BaselineRequest, GetUpgradeRequest, ListSchemasRequest, ListUpgradesRequest, PlanRequest,
    RollbackRequest, StartUpgradeRequest, StartUpgradesRequest, UpgradeOptions, WatchUpgradeRequest,
};
use grey_schema_migrator::Config;
use grey_schema_migrator::backup;
use grey_testkit::{ReservedPort, Spawned};
use std::fmt::Debug;
use std::path::Path;
use tonic::transport::{Channel, Endpoint};

/// Is in every password, right or wrong.
const MARK: &str = "Zw9q";

/// A replica as a process that logs everything there is to log, its gRPC client, and where its metrics are.
async fn talkative(config: &Config, folder: &Path) -> (Spawned, SchemaServiceClient<Channel>, String) {
    let file = folder.join("talkative.toml");
    let mut config = config.clone();
    config.telemetry.log_filter = "trace".to_owned();
    // What is printed has its secrets masked: those come by the environment.
    let printed = grey_runtime::config::to_toml(&config).unwrap();
    assert!(!printed.contains(config.vault.keys.first().unwrap().secret.expose()), "{printed}");
    std::fs::write(&file, printed).unwrap();
    let key = config.vault.keys.first().unwrap();
    let keys = format!("[{{id=\"{}\",secret=\"{}\"}}]", key.id, key.secret.expose());
    let spawned = Spawned::builder(env!("CARGO_BIN_EXE_grey-schema-migrator"))
        .arg("--config")
        .arg(&file)
        .env("GREY__DATABASE__URL", config.database.url.expose())
        .env("GREY__CONTROL__TOKEN", "\"\"")
        .env("GREY__VAULT__KEYS", keys)
        .start()
        .unwrap();
    let line = spawned.wait_for_line("grpc.address", SOON).await.unwrap();
    let address = |name: &str| {
        let rest = line.split(&format!("{name}=")).nth(1).unwrap();
        rest.split_whitespace().next().unwrap().to_owned()
    };
    let channel = Endpoint::from_shared(format!("http://{}", address("grpc.address"))).unwrap();
    let client = SchemaServiceClient::new(channel.connect_lazy());
    (spawned, client, format!("http://{}/metrics", address("http.address")))
}

/// A user of the MariaDB server with a password, and the URL of an empty database.
async fn with_password(name: &str) -> String {
    let maria = mariadb().await;
    maria.database(name).await.unwrap();
    for sql in [
        format!("CREATE USER '{name}'@'127.0.0.1' IDENTIFIED BY 'right-{MARK}'"),
        format!("GRANT ALL PRIVILEGES ON *.* TO '{name}'@'127.0.0.1'"),
    ] {
        maria.query(name, &sql).await.unwrap();
    }
    format!("mysql://{name}:right-{MARK}@{}/{name}", maria.addr())
}

/// All answers as text.
#[derive(Default)]
struct Told(String);

impl Told {
    fn hear<T: Debug>(&mut self, answer: T) -> T {
        self.0.push_str(&format!("{answer:?}\n"));
        answer
    }
}

#[tokio::test]
async fn no_password_and_no_master_key_is_logged_answered_or_stored() {
    let stage = Stage::new(&PLAIN).await;
    let backups = tempfile::tempdir().unwrap();
    let mut config = stage.config();
    config.backups = Some(backup::Options::in_folder(backups.path().to_owned()));
    config.tenants.connect = std::time::Duration::from_secs(5);

    let (maria, pg) = (unique("maria"), unique("pg"));
    let right = with_password(&maria).await;
    let wrong = right.replace("right-", "wrong-");
    // The server asks no password of this user, and gets one all the same.
    let trusting = postgres().await.database(&pg).await.unwrap();
    let trusting = trusting.replace("@", &format!(":any-{MARK}@"));
    assert!(trusting.contains(MARK), "{trusting}");
    postgres().await.query(&pg, "CREATE TABLE tags (mine TEXT)").await.unwrap();
    // Held to the end, so that nobody else begins to answer there.
    let silent = ReservedPort::any().unwrap();
    let away = format!("postgres://app:away-{MARK}@{}/none", silent.addr());
    let tenants = ["right", "wrong", "trusting", "away"];
    for (tenant, url) in tenants.iter().zip([right, wrong, trusting, away]) {
        stage.plane.put_tenant(tenant).await;
        stage.plane.register(tenant, DatabaseKind::Database, "", &url).await;
    }

    let (process, mut client, metrics) = talkative(&config, stage.folder.path()).await;
    let mut told = Told::default();
    let every: Vec<String> = tenants.iter().map(ToString::to_string).collect();
    for tenant in &every {
        let (tenant, service) = (tenant.clone(), "shop".to_owned());
        let plan = PlanRequest { tenant: tenant.clone(), service, ..PlanRequest::default() };
        drop(told.hear(client.plan(plan).await));
        let options = Some(UpgradeOptions { backup: true, ..UpgradeOptions::default() });
        let request = StartUpgradeRequest { options, ..up(&tenant) };
        let Ok(started) = told.hear(client.start_upgrade(request).await) else { continue };
        let id = started.into_inner().upgrade.unwrap().id;
        let mut changes =
            client.watch_upgrade(WatchUpgradeRequest { id: id.clone() }).await.unwrap().into_inner();
        while let Some(change) = told.hear(changes.message().await.unwrap()) {
            drop(change);
        }
        drop(told.hear(client.get_upgrade(GetUpgradeRequest { id }).await));
    }
    for tenant in &every {
        let (tenant, service, schema) = (tenant.clone(), "shop".to_owned(), "1.1".to_owned());
        let (down, at) = (RollbackRequest::default(), BaselineRequest::default());
        let baseline = BaselineRequest {
            tenant: tenant.clone(),
            service: service.clone(),
            schema: schema.clone(),
            ..at
        };
        drop(told.hear(client.baseline(baseline).await));
        drop(told.hear(client.rollback(RollbackRequest { tenant, service, schema, ..down }).await));
    }
    let fleet =
        StartUpgradesRequest { tenants: every, service: "shop".into(), ..StartUpgradesRequest::default() };
    drop(told.hear(client.start_upgrades(fleet).await));
    let live = ListSchemasRequest { service: "shop".into(), live: true, ..ListSchemasRequest::default() };
    drop(told.hear(client.list_schemas(live).await));
    drop(told.hear(client.list_upgrades(ListUpgradesRequest::default()).await));
    told.hear(reqwest::get(metrics).await.unwrap().text().await.unwrap());

    // All that was meant to happen has.
    for what in [
        "UpgradeState::Succeeded",
        "\"DATABASE_REFUSED\"",
        "\"DATABASE_UNAVAILABLE\"",
        "already exists",
        backups.path().to_str().unwrap(),
    ] {
        let found = told.0.contains(what) || told.0.contains(what.trim_start_matches("UpgradeState::"));
        assert!(found, "{what}: {}", told.0);
    }
    let status = process.terminate(SOON).await.unwrap();
    assert!(status.success(), "{}", process.output());
    let output = process.output();
    assert!(output.contains("upgrade ended") && output.contains("TRACE"), "{output}");
    let key = vault().keys.first().unwrap().secret.expose().to_owned();
    for secret in [MARK, key.as_str(), "secretsecret"] {
        assert!(!told.0.contains(secret), "answered: {}", told.0);
        let line = output.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "logged");
        for file in files(stage.folder.path()).chain(files(backups.path())) {
            let bytes = std::fs::read(&file).unwrap();
            let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            // The control plane's database is elsewhere, and has its own tests.
            assert!(!found, "stored: {}", file.display());
        }
    }
}

fn files(folder: &Path) -> impl Iterator<Item = std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file())
}
