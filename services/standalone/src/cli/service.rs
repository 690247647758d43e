//! `grey service`: services and their default versions.

use clap::{Args, Subcommand};
use grey_proto::control::{
    DeleteServiceRequest, GetServiceRequest, GetServiceResponse, ListServicesRequest, ListServicesResponse,
    PutServiceRequest, Service,
};

use super::Failure;
use super::output::{fields, plain, table};
use super::session::{Session, pages};
use super::write::{self, Write};

/// What to do with services.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List services by id
    List {
        /// At most this many
        #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        limit: u32,
    },
    /// Show a service with its versions and overlays
    Get {
        /// The service
        service: String,
    },
    /// Create a service, or change its default version
    Put(Put),
    /// Remove a service that no pin refers to
    Delete(Delete),
}

/// A service.
#[derive(Debug, Args)]
pub struct Put {
    /// The service
    service: String,
    /// The version of tenants without a pin; declared with a new service
    #[arg(long = "default", value_name = "VERSION")]
    default_version: String,
    #[command(flatten)]
    write: Write,
}

/// A service to be removed.
#[derive(Debug, Args)]
pub struct Delete {
    /// The service
    service: String,
    #[command(flatten)]
    write: Write,
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::List { limit } => list(session, limit).await,
            Self::Get { service } => {
                let response = get(session, &service).await?;
                session.show(&response, || service_text(&response))
            }
            Self::Put(args) => put(session, args).await,
            Self::Delete(Delete { service, write }) => {
                let request = DeleteServiceRequest { id: service.clone(), write: write.options() };
                let request = session.request_waiting(request, write.patience());
                let mut client = session.catalog().await?;
                let attempted = format!("delete service `{service}`");
                let response = session
                    .call_waiting(&attempted, write.patience(), client.delete_service(request))
                    .await?;
                let done = format!("deleted service {service}");
                write::show(session, &response, response.result.as_ref(), &done)
            }
        }
    }
}

async fn list(session: &Session, limit: u32) -> Result<(), Failure> {
    let mut client = session.catalog().await?;
    let page = async |page_size, page_token| {
        let request = session.request(ListServicesRequest { page_size, page_token });
        let response = session.call("list services", client.list_services(request)).await?;
        Ok((response.services, response.next_page_token))
    };
    let (services, next_page_token) = pages(limit as usize, page).await?;
    let response = ListServicesResponse { services, next_page_token };
    session.show(&response, || list_text(&response))
}

pub(super) async fn get(session: &Session, service: &str) -> Result<GetServiceResponse, Failure> {
    let mut client = session.catalog().await?;
    let request = session.request(GetServiceRequest { id: service.to_owned() });
    session.call(&format!("get service `{service}`"), client.get_service(request)).await
}

async fn put(session: &Session, args: Put) -> Result<(), Failure> {
    let Put { service: id, default_version, write } = args;
    let attempted = format!("put service `{id}`");
    let done = format!("put service {id}, default {default_version},");
    let service = Service { id, default_version, revision: 0 };
    let request = PutServiceRequest { service: Some(service), write: write.options() };
    let request = session.request_waiting(request, write.patience());
    let mut client = session.catalog().await?;
    let response = session.call_waiting(&attempted, write.patience(), client.put_service(request)).await?;
    write::show(session, &response, response.result.as_ref(), &done)
}

fn list_text(response: &ListServicesResponse) -> String {
    let rows = response
        .services
        .iter()
        .map(|service| [service.id.clone(), service.default_version.clone(), service.revision.to_string()]);
    let mut text = table(["SERVICE", "DEFAULT", "REVISION"], rows);
    if !response.next_page_token.is_empty() {
        text.push_str("there are more; raise --limit\n");
    }
    text
}

fn service_text(response: &GetServiceResponse) -> String {
    let service = response.service.clone().unwrap_or_default();
    let overlays: Vec<_> = response.overlays.iter().map(|overlay| overlay.id.clone()).collect();
    let mut text = fields([
        ("service", service.id.clone()),
        ("default", service.default_version.clone()),
        ("overlays", overlays.join(", ")),
        ("revision", service.revision.to_string()),
    ]);
    for version in &response.versions {
        let window = version.schema.as_ref().map(|window| match (window.min.as_str(), window.max.as_str()) {
            ("", max) => format!(", schema up to {max}"),
            (min, "") => format!(", schema from {min}"),
            (min, max) => format!(", schema {min} to {max}"),
        });
        text.push_str(&plain(&format!("version   {}{}", version.version, window.unwrap_or_default())));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use grey_proto::control::{Overlay, Policy, SchemaWindow, ServiceVersion};

    fn orders() -> Service {
        Service { id: "orders".to_owned(), default_version: "v1.0".to_owned(), revision: 3 }
    }

    #[test]
    fn services_are_listed_in_columns() {
        let response = ListServicesResponse { services: vec![orders()], next_page_token: String::new() };
        insta::assert_snapshot!(list_text(&response), @"
        SERVICE  DEFAULT  REVISION
        orders   v1.0     3
        ");
    }

    #[test]
    fn a_service_is_shown_with_versions_and_overlays() {
        let window = SchemaWindow { min: "2".to_owned(), max: String::new() };
        let version = |version: &str, schema| ServiceVersion {
            version: version.to_owned(),
            schema,
            ..ServiceVersion::default()
        };
        let overlays = vec![Overlay { id: "half".to_owned(), ..Overlay::default() }];
        let response = GetServiceResponse {
            service: Some(orders()),
            versions: vec![version("v1.0", None), version("v2.0", Some(window))],
            policy: Some(Policy::default()),
            overlays,
            epoch: 1,
        };
        insta::assert_snapshot!(service_text(&response), @"
        service   orders
        default   v1.0
        overlays  half
        revision  3
        version   v1.0
        version   v2.0, schema from 2
        ");
    }
}
