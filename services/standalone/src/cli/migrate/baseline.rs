//! `grey migrate baseline`: databases that something else has migrated.

use clap::Args;
use grey_proto::schema::{BaselineRequest, ListSchemasResponse};

use super::super::Failure;
use super::super::session::Session;
use super::each::each;
use super::{Consent, Tenants, text};

/// Which databases, and where they are.
#[derive(Debug, Args)]
pub struct Baseline {
    /// The service
    service: String,
    #[command(flatten)]
    tenants: Tenants,
    /// The schema that they are at; else what their Flyway history says
    #[arg(long, value_name = "SCHEMA", default_value = "", hide_default_value = true)]
    at: String,
    /// A file up to there that never runs, although Flyway has not run it either: what it does is in the databases; may be
    /// given several times
    #[arg(long, value_name = "FILE")]
    skip: Vec<String>,
    #[command(flatten)]
    consent: Consent,
}

impl Baseline {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self { service, tenants, at, skip, consent } = self;
        let selected = tenants.tenants.resolve(session).await?;
        consent.ask(&format!("declare where {service} is"), &selected)?;
        let client = session.schemas().await?;
        let declare = |tenant: String| {
            let (mut client, service) = (client.clone(), service.clone());
            let (schema, reason, skip) = (at.clone(), consent.reason.clone(), skip.clone());
            async move {
                let attempted = format!("declare where `{tenant}`'s {service} is");
                let request = session.request(BaselineRequest { tenant, service, schema, reason, skip });
                session.call(&attempted, client.baseline(request)).await
            }
        };
        let mut told = each(&selected, declare).await?;
        let schemas = told.answers.drain(..).filter_map(|declared| declared.schema).collect();
        let response = ListSchemasResponse { schemas, next_page_token: String::new() };
        if !response.schemas.is_empty() || session.json() {
            session.show(&response, || text::schemas(&response.schemas, text::now()))?;
        }
        told.end()
    }
}
