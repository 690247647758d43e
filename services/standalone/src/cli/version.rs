//! `grey version`: versions of services, and the schemas that they work on.

use clap::{Args, Subcommand};
use grey_proto::control::{DeleteVersionRequest, PutVersionRequest, SchemaWindow, ServiceVersion};

use super::Failure;
use super::session::Session;
use super::write::{self, Write};

/// What to do with versions.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Declare a version or replace its schema window: without bounds it works on any schema
    Put(Put),
    /// Set the bounds that are given of a declared version's schema window, and leave the other as it is
    Set(Set),
    /// Remove a version that nothing refers to
    Delete(Delete),
}

/// A version and its schema window.
#[derive(Debug, Args)]
pub struct Put {
    /// The service
    service: String,
    /// The version, such as v2.1
    version: String,
    /// Oldest schema of a tenant that it works on
    #[arg(long, value_name = "SCHEMA", default_value = "", hide_default_value = true)]
    schema_min: String,
    /// Newest schema of a tenant that it works on
    #[arg(long, value_name = "SCHEMA", default_value = "", hide_default_value = true)]
    schema_max: String,
    #[command(flatten)]
    write: Write,
}

/// Bounds to be set; an empty one is taken away.
#[derive(Debug, Args)]
pub struct Set {
    /// The service
    service: String,
    /// The version, such as v2.1
    version: String,
    /// Oldest schema of a tenant that it works on
    #[arg(long, value_name = "SCHEMA")]
    schema_min: Option<String>,
    /// Newest schema of a tenant that it works on
    #[arg(long, value_name = "SCHEMA")]
    schema_max: Option<String>,
    #[command(flatten)]
    write: Write,
}

/// A version to be removed.
#[derive(Debug, Args)]
pub struct Delete {
    /// The service
    service: String,
    /// The version
    version: String,
    #[command(flatten)]
    write: Write,
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let mut client = session.catalog().await?;
        match self {
            Self::Put(Put { service, version, schema_min: min, schema_max: max, write }) => {
                let attempted = format!("declare version `{version}` of `{service}`");
                let done = format!("declared version {version} of {service}");
                let bounded = !min.is_empty() || !max.is_empty();
                let schema = bounded.then_some(SchemaWindow { min, max });
                let version = ServiceVersion { service, version, schema, revision: 0 };
                let update_mask = Vec::new();
                let request =
                    PutVersionRequest { version: Some(version), write: write.options(), update_mask };
                let request = session.request_waiting(request, write.patience());
                let response =
                    session.call_waiting(&attempted, write.patience(), client.put_version(request)).await?;
                write::show(session, &response, response.result.as_ref(), &done)
            }
            Self::Set(Set { service, version, schema_min, schema_max, write }) => {
                let attempted = format!("set version `{version}` of `{service}`");
                let done = format!("set version {version} of {service}");
                let mut update_mask = Vec::new();
                update_mask.extend(schema_min.is_some().then(|| "schema.min".to_owned()));
                update_mask.extend(schema_max.is_some().then(|| "schema.max".to_owned()));
                if update_mask.is_empty() {
                    return Err(Failure::Input("nothing to set: give at least one bound".to_owned()));
                }
                let (min, max) = (schema_min.unwrap_or_default(), schema_max.unwrap_or_default());
                let schema = Some(SchemaWindow { min, max });
                let version = ServiceVersion { service, version, schema, revision: 0 };
                let request =
                    PutVersionRequest { version: Some(version), write: write.options(), update_mask };
                let request = session.request_waiting(request, write.patience());
                let response =
                    session.call_waiting(&attempted, write.patience(), client.put_version(request)).await?;
                write::show(session, &response, response.result.as_ref(), &done)
            }
            Self::Delete(Delete { service, version, write }) => {
                let attempted = format!("delete version `{version}` of `{service}`");
                let done = format!("deleted version {version} of {service}");
                let request = DeleteVersionRequest { service, version, write: write.options() };
                let request = session.request_waiting(request, write.patience());
                let response = session
                    .call_waiting(&attempted, write.patience(), client.delete_version(request))
                    .await?;
                write::show(session, &response, response.result.as_ref(), &done)
            }
        }
    }
}
