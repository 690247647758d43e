//! What exists in the demo: services, versions, instances, tenants and who is on the canary.

use grey_proto::control::change::Change as Kind;
use grey_proto::control::overlay;
use grey_proto::control::{
    Canary, Match, Overlay, Pin, SchemaWindow, Service, ServiceVersion, Tenant, TenantStatus,
};

/// Where everything runs.
pub(super) const REGION: &str = "eu";
/// Where callers and instances are.
pub(super) const ZONES: [&str; 2] = ["eu-a", "eu-b"];
/// Callers at once.
pub(super) const WORKERS: usize = 4;

pub(super) const SERVICES: [&str; 3] = ["orders", "payment", "users"];
/// Versions that each service has.
pub(super) const VERSIONS: usize = 3;
/// The version of tenants without a pin, of services that have no database.
pub(super) const DEFAULT: &str = "v1.0";
/// The version that the canary moves tenants to.
pub(super) const CANARY: &str = "v2.1";

/// The tiers that the canary is about.
const CANARY_TIERS: [&str; 2] = ["free", "silver"];
/// The service that has a database for each tenant.
pub(super) const ORDERS: &str = "orders";
/// The schema that every database of `orders` begins with.
pub(super) const OLD_SCHEMA: &str = "1.1";
/// The schema that newer versions of `orders` need.
pub(super) const NEW_SCHEMA: &str = "1.2";
/// Tenants that are on newer versions of `orders` from the start.
pub(super) const MIGRATED: [(&str, &str); 2] = [("umbrella", "v1.2"), ("stark", "v1.3")];

/// The tenant that is moved and rolled back.
pub(super) const MOVED: &str = "acme";
/// The tenant that is moved to a version which needs a migration.
pub(super) const UNMIGRATED: &str = "initech";
/// The tenant whose database does not let that migration through.
pub(super) const STUCK: &str = "hooli";

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

/// The versions of a service, the default first.
pub(super) fn versions_of(service: &str) -> [&'static str; VERSIONS] {
    if service == ORDERS { ["v1.1", "v1.2", "v1.3"] } else { [DEFAULT, "v2.0", CANARY] }
}

/// The version of a service that serves tenants without a pin.
pub(super) fn default_of(service: &str) -> &'static str {
    let [default, ..] = versions_of(service);
    default
}

pub(super) fn services() -> Vec<Service> {
    let service =
        |id: &&str| Service { id: (*id).to_owned(), default_version: default_of(id).to_owned(), revision: 0 };
    SERVICES.iter().map(service).collect()
}

/// The versions, with the schemas that those of `orders` work on.
pub(super) fn versions() -> Vec<ServiceVersion> {
    let window = |version: &str| {
        let min = if version == default_of(ORDERS) { OLD_SCHEMA } else { NEW_SCHEMA };
        SchemaWindow { min: min.to_owned(), max: String::new() }
    };
    let version = |service: &str, version: &str| ServiceVersion {
        service: service.to_owned(),
        version: version.to_owned(),
        schema: (service == ORDERS).then(|| window(version)),
        revision: 0,
    };
    let of = |service: &&'static str| versions_of(service).map(|one| version(service, one));
    SERVICES.iter().flat_map(of).collect()
}

/// The tenants with their first pins, to be applied together.
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
    let pin = |(tenant, service, version): (&str, &str, &str)| {
        Kind::PinPut(Pin {
            tenant: tenant.to_owned(),
            service: service.to_owned(),
            version: version.to_owned(),
            ..Pin::default()
        })
    };
    // Who is on a small canary is chance, so one tenant is held to its version: it serves in any case.
    let pins = [
        ("globex", "users", "v2.0"),
        ("ecorp", "payment", "v2.0"),
        ("cyberdyne", "payment", CANARY),
        ("tyrell", "users", "v2.1"),
    ];
    TENANTS.iter().map(tenant).chain(pins.map(pin)).collect()
}

/// The canary of `payment`, with this share of its tenants, in percent.
pub(super) fn canary(percent: u32) -> Overlay {
    let tiers = CANARY_TIERS.map(str::to_owned).to_vec();
    let canary = Canary {
        baseline: DEFAULT.to_owned(),
        canary: CANARY.to_owned(),
        weight: percent * 100,
        buckets: Vec::new(),
    };
    Overlay {
        service: "payment".to_owned(),
        id: "one-click".to_owned(),
        r#match: Some(Match { tiers, ..Match::default() }),
        kind: Some(overlay::Kind::Canary(canary)),
        ..Overlay::default()
    }
}

/// The zones of a version's instances.
pub(super) fn zones_of(service: &str, version: &str) -> &'static [&'static str] {
    if version == default_of(service) { &["eu-a", "eu-a", "eu-b"] } else { &ZONES }
}
