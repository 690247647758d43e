//! The hot path: a request becomes a call, a call a decision, a decision a response.
//!
//! Nothing here locks, logs or leaves the thread, except where a call asks for it: a minimum revision waits
//! for the table, a service with fleet-wide turns asks for its turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use grey_core::balance::{Millis, Moment};
use grey_core::change::Revision;
use grey_core::decide::{Call, Rule, choose_version, decide};
use grey_core::error::{Reason, Refusal};
use grey_core::explain::explain;
use grey_core::table::Table;
use grey_proto::decision;
use grey_proto::router::{ExplainRequest, ExplainResponse, RouteOutcome, RouteRequest, RouteResponse};
use grey_proto::status::ApiError;
use grey_runtime::access::Access;
use grey_state::State;
use grey_state::follower::Tables;
use http::HeaderMap;

use crate::config;
use crate::limits::{Limits, explain_miss};
use crate::metrics::{Counts, Gauges};

/// Pause before fleet-wide turns are tried again after one was away or slow, in milliseconds: without it every
/// call would wait in vain.
const TURN_PAUSE_MS: Millis = 250;

/// What everyone who decides has in common.
pub(crate) struct Shared {
    pub(crate) tables: Tables,
    pub(crate) state: State,
    pub(crate) access: Access,
    pub(crate) limits: Limits,
    pub(crate) identity: config::Identity,
    pub(crate) gauges: Gauges,
    /// Kept up beside the decisions, so that they need not read the clock for it.
    pub(crate) stale: AtomicBool,
    /// Streams end once this is set.
    pub(crate) draining: AtomicBool,
    /// When fleet-wide turns may be asked for again; 0: now.
    turns_from: AtomicU32,
    origin: Instant,
}

impl Shared {
    pub(crate) fn new(
        tables: Tables,
        state: State,
        access: Access,
        limits: Limits,
        identity: config::Identity,
    ) -> Self {
        Self {
            tables,
            state,
            access,
            limits,
            identity,
            gauges: Gauges::default(),
            stale: AtomicBool::new(true),
            draining: AtomicBool::new(false),
            turns_from: AtomicU32::new(0),
            origin: Instant::now(),
        }
    }

    /// Who sent these headers: their role.
    pub(crate) fn role(&self, headers: &HeaderMap) -> Result<&str, ApiError> {
        let caller = self.access.authenticate(headers);
        caller
            .map(|who| who.role.as_str())
            .map_err(|why| ApiError::new(Reason::Unauthenticated, why.to_string()))
    }

    /// Milliseconds since the router started, for live figures.
    pub(crate) fn now(&self) -> Millis {
        #[expect(clippy::cast_possible_truncation, reason = "wraps after 49 days, which its readers expect")]
        let now = self.origin.elapsed().as_millis() as Millis;
        now
    }

    fn call<'a>(&'a self, request: &'a RouteRequest, role: &'a str) -> Call<'a> {
        let or = |given: &'a str, own: &'a str| if given.is_empty() { own } else { given };
        Call {
            tenant: &request.tenant,
            service: &request.service,
            metadata: &request.metadata,
            user: &request.user,
            request_key: &request.request_key,
            // A caller that names its region is not assumed to be in the router's zone.
            region: or(&request.region, &self.identity.region),
            zone: if request.region.is_empty() {
                or(&request.zone, &self.identity.zone)
            } else {
                &request.zone
            },
            override_version: &request.override_version,
            role,
        }
    }
}

/// Decides calls on one thread.
pub(crate) struct Decider {
    pub(crate) shared: Arc<Shared>,
    pub(crate) counts: Arc<Counts>,
    random: AtomicU64,
}

impl Decider {
    pub(crate) fn new(shared: Arc<Shared>, counts: Arc<Counts>) -> Self {
        Self { shared, counts, random: AtomicU64::new(rand::random()) }
    }

    /// Decides one call.
    pub(crate) async fn route(&self, request: &RouteRequest, role: &str) -> Result<RouteResponse, ApiError> {
        let result = self.route_uncounted(request, role).await;
        self.count_refusal(&result);
        result
    }

    async fn route_uncounted(&self, request: &RouteRequest, role: &str) -> Result<RouteResponse, ApiError> {
        self.shared.limits.check(request)?;
        if request.min_revision > 0 {
            self.wait_for(request.min_revision).await;
        }
        {
            let table = self.shared.tables.load();
            if !awaits_turn(&table, request) {
                return self.decide(&table, request, role, None);
            }
        }
        let table = self.shared.tables.load_full();
        let turn = self.turn(&table, request, role).await;
        self.decide(&table, request, role, turn)
    }

    /// Decides several calls on one table.
    pub(crate) async fn route_all(
        &self,
        calls: &[RouteRequest],
        role: &str,
    ) -> Result<Vec<RouteOutcome>, ApiError> {
        self.shared.limits.check_count("calls", calls.len())?;
        if let Some(wanted) = calls.iter().map(|call| call.min_revision).max().filter(|wanted| *wanted > 0) {
            self.wait_for(wanted).await;
        }
        let table = self.shared.tables.load_full();
        let mut outcomes = Vec::with_capacity(calls.len());
        for call in calls {
            let result = match self.shared.limits.check(call) {
                Err(invalid) => Err(invalid.into()),
                Ok(()) => {
                    let turn =
                        if awaits_turn(&table, call) { self.turn(&table, call, role).await } else { None };
                    self.decide(&table, call, role, turn)
                }
            };
            self.count_refusal(&result);
            outcomes.push(decision::outcome(result));
        }
        Ok(outcomes)
    }

