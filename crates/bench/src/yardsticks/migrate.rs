//! Tenants' databases and their migrations: PostgreSQL, a schema for each tenant.

mod stage;

use crate::report::{Measurement, rounded, say};
use crate::rounds::Figures;
use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use serde_json::{Map, json};
use stage::{Stage, bare, connect, execute};
use std::time::{Duration, Instant};

/// Tenants of which none has anything to do.
const IDLE: usize = 1_000;
/// Tenants that are migrated.
const MIGRATED: usize = 200;
/// Rows of each tenant's table.
const ROWS: usize = 5_000;
/// Databases that are migrated at once, by either.
const AT_ONCE: usize = 5;
/// Times that each is measured.
const ROUNDS: usize = 5;
/// Further looks, since one takes little.
const LOOKS: usize = 4;

/// The first migration: a table with rows.
fn first(rows: usize) -> String {
    format!(
        "CREATE TABLE payments (id bigint PRIMARY KEY, cents bigint NOT NULL, note text NOT NULL);\n\
         INSERT INTO payments SELECT n, n * 7 % 10007, 'payment number ' || n FROM generate_series(1, {rows}) n;\n"
    )
}

/// A small migration: a column, filled, and an index on it.
fn small(number: usize) -> String {
    format!(
        "ALTER TABLE payments ADD COLUMN fee_{number} bigint;\n\
         UPDATE payments SET fee_{number} = cents / 100 WHERE fee_{number} IS NULL;\n\
         CREATE INDEX payments_by_fee_{number} ON payments (fee_{number});\n"
    )
}

pub(super) async fn fleet() -> Result<Measurement> {
    let files = [("V1__create_payments.sql", first(10))];
    let mut stage = Stage::start(&files, IDLE).await?;
    stage.upgrade(&Stage::tenants(1), "1").await?;
    // What one tenant's database has, all have: the migrator would do the same a thousand times.
    stage.copy_to_all(&["payments", HISTORY, JOURNAL]).await?;
    let tenants = Stage::tenants(IDLE);
    let (mut plain, mut ours) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let begun = Instant::now();
        for tenant in &tenants {
            let mut database = connect(&bare(&stage.url, tenant)).await?;
            let versions = stage::read_history(&mut database, HISTORY).await?;
            ensure!(versions == ["1"], "{tenant} is at {versions:?}");
            stage::close(database).await?;
        }
        let sequential = begun.elapsed();
        let mut looks = Vec::new();
        for _ in 0..LOOKS {
            let begun = Instant::now();
            let seen = stage.look(IDLE).await?;
            looks.push(begun.elapsed().as_secs_f64());
            ensure!(seen.len() == IDLE, "{} of {IDLE} tenants were told of", seen.len());
            let wrong = seen.iter().find(|one| one.schema != "1" || one.pending > 0 || !one.error.is_empty());
            ensure!(wrong.is_none(), "a tenant that has nothing to do is told as {wrong:?}");
        }
        // The first round warms both up.
        if round > 0 {
            plain.push(sequential.as_secs_f64());
            ours.push(Figures::new(looks).median());
        }
    }
    let ratios = Figures::ratios(&plain, &ours);
    let (plain, ours) = (Figures::new(plain), Figures::new(ours));
    say(&format!(
        "migrate_fleet: {IDLE} tenants one by one {plain} s, by the migrator {ours} s, ratio {ratios}"
    ));
    let more = Map::from_iter([
        ("tenants".to_owned(), json!(IDLE)),
        ("sequential_ms".to_owned(), rounded(plain.median() * 1e3)),
    ]);
    Ok(Measurement {
        name: "migrate_fleet",
        value: ours.median() * 1e3,
        unit: "ms",
        ratio: ratios.median(),
        against: "opening each database and reading its history, one by one",
        more,
    })
}

pub(super) async fn overhead() -> Result<Measurement> {
    let mut files = vec![("V1__create_payments.sql".to_owned(), first(ROWS))];
    files.extend((2..=ROUNDS + 2).map(|number| (format!("V{number}__add_fee.sql"), small(number))));
    let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.clone())).collect();
    let mut stage = Stage::start(&files, MIGRATED).await?;
    let tenants = Stage::tenants(MIGRATED);
    let twins: Vec<String> = tenants.iter().map(|tenant| format!("bare_{tenant}")).collect();
    stage.upgrade(&tenants, "1").await?;
    stage.create_schemas(&twins).await?;
    run_bare(&stage.url, &twins, &first(ROWS)).await?;
    let (mut plain, mut ours) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let number = round + 2;
        // Statistics and dead rows must be the same before both.
        stage.vacuum().await?;
        let mut both = [0.0, 0.0];
        // Whoever goes first has the emptier caches.
        for which in [round % 2, 1 - round % 2] {
            // Either writes enough to bring one on, which the other would have to put up with.
            stage.checkpoint().await?;
            let begun = Instant::now();
            if which == 0 {
                stage.upgrade(&tenants, &number.to_string()).await?;
            } else {
                run_bare(&stage.url, &twins, &small(number)).await?;
            }
            both[which] = begun.elapsed().as_secs_f64();
        }
        let done = stage.columns(&format!("fee_{number}")).await?;
        ensure!(done == 2 * MIGRATED, "{done} of {} databases have the column", 2 * MIGRATED);
        // The first round warms both up.
        if round > 0 {
            ours.push(both[0]);
            plain.push(both[1]);
        }
    }
    let ratios = Figures::ratios(&ours, &plain);
    let (plain, ours) = (Figures::new(plain), Figures::new(ours));
    say(&format!(
        "migrate_overhead: {MIGRATED} tenants, bare {plain} s, by the migrator {ours} s, ratio {ratios}"
    ));
    let each = (ours.median() - plain.median()) / MIGRATED as f64 * AT_ONCE as f64;
    let more = Map::from_iter([
        ("tenants".to_owned(), json!(MIGRATED)),
        ("rows_per_tenant".to_owned(), json!(ROWS)),
        ("at_once".to_owned(), json!(AT_ONCE)),
        ("bare_s".to_owned(), rounded(plain.median())),
        ("overhead_ms_per_tenant".to_owned(), rounded(each * 1e3)),
    ]);
    Ok(Measurement {
        name: "migrate_overhead",
        value: ours.median(),
        unit: "s",
        ratio: ratios.median(),
        against: "the bare SQL in a transaction per tenant, as many at once",
        more,
    })
}

/// Runs `sql` in each schema, in a transaction over a connection of its own, as many at once as the migrator.
async fn run_bare(url: &str, schemas: &[String], sql: &str) -> Result<()> {
    let run = |schema: &String| {
        let url = bare(url, schema);
        async move {
            let mut database = connect(&url).await?;
            execute(&mut database, &format!("BEGIN;\n{sql}COMMIT;")).await?;
            stage::close(database).await
        }
    };
    let runs: Vec<_> = schemas.iter().map(run).collect();
    let mut runs = futures::stream::iter(runs).buffer_unordered(AT_ONCE);
    while let Some(done) = runs.next().await {
        done.context("run the bare SQL")?;
    }
    Ok(())
}

/// The migrator's tables in each tenant's schema.
const HISTORY: &str = "grey_schema_history_payments";
const JOURNAL: &str = "grey_schema_journal_payments";
/// Longest wait for all upgrades.
const UPGRADES: Duration = Duration::from_secs(170);
