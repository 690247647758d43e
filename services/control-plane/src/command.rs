//! The one path of every write: a command is one transaction, one event, one revision.
//!
//! A command checks what the caller expects and what the rules demand, appends its event, updates the tables of the
//! present state and commits; or it leaves nothing behind. [`Commands`] is the handle, [`Writer`] does the work, one
//! command after another: they would wait for each other in the database anyway, and there a waiting command would
//! hold a connection.
//!
//! Each module uses only those before it: `error` and `proposal` are the words, `attempt` is what every rule works
//! with, `rules` has the rules of each kind of key, `head` is the table that `intent` and `moves` ask what a command means
//! and does, `transaction` applies a command by them, `writer` queues.

mod error;
mod proposal;

mod attempt;
mod rules;

mod head;
mod index;
mod intent;
mod levels;
mod moves;
mod transaction;
mod writer;

pub use error::Error;
pub use proposal::{
    Applied, Command, Committed, Credentials, Intent, MAX_CHANGES, MAX_REASON, MAX_SELECTED, Promotion,
    Proposed, SelectedPins,
};
pub use writer::{Commands, Options, Writer};

pub(crate) use attempt::{unknown_overlay, unknown_service, unknown_tenant, unknown_version};
pub(crate) use error::{NO_ROOM, chain};
pub(crate) use moves::check_budget;
pub(crate) use transaction::now_ms;
