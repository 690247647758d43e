//! The decision: which version and which instance serve a call.
//!
//! [`decide`] is pure in its arguments and does not allocate. Which *version* serves depends on the table
//! and the call alone; only the choice among that version's instances looks at live figures, time and
//! randomness. [`crate::explain`] runs the same code with a recorder, so the two cannot disagree.

mod instance;
mod matching;
mod metadata;
mod trace;
mod version;

pub(crate) use matching::applies;
pub use metadata::Metadata;
pub(crate) use trace::{NoTrace, Recorder, Trace};

use crate::balance::Moment;
use crate::error::Refusal;
use crate::ids::{OverlayId, ServiceId};
use crate::instance::Instance;
use crate::schema::SchemaVersion;
use crate::table::{Assignment, Locality, Row, ServiceTable, Table};
use crate::version::Version;

/// A call to be decided. Empty texts mean "not given".
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Who the call is made for.
    pub tenant: &'a str,
    /// The service that is called.
    pub service: &'a str,
    /// Attributes of the call that rules may look at.
    pub metadata: Metadata<'a>,
    /// The user within the tenant.
    pub user: &'a str,
    /// A key of the call.
    pub request_key: &'a str,
    /// The caller's region.
    pub region: &'a str,
    /// The caller's zone.
    pub zone: &'a str,
    /// The version that the call asks for.
    pub override_version: &'a str,
    /// The caller's role, as its credentials prove it.
    pub role: &'a str,
}

impl<'a> Call<'a> {
    /// A call with nothing but its tenant and service.
    #[must_use]
    pub fn new(tenant: &'a str, service: &'a str) -> Self {
        Self {
            tenant,
            service,
            metadata: Metadata::NONE,
            user: "",
            request_key: "",
            region: "",
            zone: "",
            override_version: "",
            role: "",
        }
    }
}

/// Which rule chose the version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule<'t> {
    /// The tenant's pin.
    Pin,
    /// The service's default.
    Default,
    /// The service's default, for a tenant that nobody has declared.
    UnknownTenant,
    /// The call's own wish.
    Override,
    /// An experiment's variant.
    Experiment {
        /// The experiment.
        overlay: &'t OverlayId,
        /// Its variant.
        variant: &'t OverlayId,
    },
    /// A canary.
    Canary {
        /// The canary.
        overlay: &'t OverlayId,
    },
}

/// Why the version is not the one that the rule wanted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Detour {
    /// The wanted version does not work on the tenant's schema.
    Schema,
    /// The wanted version has no routable instance.
    Failover,
}

/// The version that a call gets, before an instance is chosen.
#[derive(Clone, Copy, Debug)]
pub struct VersionChoice<'t> {
    /// The version.
    pub version: &'t Version,
    /// Which rule chose it, or chose the one that it stands in for.
    pub rule: Rule<'t>,
    /// The version that the rule wanted, and why it is another one.
    pub detour: Option<(&'t Version, Detour)>,
    /// The tenant's observed schema.
    pub schema: Option<&'t SchemaVersion>,
    pub(crate) service: &'t ServiceTable,
    pub(crate) row: Option<&'t Row>,
    pub(crate) slot: usize,
}

/// Where a call goes.
#[derive(Clone, Copy, Debug)]
pub struct Decision<'t> {
    /// The version.
    pub version: &'t Version,
    /// The instance of that version.
    pub instance: &'t Instance,
    /// Which rule chose the version, or chose the one that it stands in for.
    pub rule: Rule<'t>,
    /// The version that the rule wanted, and why it is another one.
    pub detour: Option<(&'t Version, Detour)>,
    /// The tenant's observed schema.
    pub schema: Option<&'t SchemaVersion>,
}

/// Decides a call.
///
/// ```
/// use grey_core::balance::Moment;
/// use grey_core::decide::{Call, decide};
/// use grey_core::error::Refusal;
/// use grey_core::table::Table;
///
/// let table = Table::default();
/// let refused = decide(&table, &Call::new("acme", "billing"), &Moment::default());
/// assert_eq!(refused.unwrap_err(), Refusal::UnknownService);
/// ```
///
/// # Errors
/// Why the call gets no instance.
pub fn decide<'t>(table: &'t Table, call: &Call<'_>, moment: &Moment) -> Result<Decision<'t>, Refusal> {
    run(table, call, moment, &mut NoTrace)
}

/// [`decide`] for a call whose service was looked up in the table already.
///
/// # Errors
/// Why the call gets no instance.
pub fn decide_in<'t>(
    table: &'t Table,
    service: &'t ServiceTable,
    call: &Call<'_>,
    moment: &Moment,
) -> Result<Decision<'t>, Refusal> {
    let choice = version::choose_in(table, service, call, &mut NoTrace)?;
    instance::choose(&choice, call, moment, &mut NoTrace)
}

/// Chooses the version of a call, not yet looking whether it has instances.
///
/// # Errors
/// Why the call gets no version.
pub fn choose_version<'t>(table: &'t Table, call: &Call<'_>) -> Result<VersionChoice<'t>, Refusal> {
    version::choose(table, call, &mut NoTrace)
}

/// Whose turn a call takes: turns are counted for each group of instances by itself, since the lists that
/// they are turns of differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TurnOf<'t> {
    /// The service.
    pub service: &'t ServiceId,
    /// The version that serves, after failover.
    pub version: &'t Version,
    /// The group of its instances.
    pub locality: Locality<'t>,
}

/// Whose turn a call takes that is then decided at the same moment; none if nothing can serve it.
///
/// Only a service that [`awaits_turn`](ServiceTable::awaits_turn) needs it.
#[must_use]
pub fn turn_of<'t>(table: &'t Table, call: &Call<'_>, moment: &Moment) -> Option<TurnOf<'t>> {
    let choice = choose_version(table, call).ok()?;
    instance::turn_of(&choice, call, moment)
}

/// What a tenant's call comes to, instances known but none chosen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer<'t> {
    /// The version that serves.
    pub(crate) version: &'t Version,
    /// The version that the rule wanted, and why it is another one.
    pub(crate) detour: Option<(&'t Version, Detour)>,
}

/// The version that [`decide`] answers a call with: the same steps, but no instance is chosen and nothing counted.
///
/// Service and tenant are looked up already, since whoever asks about all tenants holds them.
pub(crate) fn answer<'t>(
    service: &'t ServiceTable,
    row: Option<&'t Row>,
    call: &Call<'_>,
) -> Result<Answer<'t>, Refusal> {
    let choice = version::choose_for(service, row, None, call, &mut NoTrace)?;
    instance::answer(&choice, call)
}

/// The version of a declared tenant's call if it had this assignment and were active.
pub(crate) fn choose_assigned<'t>(
    service: &'t ServiceTable,
    assignment: &'t Assignment,
    row: &'t Row,
    call: &Call<'_>,
) -> Result<VersionChoice<'t>, Refusal> {
    version::choose_assigned(service, assignment, Some(row), call, &mut NoTrace)
}

/// What a call comes to once its version is chosen, as [`answer`] says it.
pub(crate) fn answer_chosen<'t>(choice: &VersionChoice<'t>, call: &Call<'_>) -> Result<Answer<'t>, Refusal> {
    instance::answer(choice, call)
}

pub(crate) fn run<'t, T: Trace>(
    table: &'t Table,
    call: &Call<'_>,
    moment: &Moment,
    trace: &mut T,
) -> Result<Decision<'t>, Refusal> {
    let choice = version::choose(table, call, trace)?;
    instance::choose(&choice, call, moment, trace)
}
