//! Outcomes of routed calls, which balancing and health look at.

use grey_core::balance::Load;
use grey_core::ids::InstanceId;
use grey_core::table::Table;
use grey_core::version::Version;
use grey_proto::convert::InvalidMessage;
use grey_proto::router::{CallOutcome, ReportRequest, ReportResponse};
use grey_proto::status::ApiError;

use crate::metrics::Report;
use crate::route::Decider;

/// Counts outcomes towards their instances; of a message with a malformed one none is counted.
pub(crate) fn take_outcomes(decider: &Decider, report: &ReportRequest) -> Result<ReportResponse, ApiError> {
    decider.shared.limits.check_count("outcomes", report.outcomes.len())?;
    let latencies: Vec<u32> = report
        .outcomes
        .iter()
        .enumerate()
        .map(|(i, outcome)| check(outcome).map_err(|fault| fault.under(&format!("outcomes[{i}]"))))
        .collect::<Result<_, _>>()?;
    let table = decider.shared.tables.load();
    let now = decider.shared.now();
    let mut counted = 0;
    for (outcome, latency_us) in report.outcomes.iter().zip(latencies) {
        let Some(load) = load_of(&table, outcome) else {
            decider.counts.reported(Report::Gone);
            continue;
        };
        load.complete(now, latency_us, outcome.success);
        decider.counts.reported(if outcome.success { Report::Success } else { Report::Failure });
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

/// The outcome's latency in microseconds; longer than an hour counts as an hour.
fn check(outcome: &CallOutcome) -> Result<u32, InvalidMessage> {
    const LONGEST_US: u128 = 3_600_000_000;
    let named =
        [("service", &outcome.service), ("version", &outcome.version), ("instance", &outcome.instance)];
    if let Some((field, _)) = named.into_iter().find(|(_, text)| text.is_empty()) {
        return Err(InvalidMessage::missing(field));
    }
    let latency = outcome.latency.as_ref().ok_or_else(|| InvalidMessage::missing("latency"))?;
    let invalid = |_| InvalidMessage::new("latency", "must not be negative");
    let seconds = u64::try_from(latency.seconds).map_err(invalid)?;
    let nanos = u32::try_from(latency.nanos).map_err(invalid)?;
    let micros = u128::from(seconds) * 1_000_000 + u128::from(nanos / 1_000);
    Ok(u32::try_from(micros.min(LONGEST_US)).expect("an hour of microseconds fits 32 bits"))
}
