//! Experiments and canaries.
//!
//! A request states weights, a stored overlay buckets as well. Without buckets the arms get the first ones in their
//! order, which is what the control plane settles into the layer.

use super::{
    Checked, InvalidMessage, at_most, check_plain, convert_list, convert_required, known, read, read_list,
    read_optional, texts_of,
};
use crate::control::{self, metadata_predicate, overlay};
use grey_core::ids::{Name, OverlayId, ServiceId};
use grey_core::policy::{
    Buckets, Canary, Experiment, MAX_LIST, MAX_VARIANTS, Match, Overlay, OverlayKind, Predicate, Test,
    Variant, WEIGHT_SCALE,
};
use grey_core::tenant::MAX_LABEL_VALUE;
use std::collections::BTreeMap;

/// Longest metadata key that a policy may name, in bytes.
pub const MAX_METADATA_KEY: usize = 256;
/// Longest metadata value or prefix that a policy may name, in bytes.
pub const MAX_METADATA_VALUE: usize = 1_024;

impl From<(&ServiceId, &Overlay)> for control::Overlay {
    fn from((service, overlay): (&ServiceId, &Overlay)) -> Self {
        Self { service: service.to_string(), ..overlay.into() }
    }
}

/// An overlay inside its service's record.
impl From<&Overlay> for control::Overlay {
    fn from(overlay: &Overlay) -> Self {
        let kind = match &overlay.kind {
            OverlayKind::Experiment(experiment) => overlay::Kind::Experiment(control::Experiment {
                variants: experiment.variants.iter().map(Into::into).collect(),
                includes_pinned: experiment.includes_pinned,
            }),
            OverlayKind::Canary(canary) => overlay::Kind::Canary(control::Canary {
                baseline: canary.baseline.to_string(),
                canary: canary.canary.to_string(),
                weight: canary.buckets.weight(),
                buckets: ranges_of(&canary.buckets),
            }),
        };
        let everyone = overlay.matching == Match::default();
        Self {
            service: String::new(),
            id: overlay.id.to_string(),
            order: overlay.order,
            layer: overlay.layer.to_string(),
            salt: overlay.salt.clone(),
            unit: control::Unit::from(overlay.unit).into(),
            r#match: (!everyone).then(|| (&overlay.matching).into()),
            kind: Some(kind),
            revision: 0,
        }
    }
}

impl TryFrom<control::Overlay> for (ServiceId, Overlay) {
    type Error = InvalidMessage;

    fn try_from(message: control::Overlay) -> Checked<Self> {
        Ok((read("service", &message.service)?, message.try_into()?))
    }
}

/// The service's name is left unread: the record's counts.
impl TryFrom<control::Overlay> for Overlay {
    type Error = InvalidMessage;

