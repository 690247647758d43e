//! Whether a database is still as the last upgrade has left it.
//!
//! At the end of each upgrade the newest row of the history keeps a hash of every object in the catalog. What was changed
//! by hand since, or came with a backup of another day, differs from it.

use super::connect::column;
use super::{Catalog, Connection, Error, classify};
use crate::files::{Dialect, Scripts};
use crate::plan::Direction;
use std::collections::{BTreeMap, BTreeSet};

/// Most bytes of what is kept; a catalog beyond is known by one hash only.
const LONGEST: usize = 1024 * 1024;

/// How an object differs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Change {
    /// It is there, and was not.
    Added,
    /// It was there, and is not.
    Removed,
    /// It is another one.
    Changed,
}

/// An object that is not as the last upgrade has left it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Difference {
    /// Its name, in lower case; empty: there are too many objects to tell which.
    pub object: String,
    /// How it differs.
    pub change: Change,
}

/// A database compared with what its last upgrade has left.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Drift {
    /// When that was, in milliseconds since the epoch; `None`: nothing is known to compare with.
    pub left_at_ms: Option<i64>,
    /// What differs, by name.
    pub differences: Vec<Difference>,
    /// Indexes that PostgreSQL does not use, since building them has failed.
    pub invalid_indexes: Vec<String>,
}

impl Connection {
    /// Keeps what the catalog is like now with the newest row of the history.
    ///
    /// # Errors
    /// When the database does not answer or refuses.
    pub async fn keep_catalog(&self) -> Result<(), Error> {
        let kept = kept(&self.catalog().await?);
        let history = self.own_table(&self.names.history);
        // The MySQL family reads no table that it writes, but a table derived from it.
        let sql = format!(
            "UPDATE {history} SET catalog = $1 \
             WHERE seq = (SELECT newest FROM (SELECT MAX(seq) AS newest FROM {history} \
             WHERE outcome <> 'accepted') AS it)"
        );
        self.run(&self.db, "keep what the catalog is like", self.sql().with(&sql, [kept.into()])).await?;
        Ok(())
    }

    /// Compares the catalog with what was kept last. Where the history of another service is beside this one's, only
    /// objects count whose names are in this service's files.
    ///
    /// # Errors
    /// When the database does not answer, or holds what was not written by a migrator.
    pub async fn drift(&self, scripts: Option<&Scripts>) -> Result<Drift, Error> {
        let invalid_indexes = self
            .invalid_indexes()
            .await?
            .into_iter()
            .map(|(place, name, _)| format!("{place}.{name}"))
            .collect();
        let query = format!(
            "SELECT catalog, ended_at FROM {} WHERE outcome <> 'accepted' ORDER BY seq DESC LIMIT 1",
            self.own_table(&self.names.history)
        );
        let rows = match self.ask("read what the catalog was like", query).await {
            Ok(rows) => rows,
            Err(error) if classify::is_missing_table(&error) => Vec::new(),
            Err(error) => return Err(error),
        };
        let kept =
            rows.first().map(|row| column::<Option<String>>(Some(row), "catalog")).transpose()?.flatten();
        // Without one the last upgrade was cut off before its end; what an older one has left says nothing.
        let Some(before) = kept else {
            return Ok(Drift { invalid_indexes, ..Drift::default() });
        };
        let left_at_ms = Some(column(rows.first(), "ended_at")?);
        let now = self.catalog().await?;
        let mut differences = differences(&before, &now);
        if self.is_shared().await? {
            let mine = scripts.map(names).unwrap_or_default();
            differences.retain(|it| it.object.is_empty() || mine.contains(&it.object));
        }
        Ok(Drift { left_at_ms, differences, invalid_indexes })
    }

    /// Whether another service has a history in the same place.
    async fn is_shared(&self) -> Result<bool, Error> {
        let (sql, own) = (self.sql(), self.sql().literal(&self.names.history));
        let like = "LIKE 'grey!_schema!_history!_%' ESCAPE '!'";
        let query = match self.target.dialect {
            Dialect::Postgres => format!(
                "SELECT relname::text AS name FROM pg_class WHERE relname {like} AND relname <> {own} \
                 AND relkind IN ('r', 'p') AND relnamespace = {}::regnamespace LIMIT 1",
                sql.literal(&sql.quoted(self.place()))
            ),
            Dialect::MySql => format!(
                "SELECT table_name AS name FROM information_schema.tables \
                 WHERE table_schema = DATABASE() AND table_name {like} AND table_name <> {own} LIMIT 1"
            ),
            Dialect::Sqlite => {
                format!(
                    "SELECT name FROM sqlite_master WHERE type = 'table' AND name {like} AND name <> {own} LIMIT 1"
                )
            }
        };
        Ok(!self.ask("look for other histories", query).await?.is_empty())
    }

    /// Indexes that a failed build has left behind in PostgreSQL: schema, name and table.
    pub(crate) async fn invalid_indexes(&self) -> Result<Vec<(String, String, String)>, Error> {
        if self.dialect() != Dialect::Postgres {
            return Ok(Vec::new());
        }
        let query = "SELECT n.nspname::text AS place, c.relname::text AS name, t.relname::text AS of_table \
                     FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid \
                     JOIN pg_namespace n ON n.oid = c.relnamespace \
                     WHERE NOT i.indisvalid AND c.relkind = 'i' AND n.nspname = ANY (current_schemas(false))";
        let rows = self.ask("look for invalid indexes", query).await?;
        let text = |row, name| column::<String>(Some(row), name);
        rows.iter().map(|row| Ok((text(row, "place")?, text(row, "name")?, text(row, "of_table")?))).collect()
    }
}

/// Every name in the files, in lower case.
fn names(scripts: &Scripts) -> BTreeSet<String> {
    let of = scripts.migrations.iter();
    of.flat_map(|it| crate::lint::names(it, Direction::Up, scripts.dialect)).collect()
}

/// The catalog as it is kept: one hash of all, then an object and its hash a line.
fn kept(catalog: &Catalog) -> String {
    let mut text = format!("{}\n", catalog.fingerprint());
    for (name, hash) in catalog.objects() {
        text.push_str(&format!("{hash} {name}\n"));
    }
    if text.len() > LONGEST {
        text = catalog.fingerprint();
    }
    text
}

fn differences(before: &str, now: &Catalog) -> Vec<Difference> {
    let mut lines = before.lines();
    if lines.next() == Some(now.fingerprint().as_str()) {
        return Vec::new();
    }
    if !before.contains('\n') {
        return vec![Difference { object: String::new(), change: Change::Changed }];
    }
    let was: BTreeMap<&str, &str> =
        lines.filter_map(|line| line.split_once(' ')).map(|(hash, name)| (name, hash)).collect();
    let is = now.objects();
    let mut found = Vec::new();
    for (name, hash) in &is {
        let change = match was.get(name.as_str()) {
            None => Change::Added,
            Some(before) if before != hash => Change::Changed,
            Some(_) => continue,
        };
        found.push(Difference { object: name.clone(), change });
    }
    let gone = was.keys().filter(|name| !is.contains_key(**name));
    found.extend(gone.map(|name| Difference { object: (*name).to_owned(), change: Change::Removed }));
    found.sort();
    found
}
