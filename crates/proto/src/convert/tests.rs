#![allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]

use super::*;
use crate::control::{self, failover, hash_key};
use crate::router;
use grey_core::change::{Change, EntryHash, Event, FormatLevel, Principal};
use grey_core::ids::{ServiceId, TenantId};
use grey_core::instance::{Instance, MAX_INSTANCES, MAX_WEIGHT};
use grey_core::key::Fact;
use grey_core::policy::{Balancing, Failover, HashKey, MAX_LIST, Policy};
use grey_core::record::{Record, ServiceRecord, TenantRecord};
use grey_core::schema::SchemaWindow;
use grey_core::service::{Pin, Service, ServiceVersion};
use grey_core::tenant::{MAX_LABEL_VALUE, MAX_LABELS, MAX_TENANT_NAME, Tenant, TenantStatus};
use pbjson_types::Timestamp;
use std::collections::BTreeMap;

mod overlay;

fn s(text: &str) -> String {
    text.to_owned()
}

/// The message is refused for this field and for a reason that contains `why`.
fn refused<T, M>(message: M, field: &str, why: &str)
where
    T: TryFrom<M, Error = InvalidMessage> + std::fmt::Debug,
{
    let error = T::try_from(message).unwrap_err();
    assert_eq!(error.field, field, "{error}");
    assert!(error.why.contains(why), "{error}");
}

fn tenant() -> control::Tenant {
    control::Tenant { id: s("acme"), ..Default::default() }
}

fn policy() -> control::Policy {
    control::Policy { service: s("payment"), ..Default::default() }
}

fn instance() -> router::Instance {
    router::Instance { id: s("i"), address: s("h:1"), version: s("1"), ..Default::default() }
}

#[test]
fn absent_things_read_as_the_documented_defaults() {
    let read = Tenant::try_from(tenant()).unwrap();
    assert_eq!(read, Tenant::new(TenantId::new("acme").unwrap()));
    let (_, read) = <(ServiceId, Policy)>::try_from(policy()).unwrap();
    assert_eq!(read, Policy::default());
    let empty = control::Policy {
        balancing: Some(control::Balancing { hash_key: Some(Default::default()), ..Default::default() }),
        failover: Some(Default::default()),
        ..policy()
    };
    assert_eq!(<(ServiceId, Policy)>::try_from(empty).unwrap().1, Policy::default());
    let service = control::Service { id: s("payment"), default_version: s("2"), revision: 9 };
    let record = control::ServiceRecord { service: Some(service), ..Default::default() };
    assert_eq!(ServiceRecord::try_from(record).unwrap().policy, Policy::default());
}

#[test]
fn output_only_revisions_are_not_read_and_not_written() {
    let read = Tenant::try_from(control::Tenant { revision: 9, ..tenant() }).unwrap();
    assert_eq!(control::Tenant::from(&read).revision, 0);
}

#[test]
fn a_tenant_beyond_its_limits_is_refused() {
    refused::<Tenant, _>(control::Tenant::default(), "id", "is empty");
    refused::<Tenant, _>(control::Tenant { id: s("A"), ..tenant() }, "id", "does not match");
    let name = "n".repeat(MAX_TENANT_NAME + 1);
    refused::<Tenant, _>(control::Tenant { name, ..tenant() }, "name", "201 bytes, at most 200");
    refused::<Tenant, _>(control::Tenant { status: 4, ..tenant() }, "status", "4 is not a value");
    refused::<Tenant, _>(control::Tenant { tier: s("{}"), ..tenant() }, "tier", "does not match");
    refused::<Tenant, _>(control::Tenant { region: s("{}"), ..tenant() }, "region", "does not match");
    let residency = vec![s("eu"), s("")];
    refused::<Tenant, _>(control::Tenant { residency, ..tenant() }, "residency[1]", "is empty");
    let residency = vec![s("eu"), s("us"), s("eu")];
    refused::<Tenant, _>(control::Tenant { residency, ..tenant() }, "residency[2]", "twice");
    let residency = vec![s("eu"); MAX_RESIDENCY + 1];
    refused::<Tenant, _>(control::Tenant { residency, ..tenant() }, "residency", "at most");
    let labels = (0..=MAX_LABELS).map(|i| (format!("k{i}"), s("v"))).collect();
    refused::<Tenant, _>(control::Tenant { labels, ..tenant() }, "labels", "33 entries, at most 32");
    let labels = BTreeMap::from([(s("K"), s("v"))]);
    refused::<Tenant, _>(control::Tenant { labels, ..tenant() }, "labels", "does not match");
    let labels = BTreeMap::from([(s("k"), "v".repeat(MAX_LABEL_VALUE + 1))]);
    refused::<Tenant, _>(control::Tenant { labels, ..tenant() }, "labels[k]", "129 bytes, at most 128");
}

