//! The databases of `orders`, a SQLite file for each tenant, and the migrator that brings them to a schema.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use grey_proto::schema::schema_service_client::SchemaServiceClient;
use grey_proto::schema::{
    FlipState, StartUpgradesRequest, StartedUpgrade, Target, Upgrade, UpgradeState, WatchUpgradeRequest,
};
use grey_proto::status::from_status;
use sea_orm::{ConnectionTrait as _, Database};
use tempfile::TempDir;
use tonic::transport::Channel;

use super::{admin, world};

/// Longest time for one upgrade.
const UPGRADE: Duration = Duration::from_secs(20);

macro_rules! file {
    ($name:literal) => {
        ($name, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations/orders/", $name)))
    };
}

/// The migrations of `orders`, as they are for SQLite.
const MIGRATIONS: [(&str, &str); 6] = [
    file!("V1.1__create_orders.sqlite.sql"),
    file!("U1.1__create_orders.sql"),
    file!("C1.1__create_orders.sql"),
    file!("V1.2__add_status_updated_at.sqlite.sql"),
    file!("U1.2__add_status_updated_at.sqlite.sql"),
    file!("C1.2__add_status_updated_at.sql"),
];

/// What somebody once did by hand to a database: an order that must never change again.
const BY_HAND: &str = "CREATE TRIGGER archived BEFORE UPDATE ON orders WHEN OLD.status = 'archived' \
                       BEGIN SELECT RAISE(ABORT, 'an archived order is never changed'); END";

/// The files of the migrations and of the databases. They go when this is dropped.
pub(super) struct Databases {
    _dir: TempDir,
    migrations: PathBuf,
    files: PathBuf,
}

impl Databases {
    /// The migrations, and an empty database for each tenant.
    pub(super) fn create() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("grey-demo-").tempdir();
        let dir = dir.context("create a temporary directory for databases")?;
        // Their addresses are URLs, in which a relative path would mean something else.
        let root = dir.path().canonicalize().context("find the temporary directory")?;
        let databases =
            Self { migrations: root.join("migrations"), files: root.join("databases"), _dir: dir };
        databases.write().with_context(|| format!("write to {}", root.display()))?;
        Ok(databases)
    }

    fn write(&self) -> std::io::Result<()> {
        let folder = self.migrations.join(world::ORDERS);
        fs::create_dir_all(&folder)?;
        for (name, text) in MIGRATIONS {
            fs::write(folder.join(name), text)?;
        }
        fs::create_dir_all(&self.files)?;
        world::TENANTS.iter().try_for_each(|(tenant, ..)| fs::write(self.file(tenant), ""))
    }

    /// The folder with the migration files.
    pub(super) fn migrations(&self) -> &Path {
        &self.migrations
    }

    fn file(&self, tenant: &str) -> PathBuf {
        self.files.join(format!("{tenant}.db"))
    }

    /// How a tenant's database is reached.
    pub(super) fn url(&self, tenant: &str) -> String {
        format!("sqlite://{}", self.file(tenant).display())
    }

    /// Has a tenant order something, one of it long ago.
    pub(super) async fn fill(&self, tenant: &str) -> anyhow::Result<()> {
        let orders = "INSERT INTO orders (customer, status, total_cents) \
                      VALUES ('ann', 'open', 1250), ('bob', 'archived', 900), ('eve', 'paid', 4200)";
        self.execute(tenant, orders).await
    }

    /// Does to a tenant's database what its next migration does not expect.
    pub(super) async fn meddle(&self, tenant: &str) -> anyhow::Result<()> {
        self.execute(tenant, BY_HAND).await
    }

    /// Whether the column of the new schema is there.
    pub(super) async fn has_new_column(&self, tenant: &str) -> anyhow::Result<bool> {
        match self.execute(tenant, "SELECT status_updated_at FROM orders").await {
            Ok(()) => Ok(true),
            Err(error) if format!("{error:#}").contains("no such column") => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn execute(&self, tenant: &str, sql: &str) -> anyhow::Result<()> {
        let what = || format!("use {tenant}'s database");
        let database = Database::connect(self.url(tenant)).await.with_context(what)?;
        let done = database.execute_unprepared(sql).await;
        database.close().await.with_context(what)?;
        done.map(drop).with_context(what)
    }
}

/// Asks the schema migrator.
#[derive(Clone)]
pub(super) struct Migrator(SchemaServiceClient<Channel>);

impl Migrator {
    pub(super) async fn connect(addr: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self(SchemaServiceClient::new(admin::connect(addr).await?)))
    }

    /// Upgrades the databases of all tenants.
    pub(super) async fn upgrade_all(&self, service: &str, schema: &str) -> anyhow::Result<()> {
        let request = StartUpgradesRequest {
            tenants: world::TENANTS.iter().map(|(tenant, ..)| (*tenant).to_owned()).collect(),
            service: service.to_owned(),
            target: Some(Target { schema: schema.to_owned(), service_version: String::new() }),
            options: None,
            reason: "demo".to_owned(),
        };
        let started = self.0.clone().start_upgrades(request).await;
        let started = started.map_err(|status| from_status(&status)).context("start upgrades")?;
        for StartedUpgrade { tenant, upgrade, error, .. } in started.into_inner().upgrades {
            let upgrade = upgrade.with_context(|| format!("upgrade {tenant}: {error}"))?;
            let ended = self.ended(&upgrade.id).await?;
            let ok = ended.state() == UpgradeState::Succeeded;
            ensure!(ok, "{tenant}'s upgrade ended as {}: {}", ended.state().as_str_name(), ended.error);
        }
        Ok(())
    }

    /// Follows an upgrade until it has ended, and the pin that waits for it is set or refused.
    pub(super) async fn ended(&self, id: &str) -> anyhow::Result<Upgrade> {
        let end = Instant::now() + UPGRADE;
        let followed = async {
            loop {
                let mut request = tonic::Request::new(WatchUpgradeRequest { id: id.to_owned() });
                request.set_timeout(end.saturating_duration_since(Instant::now()));
                let watched = self.0.clone().watch_upgrade(request).await;
                let mut changes = watched.map_err(|status| from_status(&status))?.into_inner();
                while let Some(change) = changes.message().await.map_err(|status| from_status(&status))? {
                    let upgrade = change.upgrade.unwrap_or_default();
                    if settled(&upgrade) {
                        return anyhow::Ok(upgrade);
                    }
                }
            }
        };
        let followed = tokio::time::timeout(UPGRADE, followed).await;
        followed.context("the upgrade takes too long")?.with_context(|| format!("follow upgrade {id}"))
    }
}

fn settled(upgrade: &Upgrade) -> bool {
    let running =
        matches!(upgrade.state(), UpgradeState::Unspecified | UpgradeState::Queued | UpgradeState::Running);
    let pending = |state| matches!(state, FlipState::Unspecified | FlipState::Pending);
    !running && upgrade.flip.as_ref().is_none_or(|flip| !pending(flip.state()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "test code panics")]
mod tests {
    use super::*;

    #[test]
    fn every_tenant_has_a_database_and_the_files_are_valid() {
        let databases = Databases::create().unwrap();
        assert!(world::TENANTS.iter().all(|(tenant, ..)| databases.file(tenant).exists()));
        let folder = grey_schema_migrator::files::Folder::new(databases.migrations());
        let service = grey_core::ids::ServiceId::new(world::ORDERS).unwrap();
        let scripts = folder.load(&service, grey_schema_migrator::files::Dialect::Sqlite).unwrap();
        let schemas: Vec<_> = scripts.migrations.iter().map(|one| one.schema.to_string()).collect();
        assert_eq!(schemas, [world::OLD_SCHEMA, world::NEW_SCHEMA]);
        assert!(scripts.migrations.iter().all(|one| one.undo.is_some() && !one.checks.is_empty()));
    }
}
