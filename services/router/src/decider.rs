//! The hot path: a request becomes a call, a call a decision, a decision a response.
//!
//! Nothing here locks, logs or leaves the thread, except where a call asks for it: a minimum revision waits
//! for the table, a service with fleet-wide turns asks for its turn.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use grey_core::balance::{Millis, Moment};
use grey_core::change::{Epoch, Position, Revision};
use grey_core::decide::{Decision, Rule, decide_in, turn_of};
use grey_core::error::{Reason, Refusal};
use grey_core::explain::explain;
use grey_core::table::{ServiceTable, Table};
use grey_proto::decision;
use grey_proto::route_call::RouteCall;
use grey_proto::router::{ExplainRequest, ExplainResponse, RouteOutcome, RouteRequest};
use grey_proto::status::ApiError;
use grey_state::follower::Tables;

use crate::limits::explain_miss;
use crate::metrics::Counts;
use crate::shared::Shared;

/// Pause before fleet-wide turns are tried again after one was away or slow, in milliseconds: without it every
/// call would wait in vain.
const TURN_PAUSE_MS: Millis = 250;

/// Makes the answer of a decision on a table; the last argument: it is marked as stale.
pub(crate) type Answer<T> = fn(&Table, &Decision<'_>, bool) -> T;

/// Decides calls on one thread.
pub(crate) struct Decider {
    pub(crate) shared: Arc<Shared>,
    pub(crate) counts: Arc<Counts>,
    /// The thread's number: each takes turns by itself.
    core: usize,
    random: AtomicU64,
}

impl Decider {
    pub(crate) fn new(shared: Arc<Shared>, counts: Arc<Counts>, core: usize) -> Self {
        Self { shared, counts, core, random: AtomicU64::new(rand::random()) }
    }

    /// Decides one call.
    pub(crate) async fn route<T>(
        &self,
        asked: &RouteCall<'_>,
        role: &str,
        answer: Answer<T>,
    ) -> Result<T, ApiError> {
        if let Some(result) = self.route_at_once(asked, role, answer) {
            return result;
        }
        self.wait_for(std::slice::from_ref(asked)).await;
        let before = self.shared.tables.load_full();
        let mut moment = self.moment();
        if before.service(asked.service).is_some_and(ServiceTable::awaits_turn) {
            moment = self.with_turn(moment, &before, asked, role).await;
        }
        let table = self.shared.tables.load();
        let moment = self.on_present(moment, &before, &table, asked, role);
        let result = self.decide(&table, table.service(asked.service), asked, role, moment, answer);
        self.count_refusal(&result);
        result
    }

    /// Decides a call that has nothing to wait for; none if it has, and then nothing is counted.
    pub(crate) fn route_at_once<T>(
        &self,
        asked: &RouteCall<'_>,
        role: &str,
        answer: Answer<T>,
    ) -> Option<Result<T, ApiError>> {
        let result = match self.shared.limits.check(asked) {
            Ok(()) => {
                let table = self.shared.tables.load();
                let service = table.service(asked.service);
                if service.is_some_and(ServiceTable::awaits_turn)
                    || !table.position().contains(minimum(asked))
                {
                    return None;
                }
                self.decide(&table, service, asked, role, self.moment(), answer)
            }
            Err(invalid) => Err(invalid.into()),
        };
        self.count_refusal(&result);
        Some(result)
    }

    /// Decides several calls on one table.
    pub(crate) async fn route_all(
        &self,
        calls: &[RouteRequest],
        role: &str,
    ) -> Result<Vec<RouteOutcome>, ApiError> {
        self.shared.limits.check_count("calls", calls.len())?;
        let calls: Vec<RouteCall<'_>> = calls.iter().map(RouteCall::from).collect();
        self.wait_for(&calls).await;
        let before = self.shared.tables.load_full();
        let mut moments = Vec::with_capacity(calls.len());
        for call in &calls {
            let mut moment = self.moment();
            let checked = self.shared.limits.check(call);
            if checked.is_ok() && before.service(call.service).is_some_and(ServiceTable::awaits_turn) {
                moment = self.with_turn(moment, &before, call, role).await;
            }
            moments.push(checked.map(|()| moment));
        }
        let table = self.shared.tables.load();
        let decided = calls.iter().zip(moments).map(|(call, moment)| {
            let result = moment.map_err(ApiError::from).and_then(|moment| {
                let moment = self.on_present(moment, &before, &table, call, role);
                let service = table.service(call.service);
                self.decide(&table, service, call, role, moment, decision::response)
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
        let call = RouteCall::from(&call);
        self.shared.limits.check(&call)?;
        self.wait_for(std::slice::from_ref(&call)).await;
        let table = match request.revision {
            0 => self.shared.tables.load_full(),
            asked => {
                self.shared.tables.at(Revision(asked)).ok_or_else(|| gone(asked, &self.shared.tables))?
            }
        };
        check_minimum(&table, &call)?;
        let moment = Moment { now: self.shared.now(), ..self.moment() };
        let explained = explain(&table, &self.shared.call(&call, role), &moment);
        let stale = self.shared.is_stale();
        let outcome = match explained.outcome {
            Ok(decision) => Ok(decision::response(&table, &decision, stale)),
            Err(refusal) => Err(refused(&table, &call, refusal)),
        };
        Ok(ExplainResponse { explanation: Some(decision::explanation(&table, outcome, explained.steps)) })
    }

    /// Decides on `table`, where the call's service was looked up already.
    fn decide<T>(
        &self,
        table: &Table,
        service: Option<&ServiceTable>,
        asked: &RouteCall<'_>,
        role: &str,
        mut moment: Moment,
        answer: Answer<T>,
    ) -> Result<T, ApiError> {
        check_minimum(table, asked)?;
        let decision = match service {
            Some(service) => {
                if service.reads_clock() {
                    moment.now = self.shared.now();
                }
                decide_in(table, service, &self.shared.call(asked, role), &moment)
            }
            None => Err(Refusal::UnknownService),
        };
        let decision = decision.map_err(|refusal| refused(table, asked, refusal))?;
        if decision.rule == Rule::UnknownTenant
            && let Some(malformed) = explain_miss(asked)
        {
            return Err(malformed);
        }
        self.counts.decided(decision::reason(&decision));
        Ok(answer(table, &decision, self.shared.is_stale()))
    }

    /// Waits until the table holds what each of the calls asks for at least.
    async fn wait_for(&self, calls: &[RouteCall<'_>]) {
        let deadline = self.shared.limits.min_revision_wait;
        let reached = |present: Position| calls.iter().all(|call| present.contains(minimum(call)));
        // Whether it was reached shows in the table that is loaded next.
        self.shared.tables.wait_until(reached, deadline).await;
    }

    /// Adds the call's fleet-wide turn to the moment; none if it is away or slow: the choice then counts by itself.
    ///
    /// The turn is that of the group of instances which the decision uses at the same moment.
    async fn with_turn(&self, moment: Moment, table: &Table, asked: &RouteCall<'_>, role: &str) -> Moment {
        let Some(of) = turn_of(table, &self.shared.call(asked, role), &moment) else { return moment };
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
        asked: &RouteCall<'_>,
        role: &str,
    ) -> Moment {
        if moment.turn.is_none() || ptr::eq(before, present) {
            return moment;
        }
        let call = self.shared.call(asked, role);
        if turn_of(before, &call, &moment) == turn_of(present, &call, &moment) {
            return moment;
        }
        self.counts.turn_fallback();
        Moment { turn: None, ..moment }
    }

    /// Randomness of its own for a choice; what time it is stays open until it is known that the choice looks at it.
    fn moment(&self) -> Moment {
        // SplitMix64: one addition to shared state, the rest mixes a copy.
        let mut random = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        random = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        random = (random ^ (random >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Moment { random: random ^ (random >> 31), core: self.core, ..Moment::default() }
    }

    fn count_refusal<T>(&self, result: &Result<T, ApiError>) {
        if let Err(error) = result {
            self.counts.refused(error.reason);
        }
    }
}

/// What the call's table must contain; [`Position::default`] if it asks for nothing.
fn minimum(call: &RouteCall<'_>) -> Position {
    Position { epoch: Epoch(call.min_epoch), revision: Revision(call.min_revision) }
}

fn check_minimum(table: &Table, call: &RouteCall<'_>) -> Result<(), ApiError> {
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
fn refused(table: &Table, call: &RouteCall<'_>, refusal: Refusal) -> ApiError {
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
