//! A digest of everything that decisions depend on, kept up with each change.
//!
//! The digest is the wrapping sum of one 64-bit hash per fact, so it does not depend on the order in
//! which facts arrived and follows a change in O(change). Two tables at the same revision with
//! different digests have drifted apart.

use crate::ids::{ServiceId, TenantId};
use crate::policy::{Buckets, Failover, HashKey, Match, Overlay, OverlayKind, Policy, Test};
use crate::schema::{SchemaVersion, SchemaWindow};
use crate::service::{Hold, Pin};
use crate::version::Version;
use twox_hash::XxHash64;

/// Bytes of one fact, each part behind its length.
///
/// Facts of pins are made a million times while a table loads; they fit the inline buffer.
struct Fact {
    inline: [u8; 256],
    used: usize,
    spilled: Vec<u8>,
}

impl Fact {
    fn new(kind: &str) -> Self {
        let mut fact = Self { inline: [0; 256], used: 0, spilled: Vec::new() };
        fact.text(kind);
        fact
    }

    fn bytes(&mut self, bytes: &[u8]) {
        match self.inline.get_mut(self.used..self.used + bytes.len()) {
            Some(room) if self.spilled.is_empty() => {
                room.copy_from_slice(bytes);
                self.used += bytes.len();
            }
            _ => self.spilled.extend_from_slice(bytes),
        }
    }

    fn number(&mut self, number: usize) {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        self.bytes(&number.to_le_bytes());
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.number(text.len());
        self.bytes(text.as_bytes());
        self
    }

    fn texts<'a>(&mut self, texts: impl ExactSizeIterator<Item = &'a str>) {
        self.number(texts.len());
        for text in texts {
            self.text(text);
        }
    }

    fn hash(&self) -> u64 {
        let inline = XxHash64::oneshot(0, self.inline.get(..self.used).unwrap_or_default());
        if self.spilled.is_empty() { inline } else { XxHash64::oneshot(inline, &self.spilled) }
    }
}

pub(crate) fn pin(tenant: &TenantId, service: &ServiceId, pin: &Pin) -> u64 {
    let mut fact = Fact::new("pin");
    fact.text(tenant.as_str()).text(service.as_str()).text(pin.version.as_str());
    fact.number(usize::from(pin.locked));
    fact.hash()
}

pub(crate) fn schema(tenant: &TenantId, service: &ServiceId, schema: &SchemaVersion) -> u64 {
    Fact::new("schema").text(tenant.as_str()).text(service.as_str()).text(&schema.to_string()).hash()
}

pub(crate) fn hold(tenant: &TenantId, service: &ServiceId, hold: &Hold) -> u64 {
    let mut fact = Fact::new("hold");
    fact.text(tenant.as_str()).text(service.as_str()).text(hold.to.as_str());
    fact.bytes(&hold.until_ms.to_le_bytes());
    fact.hash()
}

pub(crate) fn profile(tenant: &TenantId, profile: &crate::table::Profile) -> u64 {
    let mut fact = Fact::new("tenant");
    fact.text(tenant.as_str()).text(profile.status.as_str());
    fact.text(profile.tier.as_ref().map_or("", |name| name.as_str()));
    fact.text(profile.region.as_ref().map_or("", |name| name.as_str()));
    fact.texts(profile.residency.iter().map(|name| name.as_str()));
    fact.number(profile.labels.len());
    for (key, value) in &profile.labels {
        fact.text(key.as_str()).text(value);
    }
    fact.hash()
}

pub(crate) fn service(service: &ServiceId, default: &Version) -> u64 {
    Fact::new("service").text(service.as_str()).text(default.as_str()).hash()
}

pub(crate) fn version(service: &ServiceId, version: &Version, window: &SchemaWindow) -> u64 {
    let mut fact = Fact::new("version");
    fact.text(service.as_str()).text(version.as_str()).text(&window.to_string()).hash()
}

