//! Outcomes of routed calls, which balancing and health look at.

use std::collections::BTreeMap;
use std::ptr;

use grey_core::balance::{Ending, Load, MAX_WEIGHT, Outcome};
use grey_core::error::Reason;
use grey_core::hash::unit_hash;
use grey_core::ids::{InstanceId, OverlayId};
use grey_core::table::Table;
use grey_core::version::Version;
use grey_proto::convert::InvalidMessage;
use grey_proto::router::{CallOutcome, ReportRequest, ReportResponse};
use grey_proto::status::ApiError;
use grey_runtime::access::{self, Principal};
use tonic::Code;

use crate::config;
use crate::decider::Decider;
use crate::metrics::Report;

/// Most equal calls that one outcome counts for.
const MOST_CALLS: u32 = 1_000_000;

/// Who may report, and what is believed.
#[derive(Debug)]
pub(crate) struct Reports {
    /// None: whoever is served may.
    roles: Option<Vec<String>>,
    longest_call_us: u32,
}

/// A caller that may report.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reporter(u32);

impl Reports {
    pub(crate) fn new(options: &config::Report, access: &access::Options) -> Self {
        let roles = (!access.tokens.is_empty()).then(|| options.roles.clone());
        let longest_call_us = u32::try_from(options.longest_call.as_micros()).unwrap_or(u32::MAX);
        Self { roles, longest_call_us }
    }

    /// Refuses callers whose role may not move traffic by reporting.
    pub(crate) fn admit(&self, who: &Principal) -> Result<Reporter, ApiError> {
        match &self.roles {
            Some(roles) if !roles.contains(&who.role) => {
                let message =
                    format!("role {} may not report; the roles that may are in report.roles", who.role);
                Err(ApiError::new(Reason::Denied, message).with("role", who.role.clone()))
            }
            _ => Ok(Reporter(unit_hash(&[&who.name]))),
        }
    }

    /// What an outcome says of its instance, not yet weighed.
    fn read(&self, reporter: Reporter, outcome: &CallOutcome) -> Result<Outcome, InvalidMessage> {
        let named =
            [("service", &outcome.service), ("version", &outcome.version), ("instance", &outcome.instance)];
        if let Some((field, _)) = named.into_iter().find(|(_, text)| text.is_empty()) {
            return Err(InvalidMessage::missing(field));
        }
        check_rule(&outcome.rule)?;
        let latency = outcome.latency.as_ref().ok_or_else(|| InvalidMessage::missing("latency"))?;
        let invalid = |_| InvalidMessage::new("latency", "must not be negative");
        let seconds = u64::try_from(latency.seconds).map_err(invalid)?;
        let nanos = u32::try_from(latency.nanos).map_err(invalid)?;
        let micros = seconds.saturating_mul(1_000_000).saturating_add(u64::from(nanos / 1_000));
        Ok(Outcome {
            reporter: reporter.0,
            ending: ending(outcome)?,
            latency_us: u32::try_from(micros).unwrap_or(u32::MAX).min(self.longest_call_us),
            calls: outcome.count.clamp(1, MOST_CALLS),
            weight: 0,
        })
    }
}

/// Counts outcomes towards their instances; of a message with a malformed one none is counted.
pub(crate) fn take_outcomes(
    decider: &Decider,
    reporter: Reporter,
    report: &ReportRequest,
) -> Result<ReportResponse, ApiError> {
    decider.shared.limits.check_count("outcomes", report.outcomes.len())?;
    let read = |(i, outcome)| {
        let read = decider.shared.reports.read(reporter, outcome);
        read.map_err(|fault| fault.under(&format!("outcomes[{i}]")))
    };
    let outcomes: Vec<Outcome> = report.outcomes.iter().enumerate().map(read).collect::<Result<_, _>>()?;
    let table = decider.shared.tables.load();
    let now = decider.shared.now();
    let mut counted = 0;
    // What a message says of an instance has a bounded weight as a whole.
    let mut weighed: BTreeMap<*const Load, u32> = BTreeMap::new();
    for (told, outcome) in report.outcomes.iter().zip(outcomes) {
        let Some(load) = load_of(&table, told) else {
            decider.counts.reported(Report::Gone, outcome.calls);
            continue;
        };
        let weighed = weighed.entry(ptr::from_ref(load)).or_default();
        let weight = outcome.calls.min(MAX_WEIGHT - *weighed);
        *weighed += weight;
        load.complete(now, &Outcome { weight, ..outcome });
        decider.counts.reported(outcome.ending.into(), outcome.calls);
        counted += 1;
    }
    Ok(ReportResponse { counted })
}

fn load_of<'t>(table: &'t Table, outcome: &CallOutcome) -> Option<&'t Load> {
    let service = table.service(&outcome.service)?;
    let slot = service.versions().get(service.slot(&Version::new(&outcome.version).ok()?)?)?;
    let member = slot.pool.member(&InstanceId::new(&outcome.instance).ok()?)?;
    Some(&member.load)
}

/// What the call's end says of the instance: nothing, if it failed by a code that its caller is to blame for.
fn ending(outcome: &CallOutcome) -> Result<Ending, InvalidMessage> {
    if !(0..=16).contains(&outcome.code) {
        return Err(InvalidMessage::new("code", "must be a gRPC status code, 0 to 16"));
    }
    if outcome.success {
        return Ok(Ending::Served);
    }
    Ok(match Code::from_i32(outcome.code) {
        Code::Cancelled
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unauthenticated => Ending::Refused,
        // Success was not told, so the code is not known.
        Code::Ok
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => Ending::Failed,
    })
}

/// Refuses what no decision gives as its rule: nothing, an overlay, or an overlay with a variant.
fn check_rule(rule: &str) -> Result<(), InvalidMessage> {
    let (overlay, variant) = rule.split_once('/').map_or((rule, None), |(overlay, arm)| (overlay, Some(arm)));
    let well_formed =
        OverlayId::new(overlay).is_ok() && variant.is_none_or(|arm| OverlayId::new(arm).is_ok());
    if rule.is_empty() || well_formed {
        return Ok(());
    }
    Err(InvalidMessage::new("rule", "must be the rule of a decision: empty, overlay or overlay/variant"))
}
