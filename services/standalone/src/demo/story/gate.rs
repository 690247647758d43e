//! The step about versions that need a schema.

use std::time::Instant;

use anyhow::{Context, bail, ensure};
use grey_core::error::Reason;
use grey_proto::schema::{FlipState, Upgrade, UpgradeState};

use super::{Story, told, until};
use crate::demo::world::{self, NEW_SCHEMA, OLD_SCHEMA, ORDERS, STUCK, UNMIGRATED};

/// The version that needs the new schema.
const VERSION: &str = "v1.2";

impl Story {
    /// Gives every tenant a database at the old schema, and a few of them the new one.
    pub(super) async fn create_databases(&self) -> anyhow::Result<()> {
        for (tenant, ..) in world::TENANTS {
            let url = self.databases.url(tenant);
            self.admin.put_database(tenant, ORDERS, url).await.map_err(told)?;
        }
        self.migrator.upgrade_all(ORDERS, OLD_SCHEMA).await?;
        for (tenant, ..) in world::TENANTS {
            self.until_seen(tenant, OLD_SCHEMA).await?;
        }
        for (tenant, version) in world::MIGRATED {
            let upgrade = self.admin.pin_migrating(tenant, ORDERS, version, "demo").await.map_err(told)?;
            flipped(&self.migrator.ended(&upgrade).await?)?;
        }
        for tenant in [UNMIGRATED, STUCK] {
            self.databases.fill(tenant).await?;
        }
        self.databases.meddle(STUCK).await
    }

    /// Step 3: a version whose schema the tenant lacks is refused, or waits for it.
    pub(super) async fn gate(&self) -> anyhow::Result<()> {
        let tenant = UNMIGRATED;
        let refusal = match self.admin.pin(tenant, ORDERS, VERSION, "demo: too early").await {
            Err(refusal) => refusal,
            Ok(written) => {
                bail!("{tenant} was pinned to {VERSION} without its schema, at {}", written.revision)
            }
        };
        ensure!(refusal.reason == Reason::NoLegalVersion, "refused for another reason: {}", told(refusal));
        self.confirm(tenant, ORDERS, world::default_of(ORDERS)).await?;
        self.screen.say(&format!("3 gate         refused, {}: {refusal}", refusal.reason.as_str()));
        self.migrate_and_flip().await.context("with its migration")?;
        self.fail_and_stay().await.context("with a migration that fails")
    }

    /// Step 3, second part: the migration runs first, then the pin is set.
    async fn migrate_and_flip(&self) -> anyhow::Result<()> {
        let tenant = UNMIGRATED;
        let begun = Instant::now();
        let pinned = self.admin.pin_migrating(tenant, ORDERS, VERSION, "demo: migrate, then pin");
        let upgrade = self.migrator.ended(&pinned.await.map_err(told)?).await?;
        flipped(&upgrade)?;
        let effect = self.until_served(tenant, ORDERS, VERSION, begun).await?;
        self.confirm(tenant, ORDERS, VERSION).await?;
        ensure!(self.databases.has_new_column(tenant).await?, "the migration is not in the database");
        let rows: u64 = upgrade.steps.iter().map(|step| step.rows_done).sum();
        self.screen.say(&format!(
            "               with migrate=true: {tenant}'s database {} -> {}, {rows} orders backfilled, then the pin: first \
             call on {VERSION} {effect:.1?} after the command began",
            upgrade.from_schema, upgrade.schema
        ));
        self.no_failures()
    }

    /// Step 3, third part: a migration that fails is undone, and nothing else happens.
    async fn fail_and_stay(&self) -> anyhow::Result<()> {
        let tenant = STUCK;
        let pinned = self.admin.pin_migrating(tenant, ORDERS, VERSION, "demo: this one fails");
        let upgrade = self.migrator.ended(&pinned.await.map_err(told)?).await?;
        let Upgrade { error, schema, .. } = &upgrade;
        ensure!(upgrade.state() == UpgradeState::Failed, "ended as {}", upgrade.state().as_str_name());
        ensure!(schema == OLD_SCHEMA, "the database was left at {schema}");
        let flip = upgrade.flip.as_ref().context("read the pin that waited")?;
        ensure!(flip.state() == FlipState::Refused, "the pin is {}", flip.state().as_str_name());
        ensure!(!self.databases.has_new_column(tenant).await?, "the migration was not undone");
        self.until_seen(tenant, OLD_SCHEMA).await?;
        self.confirm(tenant, ORDERS, world::default_of(ORDERS)).await?;
        self.screen.say(&format!(
            "               {tenant}'s database was changed by hand, and its migration failed: {error}; undone, it is at {schema} \
             as before, and its calls still go to {}",
            world::default_of(ORDERS)
        ));
        self.no_failures()
    }

    /// The control plane has heard of a tenant's schema.
    async fn until_seen(&self, tenant: &str, schema: &str) -> anyhow::Result<()> {
        until("the schema is known", async || {
            Ok(self.admin.schema_of(tenant, ORDERS).await.map_err(told)? == schema)
        })
        .await
    }
}

/// The upgrade has succeeded, and the tenant is pinned.
fn flipped(upgrade: &Upgrade) -> anyhow::Result<()> {
    let Upgrade { tenant, error, .. } = upgrade;
    let state = upgrade.state();
    ensure!(state == UpgradeState::Succeeded, "{tenant}'s upgrade ended as {}: {error}", state.as_str_name());
    ensure!(upgrade.schema == NEW_SCHEMA, "{tenant}'s database is at {}", upgrade.schema);
    let flip = upgrade.flip.as_ref().context("read the pin that waited")?;
    ensure!(flip.state() == FlipState::Done, "{tenant} is not pinned: {}", flip.error);
    Ok(())
}
