//! `grey migrate status`: where databases are.

use clap::Args;
use grey_proto::schema::{ListSchemasRequest, ListSchemasResponse, TenantSchema, UpgradeState};

use super::super::Failure;
use super::super::session::{Session, pages};
use super::select::Selector;
use super::text;

/// Tenants that one question may name.
const CHUNK: usize = 1_000;

/// Databases that one call asks, so that it ends in time.
const LIVE_PAGE: u32 = 100;

/// Which databases.
#[derive(Debug, Args)]
pub struct Status {
    /// Only databases of this service; else of every service
    service: Option<String>,
    /// all, tenants as a,b,c, tier=gold, region=eu, label:key=value; several joined by + must all hold
    #[arg(long, value_name = "SELECTOR", default_value = "all")]
    tenants: Selector,
    /// Ask each database, instead of telling what was seen last
    #[arg(long)]
    live: bool,
    /// Only databases that lack migrations, whose last upgrade failed, or that could not be asked
    #[arg(long)]
    pending: bool,
}

impl Status {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self { service, tenants, live, pending } = self;
        let service = service.unwrap_or_default();
        // All of them have no names, and no need to be looked up.
        let chunks = if tenants == Selector::all() {
            vec![Vec::new()]
        } else {
            let selected = tenants.resolve(session).await?;
            selected.tenants.chunks(CHUNK).map(<[String]>::to_vec).collect()
        };
        let mut client = session.schemas().await?;
        let mut schemas = Vec::new();
        for tenants in chunks {
            let page = async |page_size, page_token| {
                let (service, tenants) = (service.clone(), tenants.clone());
                let page_size = if live { LIVE_PAGE.min(page_size) } else { page_size };
                let request = ListSchemasRequest { service, tenants, page_size, page_token, live };
                let request = session.request(request);
                let response = session.call("list schemas", client.list_schemas(request)).await?;
                Ok((response.schemas, response.next_page_token))
            };
            let (more, _) = pages(usize::MAX, page).await?;
            schemas.extend(more);
        }
        if pending {
            let lacks = |schema: &TenantSchema| {
                schema.pending > 0
                    || !schema.error.is_empty()
                    || schema.last_state() != UpgradeState::Unspecified
            };
            schemas.retain(lacks);
        }
        let response = ListSchemasResponse { schemas, next_page_token: String::new() };
        let schemas = &response.schemas;
        session.show(&response, || text::schemas(schemas, text::now()) + &text::standings(schemas))
    }
}
