//! Which tenants a command moves, and whether it may.

use grey_core::change::Change;
use grey_core::error::Reason;
use grey_core::key::Key;
use grey_core::moves::{Budget, Moves, OverBudget, preview};
use grey_core::table::Table;
use grey_proto::status::ApiError;

use super::error::Error;
use super::proposal::Command;

/// Tenants that each group of moves names.
const EXAMPLES: usize = 5;
/// Changes of single pins, schemas and databases that are counted at once, without leaving the runtime's thread.
const FEW: usize = 32;

/// What changes would do.
pub(super) struct Foreseen<T> {
    pub(super) moves: Moves,
    /// What was made of the changes.
    pub(super) drafted: T,
    /// The table after them, still at the position before them.
    pub(super) after: Table,
}

/// Counts the moves of `changes` on the table at the log's head, and makes something of them.
pub(super) async fn foresee<T: Send + 'static>(
    table: Table,
    changes: Vec<Change>,
    draft: impl FnOnce(Vec<Change>) -> T + Send + 'static,
) -> Result<Foreseen<T>, Error> {
    let is_small =
        |change: &Change| matches!(change.key(), Key::Pin(..) | Key::Schema(..) | Key::Database(..));
    let is_soon = changes.len() <= FEW && changes.iter().all(is_small);
    let count = move || {
        let (moves, after) = preview(&table, &changes, EXAMPLES);
        Foreseen { moves, drafted: draft(changes), after }
    };
    if is_soon { Ok(count()) } else { apart(count).await }
}

/// Does what takes long on a thread of its own.
pub(super) async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(error = %error, "moves could not be counted");
        ApiError::new(Reason::Internal, "which tenants would move could not be counted").into()
    })
}

/// Refuses a command that moves more than it may. What is only observed has happened already, and a hold or a database
/// changes no version: above all a hold can always be taken back.
pub(super) fn hold_to_budget(command: &Command, changes: &[Change], moves: &Moves) -> Result<(), Error> {
    let is_free =
        |change: &Change| matches!(change.key(), Key::Schema(..) | Key::Hold(..) | Key::Database(..));
    if command.dry_run || changes.iter().all(is_free) {
        return Ok(());
    }
    Ok(check_budget(moves, command.max_moves)?)
}

/// Refuses moves beyond the usual budget, unless that many are allowed.
pub(crate) fn check_budget(moves: &Moves, max_moves: Option<u64>) -> Result<(), ApiError> {
    Budget::default().check(moves, max_moves).map_err(|over| refused(&over))
}

fn refused(over: &OverBudget) -> ApiError {
    ApiError::new(Reason::MovesOverBudget, over.to_string())
        .with("service", over.service.as_str())
        .with("tenants", over.tenants.to_string())
        .with("limit", over.limit.to_string())
        .with("active", over.active.to_string())
}
