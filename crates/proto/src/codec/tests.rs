#![allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]

use super::*;
use crate::arbitrary as any;
use crate::convert::change_at;
use grey_core::change::{Change, EntryHash, Event, FormatLevel, Principal, Revision};
use grey_core::ids::TenantId;
use grey_core::key::Fact;
use grey_core::policy::{Buckets, Canary, Failover, Overlay, OverlayKind, Unit};
use grey_core::record::Record;
use grey_core::schema::{SchemaVersion, SchemaWindow};
use grey_core::service::{Pin, Service, ServiceVersion};
use grey_core::version::Version;
use proptest::prelude::*;

/// Every wire form of a message leads back to the same core value.
fn survives<M, T>(message: &M, value: &T) -> Result<(), TestCaseError>
where
    M: Message + Default + Serialize + DeserializeOwned + PartialEq + Clone,
    T: TryFrom<M, Error = InvalidMessage> + PartialEq + std::fmt::Debug,
{
    let binary = M::decode(message.encode_to_vec().as_slice()).unwrap();
    prop_assert!(&binary == message);
    let json: M = serde_json::from_str(&to_json(message)).unwrap();
    prop_assert!(&json == message);
    prop_assert_eq!(&T::try_from(binary).unwrap(), value);
    prop_assert_eq!(&T::try_from(json).unwrap(), value);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nouns_survive_the_wire(
        tenant in any::tenant(), service in any::service(), version in any::service_version(),
        pin in (any::tenant_id(), any::service_id(), any::pin()),
    ) {
        survives(&control::Tenant::from(&tenant), &tenant)?;
        survives(&control::Service::from(&service), &service)?;
        survives(&control::ServiceVersion::from(&version), &version)?;
        survives(&control::SchemaWindow::from(&version.window), &version.window)?;
        survives(&control::Pin::from((&pin.0, &pin.1, &pin.2)), &pin)?;
    }

    #[test]
    fn policies_survive_the_wire(policy in (any::service_id(), any::policy())) {
        survives(&control::Policy::from((&policy.0, &policy.1)), &policy)?;
        prop_assert_eq!(decode_policy(&encode_policy(&policy.0, &policy.1)).unwrap(), policy);
    }

    #[test]
    fn overlays_survive_the_wire(overlay in (any::service_id(), any::overlay())) {
        survives(&control::Overlay::from((&overlay.0, &overlay.1)), &overlay)?;
        survives(&control::Overlay::from(&overlay.1), &overlay.1)?;
        prop_assert_eq!(decode_overlay(&encode_overlay(&overlay.0, &overlay.1)).unwrap(), overlay);
    }

    #[test]
    fn every_kind_of_change_survives_the_wire(
        tenant in any::tenant(), service in any::service(), version in any::service_version(),
        policy in any::policy(), overlay in any::overlay(), pin in any::pin(), seen in any::observation(),
        hold in any::hold(), database in any::database(),
    ) {
        let ids = || (tenant.id.clone(), service.id.clone());
        let facts = [
            Fact::Policy(ids().1, policy),
            Fact::Overlay(ids().1, Box::new(overlay)),
            Fact::Pin(ids().0, ids().1, pin),
            Fact::Schema(ids().0, ids().1, seen),
            Fact::Hold(ids().0, ids().1, hold),
            Fact::Database(ids().0, ids().1, Box::new(database)),
            Fact::Version(Box::new(version)),
            Fact::Tenant(Box::new(tenant.clone())),
            Fact::Service(service.clone()),
        ];
        for fact in facts {
            for change in [Change::Removed(fact.key()), Change::Put(fact)] {
                let message = control::Change::from(&change);
                let binary = control::Change::decode(message.encode_to_vec().as_slice()).unwrap();
                let json: control::Change = serde_json::from_str(&to_json(&message)).unwrap();
                prop_assert_eq!(&change_at(binary, 0).unwrap(), &change);
                prop_assert_eq!(&change_at(json, 0).unwrap(), &change);
            }
        }
    }

    #[test]
    fn events_survive_the_wire(event in any::event()) {
        let message = control::Event::from(&event);
        survives(&message, &event)?;
        let encoded = encode_event(&event);
        prop_assert_eq!(&encoded, &message.encode_to_vec(), "as the generated type writes it");
        prop_assert_eq!(decode_event(&encoded).unwrap(), event);
    }

    #[test]
    fn events_of_many_pins_are_read_as_the_generated_type_reads_them(
        pins in proptest::collection::vec(
            (any::tenant_id(), proptest::sample::select(vec!["a", "b"]), proptest::sample::select(vec!["1", "v1.0", "v2.0"]),
             proptest::bool::ANY, 0_u64..2),
            0..12,
        ),
        damage in proptest::option::of((0_usize..400, 0_u8..=255)),
    ) {
        let pin = |(tenant, service, version, locked, revision): (TenantId, &str, &str, bool, u64)| {
            let (tenant, service, version) = (tenant.to_string(), service.to_owned(), version.to_owned());
            let pin = control::Pin { tenant, service, version, locked, revision };
            control::Change { change: Some(control::change::Change::PinPut(pin)) }
        };
        let changes = pins.into_iter().map(pin).collect();
        let at = Some(crate::convert::timestamp(5));
        let message = control::Event { revision: 1, at, previous: vec![0; 32], changes, ..Default::default() };
        let mut bytes = message.encode_to_vec();
        if let Some((place, byte)) = damage {
            let place = place % bytes.len();
            bytes[place] = byte;
        }
        let generated = from_binary::<control::Event, Event>("event", &bytes);
        prop_assert_eq!(decode_event(&bytes).ok(), generated.ok());
    }

    #[test]
    fn records_survive_the_wire(tenant in any::tenant_record(), service in any::service_record()) {
        survives(&control::TenantRecord::from(&tenant), &tenant)?;
        survives(&control::ServiceRecord::from(&service), &service)?;
        prop_assert_eq!(&decode_tenant_record(&encode_tenant_record(&tenant)).unwrap(), &tenant);
        prop_assert_eq!(&decode_service_record(&encode_service_record(&service)).unwrap(), &service);
    }

    #[test]
    fn instances_survive_the_wire((service, instances) in any::service_instances()) {
        let message = router::ServiceInstances::from((&service, instances.as_slice()));
        for instance in &instances {
            survives(&router::Instance::from(instance), instance)?;
            prop_assert_eq!(&decode_instance(&encode_instance(instance)).unwrap(), instance);
        }
        let encoded = encode_service_instances(&service, &instances);
        let value = (service, instances);
        survives(&message, &value)?;
        prop_assert_eq!(decode_service_instances(&encoded).unwrap(), value);
    }

    #[test]
    fn stored_instances_of_a_newer_release_are_read(
        (_, instances) in any::service_instances(), name in "future[A-Za-z]{0,8}",
        value in prop_oneof![Just(serde_json::json!(null)), Just(serde_json::json!({"x": [1, {"y": "z"}]}))],
    ) {
        for instance in instances {
            let text = encode_instance(&instance);
            let mut newer: serde_json::Value = serde_json::from_str(&text).unwrap();
            newer.as_object_mut().unwrap().insert(name.clone(), value.clone());
            let newer = newer.to_string();
            prop_assert_eq!(decode_instance(&newer).unwrap(), instance);
            let told = serde_json::from_str::<router::Instance>(&newer).is_err();
            prop_assert!(told, "callers of the API are told of what is not known");
        }
    }

    #[test]
    fn foreign_bytes_are_refused_or_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        read_everything(&bytes);
    }

    #[test]
    fn damaged_bytes_are_refused_or_read_without_panic(
        event in any::event(), record in any::record(), overlay in (any::service_id(), any::overlay()),
        at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let record = match &record {
            Record::Service(record) => encode_service_record(record),
            Record::Tenant(record) => encode_tenant_record(record),
        };
        let overlay = encode_overlay(&overlay.0, &overlay.1);
        for mut bytes in [encode_event(&event), record.into_bytes(), overlay.into_bytes()] {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            read_everything(&bytes);
            bytes.truncate(at);
            read_everything(&bytes);
        }
    }
}

