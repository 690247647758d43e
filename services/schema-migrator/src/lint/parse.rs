//! Effects of a statement that sqlparser understands.

use super::effect::{Added, Effect, Preset};
use crate::files::{Dialect, pieces};
use sqlparser::ast::{
    AlterColumnOperation, AlterTable, AlterTableOperation, AssignmentTarget, BinaryOperator, ColumnDef,
    ColumnOption, Expr, FromTable, Ident, ObjectName, ObjectType, Statement, TableConstraint, TableFactor,
    TableWithJoins,
};
use sqlparser::dialect::{self, MySqlDialect, PostgreSqlDialect, SQLiteDialect};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

/// Functions whose value is the same for every row of a statement.
const STABLE: [&str; 16] = [
    "now",
    "current_timestamp",
    "localtimestamp",
    "current_date",
    "transaction_timestamp",
    "statement_timestamp",
    "to_timestamp",
    "make_date",
    "jsonb_build_object",
    "json_build_object",
    "lower",
    "upper",
    "cast",
    "varchar",
    "numeric",
    "timestamp",
];

/// The effects, or `None` if the statement is not understood.
pub(super) fn effects(sql: &str, dialect: Dialect) -> Option<Vec<Effect>> {
    let grammar: &dyn dialect::Dialect = match dialect {
        Dialect::Postgres => &PostgreSqlDialect {},
        Dialect::MySql => &MySqlDialect {},
        Dialect::Sqlite => &SQLiteDialect {},
    };
    let statements = Parser::parse_sql(grammar, sql).ok()?;
    let [statement] = statements.as_slice() else { return None };
    Some(of(statement))
}

fn lower(ident: &Ident) -> String {
    ident.value.to_lowercase()
}

fn last(name: &ObjectName) -> String {
    name.0.last().and_then(|part| part.as_ident()).map(lower).unwrap_or_default()
}

fn of(statement: &Statement) -> Vec<Effect> {
    match statement {
        Statement::CreateTable(create) => {
            let column = |column: &ColumnDef| (lower(&column.name), column.data_type.to_string());
            let columns = create.columns.iter().map(column).collect();
            vec![Effect::CreatesTable { table: last(&create.name), columns }]
        }
        Statement::Drop { object_type, names, .. } => {
            names.iter().map(last).filter_map(|name| dropped(*object_type, name)).collect()
        }
        Statement::Truncate(truncate) => {
            truncate.table_names.iter().map(|it| Effect::Empties { table: last(&it.name) }).collect()
        }
        Statement::Delete(delete) if delete.selection.is_none() && delete.limit.is_none() => {
            let (FromTable::WithFromKeyword(tables) | FromTable::WithoutKeyword(tables)) = &delete.from;
            tables.iter().map(|table| Effect::Empties { table: named(table) }).collect()
        }
        Statement::Update(update) => {
            let mut nulls = Vec::new();
            if let Some(selection) = &update.selection {
                tested_for_null(selection, &mut nulls);
            }
            let mut assigned = Vec::new();
            for assignment in &update.assignments {
                match &assignment.target {
                    AssignmentTarget::ColumnName(name) => assigned.push(last(name)),
                    AssignmentTarget::Tuple(names) => assigned.extend(names.iter().map(last)),
                }
            }
            nulls.retain(|column| assigned.contains(column));
            vec![Effect::Updates { table: named(&update.table), nulls }]
        }
        Statement::CreateIndex(index) => {
            vec![Effect::CreatesIndex { table: last(&index.table_name), concurrently: index.concurrently }]
        }
        Statement::AlterTable(alter) => altered(alter),
        _ => Vec::new(),
    }
}

fn dropped(kind: ObjectType, name: String) -> Option<Effect> {
    match kind {
        ObjectType::Table => Some(Effect::DropsTable { table: name }),
        ObjectType::Schema | ObjectType::Database => Some(Effect::DropsSchema { name }),
        _ => None,
    }
}

fn named(table: &TableWithJoins) -> String {
    match &table.relation {
        TableFactor::Table { name, .. } => last(name),
        _ => String::new(),
    }
}

fn tested_for_null(expr: &Expr, columns: &mut Vec<String>) {
    match expr {
        Expr::IsNull(tested) => match tested.as_ref() {
            Expr::Identifier(ident) => columns.push(lower(ident)),
            Expr::CompoundIdentifier(idents) => columns.extend(idents.last().map(lower)),
            _ => {}
        },
        Expr::Nested(inner) => tested_for_null(inner, columns),
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            tested_for_null(left, columns);
            tested_for_null(right, columns);
        }
        _ => {}
    }
}