#[test]
fn statuses_are_read_by_number() {
    assert_eq!(tenant_status(0), Ok(TenantStatus::Active));
    assert_eq!(tenant_status(2), Ok(TenantStatus::Suspended));
    assert_eq!(tenant_status(-1).unwrap_err().to_string(), "status: -1 is not a value of this enumeration");
}

#[test]
fn malformed_services_versions_and_pins_are_refused() {
    let service = control::Service { id: s("p"), default_version: s("1"), revision: 0 };
    refused::<Service, _>(control::Service { id: s(""), ..service.clone() }, "id", "is empty");
    let broken = control::Service { default_version: s("latest"), ..service };
    refused::<Service, _>(broken, "default_version", "is not a version");

    let version = control::ServiceVersion { service: s("p"), version: s("1"), schema: None, revision: 0 };
    let window = |min: &str, max: &str| control::SchemaWindow { min: s(min), max: s(max) };
    let with = |w| control::ServiceVersion { schema: Some(w), ..version.clone() };
    assert_eq!(ServiceVersion::try_from(with(window("", ""))).unwrap().window, SchemaWindow::default());
    assert!(ServiceVersion::try_from(with(window("1.1", "1.1"))).is_ok());
    refused::<ServiceVersion, _>(with(window("1.2", "1.1")), "schema.min", "newer than max 1.1");
    refused::<ServiceVersion, _>(with(window("x", "")), "schema.min", "is not a schema version");
    refused::<ServiceVersion, _>(with(window("", "x")), "schema.max", "is not a schema version");
    let nameless = control::ServiceVersion { service: s(""), ..version.clone() };
    refused::<ServiceVersion, _>(nameless, "service", "is empty");
    refused::<ServiceVersion, _>(
        control::ServiceVersion { version: s(""), ..version },
        "version",
        "not a version",
    );

    let pin = control::Pin { tenant: s("t"), service: s("p"), version: s("1"), ..Default::default() };
    type Whole = (TenantId, ServiceId, Pin);
    refused::<Whole, _>(control::Pin { tenant: s(""), ..pin.clone() }, "tenant", "is empty");
    refused::<Whole, _>(control::Pin { service: s(""), ..pin.clone() }, "service", "is empty");
    refused::<Whole, _>(control::Pin { version: s(""), ..pin }, "version", "not a version");
}

#[test]
fn a_policy_beyond_its_limits_is_refused_by_path() {
    type Whole = (ServiceId, Policy);
    refused::<Whole, _>(control::Policy::default(), "service", "is empty");
    refused::<Whole, _>(control::Policy { unknown_tenant: 3, ..policy() }, "unknown_tenant", "3 is not");
    refused::<Whole, _>(
        control::Policy { override_roles: vec![s("*")], ..policy() },
        "override_roles[0]",
        "match",
    );
    let override_roles = vec![s("r"); MAX_LIST + 1];
    refused::<Whole, _>(control::Policy { override_roles, ..policy() }, "override_roles", "at most 1000");
}

#[test]
fn a_malformed_balancing_or_failover_is_refused() {
    let none = control::Balancing::default;
    refused::<Balancing, _>(control::Balancing { strategy: 8, ..none() }, "strategy", "8 is not");
    refused::<Balancing, _>(control::Balancing { scope: 3, ..none() }, "scope", "3 is not");
    let by =
        |source| control::Balancing { hash_key: Some(control::HashKey { source: Some(source) }), ..none() };
    let tenant = Balancing::try_from(by(hash_key::Source::Tenant(true))).unwrap();
    assert_eq!(tenant.hash_key, HashKey::Tenant);
    refused::<Balancing, _>(by(hash_key::Source::Tenant(false)), "hash_key.tenant", "must be true");
    refused::<Balancing, _>(by(hash_key::Source::User(false)), "hash_key.user", "must be true");
    refused::<Balancing, _>(by(hash_key::Source::Request(false)), "hash_key.request", "must be true");
    refused::<Balancing, _>(by(hash_key::Source::Metadata(s(""))), "hash_key.metadata", "is required");
    let long = "k".repeat(MAX_METADATA_KEY + 1);
    refused::<Balancing, _>(by(hash_key::Source::Metadata(long)), "hash_key.metadata", "at most 256");

    let to = |rule| control::Failover { rule: Some(rule) };
    refused::<Failover, _>(to(failover::Rule::Refuse(false)), "refuse", "must be true");
    refused::<Failover, _>(to(failover::Rule::ToDefault(false)), "to_default", "must be true");
    refused::<Failover, _>(to(failover::Rule::ToNearest(false)), "to_nearest", "must be true");
    let list = |versions| to(failover::Rule::ToVersions(control::VersionList { versions }));
    refused::<Failover, _>(list(vec![s("1"), s("x")]), "to_versions.versions[1]", "not a version");
    refused::<Failover, _>(list(vec![s("1"); MAX_LIST + 1]), "to_versions.versions", "at most 1000");
    let policy = control::Policy { failover: Some(list(vec![s("x")])), ..policy() };
    refused::<(ServiceId, Policy), _>(policy, "failover.to_versions.versions[0]", "not a version");
}