/// What a decoder accepts, it must also be able to write and to read again.
fn read_everything(bytes: &[u8]) {
    if let Ok(event) = decode_event(bytes) {
        assert_eq!(decode_event(&encode_event(&event)).unwrap(), event);
    }
    if let Ok((service, instances)) = decode_service_instances(bytes) {
        let again = decode_service_instances(&encode_service_instances(&service, &instances));
        assert_eq!(again.unwrap(), (service, instances));
    }
    let text = String::from_utf8_lossy(bytes);
    if let Ok(instance) = decode_instance(&text) {
        assert_eq!(decode_instance(&encode_instance(&instance)).unwrap(), instance);
    }
    if let Ok((service, policy)) = decode_policy(&text) {
        assert_eq!(decode_policy(&encode_policy(&service, &policy)).unwrap(), (service, policy));
    }
    if let Ok((service, overlay)) = decode_overlay(&text) {
        assert_eq!(decode_overlay(&encode_overlay(&service, &overlay)).unwrap(), (service, overlay));
    }
    if let Ok(record) = decode_service_record(&text) {
        assert_eq!(decode_service_record(&encode_service_record(&record)).unwrap(), record);
    }
    if let Ok(record) = decode_tenant_record(&text) {
        assert_eq!(decode_tenant_record(&encode_tenant_record(&record)).unwrap(), record);
    }
}