    fn try_from(message: control::Overlay) -> Checked<Self> {
        let id: OverlayId = read("id", &message.id)?;
        at_most("salt", "bytes", message.salt.len(), 128)?;
        let kind = match message.kind.ok_or_else(|| InvalidMessage::missing("kind"))? {
            overlay::Kind::Experiment(experiment) => {
                OverlayKind::Experiment(experiment.try_into().map_err(under("experiment"))?)
            }
            overlay::Kind::Canary(canary) => OverlayKind::Canary(canary.try_into().map_err(under("canary"))?),
        };
        let layer: OverlayId = read_optional("layer", &message.layer)?.unwrap_or_else(|| id.clone());
        let overlay = Self {
            id,
            order: message.order,
            // A request has none: the control plane makes one for the layer.
            salt: if message.salt.is_empty() { layer.to_string() } else { message.salt },
            layer,
            unit: known::<control::Unit>("unit", message.unit)?.into(),
            matching: convert_required("match", Some(message.r#match.unwrap_or_default()))?,
            kind,
        };
        // Whether the service is stateless is known where the overlay is set.
        overlay.validate(true).map_err(|why| InvalidMessage::new("kind", why.to_string()))?;
        Ok(overlay)
    }
}

fn under(parent: &'static str) -> impl Fn(InvalidMessage) -> InvalidMessage {
    move |fault| fault.under(parent)
}

impl TryFrom<control::Experiment> for Experiment {
    type Error = InvalidMessage;

    fn try_from(message: control::Experiment) -> Checked<Self> {
        at_most("variants", "entries", message.variants.len(), MAX_VARIANTS)?;
        let mut variants = Vec::with_capacity(message.variants.len());
        let mut taken = Buckets::default();
        for (at, variant) in message.variants.into_iter().enumerate() {
            let variant = read_variant(variant, &taken).map_err(|e| e.under(&format!("variants[{at}]")))?;
            taken = taken.union(&variant.buckets);
            variants.push(variant);
        }
        Ok(Self { variants, includes_pinned: message.includes_pinned })
    }
}

fn read_variant(message: control::Variant, taken: &Buckets) -> Checked<Variant> {
    Ok(Variant {
        id: read("id", &message.id)?,
        version: read("version", &message.version)?,
        buckets: read_buckets(message.weight, message.buckets, taken)?,
    })
}

impl TryFrom<control::Canary> for Canary {
    type Error = InvalidMessage;

    fn try_from(message: control::Canary) -> Checked<Self> {
        Ok(Self {
            baseline: read("baseline", &message.baseline)?,
            canary: read("canary", &message.canary)?,
            buckets: read_buckets(message.weight, message.buckets, &Buckets::default())?,
        })
    }
}

/// The buckets given, else the first that are not `taken`.
fn read_buckets(weight: u32, ranges: Vec<control::BucketRange>, taken: &Buckets) -> Checked<Buckets> {
    if ranges.is_empty() {
        let all = Buckets::default().resized(weight, taken);
        let why = || format!("{weight} is more than what is left of {WEIGHT_SCALE} parts");
        return all.ok_or_else(|| InvalidMessage::new("weight", why()));
    }
    let buckets = Buckets::from_ranges(ranges.into_iter().map(|range| (range.start, range.end)).collect());
    let buckets = buckets.map_err(|why| InvalidMessage::new("buckets", why.to_string()))?;
    if buckets.weight() != weight {
        let why = format!("are {} parts, not {weight}", buckets.weight());
        return Err(InvalidMessage::new("buckets", why));
    }
    Ok(buckets)
}

fn ranges_of(buckets: &Buckets) -> Vec<control::BucketRange> {
    buckets.ranges().iter().map(|(start, end)| control::BucketRange { start: *start, end: *end }).collect()
}

impl From<&Variant> for control::Variant {
    fn from(variant: &Variant) -> Self {
        Self {
            id: variant.id.to_string(),
            version: variant.version.to_string(),
            weight: variant.buckets.weight(),
            buckets: ranges_of(&variant.buckets),
        }
    }
}

impl From<&Match> for control::Match {
    fn from(matching: &Match) -> Self {
        let labels = matching.labels.iter().map(|(key, values)| {
            let values = control::Values { values: values.iter().cloned().collect() };
            (key.to_string(), values)
        });
        Self {
            tenants: texts_of(&matching.tenants),
            tiers: texts_of(&matching.tiers),
            regions: texts_of(&matching.regions),
            labels: labels.collect(),
            metadata: matching.metadata.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<control::Match> for Match {
    type Error = InvalidMessage;

    fn try_from(message: control::Match) -> Checked<Self> {
        at_most("labels", "entries", message.labels.len(), MAX_LIST)?;
        let mut labels = BTreeMap::new();
        for (key, values) in message.labels {
            let key: Name = read("labels", &key)?;
            let values = read_values(&format!("labels[{key}]"), values, MAX_LABEL_VALUE)?;
            labels.insert(key, values);
        }
        Ok(Self {
            tenants: read_list("tenants", &message.tenants, MAX_LIST)?,
            tiers: read_list("tiers", &message.tiers, MAX_LIST)?,
            regions: read_list("regions", &message.regions, MAX_LIST)?,
            labels,
            metadata: convert_list("metadata", message.metadata, MAX_LIST)?,
        })
    }
}

fn read_values<C: FromIterator<String>>(field: &str, values: control::Values, longest: usize) -> Checked<C> {
    at_most(field, "entries", values.values.len(), MAX_LIST)?;
    for (i, value) in values.values.iter().enumerate() {
        at_most(&format!("{field}.values[{i}]"), "bytes", value.len(), longest)?;
        check_plain(&format!("{field}.values[{i}]"), value)?;
    }
    Ok(values.values.into_iter().collect())
}

impl From<&Predicate> for control::MetadataPredicate {
    fn from(predicate: &Predicate) -> Self {
        let test = match &predicate.test {
            Test::Present => None,
            Test::In(values) => {
                let values = values.iter().cloned().collect();
                Some(metadata_predicate::Test::In(control::Values { values }))
            }
            Test::Prefix(prefix) => Some(metadata_predicate::Test::Prefix(prefix.clone())),
        };
        Self { key: predicate.key.clone(), test }
    }
}

impl TryFrom<control::MetadataPredicate> for Predicate {
    type Error = InvalidMessage;

    fn try_from(message: control::MetadataPredicate) -> Checked<Self> {
        let key = metadata_key("key", message.key)?;
        let test = match message.test {
            None => Test::Present,
            Some(metadata_predicate::Test::In(values)) => {
                Test::In(read_values("in", values, MAX_METADATA_VALUE)?)
            }
            Some(metadata_predicate::Test::Prefix(prefix)) => {
                at_most("prefix", "bytes", prefix.len(), MAX_METADATA_VALUE)?;
                Test::Prefix(prefix)
            }
        };
        Ok(Self { key, test })
    }
}

pub(super) fn metadata_key(field: &str, key: String) -> Checked<String> {
    if key.is_empty() {
        return Err(InvalidMessage::missing(field));
    }
    at_most(field, "bytes", key.len(), MAX_METADATA_KEY)?;
    Ok(key)
}
