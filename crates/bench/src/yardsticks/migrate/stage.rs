//! The control plane and the migrator on real stores, and the tenants' schemas.

use super::{AT_ONCE, UPGRADES};
use crate::programs::{self, Program, Service};
use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use grey_proto::control::change::Change as Kind;
use grey_proto::control::database_service_client::DatabaseServiceClient;
use grey_proto::control::pin_service_client::PinServiceClient;
use grey_proto::control::{
    ApplyChangeSetRequest, Change, DatabaseKind, ProposedChange, PutDatabaseRequest, Service as Declared,
    Tenant, TenantDatabase, TenantStatus,
};
use grey_proto::schema::schema_service_client::SchemaServiceClient;
use grey_proto::schema::{
    ListSchemasRequest, ListUpgradesRequest, StartUpgradesRequest, Target, TenantSchema, UpgradeState,
};
use grey_testkit::{Postgres, Redis};
use grey_vault::Vault;
use sea_orm::sqlx::postgres::PgConnection;
use sea_orm::sqlx::{self, Connection as _, Row as _};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

/// The service whose databases they are.
pub(super) const SERVICE: &str = "payments";
/// Time between two looks whether upgrades have ended.
const LOOK: Duration = Duration::from_millis(50);
/// Largest answer: a page of upgrades with their steps.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// Everything that runs.
pub(super) struct Stage {
    /// The database in which each tenant has a schema.
    pub(super) url: String,
    database: PgConnection,
    schemas: SchemaServiceClient<Channel>,
    _folder: TempDir,
    _services: [Service; 2],
    _servers: (Postgres, Redis),
}

impl Stage {
    /// Starts all with `files` to migrate by, and registers an empty schema for each of `tenants`.
    pub(super) async fn start(files: &[(&str, String)], tenants: usize) -> Result<Self> {
        programs::build(&[Program::ControlPlane, Program::SchemaMigrator])?;
        let folder = tempfile::tempdir().context("make a folder for migrations")?;
        let of_service = folder.path().join(SERVICE);
        std::fs::create_dir(&of_service)?;
        for (name, text) in files {
            std::fs::write(of_service.join(name), text)?;
        }
        let postgres = Postgres::builder().durable(true).start().await?;
        let redis = Redis::start().await?;
        let common = [
            ("GREY__TELEMETRY__LOG_FILTER", "warn".to_owned()),
            ("GREY__VAULT__ACTIVE", "bench".to_owned()),
            (
                "GREY__VAULT__KEYS",
                format!("[{{ id = \"bench\", secret = \"{}\" }}]", Vault::generate_secret()),
            ),
        ];
        let mut settings = common.to_vec();
        settings.push(("GREY__DATABASE__URL", postgres.database("control").await?));
        settings.push(("GREY__REDIS__URLS", format!("['{}']", redis.url())));
        let control_plane = Service::start(Program::ControlPlane, &settings)?;
        control_plane.ready().await?;
        let mut settings = common.to_vec();
        settings.extend([
            ("GREY__DATABASE__URL", postgres.database("migrator").await?),
            ("GREY__CONTROL__URL", format!("http://{}", control_plane.grpc)),
            ("GREY__MIGRATIONS__FOLDER", folder.path().display().to_string()),
            ("GREY__JOBS__CONCURRENCY", AT_ONCE.to_string()),
            ("GREY__JOBS__PER_SERVER", AT_ONCE.to_string()),
        ]);
        let migrator = Service::start(Program::SchemaMigrator, &settings)?;
        migrator.ready().await?;
        let url = postgres.database("tenants").await?;
        let database = connect(&url).await?;
        let schemas = SchemaServiceClient::new(channel(&migrator).await?);
        let schemas = schemas.max_decoding_message_size(MAX_ANSWER_BYTES);
        let channel = channel(&control_plane).await?;
        let mut stage = Self {
            url,
            database,
            schemas,
            _folder: folder,
            _services: [control_plane, migrator],
            _servers: (postgres, redis),
        };
        let tenants = Self::tenants(tenants);
        stage.create_schemas(&tenants).await?;
        declare(channel.clone(), &tenants).await?;
        register(channel, &stage.url, &tenants).await?;
        Ok(stage)
    }

