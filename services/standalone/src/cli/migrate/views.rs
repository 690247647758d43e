//! `grey migrate views`: two versions of a service on the same tables.

use clap::{Args, Subcommand};
use grey_proto::schema::{
    DropViewsRequest, DropViewsResponse, ListViewsRequest, ListViewsResponse, SwitchViewsRequest,
    SwitchViewsResponse, ViewSchema,
};

use super::super::Failure;
use super::super::output::table;
use super::super::session::Session;
use super::each::each;
use super::{Consent, Tenants};

/// What to do with schemas of views.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List them, with the versions of the service and the roles that use them
    List(List),
    /// Say which of them new sessions should use
    Switch(Switch),
    /// Drop those that nothing works on any more
    Drop(Drop),
}

/// Whose views.
#[derive(Debug, Args)]
pub struct List {
    /// The service
    service: String,
    #[command(flatten)]
    tenants: Tenants,
}

/// Whose views, and which.
#[derive(Debug, Args)]
pub struct Switch {
    /// The service
    service: String,
    #[command(flatten)]
    tenants: Tenants,
    /// The schema version whose views new sessions should use
    #[arg(long, value_name = "SCHEMA")]
    to: String,
    /// Set the search path of this role of the database; may be given several times. Without it, the choice is noted for
    /// services that set their search path themselves
    #[arg(long, value_name = "ROLE")]
    role: Vec<String>,
    #[command(flatten)]
    consent: Consent,
}

/// Whose views, and which.
#[derive(Debug, Args)]
pub struct Drop {
    /// The service
    service: String,
    #[command(flatten)]
    tenants: Tenants,
    /// Only those of this schema version; may be given several times
    #[arg(long, value_name = "SCHEMA")]
    of: Vec<String>,
    #[command(flatten)]
    consent: Consent,
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::List(args) => args.run(session).await,
            Self::Switch(args) => args.run(session).await,
            Self::Drop(args) => args.run(session).await,
        }
    }
}

impl List {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self { service, tenants } = self;
        let selected = tenants.tenants.resolve(session).await?;
        let client = session.schemas().await?;
        let list = |tenant: String| {
            let (mut client, service) = (client.clone(), service.clone());
            async move {
                let attempted = format!("list the views of `{tenant}`'s {service}");
                let request = session.request(ListViewsRequest { tenant, service });
                session.call(&attempted, client.list_views(request)).await
            }
        };
        let mut told = each(&selected, list).await?;
        let views = told.answers.drain(..).flat_map(|answer| answer.views).collect();
        let response = ListViewsResponse { views };
        session.show(&response, || views_text(&response.views))?;
        told.end()
    }
}

impl Switch {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self { service, tenants, to: schema, role: roles, consent } = self;
        let selected = tenants.tenants.resolve(session).await?;
        consent.ask(&format!("switch {service} to the views of {schema}"), &selected)?;
        let client = session.schemas().await?;
        let switch = |tenant: String| {
            let (mut client, service, schema) = (client.clone(), service.clone(), schema.clone());
            let (roles, reason) = (roles.clone(), consent.reason.clone());
            async move {
                let attempted = format!("switch `{tenant}`'s {service} to the views of {schema}");
                let request = session.request(SwitchViewsRequest { tenant, service, schema, roles, reason });
                session.call(&attempted, client.switch_views(request)).await
            }
        };
        let mut told = each(&selected, switch).await?;
        let views = told.answers.drain(..).flat_map(|answer| answer.views).collect();
        let response = SwitchViewsResponse { views };
        if !response.views.is_empty() || session.json() {
            session.show(&response, || views_text(&response.views))?;
        }
        told.end()
    }
}

impl Drop {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self { service, tenants, of: schemas, consent } = self;
        let selected = tenants.tenants.resolve(session).await?;
        consent.ask(&format!("drop views of {service}"), &selected)?;
        let client = session.schemas().await?;
        let drop = |tenant: String| {
            let (mut client, service, schemas) = (client.clone(), service.clone(), schemas.clone());
            let reason = consent.reason.clone();
            async move {
                let attempted = format!("drop views of `{tenant}`'s {service}");
                let request = session.request(DropViewsRequest { tenant, service, schemas, reason });
                session.call(&attempted, client.drop_views(request)).await
            }
        };
        let mut told = each(&selected, drop).await?;
        let asked = told.answers.len();
        let mut response = DropViewsResponse::default();
        for answer in told.answers.drain(..) {
            response.dropped.extend(answer.dropped);
            response.kept.extend(answer.kept);
        }
        if asked > 0 || session.json() {
            session.show(&response, || dropped_text(&response))?;
        }
        told.end()
    }
}

fn views_text(views: &[ViewSchema]) -> String {
    let rows = views.iter().map(|it| {
        [
            it.tenant.clone(),
            it.service.clone(),
            it.version.clone(),
            it.name.clone(),
            if it.current { "yes" } else { "" }.to_owned(),
            it.used_by.join(" "),
            it.roles.join(" "),
        ]
    });
    table(["TENANT", "SERVICE", "SCHEMA", "VIEWS", "CURRENT", "USED BY", "ROLES"], rows)
}

fn dropped_text(response: &DropViewsResponse) -> String {
    let (gone, left) = (response.dropped.len(), response.kept.len());
    let count = format!("{gone} schemas of views dropped, {left} kept\n");
    if gone == 0 { count } else { views_text(&response.dropped) + &count }
}