#[test]
fn every_part_of_a_change_is_checked() {
    use control::change::Change as Kind;
    let empty = [
        (Kind::TenantPut(Default::default()), "tenant_put.id"),
        (Kind::TenantRemoved(Default::default()), "tenant_removed.tenant"),
        (Kind::ServicePut(Default::default()), "service_put.id"),
        (Kind::ServiceRemoved(Default::default()), "service_removed.service"),
        (Kind::VersionPut(Default::default()), "version_put.service"),
        (Kind::VersionRemoved(Default::default()), "version_removed.service"),
        (
            Kind::VersionRemoved(control::VersionRemoved { service: s("p"), version: s("") }),
            "version_removed.version",
        ),
        (Kind::PolicyPut(Default::default()), "policy_put.service"),
        (Kind::PolicyRemoved(Default::default()), "policy_removed.service"),
        (Kind::OverlayPut(Default::default()), "overlay_put.service"),
        (Kind::OverlayRemoved(Default::default()), "overlay_removed.service"),
        (
            Kind::OverlayRemoved(control::OverlayRemoved { service: s("p"), overlay: s("") }),
            "overlay_removed.overlay",
        ),
        (Kind::PinPut(Default::default()), "pin_put.tenant"),
        (Kind::PinRemoved(Default::default()), "pin_removed.tenant"),
        (Kind::PinRemoved(control::PinRemoved { tenant: s("t"), service: s("") }), "pin_removed.service"),
        (Kind::SchemaObserved(Default::default()), "schema_observed.tenant"),
    ];
    for (change, field) in empty {
        let error = change_at(control::Change { change: Some(change) }, 0).unwrap_err();
        assert_eq!(error.field, field);
    }
    assert_eq!(change_at(control::Change { change: None }, 0), Err(InvalidMessage::missing("change")));
}

fn observed(at: Option<Timestamp>) -> control::ObservedSchema {
    control::ObservedSchema {
        tenant: s("t"),
        service: s("p"),
        schema: s("1.1"),
        observed_at: at,
        ..Default::default()
    }
}

#[test]
fn an_observation_without_time_was_made_now_or_with_its_event() {
    let change = || control::Change { change: Some(control::change::Change::SchemaObserved(observed(None))) };
    let at = |change| match change {
        Change::Put(Fact::Schema(_, _, seen)) => seen.at_ms,
        other => panic!("{other:?}"),
    };
    assert_eq!(at(change_at(change(), 5).unwrap()), 5);
    let event = control::Event {
        revision: 1,
        at: Some(Timestamp { seconds: 2, nanos: 3_999_999 }),
        changes: vec![change()],
        previous: vec![0; 32],
        ..Default::default()
    };
    let event = Event::try_from(event).unwrap();
    assert_eq!(event.at_ms, 2_003);
    assert_eq!(at(event.changes[0].clone()), 2_003);
    assert_eq!(SchemaSighting::try_from(observed(None)).unwrap().at_ms, None);
    let unknown = control::ObservedSchema { schema: s(""), ..observed(None) };
    assert_eq!(SchemaSighting::try_from(unknown).unwrap().schema, None);
    refused::<SchemaSighting, _>(
        control::ObservedSchema { schema: s("x"), ..observed(None) },
        "schema",
        "schema version",
    );
    refused::<SchemaSighting, _>(
        control::ObservedSchema { service: s(""), ..observed(None) },
        "service",
        "is empty",
    );
}

