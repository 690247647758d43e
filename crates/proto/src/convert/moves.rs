//! Moves, and selectors of tenants.

use super::{Checked, InvalidMessage, at_most, known, read, read_list, text_of, texts_of};
use crate::control;
use grey_core::moves::{Budget, Lack, Move, Moves};
use grey_core::selector::{Conditions, Selector};
use grey_core::tenant::MAX_LABELS;

/// Most groups of moves that are told.
pub const MAX_GROUPS: usize = 100;
/// Most tenants that a selector may list.
pub const MAX_LISTED: usize = 10_000;
/// Most tiers or regions that a selector may name.
const MAX_NAMED: usize = 1_000;

impl From<&Moves> for control::Moves {
    fn from(moves: &Moves) -> Self {
        // Whoever loses a version matters more than who gains one, of any service.
        let (taking, giving): (Vec<&Move>, Vec<&Move>) = moves.groups.iter().partition(|group| group.takes());
        let groups: Vec<control::Move> =
            taking.into_iter().chain(giving).take(MAX_GROUPS).map(Into::into).collect();
        Self {
            active: moves.active,
            omitted: (moves.groups.len() - groups.len()) as u64,
            groups,
            largest: moves.largest(),
            budget: Budget::default().limit(moves.active),
        }
    }
}

impl From<&Move> for control::Move {
    fn from(group: &Move) -> Self {
        let lack = group.loss.as_ref().map_or(control::Lack::Unspecified, |loss| match loss.lack {
            Lack::Schema => control::Lack::Schema,
            Lack::Instance => control::Lack::Instance,
        });
        Self {
            service: group.service.to_string(),
            from: text_of(group.from.as_ref()),
            to: text_of(group.to.as_ref()),
            lack: lack.into(),
            wanted: text_of(group.loss.as_ref().map(|loss| &loss.wanted)),
            tenants: group.tenants,
            examples: texts_of(&group.examples),
        }
    }
}

impl TryFrom<control::TenantSelector> for Selector {
    type Error = InvalidMessage;

    fn try_from(message: control::TenantSelector) -> Checked<Self> {
        let all = message.all;
        let conditions = conditions(message)?;
        match (all, Self::matching(conditions)) {
            (true, Ok(_)) => Err(InvalidMessage::new("all", "cannot be combined with a condition")),
            (true, Err(_)) => Ok(Self::all()),
            (false, matching) => matching.map_err(|empty| InvalidMessage::new("all", empty.to_string())),
        }
    }
}

fn conditions(message: control::TenantSelector) -> Checked<Conditions> {
    at_most("labels", "entries", message.labels.len(), MAX_LABELS)?;
    let label = |(key, value): (String, String)| Ok((read("labels", &key)?, [value].into()));
    let status = match known::<control::TenantStatus>("status", message.status)? {
        control::TenantStatus::Unspecified => None,
        status => Some(status.into()),
    };
    let on_version = message.on_version.map(|on| {
        let service = read("on_version.service", &on.service)?;
        Ok((service, read("on_version.version", &on.version)?))
    });
    Ok(Conditions {
        tenants: read_list("tenants", &message.tenants, MAX_LISTED)?,
        labels: message.labels.into_iter().map(label).collect::<Checked<_>>()?,
        tiers: read_list("tiers", &message.tiers, MAX_NAMED)?,
        regions: read_list("regions", &message.regions, MAX_NAMED)?,
        status,
        on_version: on_version.transpose()?,
    })
}
