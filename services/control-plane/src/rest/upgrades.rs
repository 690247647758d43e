//! `/api/upgrades`, and the ways to ask for one.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use grey_edge::Failure;
use grey_proto::convert::InvalidMessage;
use grey_proto::schema::{
    CancelUpgradeResponse, GetDriftRequest, GetDriftResponse, GetHistoryRequest, GetHistoryResponse,
    GetUpgradeResponse, ListUpgradesRequest, ListUpgradesResponse, Provision, ProvisionRequest,
    ProvisionResponse, StartUpgradeRequest, Target, Upgrade, UpgradeOptions, UpgradePlan, UpgradeState,
};
use grey_proto::status::{ApiError, ErrorBody};
use serde::{Deserialize, Serialize};

use super::input::adopt;
use super::{Answer, Input, Reply};
use crate::access::Operation;
use crate::api::Api;

/// A comment follows this long after the last event, so that no proxy takes the stream for dead.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// The id of a stream's last event. Whoever comes back with it has seen everything.
const END: &str = "end";

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/api/tenants/{id}/schema-upgrade", post(start))
        .route("/api/grey-router/upgrade-schema/{id}/{version}", post(start_for_version))
        .route("/api/tenants/{id}/services/{service}/provision", post(provision))
        .route("/api/tenants/{id}/services/{service}/schema-history", get(history))
        .route("/api/tenants/{id}/services/{service}/schema-drift", get(drift))
        .route("/api/upgrades", get(list))
        .route("/api/upgrades/{id}", get(read))
        .route("/api/upgrades/{id}/events", get(watch))
        .route("/api/upgrades/{id}/cancel", post(cancel))
}

/// What an upgrade is asked for with. A service version stands for the newest schema that it works on.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct Wanted {
    service: String,
    schema: String,
    #[serde(alias = "targetVersion", alias = "serviceVersion")]
    version: String,
    options: Option<UpgradeOptions>,
    reason: String,
    idempotency_key: String,
}

/// What a database is asked for with.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct Provisioned {
    site: String,
    schema: String,
    #[serde(alias = "targetVersion", alias = "serviceVersion")]
    version: String,
    inactive: bool,
    reason: String,
    dry_run: bool,
}

/// A database is made, or would be.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Making {
    #[serde(skip_serializing_if = "String::is_empty")]
    upgrade_id: String,
    provision: Option<Provision>,
    plan: Option<UpgradePlan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upgrade: Option<Upgrade>,
}

/// An upgrade was queued.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Started {
    upgrade_id: String,
    upgrade: Upgrade,
}

/// Where an upgrade is read.
pub(super) fn place(id: &str) -> String {
    format!("/api/upgrades/{id}")
}

async fn start(State(api): State<Api>, input: Input) -> Answer<Started> {
    let caller = input.admit(Operation::StartUpgrade)?;
    input.allow(&[])?;
    let wanted: Wanted = input.object()?;
    let upgrade = api.start_upgrade(&caller, wanted.request(input.path("id"))).await?;
    Ok(started(upgrade))
}

/// The path names the version as `service:version`; or the version alone, and the query the service.
async fn start_for_version(State(api): State<Api>, input: Input) -> Answer<Started> {
    let caller = input.admit(Operation::StartUpgrade)?;
    input.allow(&["service"])?;
    let mut wanted: Wanted = input.object_if_any()?;
    let named = input.path("version");
    let (service, version) = match named.split_once(':') {
        Some((service, version)) => (service.to_owned(), version.to_owned()),
        None => (input.text("service"), named),
    };
    if version.is_empty() {
        return Err(InvalidMessage::new("version", "must be service:version").into());
    }
    if !service.is_empty() {
        adopt("service", &mut wanted.service, service)?;
    }
    adopt("version", &mut wanted.version, version)?;
    let upgrade = api.start_upgrade(&caller, wanted.request(input.path("id"))).await?;
    Ok(started(upgrade))
}

impl Wanted {
    fn request(self, tenant: String) -> StartUpgradeRequest {
        let Self { service, schema, version, options, reason, idempotency_key } = self;
        let target = Some(Target { schema, service_version: version });
        StartUpgradeRequest { tenant, service, target, options, reason, flip: None, idempotency_key }
    }
}

fn started(upgrade: Upgrade) -> Reply<Started> {
    let (upgrade_id, location) = (upgrade.id.clone(), place(&upgrade.id));
    Reply::accepted(Started { upgrade_id, upgrade }, location)
}

async fn provision(State(api): State<Api>, input: Input) -> Answer<Making> {
    let caller = input.admit(Operation::Provision)?;
    input.allow(&[])?;
    let Provisioned { site, schema, version, inactive, reason, dry_run } = input.object()?;
    let request = ProvisionRequest {
        tenant: input.path("id"),
        service: input.path("service"),
        site,
        target: Some(Target { schema, service_version: version }),
        inactive,
        reason,
        dry_run,
    };
    let ProvisionResponse { provision, plan, upgrade } = api.provision(&caller, request).await?;
    let upgrade_id = upgrade.as_ref().map(|upgrade| upgrade.id.clone()).unwrap_or_default();
    let location = place(&upgrade_id);
    let making = Making { upgrade_id, provision, plan, upgrade };
    Ok(if making.upgrade.is_some() { Reply::accepted(making, location) } else { Reply::new(making) })
}