#[test]
fn times_outside_1970_to_9999_are_refused_and_never_written() {
    let last = i64::try_from(MAX_TIME_MS / 1_000).unwrap();
    for (seconds, nanos) in [(-1, 0), (0, -1), (0, 1_000_000_000), (last + 1, 0), (i64::MAX, 0)] {
        let at = Some(Timestamp { seconds, nanos });
        refused::<SchemaSighting, _>(observed(at), "observed_at", "from 1970 to 9999");
        refused::<Event, _>(
            control::Event { revision: 1, at, ..Default::default() },
            "at",
            "from 1970 to 9999",
        );
    }
    let seen = SchemaSighting::try_from(observed(Some(change::timestamp(u64::MAX)))).unwrap();
    assert_eq!(seen.at_ms, Some(MAX_TIME_MS));
    assert_eq!(
        serde_json::to_string(&change::timestamp(u64::MAX)).unwrap(),
        "\"9999-12-31T23:59:59.999+00:00\""
    );
}

#[test]
fn an_incomplete_event_is_refused() {
    let at = Some(Timestamp::default());
    refused::<Event, _>(control::Event { at, ..Default::default() }, "revision", "at least 1");
    refused::<Event, _>(control::Event { revision: 1, ..Default::default() }, "at", "is required");
    let event = || control::Event { revision: 1, at, previous: vec![0; 32], ..Default::default() };
    assert!(Event::try_from(event()).is_ok());
    for previous in [vec![], vec![0; 31], vec![0; 33]] {
        refused::<Event, _>(control::Event { previous, ..event() }, "previous", "32 bytes");
    }
    let changes = vec![control::Change::default()];
    refused::<Event, _>(control::Event { changes, ..event() }, "changes[0].change", "is required");
}

#[test]
fn an_envelope_without_details_is_nobodys_at_the_first_level() {
    let at = Some(Timestamp::default());
    let event = control::Event { revision: 1, at, previous: vec![0; 32], ..Default::default() };
    let read = Event::try_from(event).unwrap();
    assert_eq!(read.principal, Principal::default());
    assert_eq!(read.level, FormatLevel(1));
    assert_eq!(read.previous, EntryHash::default());
}

#[test]
fn a_record_is_about_one_tenant() {
    refused::<TenantRecord, _>(control::TenantRecord::default(), "tenant", "is required");
    let record = || control::TenantRecord { tenant: Some(tenant()), ..Default::default() };
    let pin = |tenant: &str| control::Pin {
        tenant: s(tenant),
        service: s("p"),
        version: s("1"),
        ..Default::default()
    };
    let pins = |pin| control::TenantRecord { pins: vec![pin], ..record() };
    assert!(TenantRecord::try_from(pins(pin("acme"))).is_ok());
    refused::<TenantRecord, _>(pins(pin("other")), "pins[0].tenant", "another tenant");
    refused::<TenantRecord, _>(
        pins(control::Pin { service: s(""), ..pin("") }),
        "pins[0].service",
        "is empty",
    );
    refused::<TenantRecord, _>(
        pins(control::Pin { version: s(""), ..pin("") }),
        "pins[0].version",
        "version",
    );
    let schemas = |schema| control::TenantRecord { schemas: vec![schema], ..record() };
    let at = Some(Timestamp::default());
    refused::<TenantRecord, _>(schemas(observed(at)), "schemas[0].tenant", "another tenant");
    let own = |at| control::ObservedSchema { tenant: s(""), ..observed(at) };
    assert!(TenantRecord::try_from(schemas(own(at))).is_ok());
    refused::<TenantRecord, _>(schemas(own(None)), "schemas[0].observed_at", "is required");
    let unknown = control::ObservedSchema { schema: s(""), ..own(at) };
    refused::<TenantRecord, _>(schemas(unknown), "schemas[0].schema", "schema version");
    let nameless = control::ObservedSchema { service: s(""), ..own(at) };
    refused::<TenantRecord, _>(schemas(nameless), "schemas[0].service", "is empty");
}

