//! Short names for experiments and canaries.

use crate::fixture::{overlay, service, version};
use grey_core::change::Change;
use grey_core::key::Fact;
use grey_core::policy::{Buckets, Canary, Experiment, Match, Overlay, OverlayKind, Unit, Variant};

/// An overlay of tenants, alone in its layer.
fn alone(id: &str, kind: OverlayKind) -> Overlay {
    let (salt, unit) = (id.to_owned(), Unit::Tenant);
    Overlay { id: overlay(id), order: 0, layer: overlay(id), salt, unit, matching: Match::default(), kind }
}

/// Moves this many parts of the tenants on one version to another.
pub(crate) fn canary(id: &str, [from, to]: [&str; 2], weight: u32) -> Overlay {
    let (baseline, canary) = (version(from), version(to));
    let buckets = Buckets::first(weight).unwrap();
    alone(id, OverlayKind::Canary(Canary { baseline, canary, buckets }))
}

/// Arms by id, with their versions and weights; pinned tenants are left alone.
pub(crate) fn experiment(id: &str, arms: &[(&str, &str, u32)]) -> Overlay {
    let arm = |(id, of, weight): &(&str, &str, u32)| {
        let buckets = Buckets::first(*weight).unwrap();
        Variant { id: overlay(id), version: version(of), buckets }
    };
    let variants = arms.iter().map(arm).collect();
    settled(alone(id, OverlayKind::Experiment(Experiment { variants, includes_pinned: false })), None, &[])
}

/// The same experiment for pinned tenants too.
pub(crate) fn with_pinned(mut overlay: Overlay) -> Overlay {
    if let OverlayKind::Experiment(experiment) = &mut overlay.kind {
        experiment.includes_pinned = true;
    }
    overlay
}

/// The overlay with buckets of its layer, as a command leaves it.
pub(crate) fn settled(mut overlay: Overlay, before: Option<&Overlay>, others: &[Overlay]) -> Overlay {
    overlay.settle(before, others).unwrap();
    overlay
}

/// Lays it over the pins of service `s`.
pub(crate) fn lay(overlay: Overlay) -> Change {
    Change::Put(Fact::Overlay(service("s"), Box::new(overlay)))
}
