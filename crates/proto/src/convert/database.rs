//! Where the databases of tenants are.

use super::{Checked, InvalidMessage, known, read};
use crate::control;
use grey_core::database::{Database, DatabaseKind};
use grey_core::ids::{ServiceId, TenantId};

impl From<DatabaseKind> for control::DatabaseKind {
    fn from(kind: DatabaseKind) -> Self {
        match kind {
            DatabaseKind::Database => Self::Database,
            DatabaseKind::Schema => Self::Schema,
            DatabaseKind::File => Self::File,
        }
    }
}

impl From<control::DatabaseKind> for DatabaseKind {
    fn from(kind: control::DatabaseKind) -> Self {
        match kind {
            control::DatabaseKind::Unspecified | control::DatabaseKind::Database => Self::Database,
            control::DatabaseKind::Schema => Self::Schema,
            control::DatabaseKind::File => Self::File,
        }
    }
}

impl From<(&TenantId, &ServiceId, &Database)> for control::TenantDatabase {
    fn from((tenant, service, database): (&TenantId, &ServiceId, &Database)) -> Self {
        Self {
            tenant: tenant.to_string(),
            service: service.to_string(),
            kind: control::DatabaseKind::from(database.kind).into(),
            schema: database.schema.clone(),
            dialect: database.dialect.to_string(),
            server: database.server.clone(),
            database: database.name.clone(),
            direct_server: database.direct_server.clone(),
            ..Self::default()
        }
    }
}

/// Reads a database as events have it; who registered it and when is said beside it.
impl TryFrom<control::TenantDatabase> for (TenantId, ServiceId, Database) {
    type Error = InvalidMessage;

    fn try_from(message: control::TenantDatabase) -> Checked<Self> {
        let kind: control::DatabaseKind = known("kind", message.kind)?;
        let database = Database {
            kind: kind.into(),
            dialect: read("dialect", &message.dialect)?,
            server: message.server,
            name: message.database,
            direct_server: message.direct_server,
            schema: message.schema,
        };
        Ok((read("tenant", &message.tenant)?, read("service", &message.service)?, database))
    }
}
