//! `grey tenant`: who is served.

use clap::{Args, Subcommand, ValueEnum};
use grey_proto::control::{
    DeleteTenantRequest, GetTenantRequest, GetTenantResponse, ListTenantsRequest, ListTenantsResponse,
    ObserveSchemaRequest, ObservedSchema, PutTenantRequest, Tenant, TenantStatus,
};

use super::output::{fields, pairs, plain, table, word};
use super::session::{Session, pages};
use super::write::{self, Write};
use super::{Failure, migrate, pair};

/// What to do with tenants.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List tenants by id
    List(List),
    /// Show a tenant with its pins and observed schemas
    Get {
        /// The tenant
        tenant: String,
    },
    /// Create a tenant or replace it: attributes that are not given are emptied
    Put(Box<Put>),
    /// Set some attributes of a tenant and leave the others as they are
    Set(Box<Set>),
    /// Remove a tenant with its pins and observed schemas
    Delete(One),
    /// Refuse a tenant's calls until it is activated
    Suspend(One),
    /// Route a tenant's calls again
    Activate(One),
    /// Record the schema seen in a tenant's database
    Observe(Observe),
    /// Make a tenant's database for a service, migrate and register it, and activate the tenant; or leave nothing behind
    Provision(Box<migrate::Provision>),
}

/// Which tenants.
#[derive(Debug, Args)]
pub struct List {
    /// Only tenants of this tier
    #[arg(long, default_value = "", hide_default_value = true)]
    tier: String,
    /// Only tenants of this region
    #[arg(long, default_value = "", hide_default_value = true)]
    region: String,
    /// Only tenants of this status
    #[arg(long)]
    status: Option<Status>,
    /// At most this many
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
}

/// A tenant and its attributes; what is not given is empty.
#[derive(Debug, Args)]
pub struct Put {
    /// The tenant
    tenant: String,
    /// For people
    #[arg(long, default_value = "", hide_default_value = true)]
    name: String,
    /// Whether its calls are routed
    #[arg(long, value_enum, default_value_t = Status::Active)]
    status: Status,
    /// Commercial tier
    #[arg(long, default_value = "", hide_default_value = true)]
    tier: String,
    /// Home region
    #[arg(long, default_value = "", hide_default_value = true)]
    region: String,
    /// Regions whose instances may serve it, most wanted first
    #[arg(long, value_name = "REGION", value_delimiter = ',')]
    residency: Vec<String>,
    /// Free attribute; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    #[command(flatten)]
    write: Write,
}

/// Attributes to be set; an empty value clears one.
#[derive(Debug, Args)]
pub struct Set {
    /// The tenant
    tenant: String,
    /// For people
    #[arg(long)]
    name: Option<String>,
    /// Whether its calls are routed
    #[arg(long, value_enum)]
    status: Option<Status>,
    /// Commercial tier
    #[arg(long)]
    tier: Option<String>,
    /// Home region
    #[arg(long)]
    region: Option<String>,
    /// Regions whose instances may serve it, most wanted first
    #[arg(long, value_name = "REGION", value_delimiter = ',')]
    residency: Option<Vec<String>>,
    /// Free attribute; `KEY=` clears it; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    #[command(flatten)]
    write: Write,
}

/// One tenant, to be changed.
#[derive(Debug, Args)]
pub struct One {
    /// The tenant
    tenant: String,
    #[command(flatten)]
    write: Write,
}

/// What was seen in a tenant's database.
#[derive(Debug, Args)]
pub struct Observe {
    /// The tenant
    tenant: String,
    /// The service
    service: String,
    /// The schema, such as 1.1; empty: it is no longer known
    schema: String,
    #[command(flatten)]
    write: Write,
}

/// Whether a tenant's calls are routed.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Status {
    /// Calls are routed
    Active,
    /// Calls are refused until the tenant is active again
    Suspended,
    /// Calls are refused for a while
    Maintenance,
}

