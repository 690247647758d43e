//! `POST /api/sync/webhook`: the tenant API tells that tenants have changed, and a sync is asked for.
//!
//! Deliveries are signed as Standard Webhooks are: the header `webhook-signature` holds `v1,` and the base64 of an
//! HMAC-SHA256 over `<webhook-id>.<webhook-timestamp>.<body>`. Nothing but the signature lets a delivery in, and the body
//! does not matter besides: the tenant API itself is asked what has changed.
//!
//! Senders repeat deliveries that were not confirmed, and anybody may repeat one that was overheard: an id that was
//! taken before is confirmed and ignored. Ids are remembered by each replica alone, so a delivery that is repeated to
//! another replica asks for a sync once more, which does no harm.

mod replays;
mod signature;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use grey_core::error::Reason;
use grey_edge::Failure;
use grey_proto::convert::InvalidMessage;
use grey_proto::status::ApiError;
use grey_runtime::config::duration;
use grey_runtime::{Faults, Secret, Validate};
use grey_sync::Desk;
use serde::{Deserialize, Serialize};

use crate::metrics::Metrics;
use replays::Replays;
pub use signature::InvalidSecret;
use signature::Keys;

/// Where deliveries go.
pub const PATH: &str = "/api/sync/webhook";
/// Who asks for a sync that a delivery has led to, in logs and requests.
const CALLER: &str = "webhook";

/// Longest body.
const MAX_BODY: usize = 64 << 10;
/// Longest id of a delivery, in bytes.
const MAX_ID: usize = 256;
/// For reading a delivery and asking for the sync.
const DEADLINE: Duration = Duration::from_secs(10);

/// Which deliveries are believed.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Shared with the sender, as `whsec_` and base64. Any of them may have signed, so that secrets can be replaced
    /// one after the other. None: there is no webhook.
    pub secrets: Vec<Secret>,
    /// How far a delivery's time may be from ours, either way.
    #[serde(with = "duration")]
    pub tolerance: Duration,
}

impl Validate for Options {
    fn validate(&self, faults: &mut Faults) {
        if let Err(InvalidSecret { index, why }) = Keys::read(&self.secrets) {
            faults.add(&format!("secrets.{index}"), why);
        }
        let sane = (1..=3_600).contains(&self.tolerance.as_secs());
        faults.check(sane, "tolerance", "must be between 1s and 1h");
    }
}

/// The receiving end. Cheap to clone.
#[derive(Clone)]
pub struct Webhook(Arc<Inner>);

struct Inner {
    keys: Keys,
    tolerance: Duration,
    replays: Mutex<Replays>,
    desk: Desk,
    metrics: Metrics,
}

impl Webhook {
    /// Believes what `options` say, and asks for syncs at `desk`.
    ///
    /// # Errors
    /// A secret is malformed.
    pub fn new(options: &Options, desk: &Desk, metrics: &Metrics) -> Result<Self, InvalidSecret> {
        Ok(Self(Arc::new(Inner {
            keys: Keys::read(&options.secrets)?,
            tolerance: options.tolerance,
            replays: Mutex::default(),
            desk: desk.clone(),
            metrics: metrics.clone(),
        })))
    }

    /// The route, to be served without asking who calls.
    pub fn routes(&self) -> Router {
        Router::new().route(PATH, post(receive)).with_state(self.clone())
    }

    fn replays(&self) -> MutexGuard<'_, Replays> {
        // Every update is finished before anything in it can panic.
        self.0.replays.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn deliver(&self, headers: &HeaderMap, body: Body) -> Result<StatusCode, Failure> {
        let (delivery, signatures) = Delivery::read(headers)?;
        let body = to_bytes(body, MAX_BODY).await.map_err(|_| too_large())?;
        let now = SystemTime::now();
        let genuine = self.0.keys.signed(&delivery.id, &delivery.timestamp, &body, signatures);
        // Told apart from a wrong signature only once the sender is known.
        if !genuine {
            return Err(refused("no signature of the delivery is by a known secret").into());
        }
        if !delivery.is_timely(now, self.0.tolerance) {
            return Err(refused("the delivery's time is too far from the present").into());
        }
        // By then it is refused by its time.
        let until = now + self.0.tolerance * 2 + Duration::from_secs(1);
        if self.replays().knows(&delivery.id, now) {
            self.0.metrics.delivered("replayed");
            return Ok(StatusCode::OK);
        }
        // Noted only once the sync is asked for: a sender that hangs up before will repeat it.
        self.0.desk.trigger(CALLER).await?;
        self.replays().note(&delivery.id, until);
        self.0.metrics.delivered("accepted");
        Ok(StatusCode::ACCEPTED)
    }
}

async fn receive(State(webhook): State<Webhook>, headers: HeaderMap, body: Body) -> Response {
    if webhook.0.keys.is_empty() {
        let error = ApiError::new(Reason::InvalidArgument, "no webhook is configured");
        return Failure::with_code(error, StatusCode::NOT_FOUND).into_response();
    }
    let delivered = tokio::time::timeout(DEADLINE, webhook.deliver(&headers, body)).await;
    let late = |_| ApiError::new(Reason::Unavailable, "the delivery took too long").into();
    let response = delivered.map_err(late).flatten().into_response();
    if response.status().is_server_error() {
        webhook.0.metrics.delivered("failed");
    } else if response.status().is_client_error() {
        webhook.0.metrics.delivered("refused");
    }
    response
}

/// What the headers say.
struct Delivery {
    id: String,
    /// As it is signed.
    timestamp: String,
    at: SystemTime,
}

impl Delivery {
    fn read(headers: &HeaderMap) -> Result<(Self, &str), Failure> {
        let get = |name: &'static str| {
            let mut values = headers.get_all(name).iter();
            let value = values.next().ok_or_else(|| InvalidMessage::missing(name))?;
            let text = value.to_str().ok().filter(|text| !text.is_empty() && values.next().is_none());
            text.ok_or_else(|| InvalidMessage::new(name, "must be one line of text"))
        };
        let id = get("webhook-id")?;
        if id.len() > MAX_ID {
            let why = format!("has {} bytes, at most {MAX_ID} are allowed", id.len());
            return Err(InvalidMessage::new("webhook-id", why).into());
        }
        let timestamp = get("webhook-timestamp")?;
        let at = timestamp.parse().ok();
        let at = at.and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
        let at = at.ok_or_else(|| {
            InvalidMessage::new("webhook-timestamp", "must be seconds since the Unix epoch")
        })?;
        let delivery = Self { id: id.to_owned(), timestamp: timestamp.to_owned(), at };
        Ok((delivery, get("webhook-signature")?))
    }

    fn is_timely(&self, now: SystemTime, tolerance: Duration) -> bool {
        let apart = now.duration_since(self.at).or_else(|_| self.at.duration_since(now));
        apart.is_ok_and(|apart| apart <= tolerance)
    }
}

fn refused(why: &str) -> ApiError {
    ApiError::new(Reason::Unauthenticated, why)
}

fn too_large() -> Failure {
    let message = format!("the body cannot be read, or has more than {MAX_BODY} bytes");
    ApiError::new(Reason::TooLarge, message).into()
}