async fn list(State(api): State<Api>, input: Input) -> Answer<ListUpgradesResponse> {
    let caller = input.admit(Operation::ListUpgrades)?;
    input.allow(&["tenant", "service", "state", "pageSize", "pageToken"])?;
    let request = ListUpgradesRequest {
        tenant: input.text("tenant"),
        service: input.text("service"),
        state: state(&input.text("state"))?.into(),
        page_size: input.value("pageSize")?,
        page_token: input.text("pageToken"),
    };
    Ok(Reply::new(api.list_upgrades(&caller, request).await?))
}

/// Both the contract's name of a state and its last words are understood.
fn state(text: &str) -> Result<UpgradeState, InvalidMessage> {
    let word = text.to_ascii_uppercase().replace('-', "_");
    let named = UpgradeState::from_str_name(&word);
    let named = named.or_else(|| UpgradeState::from_str_name(&format!("UPGRADE_STATE_{word}")));
    match named {
        _ if text.is_empty() => Ok(UpgradeState::Unspecified),
        Some(state) => Ok(state),
        None => {
            let why = "must be queued, running, succeeded, failed, cancelled or needs_repair";
            Err(InvalidMessage::new("state", why))
        }
    }
}

async fn read(State(api): State<Api>, input: Input) -> Answer<GetUpgradeResponse> {
    let caller = input.admit(Operation::GetUpgrade)?;
    input.allow(&[])?;
    let upgrade = api.get_upgrade(&caller, &input.path("id")).await?;
    Ok(Reply::new(GetUpgradeResponse { upgrade: Some(upgrade) }))
}

async fn cancel(State(api): State<Api>, input: Input) -> Answer<CancelUpgradeResponse> {
    let caller = input.admit(Operation::CancelUpgrade)?;
    input.allow(&[])?;
    let Nothing {} = input.object_if_any()?;
    let upgrade = api.cancel_upgrade(&caller, &input.path("id")).await?;
    Ok(Reply::new(CancelUpgradeResponse { upgrade: Some(upgrade) }))
}

async fn history(State(api): State<Api>, input: Input) -> Answer<GetHistoryResponse> {
    let caller = input.admit(Operation::GetSchemaHistory)?;
    input.allow(&[])?;
    let request = GetHistoryRequest { tenant: input.path("id"), service: input.path("service") };
    Ok(Reply::new(api.schema_history(&caller, request).await?))
}

async fn drift(State(api): State<Api>, input: Input) -> Answer<GetDriftResponse> {
    let caller = input.admit(Operation::GetSchemaDrift)?;
    input.allow(&[])?;
    let request = GetDriftRequest { tenant: input.path("id"), service: input.path("service") };
    Ok(Reply::new(api.schema_drift(&caller, request).await?))
}

/// A body that says nothing.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

async fn watch(State(api): State<Api>, input: Input) -> Result<Response, Failure> {
    let caller = input.admit(Operation::WatchUpgrade)?;
    input.allow(&[])?;
    if input.last_event() == Some(END) {
        // Browsers come back to a stream that has ended, until they are told that there is nothing more.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let upgrades = api.watch_upgrade(&caller, &input.path("id")).await?;
    let keepalive = KeepAlive::new().interval(KEEPALIVE).text("keepalive");
    let mut response = Sse::new(events(upgrades.boxed())).keep_alive(keepalive).into_response();
    let unbuffered = HeaderValue::from_static("no");
    response.headers_mut().insert("x-accel-buffering", unbuffered);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// How far a stream of events is.
enum Watch {
    Open(BoxStream<'static, Result<Upgrade, ApiError>>, u64),
    Closed,
}

/// One event for each change, then one that says that the upgrade has ended, or why nothing more can be told.
fn events(
    upgrades: BoxStream<'static, Result<Upgrade, ApiError>>,
) -> impl Stream<Item = Result<Event, axum::Error>> + Send {
    stream::unfold((Watch::Open(upgrades, 0), UpgradeState::Unspecified), async |(watch, last)| {
        let Watch::Open(mut upgrades, told) = watch else { return None };
        match upgrades.next().await {
            Some(Ok(upgrade)) => {
                let event = Event::default().event("upgrade").id((told + 1).to_string()).json_data(&upgrade);
                Some((event, (Watch::Open(upgrades, told + 1), upgrade.state())))
            }
            Some(Err(error)) => {
                let event = Event::default().event("error").json_data(ErrorBody::from(&error));
                Some((event, (Watch::Closed, last)))
            }
            None if has_ended(last) => {
                let event = Event::default().event(END).id(END).data(last.as_str_name());
                Some((Ok(event), (Watch::Closed, last)))
            }
            // Draining: whoever comes back finds another replica.
            None => None,
        }
    })
}

fn has_ended(state: UpgradeState) -> bool {
    use UpgradeState::{Cancelled, Failed, NeedsRepair, Succeeded};
    matches!(state, Succeeded | Failed | Cancelled | NeedsRepair)
}