fn altered(alter: &AlterTable) -> Vec<Effect> {
    let table = || last(&alter.name);
    let mut effects = Vec::new();
    for operation in &alter.operations {
        match operation {
            AlterTableOperation::AddColumn { column_def, .. } => {
                effects.push(Effect::AddsColumn(added(table(), column_def)));
                effects.extend(constraints(&table(), column_def));
            }
            AlterTableOperation::DropColumn { column_names, .. } => {
                let drops = |column| Effect::DropsColumn { table: table(), column: lower(column) };
                effects.extend(column_names.iter().map(drops));
            }
            AlterTableOperation::AlterColumn { column_name, op } => {
                let column = lower(column_name);
                match op {
                    AlterColumnOperation::SetNotNull => {
                        effects.push(Effect::SetsNotNull { table: table(), column });
                    }
                    AlterColumnOperation::SetDataType { data_type, .. } => {
                        effects.push(Effect::ChangesType {
                            table: table(),
                            column,
                            to: data_type.to_string(),
                        });
                    }
                    _ => {}
                }
            }
            AlterTableOperation::ModifyColumn { col_name: name, data_type, .. }
            | AlterTableOperation::ChangeColumn { old_name: name, data_type, .. } => {
                let (column, to) = (lower(name), data_type.to_string());
                effects.push(Effect::ChangesType { table: table(), column, to });
            }
            AlterTableOperation::AddConstraint { constraint, not_valid: false } => {
                let adds = |kind| Effect::AddsConstraint { table: table(), kind };
                effects.extend(scanned(constraint).map(adds));
                if matches!(constraint, TableConstraint::Index(_) | TableConstraint::FulltextOrSpatial(_)) {
                    effects.push(Effect::CreatesIndex { table: table(), concurrently: false });
                }
            }
            AlterTableOperation::SetLogged | AlterTableOperation::SetUnlogged => {
                effects.push(Effect::Rewrites { table: table(), by: "SET LOGGED or UNLOGGED" });
            }
            AlterTableOperation::RenameTable { .. } | AlterTableOperation::RenameColumn { .. } => {
                effects.push(Effect::Renames { table: table() });
            }
            _ => {}
        }
    }
    effects
}

/// The kind of a constraint that every row is checked against when it is added.
fn scanned(constraint: &TableConstraint) -> Option<&'static str> {
    match constraint {
        TableConstraint::ForeignKey(_) => Some("foreign key"),
        TableConstraint::Check(_) => Some("check"),
        TableConstraint::Unique(_) => Some("unique"),
        TableConstraint::PrimaryKey(_) => Some("primary key"),
        TableConstraint::Exclude(_) => Some("exclusion"),
        _ => None,
    }
}

/// Constraints written beside a new column.
fn constraints(table: &str, column: &ColumnDef) -> Vec<Effect> {
    let kinds = column.options.iter().filter_map(|option| match option.option {
        ColumnOption::PrimaryKey(_) => Some("primary key"),
        ColumnOption::Unique(_) => Some("unique"),
        ColumnOption::Check(_) => Some("check"),
        _ => None,
    });
    kinds.map(|kind| Effect::AddsConstraint { table: table.to_owned(), kind }).collect()
}

fn added(table: String, column: &ColumnDef) -> Added {
    let to = column.data_type.to_string();
    let (mut not_null, mut default) = (false, Preset::Nothing);
    if to.to_lowercase().contains("serial") {
        default = Preset::Volatile;
    }
    for option in &column.options {
        match &option.option {
            ColumnOption::NotNull | ColumnOption::PrimaryKey(_) => not_null = true,
            ColumnOption::Default(Expr::Value(value)) if value.to_string().eq_ignore_ascii_case("null") => {}
            ColumnOption::Default(value) => default = preset(&value.to_string()),
            ColumnOption::Generated { .. } | ColumnOption::Identity(_) => default = Preset::Volatile,
            ColumnOption::DialectSpecific(tokens) => {
                let counts =
                    |token: &Token| token.to_string().to_lowercase().replace('_', "") == "autoincrement";
                if tokens.iter().any(counts) {
                    default = Preset::Volatile;
                }
            }
            _ => {}
        }
    }
    Added { table, column: lower(&column.name), to, not_null, default }
}

/// Whether a default is the same for all rows.
pub(super) fn preset(expr: &str) -> Preset {
    let (pieces, _) = pieces(expr, Dialect::Postgres);
    let significant: Vec<_> = pieces.iter().filter(|piece| !piece.is_blank()).collect();
    let volatile = significant.windows(2).any(|pair| {
        let [name, open] = pair else { return false };
        let known = |word: &str| STABLE.contains(&word.to_lowercase().as_str());
        open.token == Token::LParen && name.word().is_some_and(|word| !known(word))
    });
    if volatile { Preset::Volatile } else { Preset::Value }
}
