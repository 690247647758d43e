//! Databases that are made for tenants: where, under which names, and taken away again if they do not come to be used.
//!
//! What is there already is never touched. Whatever is made bears a mark that nothing else has, from the moment on that it
//! is there: PostgreSQL's databases and schemas are owned by a role that was made for them alone, MariaDB's databases
//! have its name as their comment, files a second name. So whoever comes after a crash sees what was made and what was
//! there before. Only MySQL keeps no mark: there the queue must say that the database was made, and one that it does not
//! say this of is left alone.
//!
//! A database is made as an upgrade, by whom `crate::jobs` runs it.

mod file;
mod maker;
mod mysql;
mod postgres;
mod sites;

pub use maker::Maker;
pub(crate) use maker::settle;
pub use sites::{Kind, Site, Sites};

use grey_proto::control::DatabaseKind;
use grey_proto::schema::Provision;

/// What is made: the database, the schema or the file.
#[must_use]
pub fn name(provision: &Provision) -> &str {
    match provision.kind() {
        DatabaseKind::Schema => &provision.schema,
        DatabaseKind::File => &provision.server,
        DatabaseKind::Database | DatabaseKind::Unspecified => &provision.database,
    }
}

/// What is made, in words.
#[must_use]
pub fn described(provision: &Provision) -> String {
    let (name, role) = (name(provision), &provision.role);
    match provision.kind() {
        DatabaseKind::File => format!("file {name}"),
        DatabaseKind::Schema => {
            format!("schema {name} and role {role} in {} on {}", provision.database, provision.server)
        }
        DatabaseKind::Database | DatabaseKind::Unspecified => {
            format!("database {name} and role {role} on {}", provision.server)
        }
    }
}
