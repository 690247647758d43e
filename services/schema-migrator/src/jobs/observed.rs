//! Where databases were seen last, and what the control plane has yet to be told: schemas, then pins.

use super::database::{Error, column};
use super::lease::millis;
use super::queue::Queue;
use super::record::{Job, flip_word, json, read};
use grey_proto::schema::Flip;
use sea_orm::{DatabaseTransaction, DbBackend, QueryResult, Value};
use std::time::Duration;

const TABLE: &str = "observed";

/// Where a database was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The schema; empty: none.
    pub schema: String,
    /// Of the files that it was compared with; empty: with none.
    pub fingerprint: String,
    /// Migrations that were not applied.
    pub pending: u32,
}

/// What is known of a tenant's database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The tenant.
    pub tenant: String,
    /// The service.
    pub service: String,
    /// Where it was seen.
    pub seen: Seen,
    /// When, in milliseconds since the epoch.
    pub at_ms: i64,
    /// Counts the looks.
    change: i64,
}

impl Queue {
    /// Notes where a database was seen; the control plane is told if that is news.
    pub(super) async fn note(
        &self,
        transaction: &DatabaseTransaction,
        tenant: &str,
        service: &str,
        seen: &Seen,
    ) -> Result<(), Error> {
        let now = self.database.now();
        let sql = format!(
            "INSERT INTO observed (tenant, service, schema_version, fingerprint, pending, seen_ms, change, unreported, \
             claim_until_ms) VALUES ($1, $2, $3, $4, $5, {now}, 1, true, 0) \
             ON CONFLICT (service, tenant) DO UPDATE SET schema_version = excluded.schema_version, \
             fingerprint = excluded.fingerprint, pending = excluded.pending, seen_ms = excluded.seen_ms, \
             change = observed.change + 1, unreported = true, claim_until_ms = 0"
        );
        let values: [Value; 5] = [
            tenant.into(),
            service.into(),
            seen.schema.as_str().into(),
            seen.fingerprint.as_str().into(),
            i32::try_from(seen.pending).unwrap_or(i32::MAX).into(),
        ];
        self.database.run_in(transaction, "note where a database is", &sql, values).await?;
        Ok(())
    }