pub(crate) fn policy(service: &ServiceId, policy: &Policy) -> u64 {
    let mut fact = Fact::new("policy");
    fact.text(service.as_str());
    fact.number(policy.unknown_tenant as usize);
    fact.number(policy.balancing.strategy as usize);
    fact.number(policy.balancing.scope as usize);
    match &policy.balancing.hash_key {
        HashKey::Tenant => fact.text("tenant"),
        HashKey::User => fact.text("user"),
        HashKey::Request => fact.text("request"),
        HashKey::Metadata(key) => fact.text("metadata").text(key),
    };
    match &policy.failover {
        Failover::Refuse => fact.number(0),
        Failover::ToDefault => fact.number(1),
        Failover::ToNearest => fact.number(2),
        Failover::ToVersions(versions) => {
            fact.number(3);
            fact.texts(versions.iter().map(Version::as_str));
        }
    }
    fact.texts(policy.override_roles.iter().map(|role| role.as_str()));
    fact.number(usize::from(policy.stateless));
    fact.hash()
}

pub(crate) fn overlay(service: &ServiceId, overlay: &Overlay) -> u64 {
    let mut fact = Fact::new("overlay");
    fact.text(service.as_str()).text(overlay.id.as_str()).text(&overlay.salt);
    fact.bytes(&overlay.order.to_le_bytes());
    fact.number(overlay.unit as usize);
    add_match(&mut fact, &overlay.matching);
    match &overlay.kind {
        OverlayKind::Experiment(experiment) => {
            fact.text("experiment").number(experiment.variants.len());
            for variant in &experiment.variants {
                fact.text(variant.id.as_str()).text(variant.version.as_str());
                add_buckets(&mut fact, &variant.buckets);
            }
            fact.number(usize::from(experiment.includes_pinned));
        }
        OverlayKind::Canary(canary) => {
            fact.text("canary").text(canary.baseline.as_str()).text(canary.canary.as_str());
            add_buckets(&mut fact, &canary.buckets);
        }
    }
    fact.hash()
}

fn add_buckets(fact: &mut Fact, buckets: &Buckets) {
    fact.number(buckets.ranges().len());
    for (start, end) in buckets.ranges() {
        fact.bytes(&start.to_le_bytes());
        fact.bytes(&end.to_le_bytes());
    }
}

fn add_match(fact: &mut Fact, matching: &Match) {
    fact.texts(matching.tenants.iter().map(|id| id.as_str()));
    fact.texts(matching.tiers.iter().map(|name| name.as_str()));
    fact.texts(matching.regions.iter().map(|name| name.as_str()));
    fact.number(matching.labels.len());
    for (key, values) in &matching.labels {
        fact.text(key.as_str()).texts(values.iter().map(String::as_str));
    }
    fact.number(matching.metadata.len());
    for predicate in &matching.metadata {
        fact.text(&predicate.key);
        match &predicate.test {
            Test::Present => fact.number(0),
            Test::In(values) => {
                fact.number(1);
                fact.texts(values.iter().map(String::as_str));
            }
            Test::Prefix(prefix) => {
                fact.number(2);
                fact.text(prefix);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;

    #[test]
    fn facts_of_any_length_hash_by_their_whole_content() {
        let long = "x".repeat(500);
        let hash = |tail: &str| Fact::new("k").text(&long).text(tail).hash();
        assert_ne!(hash("a"), hash("b"));
        assert_eq!(hash("a"), hash("a"));
    }

    #[test]
    fn every_part_of_a_pin_counts() {
        let (tenant, other) = (TenantId::new("a").unwrap(), TenantId::new("b").unwrap());
        let service = ServiceId::new("s").unwrap();
        let held = Pin { version: Version::new("1").unwrap(), locked: false };
        let base = pin(&tenant, &service, &held);
        assert_ne!(base, pin(&other, &service, &held));
        assert_ne!(base, pin(&tenant, &service, &Pin { locked: true, ..held.clone() }));
        assert_ne!(base, pin(&tenant, &service, &Pin { version: Version::new("2").unwrap(), ..held }));
    }
}
