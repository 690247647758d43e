//! `grey migrate baseline`: databases that something else has migrated.

use clap::Args;
use futures::StreamExt as _;
use grey_core::error::Reason;
use grey_proto::schema::{BaselineRequest, ListSchemasResponse};

use super::super::Failure;
use super::super::session::Session;
use super::{Consent, Tenants, text};

/// Databases that are asked at once.
const AT_ONCE: usize = 4;

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
    #[command(flatten)]
    consent: Consent,
}

impl Baseline {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self { service, tenants, at, consent } = self;
        let selected = tenants.tenants.resolve(session).await?;
        consent.ask(&format!("declare where {service} is"), &selected)?;
        let client = session.schemas().await?;
        let declare = |tenant: String| {
            let (mut client, service) = (client.clone(), service.clone());
            let (schema, reason) = (at.clone(), consent.reason.clone());
            async move {
                let attempted = format!("declare where `{tenant}`'s {service} is");
                let request = session.request(BaselineRequest { tenant, service, schema, reason });
                session.call(&attempted, client.baseline(request)).await
            }
        };
        let asked: Vec<_> = selected.tenants.iter().cloned().map(declare).collect();
        let told: Vec<_> = futures::stream::iter(asked).buffered(AT_ONCE).collect().await;
        let (mut response, mut failures) = (ListSchemasResponse::default(), Vec::new());
        for told in told {
            match told {
                Ok(declared) => response.schemas.extend(declared.schema),
                Err(failure) if !selected.named && failure.reason() == Reason::UnknownDatabase => {}
                Err(failure) => failures.push(failure),
            }
        }
        if response.schemas.is_empty() && failures.is_empty() {
            return Err(Failure::Input("none of the tenants has a database for the service".to_owned()));
        }
        if !response.schemas.is_empty() || session.json() {
            session.show(&response, || text::schemas(&response.schemas, text::now()))?;
        }
        match failures.pop() {
            None => Ok(()),
            Some(failure) if failures.is_empty() => Err(failure),
            Some(failure) => Err(Failure::Several(failures.into_iter().chain([failure]).collect())),
        }
    }
}