    /// Notes where databases were seen.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn note_all(&self, seen: &[(String, String, Seen)]) -> Result<(), Error> {
        if seen.is_empty() {
            return Ok(());
        }
        let mut seen = seen.to_vec();
        // All who write many do so in this order, so that none waits for another that waits for it.
        seen.sort_by(|a, b| (&a.1, &a.0).cmp(&(&b.1, &b.0)));
        let transaction = self.database.begin().await?;
        for (tenant, service, seen) in &seen {
            self.note(&transaction, tenant, service, seen).await?;
        }
        self.database.commit(transaction).await?;
        self.follow_up();
        Ok(())
    }

    /// What is known of a service's databases, of `tenants` or of all.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn observed(&self, service: &str, tenants: &[String]) -> Result<Vec<Observed>, Error> {
        let mut values: Vec<Value> = vec![service.into()];
        let mut sql = "SELECT * FROM observed WHERE service = $1".to_owned();
        if !tenants.is_empty() {
            let marks: Vec<String> = (2..tenants.len() + 2).map(|n| format!("${n}")).collect();
            sql.push_str(&format!(" AND tenant IN ({})", marks.join(", ")));
            values.extend(tenants.iter().map(|tenant| tenant.as_str().into()));
        }
        let rows = self.database.rows("read where databases are", &sql, values).await?;
        rows.iter().map(observed).collect()
    }

    /// Upgrades of a service that are queued or run, by tenant.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn under_way(&self, service: &str) -> Result<Vec<(String, String)>, Error> {
        let sql = "SELECT tenant, id FROM upgrades WHERE service = $1 AND state IN ('queued', 'running')";
        let rows = self.database.rows("list upgrades under way", sql, [service.into()]).await?;
        rows.iter()
            .map(|row| Ok((column(row, "upgrades", "tenant")?, column(row, "upgrades", "id")?)))
            .collect()
    }

    /// Takes schemas that the control plane has yet to be told, at most this many, by service and tenant; others leave them
    /// alone for `claim`.
    pub(super) async fn take_reports(&self, claim: Duration, most: u32) -> Result<Vec<Observed>, Error> {
        let now = self.database.now();
        let attempted = "take schemas to report";
        let skip = if self.database.backend() == DbBackend::Postgres { "FOR UPDATE SKIP LOCKED" } else { "" };
        let sql = format!(
            "UPDATE observed SET claim_until_ms = {now} + $1 WHERE (service, tenant) IN \
             (SELECT service, tenant FROM observed WHERE unreported AND claim_until_ms < {now} \
             ORDER BY seen_ms LIMIT {most} {skip}) AND claim_until_ms < {now} RETURNING *"
        );
        let rows = self.database.rows(attempted, &sql, [millis(claim).into()]).await?;
        let mut taken = rows.iter().map(observed).collect::<Result<Vec<_>, _>>()?;
        taken.sort_by(|a, b| (&a.service, &a.tenant).cmp(&(&b.service, &b.tenant)));
        Ok(taken)
    }

    /// The control plane knows what was seen then.
    pub(super) async fn reported(&self, observed: &[Observed]) -> Result<(), Error> {
        let sql = "UPDATE observed SET unreported = false WHERE service = $1 AND tenant = $2 AND change = $3";
        let transaction = self.database.begin().await?;
        for observed in observed {
            let values =
                [observed.service.as_str().into(), observed.tenant.as_str().into(), observed.change.into()];
            self.database.run_in(&transaction, "note that a schema is reported", sql, values).await?;
        }
        self.database.commit(transaction).await
    }

    /// The control plane has to be told again after a while.
    pub(super) async fn report_later(&self, observed: &[Observed], pause: Duration) -> Result<(), Error> {
        let sql = format!(
            "UPDATE observed SET claim_until_ms = {} + $4 WHERE service = $1 AND tenant = $2 AND change = $3",
            self.database.now()
        );
        let transaction = self.database.begin().await?;
        for observed in observed {
            let values = [
                observed.service.as_str().into(),
                observed.tenant.as_str().into(),
                observed.change.into(),
                millis(pause).into(),
            ];
            self.database.run_in(&transaction, "put a report off", &sql, values).await?;
        }
        self.database.commit(transaction).await
    }

    /// Takes an upgrade that has succeeded and whose pin waits, once the control plane knows the schema.
    pub(super) async fn take_flip(&self, claim: Duration) -> Result<Option<Job>, Error> {
        let now = self.database.now();
        let sql = format!(
            "UPDATE upgrades SET flip_claim_ms = {now} + $1 WHERE id IN (SELECT u.id FROM upgrades u \
             WHERE u.flip_state = 'pending' AND u.state = 'succeeded' AND u.flip_claim_ms < {now} \
             AND NOT EXISTS (SELECT 1 FROM observed o WHERE o.service = u.service AND o.tenant = u.tenant \
             AND o.unreported) ORDER BY u.id LIMIT 1) AND flip_claim_ms < {now} RETURNING *"
        );
        let rows = self.database.rows("take a pin to set", &sql, [millis(claim).into()]).await?;
        rows.first().map(read).transpose()
    }

    /// The pin has to be set after a while.
    pub(super) async fn flip_later(&self, id: &str, pause: Duration) -> Result<(), Error> {
        let sql = format!("UPDATE upgrades SET flip_claim_ms = {} + $2 WHERE id = $1", self.database.now());
        self.database.run("put a pin off", &sql, [id.into(), millis(pause).into()]).await?;
        Ok(())
    }

    /// How a pin ended.
    pub(super) async fn end_flip(&self, id: &str, flip: &Flip) -> Result<(), Error> {
        let sql = "UPDATE upgrades SET flip = $2, flip_state = $3, change = change + 1 \
                   WHERE id = $1 AND flip_state = 'pending' RETURNING *";
        let values = [id.into(), json(flip).into(), flip_word(Some(flip)).into()];
        let rows = self.database.rows("note how a pin ended", sql, values).await?;
        if let Some(row) = rows.first() {
            self.tell(&read(row)?);
        }
        Ok(())
    }
}

fn observed(row: &QueryResult) -> Result<Observed, Error> {
    let text = |name: &str| column::<String>(row, TABLE, name);
    Ok(Observed {
        tenant: text("tenant")?,
        service: text("service")?,
        seen: Seen {
            schema: text("schema_version")?,
            fingerprint: text("fingerprint")?,
            pending: u32::try_from(column::<i32>(row, TABLE, "pending")?).unwrap_or(0),
        },
        at_ms: column(row, TABLE, "seen_ms")?,
        change: column(row, TABLE, "change")?,
    })
}
