//! Two shapes of the same tables at once, in PostgreSQL: schemas of views.
//!
//! A migration makes, for a schema version, a schema that holds a view of each table that it names; a view may rename
//! columns, leave some out and give defaults. Whoever works on that version sets its search path to that schema and then
//! the tables' own. Old and new instances of a service thus read and write the same rows, each in the shape that it
//! knows: every view must be one that rows can be written through.
//!
//! A view follows its columns when they are renamed in the table, and the database refuses to drop a column that a view
//! shows. So a migration makes the views of the version before it, changes the tables, and makes its own views; those of
//! the version before go once nothing works on it, by [`drop_unused`].
//!
//! Which schemas there are is in a table beside the history, and with it which of them new sessions should use. Sessions
//! set their search path themselves, or [`switch`] sets it for the new sessions of some roles.

mod build;
mod path;
mod recorded;

pub use recorded::{Recorded, drop_unused, list, schema_name, switch};

use crate::files::Views;
use crate::tenant::{Connection, Error, Mark, Record, Stop};
use sea_orm::ConnectionTrait;

/// What the migrator calls its own statements about views.
const ATTEMPTED: &str = "make a schema of views";

/// Makes a version's schema of views anew and says that it is the current one; with no tables, drops it.
///
/// It must be called within a transaction, since it takes effect as a whole or not at all.
///
/// # Errors
/// When the database refuses, a table is missing, rows cannot be written through a view, or a schema of that name is not
/// one that the migrator made.
pub(crate) async fn apply(
    connection: &Connection,
    on: &impl ConnectionTrait,
    step: &Views,
    stop: &Stop,
) -> Result<(), Error> {
    recorded::prepare(connection, on).await?;
    if step.of.is_empty() {
        return Box::pin(recorded::remove(connection, on, &step.version)).await;
    }
    let schema = schema_name(connection, &step.version);
    let known = recorded::read(connection, on).await?;
    if known.iter().any(|it| it.schema == schema) {
        Box::pin(recorded::drop_schema(connection, on, &schema)).await?;
    }
    Box::pin(build::build(connection, on, step, &schema, stop)).await?;
    recorded::make_current(connection, on, &step.version, &schema).await
}

/// Does the same in a transaction of its own that marks `record` done.
///
/// # Errors
/// As [`apply`]; nothing is changed then.
pub async fn run(
    connection: &Connection,
    step: &Views,
    mut record: Record,
    stop: &Stop,
) -> Result<(), Error> {
    let transaction = connection.begin().await?;
    record.mark = Mark::Done;
    let both = async {
        apply(connection, &transaction, step, stop).await?;
        connection.journal(&transaction, &record).await
    };
    match Box::pin(both).await {
        Ok(()) => connection.commit(transaction).await,
        Err(error) => {
            connection.roll_back(transaction).await;
            Err(error)
        }
    }
}
