//! What exists in the demo: services, versions, instances, tenants and who is on the canary.

use grey_proto::control::change::Change as Kind;
use grey_proto::control::overlay;
use grey_proto::control::{
    Canary, Match, ObservedSchema, Overlay, Pin, Policy, SchemaWindow, Service, ServiceVersion, Tenant,
    TenantStatus, Unit,
};

/// Where everything runs.
pub(super) const REGION: &str = "eu";
/// Where callers and instances are.
pub(super) const ZONES: [&str; 2] = ["eu-a", "eu-b"];
/// Callers at once.
pub(super) const WORKERS: usize = 4;

pub(super) const SERVICES: [&str; 3] = ["orders", "payment", "users"];
pub(super) const VERSIONS: [&str; 3] = ["v1.0", "v2.0", "v2.1"];
/// The version of tenants without a pin.
pub(super) const DEFAULT: &str = "v1.0";
/// The version that the canary moves tenants to.
pub(super) const CANARY: &str = "v2.1";

/// The tiers that the canary is about.
const CANARY_TIERS: [&str; 2] = ["free", "silver"];
/// The schema that newer versions of `orders` need.
pub(super) const NEW_SCHEMA: &str = "2";

/// The tenant that is moved and rolled back.
pub(super) const MOVED: &str = "acme";
/// The tenant whose database is not migrated yet.
pub(super) const UNMIGRATED: &str = "initech";

/// A tenant that stays on every default.
pub(super) const UNPINNED: &str = "gringotts";

/// Id, tier and home region.
pub(super) const TENANTS: [(&str, &str, &str); 20] = [
    ("acme", "gold", "eu"),
    ("blue-sun", "free", "eu"),
    ("bluth", "free", "us"),
    ("cyberdyne", "enterprise", "us"),
    ("dunder-mifflin", "silver", "us"),
    ("ecorp", "enterprise", "us"),
    ("globex", "gold", "eu"),
    ("gringotts", "gold", "eu"),
    ("hooli", "silver", "us"),
    ("initech", "silver", "us"),
    ("monarch", "free", "eu"),
    ("oceanic", "free", "us"),
    ("pied-piper", "free", "us"),
    ("prestige", "silver", "eu"),
    ("soylent", "silver", "us"),
    ("stark", "enterprise", "us"),
    ("tyrell", "gold", "eu"),
    ("umbrella", "silver", "eu"),
    ("wonka", "free", "eu"),
    ("yoyodyne", "free", "us"),
];

/// Whether the canary is about this tier.
pub(super) fn in_canary_tiers(tier: &str) -> bool {
    CANARY_TIERS.contains(&tier)
}

pub(super) fn services() -> Vec<Service> {
    let service =
        |id: &&str| Service { id: (*id).to_owned(), default_version: DEFAULT.to_owned(), revision: 0 };
    SERVICES.iter().map(service).collect()
}

/// The versions beside the default. Newer ones of `orders` work on the new schema alone.
pub(super) fn versions() -> Vec<ServiceVersion> {
    let version = |service: &str, version: &str| ServiceVersion {
        service: service.to_owned(),
        version: version.to_owned(),
        schema: (service == "orders")
            .then(|| SchemaWindow { min: NEW_SCHEMA.to_owned(), max: String::new() }),
        revision: 0,
    };
    let newer = VERSIONS.iter().filter(|version| **version != DEFAULT);
    newer.flat_map(|newer| SERVICES.iter().map(|service| version(service, newer))).collect()
}

/// The tenants with their observed schemas and first pins, to be applied together.
pub(super) fn tenants() -> Vec<Kind> {
    let tenant = |(id, tier, region): &(&str, &str, &str)| {
        Kind::TenantPut(Tenant {
            id: (*id).to_owned(),
            status: TenantStatus::Active.into(),
            tier: (*tier).to_owned(),
            region: (*region).to_owned(),
            ..Tenant::default()
        })
    };
    let schema = |(id, ..): &(&str, &str, &str)| {
        let seen = if *id == UNMIGRATED { "1" } else { NEW_SCHEMA };
        Kind::SchemaObserved(observed(id, seen))
    };
    let pin = |(tenant, service, version): (&str, &str, &str)| {
        Kind::PinPut(Pin {
            tenant: tenant.to_owned(),
            service: service.to_owned(),
            version: version.to_owned(),
            ..Pin::default()
        })
    };
    let pins = [
        ("globex", "users", "v2.0"),
        ("umbrella", "orders", "v2.0"),
        ("stark", "orders", "v2.1"),
        ("ecorp", "payment", "v2.0"),
        ("tyrell", "users", "v2.1"),
    ];
    TENANTS.iter().map(tenant).chain(TENANTS.iter().map(schema)).chain(pins.map(pin)).collect()
}

/// What was seen in the database that a tenant has for `orders`.
pub(super) fn observed(tenant: &str, schema: &str) -> ObservedSchema {
    ObservedSchema {
        tenant: tenant.to_owned(),
        service: "orders".to_owned(),
        schema: schema.to_owned(),
        ..ObservedSchema::default()
    }
}

/// The policy of `payment`: this share of the canary's tenants, in percent.
pub(super) fn canary(percent: u32) -> Policy {
    let tiers = CANARY_TIERS.map(str::to_owned).to_vec();
    let canary = Canary { baseline: DEFAULT.to_owned(), canary: CANARY.to_owned(), weight: percent * 100 };
    let overlay = Overlay {
        id: "one-click".to_owned(),
        salt: "one-click".to_owned(),
        unit: Unit::Tenant.into(),
        r#match: Some(Match { tiers, ..Match::default() }),
        kind: Some(overlay::Kind::Canary(canary)),
    };
    Policy { service: "payment".to_owned(), overlays: vec![overlay], ..Policy::default() }
}

/// The zones of a version's instances.
pub(super) fn zones_of(version: &str) -> &'static [&'static str] {
    if version == DEFAULT { &["eu-a", "eu-a", "eu-b"] } else { &ZONES }
}
