//! The hot path: a request becomes a call, a call a decision, a decision a response.
//!
//! Nothing here locks, logs or leaves the thread, except where a call asks for it: a minimum revision waits
//! for the table, a service with fleet-wide turns asks for its turn.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use grey_core::balance::{Millis, Moment};
use grey_core::change::{Epoch, Position, Revision};
use grey_core::decide::{Rule, decide, turn_of};
use grey_core::error::{Reason, Refusal};
use grey_core::explain::explain;
use grey_core::table::Table;
use grey_proto::decision;
use grey_proto::router::{ExplainRequest, ExplainResponse, RouteOutcome, RouteRequest, RouteResponse};
use grey_proto::status::ApiError;
use grey_state::follower::Tables;

use crate::limits::explain_miss;
use crate::metrics::Counts;
use crate::shared::Shared;

/// Pause before fleet-wide turns are tried again after one was away or slow, in milliseconds: without it every
/// call would wait in vain.
const TURN_PAUSE_MS: Millis = 250;

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
        if minimum(request) != Position::default() {
            self.wait_for(std::slice::from_ref(request)).await;
        }
        let moment = self.moment();
        {
            let table = self.shared.tables.load();
            if !awaits_turn(&table, request) {
                return self.decide(&table, request, role, &moment);
            }
        }
        let before = self.shared.tables.load_full();
        let moment = self.with_turn(moment, &before, request, role).await;
        let table = self.shared.tables.load();
        let moment = self.on_present(moment, &before, &table, request, role);
        self.decide(&table, request, role, &moment)
    }

    /// Decides several calls on one table.
    pub(crate) async fn route_all(
        &self,
        calls: &[RouteRequest],
        role: &str,
    ) -> Result<Vec<RouteOutcome>, ApiError> {
        self.shared.limits.check_count("calls", calls.len())?;
        self.wait_for(calls).await;
        let before = self.shared.tables.load_full();
        let mut moments = Vec::with_capacity(calls.len());
        for call in calls {
            let mut moment = self.moment();
            let checked = self.shared.limits.check(call);
            if checked.is_ok() && awaits_turn(&before, call) {
                moment = self.with_turn(moment, &before, call, role).await;
            }
            moments.push(checked.map(|()| moment));
        }
        let table = self.shared.tables.load();
        let decided = calls.iter().zip(moments).map(|(call, moment)| {
            let result = moment.map_err(ApiError::from).and_then(|moment| {
                let moment = self.on_present(moment, &before, &table, call, role);
                self.decide(&table, call, role, &moment)
            });
            self.count_refusal(&result);
            decision::outcome(result)
        });
        Ok(decided.collect())
    }

    /// Tells why a call is decided as it is, without counting it.
    pub(crate) async fn explain(
        &self,
        request: ExplainRequest,
        role: &str,
    ) -> Result<ExplainResponse, ApiError> {
        let call = request.call.ok_or_else(|| grey_proto::convert::InvalidMessage::missing("call"))?;
        self.shared.limits.check(&call)?;
        self.wait_for(std::slice::from_ref(&call)).await;
        let table = match request.revision {
            0 => self.shared.tables.load_full(),
            asked => {
                self.shared.tables.at(Revision(asked)).ok_or_else(|| gone(asked, &self.shared.tables))?
            }
        };
        check_minimum(&table, &call)?;
        let explained = explain(&table, &self.shared.call(&call, role), &self.moment());
        let stale = self.shared.is_stale();
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
        moment: &Moment,
    ) -> Result<RouteResponse, ApiError> {
        check_minimum(table, request)?;
        let decision = decide(table, &self.shared.call(request, role), moment);
        let decision = decision.map_err(|refusal| refused(table, request, refusal))?;
        if decision.rule == Rule::UnknownTenant
            && let Some(malformed) = explain_miss(request)
        {
            return Err(malformed);
        }
        self.counts.decided(decision::reason(&decision));
        Ok(decision::response(table, &decision, self.shared.is_stale()))
    }

    /// Waits until the table holds what each of the calls asks for at least.
    async fn wait_for(&self, calls: &[RouteRequest]) {
        let deadline = self.shared.limits.min_revision_wait;
        let reached = |present: Position| calls.iter().all(|call| present.contains(minimum(call)));
        // Whether it was reached shows in the table that is loaded next.
        self.shared.tables.wait_until(reached, deadline).await;
    }

    /// Adds the call's fleet-wide turn to the moment; none if it is away or slow: the choice then counts by itself.
    ///
    /// The turn is that of the group of instances which the decision uses at the same moment.
    async fn with_turn(&self, moment: Moment, table: &Table, request: &RouteRequest, role: &str) -> Moment {
        let Some(of) = turn_of(table, &self.shared.call(request, role), &moment) else { return moment };
        let (state, deadline) = (&self.shared.state, self.shared.limits.turn_deadline);
        let from = self.shared.turns_from.load(Relaxed);
        let now = self.shared.now();
        if from == 0 || now.wrapping_sub(from).cast_signed() >= 0 {
            let next = state.turns.next(of.service, of.version, of.locality);
            if let Ok(Ok(turn)) = tokio::time::timeout(deadline, next).await {
                if from != 0 {
                    self.shared.turns_from.store(0, Relaxed);
                }
                return Moment { turn: Some(turn), ..moment };
            }
            let from = self.shared.now().wrapping_add(TURN_PAUSE_MS).max(1);
            self.shared.turns_from.store(from, Relaxed);
        }
        self.counts.turn_fallback();
        moment
    }

    /// The moment for the table that is present once turns have been waited for. A router that has acknowledged a table
    /// answers by no older one, so what was loaded before the wait decides nothing; and a turn that was taken by it
    /// counts only among the same instances.
    fn on_present(
        &self,
        moment: Moment,
        before: &Table,
        present: &Table,
        request: &RouteRequest,
        role: &str,
    ) -> Moment {
        if moment.turn.is_none() || ptr::eq(before, present) {
            return moment;
        }
        let call = self.shared.call(request, role);
        if turn_of(before, &call, &moment) == turn_of(present, &call, &moment) {
            return moment;
        }
        self.counts.turn_fallback();
        Moment { turn: None, ..moment }
    }

    fn moment(&self) -> Moment {
        // SplitMix64: one addition to shared state, the rest mixes a copy.
        let mut random = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        random = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        random = (random ^ (random >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Moment { now: self.shared.now(), random: random ^ (random >> 31), turn: None }
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

/// What the call's table must contain; [`Position::default`] if it asks for nothing.
fn minimum(call: &RouteRequest) -> Position {
    Position { epoch: Epoch(call.min_epoch), revision: Revision(call.min_revision) }
}

fn check_minimum(table: &Table, call: &RouteRequest) -> Result<(), ApiError> {
    let (held, asked) = (table.position(), minimum(call));
    if held.contains(asked) { Ok(()) } else { Err(not_reached(held, asked)) }
}

#[cold]
fn not_reached(held: Position, asked: Position) -> ApiError {
    let of = if asked.epoch == Epoch(0) { String::new() } else { format!(" of epoch {}", asked.epoch) };
    let message = format!(
        "revision {}{of} was not reached in time; the table is at revision {} of epoch {}",
        asked.revision, held.revision, held.epoch
    );
    let error = ApiError::new(Reason::Stale, message).with("revision", held.revision.to_string());
    error.with("epoch", held.epoch.to_string())
}

#[cold]
fn refused(table: &Table, call: &RouteRequest, refusal: Refusal) -> ApiError {
    if table.position().epoch == Epoch(0) {
        return ApiError::new(Reason::Unavailable, "the router has no routing table yet; retry later");
    }
    let unknown = matches!(refusal, Refusal::UnknownTenant | Refusal::UnknownService);
    unknown.then(|| explain_miss(call)).flatten().unwrap_or_else(|| refusal.into())
}

#[cold]
fn gone(asked: u64, tables: &Tables) -> ApiError {
    let Position { epoch, revision } = tables.load().position();
    let message = format!(
        "revision {asked} of epoch {epoch} is not at hand here, the table is at {revision}; ask the control \
         plane's ExplainAt"
    );
    let error = ApiError::new(Reason::RevisionUnavailable, message).with("revision", revision.to_string());
    error.with("epoch", epoch.to_string())
}
