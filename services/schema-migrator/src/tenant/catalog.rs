//! What a database's catalog says of its tables, indexes, constraints, views, triggers, routines and types.
//!
//! Two catalogs are compared to find out whether a statement that commits by itself took effect before a crash, and
//! whether an undone migration has left something behind. The order of columns does not count, nor do rows.

use super::connect::column;
use super::{Connection, Error, names};
use crate::files::{Dialect, pieces};
use sqlparser::tokenizer::Token;
use std::collections::{BTreeMap, BTreeSet};

/// What the catalog says, in lines.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Catalog {
    /// The object's name in lower case, and what it is like.
    lines: BTreeSet<(String, String)>,
}

impl Catalog {
    /// A short text that is the same for the same catalog.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hash(self.lines.iter())
    }

    /// The same for those objects whose names `sql` has in it.
    #[must_use]
    pub(crate) fn fingerprint_of(&self, sql: &str, dialect: Dialect) -> String {
        let (pieces, _) = pieces(sql, dialect);
        let named: BTreeSet<String> = pieces
            .iter()
            .filter_map(|piece| match &piece.token {
                Token::Word(word) => Some(word.value.to_lowercase()),
                Token::DoubleQuotedString(text) => Some(text.to_lowercase()),
                _ => None,
            })
            .collect();
        hash(self.lines.iter().filter(|(name, _)| named.contains(name)))
    }

    /// A hash of each object, by its name in lower case.
    #[must_use]
    pub(crate) fn objects(&self) -> BTreeMap<String, String> {
        let mut lines: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, line) in &self.lines {
            lines.entry(name).or_default().push(line);
        }
        lines.into_iter().map(|(name, lines)| (name.to_owned(), names::short_hash(&lines))).collect()
    }

    /// The lines, for people: what the object is, by its name.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lines.iter().map(|(name, line)| format!("{name}: {line}")).collect()
    }
}

fn hash<'a>(lines: impl Iterator<Item = &'a (String, String)>) -> String {
    let texts: Vec<&str> = lines.flat_map(|(name, line)| [name.as_str(), line.as_str()]).collect();
    names::short_hash(&texts)
}

/// Schemas of a PostgreSQL database that hold the tenant's objects; `$S` is the tenant's schema or null.
const POSTGRES: &str = "\
WITH ns AS (SELECT oid, nspname FROM pg_namespace WHERE nspname = COALESCE($S, nspname) \
  AND nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'), \
rel AS (SELECT c.oid, c.relname, c.relkind, ns.nspname FROM pg_class c JOIN ns ON ns.oid = c.relnamespace) \
SELECT relname::text AS name, concat_ws(' ', nspname, 'relation', relkind) AS line FROM rel \
UNION ALL SELECT relname::text, concat_ws(' ', nspname, 'column', a.attname, \
  format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated, \
  pg_get_expr(d.adbin, d.adrelid)) \
  FROM rel JOIN pg_attribute a ON a.attrelid = rel.oid AND a.attnum > 0 AND NOT a.attisdropped \
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum WHERE relkind NOT IN ('i', 'I') \
UNION ALL SELECT of.name, concat_ws(' ', rel.nspname, 'index', rel.relname, i.indisvalid, \
  pg_get_indexdef(i.indexrelid)) \
  FROM rel JOIN pg_index i ON i.indexrelid = rel.oid JOIN pg_class t ON t.oid = i.indrelid \
  CROSS JOIN LATERAL (VALUES (t.relname::text), (rel.relname::text)) AS of (name) \
UNION ALL SELECT relname::text, concat_ws(' ', nspname, 'constraint', k.conname, k.convalidated, \
  pg_get_constraintdef(k.oid)) FROM rel JOIN pg_constraint k ON k.conrelid = rel.oid \
UNION ALL SELECT relname::text, concat_ws(' ', nspname, 'view', pg_get_viewdef(rel.oid)) \
  FROM rel WHERE relkind IN ('v', 'm') \
UNION ALL SELECT relname::text, concat_ws(' ', nspname, 'trigger', pg_get_triggerdef(g.oid)) \
  FROM rel JOIN pg_trigger g ON g.tgrelid = rel.oid AND NOT g.tgisinternal \
UNION ALL SELECT p.proname::text, concat_ws(' ', nspname, 'routine', pg_get_function_identity_arguments(p.oid), \
  md5(p.prosrc)) FROM pg_proc p JOIN ns ON ns.oid = p.pronamespace \
UNION ALL SELECT t.typname::text, concat_ws(' ', nspname, 'label', e.enumlabel) \
  FROM pg_type t JOIN ns ON ns.oid = t.typnamespace JOIN pg_enum e ON e.enumtypid = t.oid \
UNION ALL SELECT nspname::text, 'schema' FROM ns";