impl From<Status> for TenantStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Active => Self::Active,
            Status::Suspended => Self::Suspended,
            Status::Maintenance => Self::Maintenance,
        }
    }
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::List(args) => list(session, args).await,
            Self::Get { tenant } => {
                let response = get(session, &tenant).await?;
                session.show(&response, || tenant_text(&response))
            }
            Self::Put(args) => {
                let Put { tenant: id, name, status, tier, region, residency, labels, write } = *args;
                let labels = labels.into_iter().collect();
                let status = TenantStatus::from(status).into();
                let tenant = Tenant { id, name, status, tier, region, residency, labels, revision: 0 };
                put(session, tenant, Vec::new(), &write, "put").await
            }
            Self::Set(args) => set(session, *args).await,
            Self::Delete(One { tenant, write }) => {
                let request = DeleteTenantRequest { id: tenant.clone(), write: write.options() };
                let request = session.request_waiting(request, write.patience());
                let mut client = session.tenants().await?;
                let attempted = format!("delete tenant `{tenant}`");
                let response =
                    session.call_waiting(&attempted, write.patience(), client.delete_tenant(request)).await?;
                let done = format!("deleted tenant {tenant}");
                write::show(session, &response, response.result.as_ref(), &done)
            }
            Self::Suspend(args) => set_status(session, args, TenantStatus::Suspended, "suspended").await,
            Self::Activate(args) => set_status(session, args, TenantStatus::Active, "activated").await,
            Self::Observe(args) => observe(session, args).await,
            Self::Provision(args) => Box::pin(args.run(session)).await,
        }
    }
}

async fn list(session: &Session, args: List) -> Result<(), Failure> {
    let mut client = session.tenants().await?;
    let List { tier, region, status, limit } = args;
    let status = status.map_or(TenantStatus::Unspecified, TenantStatus::from).into();
    let page = async |page_size, page_token| {
        let (tier, region) = (tier.clone(), region.clone());
        let request = ListTenantsRequest { page_size, page_token, tier, region, status };
        let response = session.call("list tenants", client.list_tenants(session.request(request))).await?;
        Ok((response.tenants, response.next_page_token))
    };
    let (tenants, next_page_token) = pages(limit as usize, page).await?;
    let response = ListTenantsResponse { tenants, next_page_token };
    session.show(&response, || list_text(&response))
}

async fn get(session: &Session, tenant: &str) -> Result<GetTenantResponse, Failure> {
    let mut client = session.tenants().await?;
    let request = session.request(GetTenantRequest { id: tenant.to_owned() });
    session.call(&format!("get tenant `{tenant}`"), client.get_tenant(request)).await
}

async fn put(
    session: &Session,
    tenant: Tenant,
    update_mask: Vec<String>,
    write: &Write,
    done: &str,
) -> Result<(), Failure> {
    let (attempted, done) = (format!("put tenant `{}`", tenant.id), format!("{done} tenant {}", tenant.id));
    let request = PutTenantRequest { tenant: Some(tenant), write: write.options(), update_mask };
    let request = session.request_waiting(request, write.patience());
    let mut client = session.tenants().await?;
    let response = session.call_waiting(&attempted, write.patience(), client.put_tenant(request)).await?;
    write::show(session, &response, response.result.as_ref(), &done)
}

/// Sets what was given.
async fn set(session: &Session, args: Set) -> Result<(), Failure> {
    let Set { tenant: id, name, status, tier, region, residency, labels, write } = args;
    let mut mask = Vec::new();
    let mut given = |field: &str, is_given: bool| mask.extend(is_given.then(|| field.to_owned()));
    given("name", name.is_some());
    given("status", status.is_some());
    given("tier", tier.is_some());
    given("region", region.is_some());
    given("residency", residency.is_some());
    labels.iter().for_each(|(key, _)| given(&format!("labels.{key}"), true));
    if mask.is_empty() {
        return Err(Failure::Input("nothing to set: give at least one attribute".to_owned()));
    }
    let tenant = Tenant {
        id,
        name: name.unwrap_or_default(),
        status: status.map(|status| TenantStatus::from(status).into()).unwrap_or_default(),
        tier: tier.unwrap_or_default(),
        region: region.unwrap_or_default(),
        residency: residency.unwrap_or_default().into_iter().filter(|region| !region.is_empty()).collect(),
        labels: labels.into_iter().filter(|(_, value)| !value.is_empty()).collect(),
        revision: 0,
    };
    put(session, tenant, mask, &write, "set").await
}

async fn set_status(session: &Session, args: One, status: TenantStatus, done: &str) -> Result<(), Failure> {
    let One { tenant: id, write } = args;
    let tenant = Tenant { id, status: status.into(), ..Tenant::default() };
    put(session, tenant, vec!["status".to_owned()], &write, done).await
}