    /// Tells why a call is decided as it is, without counting it.
    pub(crate) async fn explain(
        &self,
        request: ExplainRequest,
        role: &str,
    ) -> Result<ExplainResponse, ApiError> {
        let call = request.call.ok_or_else(|| grey_proto::convert::InvalidMessage::missing("call"))?;
        self.shared.limits.check(&call)?;
        if call.min_revision > 0 {
            self.wait_for(call.min_revision).await;
        }
        let table = match request.revision {
            0 => self.shared.tables.load_full(),
            asked => {
                self.shared.tables.at(Revision(asked)).ok_or_else(|| gone(asked, &self.shared.tables))?
            }
        };
        check_revision(&table, call.min_revision)?;
        let explained = explain(&table, &self.shared.call(&call, role), &self.moment(None));
        let stale = self.shared.stale.load(Relaxed);
        let outcome = match explained.outcome {
            Ok(decision) => Ok(decision::response(&table, &decision, stale)),
            Err(refusal) => Err(refused(&table, &call, refusal)),
        };
        Ok(ExplainResponse { explanation: Some(decision::explanation(&table, outcome, explained.steps)) })
    }

    fn decide(
        &self,
        table: &Table,
        request: &RouteRequest,
        role: &str,
        turn: Option<u64>,
    ) -> Result<RouteResponse, ApiError> {
        check_revision(table, request.min_revision)?;
        let decision = decide(table, &self.shared.call(request, role), &self.moment(turn));
        let decision = decision.map_err(|refusal| refused(table, request, refusal))?;
        if decision.rule == Rule::UnknownTenant
            && let Some(malformed) = explain_miss(request)
        {
            return Err(malformed);
        }
        self.counts.decided(decision::reason(&decision));
        Ok(decision::response(table, &decision, self.shared.stale.load(Relaxed)))
    }

    async fn wait_for(&self, revision: u64) {
        let deadline = self.shared.limits.min_revision_wait;
        // Whether it was reached shows in the table that is loaded next.
        self.shared.tables.wait_for(Revision(revision), deadline).await;
    }

    /// The call's fleet-wide turn; none if it is away or slow: the choice then counts by itself.
    async fn turn(&self, table: &Table, request: &RouteRequest, role: &str) -> Option<u64> {
        let service = table.service(&request.service)?.id();
        let choice = choose_version(table, &self.shared.call(request, role)).ok()?;
        let from = self.shared.turns_from.load(Relaxed);
        let now = self.shared.now();
        if from == 0 || now.wrapping_sub(from).cast_signed() >= 0 {
            let next = self.shared.state.turns.next(service, choice.version);
            if let Ok(Ok(turn)) = tokio::time::timeout(self.shared.limits.turn_deadline, next).await {
                if from != 0 {
                    self.shared.turns_from.store(0, Relaxed);
                }
                return Some(turn);
            }
            let from = self.shared.now().wrapping_add(TURN_PAUSE_MS).max(1);
            self.shared.turns_from.store(from, Relaxed);
        }
        self.counts.turn_fallback();
        None
    }

    fn moment(&self, turn: Option<u64>) -> Moment {
        // SplitMix64: one addition to shared state, the rest mixes a copy.
        let mut random = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        random = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        random = (random ^ (random >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Moment { now: self.shared.now(), random: random ^ (random >> 31), turn }
    }

    fn count_refusal(&self, result: &Result<RouteResponse, ApiError>) {
        if let Err(error) = result {
            self.counts.refused(error.reason);
        }
    }
}

fn awaits_turn(table: &Table, request: &RouteRequest) -> bool {
    table.service(&request.service).is_some_and(grey_core::table::ServiceTable::awaits_turn)
}

fn check_revision(table: &Table, wanted: u64) -> Result<(), ApiError> {
    let held = table.position().revision.0;
    if held >= wanted {
        return Ok(());
    }
    let message = format!("revision {wanted} was not reached in time; the table is at {held}");
    Err(ApiError::new(Reason::Stale, message).with("revision", held.to_string()))
}

#[cold]
fn refused(table: &Table, call: &RouteRequest, refusal: Refusal) -> ApiError {
    if table.position().generation.0.is_empty() {
        return ApiError::new(Reason::Unavailable, "the router has no routing table yet; retry later");
    }
    let unknown = matches!(refusal, Refusal::UnknownTenant | Refusal::UnknownService);
    unknown.then(|| explain_miss(call)).flatten().unwrap_or_else(|| refusal.into())
}

#[cold]
fn gone(asked: u64, tables: &Tables) -> ApiError {
    let present = tables.load().position().revision;
    let message = format!(
        "revision {asked} is not at hand here, the table is at {present}; ask the control plane's ExplainAt"
    );
    ApiError::new(Reason::RevisionUnavailable, message).with("revision", present.to_string())
}