#[test]
fn a_record_is_about_one_service() {
    refused::<ServiceRecord, _>(control::ServiceRecord::default(), "service", "is required");
    let service = control::Service { id: s("payment"), default_version: s("1"), revision: 0 };
    let record = || control::ServiceRecord { service: Some(service.clone()), ..Default::default() };
    let version = |service: &str, version: &str| control::ServiceRecord {
        versions: vec![control::ServiceVersion {
            service: s(service),
            version: s(version),
            ..Default::default()
        }],
        ..record()
    };
    assert!(ServiceRecord::try_from(version("payment", "1")).is_ok());
    refused::<ServiceRecord, _>(version("other", "1"), "versions[0].service", "another service");
    refused::<ServiceRecord, _>(version("", "x"), "versions[0].version", "not a version");
    let with = |policy| control::ServiceRecord { policy: Some(policy), ..record() };
    assert!(ServiceRecord::try_from(with(control::Policy::default())).is_ok());
    let other = control::Policy { service: s("other"), ..policy() };
    refused::<ServiceRecord, _>(with(other), "policy.service", "another service");
    let broken = control::Policy { override_roles: vec![s("")], ..control::Policy::default() };
    refused::<ServiceRecord, _>(with(broken), "policy.override_roles[0]", "is empty");
}

#[test]
fn only_batches_hold_records() {
    use router::watch_response::Frame;
    let end = router::WatchResponse { frame: Some(Frame::End(Default::default())) };
    refused::<Vec<Record>, _>(end, "frame", "tenants or services");
    let tenants = router::TenantBatch { tenants: vec![Default::default()] };
    let batch = router::WatchResponse { frame: Some(Frame::Tenants(tenants)) };
    refused::<Vec<Record>, _>(batch, "tenants.tenants[0].tenant", "is required");
}

#[test]
fn an_instance_beyond_its_limits_is_refused() {
    refused::<Instance, _>(router::Instance { id: s("{}"), ..instance() }, "id", "does not match");
    refused::<Instance, _>(router::Instance { version: s(""), ..instance() }, "version", "not a version");
    refused::<Instance, _>(router::Instance { region: s("{}"), ..instance() }, "region", "does not match");
    refused::<Instance, _>(router::Instance { zone: s("{}"), ..instance() }, "zone", "does not match");
    assert!(Instance::try_from(router::Instance { weight: MAX_WEIGHT, ..instance() }).is_ok());
    refused::<Instance, _>(
        router::Instance { weight: MAX_WEIGHT + 1, ..instance() },
        "weight",
        "more than 10000",
    );
    let entries = |n: usize| (0..n).map(|i| (format!("{i}"), s(""))).collect();
    assert!(Instance::try_from(router::Instance { metadata: entries(64), ..instance() }).is_ok());
    refused::<Instance, _>(
        router::Instance { metadata: entries(65), ..instance() },
        "metadata",
        "at most 64",
    );
    let bytes = |n: usize| BTreeMap::from([(s("key"), "v".repeat(n - 3))]);
    assert!(Instance::try_from(router::Instance { metadata: bytes(8_192), ..instance() }).is_ok());
    refused::<Instance, _>(
        router::Instance { metadata: bytes(8_193), ..instance() },
        "metadata",
        "at most 8192",
    );
    let list = |n| router::ServiceInstances { service: s("p"), instances: vec![instance(); n] };
    type Whole = (ServiceId, Vec<Instance>);
    refused::<Whole, _>(list(MAX_INSTANCES + 1), "instances", "at most 10000");
    refused::<Whole, _>(router::ServiceInstances { service: s(""), ..list(1) }, "service", "is empty");
    let instances = vec![instance(), router::Instance { id: s(""), ..instance() }];
    refused::<Whole, _>(router::ServiceInstances { instances, ..list(0) }, "instances[1].id", "is empty");
}

#[test]
fn an_address_is_a_host_and_a_port() {
    let read = |address: &str| Instance::try_from(router::Instance { address: s(address), ..instance() });
    for address in ["h:1", "10.0.0.1:65535", "a-b.c_d.example:80", "[::1]:8080", "[2001:db8::1]:1"] {
        assert_eq!(read(address).unwrap().address, address);
    }
    for address in [
        "",
        "h",
        ":80",
        "h:",
        "h:0",
        "h:65536",
        "h:+1",
        "h: 1",
        "h:1 ",
        "h h:1",
        "h\n:1",
        "::1:80",
        "[]:1",
        "[::1]",
        "[h]:1",
        "[::1:1",
        "http://h:1",
        "u@h:1",
        "h/p:1",
        "h:1/p",
        "ä:1",
    ] {
        assert_eq!(read(address).unwrap_err().field, "address", "{address:?}");
    }
    assert!(read(&format!("{}:1", "h".repeat(253))).is_ok());
    assert_eq!(read(&format!("{}:1", "h".repeat(254))).unwrap_err().why, "is longer than 255 bytes");
}