fn version(text: &str) -> Version {
    Version::new(text).unwrap()
}

fn payment() -> ServiceRecord {
    let id = ServiceId::new("payment").unwrap();
    let window = SchemaWindow { min: Some(SchemaVersion::new("1.1").unwrap()), max: None };
    let declared = |text, window| ServiceVersion { service: id.clone(), version: version(text), window };
    let canary = Overlay {
        id: "next".parse().unwrap(),
        order: 3,
        layer: "shared".parse().unwrap(),
        salt: "s".to_owned(),
        unit: Unit::Tenant,
        matching: grey_core::policy::Match::default(),
        kind: OverlayKind::Canary(Canary {
            baseline: version("2.0"),
            canary: version("2.1"),
            buckets: Buckets::from_ranges(vec![(50, 150)]).unwrap(),
        }),
    };
    ServiceRecord {
        service: Service { id: id.clone(), default: version("2.0") },
        versions: vec![declared("2.0", SchemaWindow::default()), declared("2.1", window)],
        policy: Policy { failover: Failover::ToDefault, ..Policy::default() },
        overlays: vec![canary],
    }
}

#[test]
fn a_service_record_is_stored_as_readable_json() {
    let expected = concat!(
        r#"{"service":{"id":"payment","defaultVersion":"v2.0"},"#,
        r#""versions":[{"version":"v2.0"},{"version":"v2.1","schema":{"min":"1.1"}}],"#,
        r#""policy":{"service":"payment","unknownTenant":"UNKNOWN_TENANT_REFUSE","#,
        r#""balancing":{"strategy":"STRATEGY_ROUND_ROBIN","scope":"SCOPE_LOCAL"},"#,
        r#""failover":{"toDefault":true}},"#,
        r#""overlays":[{"id":"next","order":3,"layer":"shared","salt":"s","unit":"UNIT_TENANT","#,
        r#""canary":{"baseline":"v2.0","canary":"v2.1","weight":100,"buckets":[{"start":50,"end":150}]}}]}"#,
    );
    assert_eq!(encode_service_record(&payment()), expected);
}