async fn observe(session: &Session, args: Observe) -> Result<(), Failure> {
    let Observe { tenant, service, schema, write } = args;
    let attempted = format!("record the schema of tenant `{tenant}` for `{service}`");
    let done = format!("recorded schema {schema} of tenant {tenant} for {service}");
    let schema = ObservedSchema { tenant, service, schema, observed_at: None, revision: 0 };
    let request = ObserveSchemaRequest { schema: Some(schema), write: write.options() };
    let request = session.request_waiting(request, write.patience());
    let mut client = session.tenants().await?;
    let response = session.call_waiting(&attempted, write.patience(), client.observe_schema(request)).await?;
    write::show(session, &response, response.result.as_ref(), &done)
}

fn status_word(tenant: &Tenant) -> String {
    match tenant.status() {
        TenantStatus::Unspecified => word(TenantStatus::Active.as_str_name(), "TENANT_STATUS_"),
        status => word(status.as_str_name(), "TENANT_STATUS_"),
    }
}

fn list_text(response: &ListTenantsResponse) -> String {
    let rows = response.tenants.iter().map(|tenant| {
        let labels = pairs(&tenant.labels);
        let revision = tenant.revision.to_string();
        [tenant.id.clone(), status_word(tenant), tenant.tier.clone(), tenant.region.clone(), labels, revision]
    });
    let mut text = table(["TENANT", "STATUS", "TIER", "REGION", "LABELS", "REVISION"], rows);
    if !response.next_page_token.is_empty() {
        text.push_str("there are more; raise --limit\n");
    }
    text
}

fn tenant_text(response: &GetTenantResponse) -> String {
    let tenant = response.tenant.clone().unwrap_or_default();
    let mut text = fields([
        ("tenant", tenant.id.clone()),
        ("name", tenant.name.clone()),
        ("status", status_word(&tenant)),
        ("tier", tenant.tier.clone()),
        ("region", tenant.region.clone()),
        ("residency", tenant.residency.join(", ")),
        ("labels", pairs(&tenant.labels)),
        ("revision", tenant.revision.to_string()),
    ]);
    for pin in &response.pins {
        let locked = if pin.locked { ", locked" } else { "" };
        text.push_str(&plain(&format!("pin       {} {}{locked}", pin.service, pin.version)));
        text.push('\n');
    }
    for hold in &response.holds {
        let line = format!("hold      {} refused while it moves to {}", hold.service, hold.to);
        text.push_str(&plain(&line));
        text.push('\n');
    }
    for schema in &response.schemas {
        text.push_str(&plain(&format!("schema    {} {}", schema.service, schema.schema)));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use grey_proto::control::{Hold, Pin};

    fn acme() -> Tenant {
        Tenant {
            id: "acme".to_owned(),
            status: TenantStatus::Suspended.into(),
            tier: "gold".to_owned(),
            labels: [("plan".to_owned(), "yearly".to_owned())].into(),
            revision: 7,
            ..Tenant::default()
        }
    }

    #[test]
    fn tenants_are_listed_in_columns() {
        let other = Tenant { id: "b".to_owned(), region: "eu-west".to_owned(), ..Tenant::default() };
        let response = ListTenantsResponse { tenants: vec![acme(), other], next_page_token: "b".to_owned() };
        insta::assert_snapshot!(list_text(&response), @"
        TENANT  STATUS     TIER  REGION   LABELS       REVISION
        acme    suspended  gold  -        plan=yearly  7
        b       active     -     eu-west  -            0
        there are more; raise --limit
        ");
    }

    #[test]
    fn a_tenant_is_shown_with_pins_and_schemas() {
        let pin =
            Pin { service: "payment".to_owned(), version: "v2.0".to_owned(), locked: true, ..Pin::default() };
        let schema = ObservedSchema {
            service: "orders".to_owned(),
            schema: "2".to_owned(),
            ..ObservedSchema::default()
        };
        let response = GetTenantResponse {
            tenant: Some(acme()),
            pins: vec![pin],
            schemas: vec![schema],
            holds: vec![Hold { service: "billing".to_owned(), to: "v3.0".to_owned(), ..Hold::default() }],
            ..GetTenantResponse::default()
        };
        insta::assert_snapshot!(tenant_text(&response), @"
        tenant    acme
        status    suspended
        tier      gold
        labels    plan=yearly
        revision  7
        pin       payment v2.0, locked
        hold      billing refused while it moves to v3.0
        schema    orders 2
        ");
    }
}
