//! How the last upgrade of each database ended.

use super::database::{Error, column};
use super::queue::Queue;
use super::record::state_word;
use grey_proto::schema::UpgradeState;
use sea_orm::Value;

/// An upgrade that did not succeed, after which none has ended but by being cancelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// The tenant.
    pub tenant: String,
    /// The upgrade.
    pub upgrade: String,
    /// How it ended: failed, or in need of repair.
    pub state: UpgradeState,
    /// Why.
    pub error: String,
}

impl Queue {
    /// The databases of a service, of `tenants` or of all, whose last upgrade failed.
    ///
    /// # Errors
    /// When the migrator's database is away.
    pub async fn unfinished(&self, service: &str, tenants: &[String]) -> Result<Vec<Unfinished>, Error> {
        let mut values: Vec<Value> = vec![service.into()];
        let mut of = String::new();
        if !tenants.is_empty() {
            let marks: Vec<String> = (2..tenants.len() + 2).map(|n| format!("${n}")).collect();
            of = format!(" AND u.tenant IN ({})", marks.join(", "));
            values.extend(tenants.iter().map(|tenant| tenant.as_str().into()));
        }
        // Ids are in the order in which upgrades were asked for.
        let sql = format!(
            "SELECT u.tenant, u.id, u.state, u.error FROM upgrades u WHERE u.service = $1 \
             AND u.state IN ('failed', 'needs_repair'){of} AND NOT EXISTS (SELECT 1 FROM upgrades later \
             WHERE later.tenant = u.tenant AND later.service = u.service AND later.id > u.id \
             AND later.state IN ('succeeded', 'failed', 'needs_repair'))"
        );
        let rows = self.database.rows("read how upgrades ended", &sql, values).await?;
        let text = |row, name| column::<String>(row, "upgrades", name);
        rows.iter()
            .map(|row| {
                let repair = text(row, "state")? == state_word(UpgradeState::NeedsRepair);
                Ok(Unfinished {
                    tenant: text(row, "tenant")?,
                    upgrade: text(row, "id")?,
                    state: if repair { UpgradeState::NeedsRepair } else { UpgradeState::Failed },
                    error: text(row, "error")?,
                })
            })
            .collect()
    }

    /// A database that needed repair is repaired: its upgrades have failed, and nothing of them is half done.
    ///
    /// # Errors
    /// When the migrator's database is away.
    pub async fn repaired(&self, tenant: &str, service: &str) -> Result<(), Error> {
        let sql = "UPDATE upgrades SET state = 'failed', change = change + 1 \
                   WHERE tenant = $1 AND service = $2 AND state = 'needs_repair'";
        self.database.run("note a repair", sql, [tenant.into(), service.into()]).await?;
        Ok(())
    }
}