#[test]
fn an_instance_is_stored_as_readable_json() {
    let sound = Instance {
        id: "i".parse().unwrap(),
        version: version("2.1"),
        address: "h:1".into(),
        region: None,
        zone: Some("a".parse().unwrap()),
        weight: 100,
        enabled: true,
        healthy: true,
        ephemeral: true,
        source: None,
        metadata: [("k".to_owned(), "v".to_owned())].into(),
    };
    let text = r#"{"id":"i","address":"h:1","version":"v2.1","zone":"a","weight":100,"metadata":{"k":"v"}}"#;
    assert_eq!(encode_instance(&sound), text);
    let off = encode_instance(&Instance { enabled: false, ..sound.clone() });
    assert!(off.contains(r#""disabled":true"#), "{off}");
    let sick = encode_instance(&Instance { healthy: false, ..sound });
    assert!(sick.contains(r#""unhealthy":true"#), "{sick}");
}

#[test]
fn an_event_is_stored_as_protobuf() {
    let pin = Pin { version: version("2.1"), locked: true };
    let (tenant, service) = (TenantId::new("t").unwrap(), ServiceId::new("s").unwrap());
    let event = Event {
        revision: Revision(7),
        at_ms: 1_500,
        principal: Principal { id: "a".to_owned(), role: "o".to_owned(), via: "v".to_owned() },
        reason: "r".to_owned(),
        cause: "c".to_owned(),
        level: FormatLevel(2),
        previous: EntryHash([b'p'; 32]),
        sealed: [("k".to_owned(), vec![0xff, 0])].into(),
        changes: vec![Change::Put(Fact::Pin(tenant, service, pin))],
    };
    let expected =
        b"\x08\x07\x12\x08\x08\x01\x10\x80\xca\xb5\xee\x01\x1a\x09\x0a\x01a\x12\x01o\x1a\x01v\x22\x01r\
        \x2a\x10\x42\x0e\x0a\x01t\x12\x01s\x1a\x04v2.1\x20\x01\x32\x01c\x38\x02\
        \x42\x20pppppppppppppppppppppppppppppppp\x4a\x07\x0a\x01k\x12\x02\xff\x00";
    assert_eq!(encode_event(&event), expected);
}

#[test]
fn stored_json_may_hold_what_only_a_newer_release_knows() {
    let text = r#"{"service":{"id":"payment","defaultVersion":"v2.0","colour":{"of":["the","logo"]}},"owner":"ada",
        "versions":[{"version":"v2.0","notes":{"x":[{}]}}],"overlays":[]}"#;
    let record = decode_service_record(text).unwrap();
    assert_eq!((record.service.default, record.versions.len()), (version("v2.0"), 1));
    // A value that the contract does not have is no descriptive field.
    let text = r#"{"service":{"id":"payment","defaultVersion":7}}"#;
    assert!(decode_service_record(text).is_err());
    let text = r#"{"service":"payment","balancing":{"strategy":"STRATEGY_OF_TOMORROW"}}"#;
    assert!(decode_policy(text).is_err());
    // Callers of the API are told of what they misspell.
    let strict: Result<control::Service, _> =
        serde_json::from_str(r#"{"id":"payment","defaultVersoin":"v3"}"#);
    assert!(strict.unwrap_err().to_string().starts_with("unknown field `defaultVersoin`"));
}

#[test]
fn router_states_survive_the_store() {
    let state = control::RouterState {
        id: "r1".to_owned(),
        address: "h:1".to_owned(),
        region: "eu".to_owned(),
        zone: "a".to_owned(),
        epoch: u64::MAX,
        revision: u64::MAX,
        digest: u64::MAX,
        stale: true,
        level: 7,
        lease: Some(pbjson_types::Duration { seconds: 15, nanos: 0 }),
        ..control::RouterState::default()
    };
    assert_eq!(decode_router_state(&encode_router_state(&state)).unwrap(), state);
    assert_eq!(decode_router_state(r#"{"id":"r1","mood":{"x":[1,"2",null]}}"#).unwrap().id, "r1");
    assert!(decode_router_state("x").is_err());
}

#[test]
fn the_level_of_an_event_is_read_whatever_its_changes_are() {
    for level in [1, 2, u32::MAX] {
        let event = Event { revision: Revision(7), level: FormatLevel(level), ..Event::default() };
        let mut bytes = encode_event(&event);
        assert_eq!(event_level(&bytes).unwrap(), FormatLevel(level));
        // A change of a kind that nobody here knows.
        bytes.extend([5 << 3 | 2, 3, 0xfa, 0x7f, 0]);
        assert_eq!(event_level(&bytes).unwrap(), FormatLevel(level));
        assert!(decode_event(&bytes).is_err());
    }
    assert_eq!(event_level(b"").unwrap(), FormatLevel::FIRST);
    assert!(event_level(b"\xff").is_err());
}

#[test]
fn json_accepts_the_field_names_of_the_contract_too() {
    let text = r#"{"service":{"id":"payment","default_version":"2"}}"#;
    assert_eq!(decode_service_record(text).unwrap().service.default, version("v2.0"));
}

#[test]
fn instances_come_out_by_id_and_no_id_is_there_twice() {
    let instance = |id: &str| router::Instance {
        id: id.to_owned(),
        address: "h:1".to_owned(),
        version: "1".to_owned(),
        ..Default::default()
    };
    let list = |ids: &[&str]| {
        let instances = ids.iter().map(|id| instance(id)).collect();
        router::ServiceInstances { service: "s".to_owned(), instances }.encode_to_vec()
    };
    let (_, read) = decode_service_instances(&list(&["b", "a"])).unwrap();
    assert_eq!(read.iter().map(|i| i.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let error = decode_service_instances(&list(&["b", "a", "b"])).unwrap_err();
    assert_eq!(error.why, "instances: `b` is there twice");
}
