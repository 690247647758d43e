//! `grey version`: versions of services, and the schemas that they work on.

use clap::{Args, Subcommand};
use grey_proto::control::{DeleteVersionRequest, PutVersionRequest, SchemaWindow, ServiceVersion};

use super::Failure;
use super::session::Session;
use super::write::{self, Write};

/// What to do with versions.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Declare a version, or change its schema window
    Put(Put),
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
                let request = PutVersionRequest { version: Some(version), write: write.options() };
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
