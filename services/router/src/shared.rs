//! What everyone who decides has in common: the tables, who may ask, and the state beside the decisions.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Instant;

use grey_core::balance::Millis;
use grey_core::decide::Call;
use grey_core::error::Reason;
use grey_proto::route_call::RouteCall;
use grey_proto::router::IdentifyResponse;
use grey_proto::status::ApiError;
use grey_runtime::access::{self, Access, Failures};
use grey_state::State;
use grey_state::follower::Tables;

use crate::config;
use crate::grpc::Reports;
use crate::limits::Limits;
use crate::metrics::Gauges;

/// What everyone who decides has in common.
pub(crate) struct Shared {
    pub(crate) tables: Tables,
    pub(crate) state: State,
    pub(crate) access: Access,
    pub(crate) reports: Reports,
    pub(crate) limits: Limits,
    pub(crate) identity: config::Identity,
    pub(crate) gauges: Gauges,
    /// Whether the table was confirmed too long ago. Kept up beside the decisions, so that they need not read the
    /// clock for it.
    pub(crate) stale: AtomicBool,
    /// The fleet knows of this router, and its table holds what the fleet had committed by then; or it started from its
    /// file.
    pub(crate) announced: AtomicBool,
    /// Streams end once this is set.
    pub(crate) draining: AtomicBool,
    /// When fleet-wide turns may be asked for again; 0: now.
    pub(crate) turns_from: AtomicU32,
    origin: Instant,
}

impl Shared {
    pub(crate) fn new(
        tables: Tables,
        state: State,
        access: Access,
        reports: Reports,
        limits: Limits,
        identity: config::Identity,
    ) -> Self {
        Self {
            tables,
            state,
            access,
            reports,
            limits,
            identity,
            gauges: Gauges::default(),
            stale: AtomicBool::new(true),
            announced: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            turns_from: AtomicU32::new(0),
            origin: Instant::now(),
        }
    }

    /// Whether an answer from the present table must be marked.
    pub(crate) fn is_stale(&self) -> bool {
        self.stale.load(Relaxed) || self.tables.is_suspect()
    }

    /// Who this router is and how far it is.
    pub(crate) fn identify(&self) -> IdentifyResponse {
        let status = self.tables.status();
        IdentifyResponse {
            id: self.identity.id.clone(),
            epoch: status.position.epoch.0,
            revision: status.position.revision.0,
            current: status.ready && status.is_current(),
        }
    }

    /// Milliseconds since the router started, for live figures.
    pub(crate) fn now(&self) -> Millis {
        #[expect(clippy::cast_possible_truncation, reason = "wraps after 49 days, which its readers expect")]
        let now = self.origin.elapsed().as_millis() as Millis;
        now
    }

    /// What was asked, as a call of `role`.
    pub(crate) fn call<'a>(&'a self, asked: &RouteCall<'a>, role: &'a str) -> Call<'a> {
        let or = |given: &'a str, own: &'a str| if given.is_empty() { own } else { given };
        Call {
            tenant: asked.tenant,
            service: asked.service,
            metadata: asked.metadata,
            user: asked.user,
            request_key: asked.request_key,
            // A caller that names its region is not assumed to be in the router's zone.
            region: or(asked.region, &self.identity.region),
            zone: if asked.region.is_empty() { or(asked.zone, &self.identity.zone) } else { asked.zone },
            override_version: asked.override_version,
            role,
        }
    }
}

/// What a caller is told whose credentials are refused, when it is time to tell.
#[cold]
pub(crate) async fn unauthenticated(failures: Failures, why: access::Error, client: IpAddr) -> ApiError {
    match failures.failed(why, client).await {
        Ok(()) => ApiError::new(Reason::Unauthenticated, why.to_string()),
        Err(too_many) => ApiError::new(Reason::RateLimited, too_many.to_string()),
    }
}