const MYSQL: &str = "\
SELECT table_name AS name, CONCAT_WS(' ', 'table', table_type, engine, row_format, table_collation, \
  create_options, table_comment) AS line FROM information_schema.tables WHERE table_schema = DATABASE() \
UNION ALL SELECT table_name, CONCAT_WS(' ', 'column', column_name, column_type, is_nullable, \
  COALESCE(column_default, '-'), extra, COALESCE(collation_name, '-'), column_comment, \
  COALESCE(generation_expression, '-')) \
  FROM information_schema.columns WHERE table_schema = DATABASE() \
UNION ALL SELECT table_name, CONCAT_WS(' ', 'index', index_name, seq_in_index, COALESCE(column_name, '-'), \
  non_unique, COALESCE(sub_part, '-'), index_type) \
  FROM information_schema.statistics WHERE table_schema = DATABASE() \
UNION ALL SELECT table_name, CONCAT_WS(' ', 'constraint', constraint_name, constraint_type) \
  FROM information_schema.table_constraints WHERE table_schema = DATABASE() \
UNION ALL SELECT table_name, CONCAT_WS(' ', 'key', constraint_name, column_name, \
  COALESCE(referenced_table_name, '-'), COALESCE(referenced_column_name, '-')) \
  FROM information_schema.key_column_usage WHERE table_schema = DATABASE() \
UNION ALL SELECT table_name, CONCAT_WS(' ', 'reference', constraint_name, update_rule, delete_rule) \
  FROM information_schema.referential_constraints WHERE constraint_schema = DATABASE() \
UNION ALL SELECT table_name, CONCAT_WS(' ', 'partition', COALESCE(partition_name, '-'), \
  COALESCE(partition_method, '-'), COALESCE(partition_expression, '-'), \
  COALESCE(partition_description, '-')) \
  FROM information_schema.partitions WHERE table_schema = DATABASE() AND partition_name IS NOT NULL \
UNION ALL SELECT table_name, CONCAT_WS(' ', 'view', view_definition) \
  FROM information_schema.views WHERE table_schema = DATABASE() \
UNION ALL SELECT trigger_name, CONCAT_WS(' ', 'trigger', event_object_table, action_timing, \
  event_manipulation, SHA2(action_statement, 256)) FROM information_schema.triggers WHERE trigger_schema = DATABASE() \
UNION ALL SELECT routine_name, CONCAT_WS(' ', 'routine', routine_type, SHA2(routine_definition, 256)) \
  FROM information_schema.routines WHERE routine_schema = DATABASE() \
UNION ALL SELECT event_name, CONCAT_WS(' ', 'event', status, SHA2(event_definition, 256)) \
  FROM information_schema.events WHERE event_schema = DATABASE()";

const SQLITE: &str = "\
SELECT name, type || ' ' || tbl_name || ' ' || CASE type WHEN 'table' THEN '' ELSE COALESCE(sql, '') END AS line \
  FROM sqlite_master \
UNION ALL SELECT m.name, 'column ' || c.name || ' ' || c.type || ' ' || c.\"notnull\" || ' ' \
  || COALESCE(c.dflt_value, '-') || ' ' || c.pk || ' ' || c.hidden \
  FROM sqlite_master m JOIN pragma_table_xinfo(m.name) c WHERE m.type = 'table' \
UNION ALL SELECT m.name, 'key ' || k.\"from\" || ' ' || k.\"table\" || ' ' || COALESCE(k.\"to\", '-') || ' ' \
  || k.on_update || ' ' || k.on_delete \
  FROM sqlite_master m JOIN pragma_foreign_key_list(m.name) k WHERE m.type = 'table'";

impl Connection {
    /// Reads the catalog of the tenant's database, or of its schema, without the migrator's own tables.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn catalog(&self) -> Result<Catalog, Error> {
        let sql = self.sql();
        let query = match self.target.dialect {
            Dialect::Postgres => {
                let schema = self.target.schema.as_ref();
                POSTGRES.replace("$S", &schema.map_or("NULL".to_owned(), |schema| sql.literal(schema)))
            }
            // Checks are not in MySQL before 8.0.16, and the column differs from MariaDB's.
            Dialect::MySql if self.is_mariadb() => format!(
                "{MYSQL} UNION ALL SELECT table_name, CONCAT_WS(' ', 'check', constraint_name, check_clause) \
                 FROM information_schema.check_constraints WHERE constraint_schema = DATABASE()"
            ),
            Dialect::MySql => MYSQL.to_owned(),
            Dialect::Sqlite => SQLITE.to_owned(),
        };
        // Some columns of information_schema are binary, depending on the server's version.
        let query = match self.target.dialect {
            Dialect::MySql => format!(
                "SELECT CONVERT(name USING utf8mb4) AS name, CONVERT(line USING utf8mb4) AS line FROM ({query}) AS it"
            ),
            _ => query,
        };
        let rows = self.rows(&self.db, "read the catalog", sql.plain(query)).await?;
        let mut catalog = Catalog::default();
        for row in &rows {
            let name: String = column(Some(row), "name")?;
            let name = name.to_lowercase();
            let line: String = column(Some(row), "line")?;
            if !name.starts_with(names::PREFIX) && !name.starts_with("sqlite_") {
                catalog.lines.insert((name, line));
            }
        }
        Ok(catalog)
    }
}
