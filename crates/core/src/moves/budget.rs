//! How many tenants a command may move without saying so.

use super::{Move, Moves};
use crate::ids::ServiceId;

/// How many tenants of a service a command may move without a number stated: the greater of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    /// This many tenants.
    pub tenants: u64,
    /// This share of the active tenants, in percent.
    pub percent: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { tenants: 100, percent: 5 }
    }
}

/// Changes that would move more tenants of a service than is allowed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{tenants} of {active} active tenants would move in service `{service}`, such as {example}; at most {limit} \
     {allowed}: look at the moves with a dry run, then state `--moves {tenants}` (field `max_moves`)",
    allowed = if *.stated { "were stated" } else { "may move unless a number is stated" }
)]
pub struct OverBudget {
    /// The service that moves most of them.
    pub service: ServiceId,
    /// How many of its tenants would move: the number to state.
    pub tenants: u64,
    /// Declared tenants whose calls are routed.
    pub active: u64,
    /// How many may.
    pub limit: u64,
    /// Whether the command stated that limit.
    pub stated: bool,
    /// The largest move of the service.
    pub example: Box<Move>,
}

impl Budget {
    /// How many tenants may move where so many are active.
    #[must_use]
    pub fn limit(&self, active: u64) -> u64 {
        self.tenants.max(active.saturating_mul(self.percent) / 100)
    }

    /// Holds moves to the budget, or to the number that the command states: no service may move more tenants
    /// than that. What a number states is an upper bound, also where the budget would allow more.
    ///
    /// # Errors
    /// Names the service that moves most, and the number to state.
    pub fn check(&self, moves: &Moves, stated: Option<u64>) -> Result<(), OverBudget> {
        let limit = stated.unwrap_or_else(|| self.limit(moves.active));
        let most = moves.by_service().into_iter().max_by_key(|(_, tenants)| *tenants);
        let Some((service, tenants)) = most.filter(|(_, tenants)| *tenants > limit) else { return Ok(()) };
        let largest = moves.groups.iter().find(|group| group.service == *service && group.takes());
        let Some(largest) = largest else { return Ok(()) };
        Err(OverBudget {
            service: service.clone(),
            tenants,
            active: moves.active,
            limit,
            stated: stated.is_some(),
            example: Box::new(largest.clone()),
        })
    }
}