    /// The first tenants' ids, which are also their schemas' names.
    pub(super) fn tenants(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("t{number:04}")).collect()
    }

    pub(super) async fn create_schemas(&mut self, names: &[String]) -> Result<()> {
        for names in names.chunks(100) {
            let sql: String = names.iter().map(|name| format!("CREATE SCHEMA {name};")).collect();
            execute(&mut self.database, &sql).await?;
        }
        Ok(())
    }

    /// Gives every schema the tables that the first tenant's has, with their rows.
    pub(super) async fn copy_to_all(&mut self, tables: &[&str]) -> Result<()> {
        let all = Self::tenants(super::IDLE);
        let (first, others) = all.split_first().context("there is a tenant")?;
        for tenants in others.chunks(50) {
            let copy = |tenant: &String| {
                let one = |table: &&str| {
                    format!(
                        "CREATE TABLE {tenant}.{table} (LIKE {first}.{table} INCLUDING ALL); \
                         INSERT INTO {tenant}.{table} OVERRIDING SYSTEM VALUE SELECT * FROM {first}.{table};"
                    )
                };
                tables.iter().map(one).collect::<String>()
            };
            let sql: String = tenants.iter().map(copy).collect();
            execute(&mut self.database, &sql).await?;
        }
        execute(&mut self.database, "ANALYZE").await
    }

    pub(super) async fn vacuum(&mut self) -> Result<()> {
        execute(&mut self.database, "VACUUM ANALYZE").await
    }

    pub(super) async fn checkpoint(&mut self) -> Result<()> {
        execute(&mut self.database, "CHECKPOINT").await
    }

    /// In how many tables a column is.
    pub(super) async fn columns(&mut self, column: &str) -> Result<usize> {
        let sql = format!("SELECT count(*) FROM information_schema.columns WHERE column_name = '{column}'");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_one(&mut self.database).await?;
        Ok(usize::try_from(row.try_get::<i64, _>(0)?)?)
    }

    /// Upgrades the tenants, and waits until all have succeeded.
    pub(super) async fn upgrade(&mut self, tenants: &[String], schema: &str) -> Result<()> {
        let request = StartUpgradesRequest {
            tenants: tenants.to_vec(),
            service: SERVICE.to_owned(),
            target: Some(Target { schema: schema.to_owned(), service_version: String::new() }),
            options: None,
            reason: String::new(),
        };
        let started = self.schemas.start_upgrades(request).await.context("start upgrades")?.into_inner();
        for one in &started.upgrades {
            ensure!(one.upgrade.is_some(), "start {}'s upgrade: {}", one.tenant, one.error);
        }
        ensure!(started.upgrades.len() == tenants.len(), "start as many upgrades as were asked for");
        let end = Instant::now() + UPGRADES;
        for state in [UpgradeState::Queued, UpgradeState::Running, UpgradeState::Queued] {
            while self.any(state).await? {
                ensure!(Instant::now() < end, "wait until upgrades have ended");
                tokio::time::sleep(LOOK).await;
            }
        }
        ensure!(!self.any(UpgradeState::Failed).await?, "an upgrade failed");
        Ok(())
    }

    async fn any(&mut self, state: UpgradeState) -> Result<bool> {
        let request =
            ListUpgradesRequest { state: state.into(), page_size: 1, ..ListUpgradesRequest::default() };
        let page = self.schemas.list_upgrades(request).await.context("list upgrades")?.into_inner();
        Ok(!page.upgrades.is_empty())
    }

    /// Asks the migrator where every database is, now.
    pub(super) async fn look(&mut self, tenants: usize) -> Result<Vec<TenantSchema>> {
        let request = ListSchemasRequest {
            service: SERVICE.to_owned(),
            tenants: Vec::new(),
            page_size: u32::try_from(tenants)?,
            page_token: String::new(),
            live: true,
        };
        Ok(self.schemas.list_schemas(request).await.context("list schemas")?.into_inner().schemas)
    }
}

/// Declares the service and the tenants at the control plane.
async fn declare(channel: Channel, tenants: &[String]) -> Result<()> {
    let service = Kind::ServicePut(Declared {
        id: SERVICE.to_owned(),
        default_version: "v1.0".to_owned(),
        revision: 0,
    });
    let tenant = |id: &String| {
        Kind::TenantPut(Tenant { id: id.clone(), status: TenantStatus::Active.into(), ..Tenant::default() })
    };
    let changes: Vec<_> = std::iter::once(service).chain(tenants.iter().map(tenant)).collect();
    let mut pins = PinServiceClient::new(channel);
    for changes in changes.chunks(500) {
        let proposed = |change: &Kind| ProposedChange {
            change: Some(Change { change: Some(change.clone()) }),
            expected_revision: None,
        };
        let changes = changes.iter().map(proposed).collect();
        pins.apply_change_set(ApplyChangeSetRequest { changes, write: None }).await.context("declare")?;
    }
    Ok(())
}

/// Registers each tenant's schema at the control plane.
async fn register(channel: Channel, url: &str, tenants: &[String]) -> Result<()> {
    let put = |tenant: &String| {
        let mut databases = DatabaseServiceClient::new(channel.clone());
        let database = TenantDatabase {
            tenant: tenant.clone(),
            service: SERVICE.to_owned(),
            kind: DatabaseKind::Schema.into(),
            schema: tenant.clone(),
            ..TenantDatabase::default()
        };
        let request = PutDatabaseRequest {
            database: Some(database),
            url: url.to_owned(),
            ..PutDatabaseRequest::default()
        };
        async move { databases.put_database(request).await.context("register a database") }
    };
    let puts: Vec<_> = tenants.iter().map(put).collect();
    futures::stream::iter(puts).buffer_unordered(AT_ONCE).try_for_each(async |_| Ok(())).await
}

async fn channel(service: &Service) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", service.grpc))?.tcp_nodelay(true);
    endpoint.connect().await.context("connect to a service")
}

/// The address of a database with a schema chosen.
pub(super) fn bare(url: &str, schema: &str) -> String {
    let gap = if url.contains('?') { '&' } else { '?' };
    format!("{url}{gap}options=-csearch_path%3D{schema}")
}

pub(super) async fn connect(url: &str) -> Result<PgConnection> {
    PgConnection::connect(url).await.context("connect to PostgreSQL")
}

pub(super) async fn close(database: PgConnection) -> Result<()> {
    database.close().await.context("close a connection")
}

/// Runs statements together.
pub(super) async fn execute(database: &mut PgConnection, sql: &str) -> Result<()> {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(database).await.context("run SQL")?;
    Ok(())
}

/// The versions of a history, in order.
pub(super) async fn read_history(database: &mut PgConnection, table: &str) -> Result<Vec<String>> {
    let sql = format!("SELECT version, checksum, outcome FROM {table} ORDER BY seq");
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(database).await.context("read a history")?;
    rows.iter().map(|row| Ok(row.try_get("version")?)).collect()
}
