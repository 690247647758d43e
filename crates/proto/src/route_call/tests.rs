//! The borrowed view reads what the generated type reads, or nothing.

#![allow(clippy::unwrap_used, reason = "test code panics")]

use super::{Entries, MAX_ENTRIES, RouteCall};
use crate::router::RouteRequest;
use grey_core::decide::Metadata;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use prost::Message;
use std::collections::BTreeMap;

fn request() -> impl Strategy<Value = RouteRequest> {
    let text = || "(?s).{0,12}";
    let number = || prop_oneof![Just(0), any::<u64>(), 0..300_u64];
    let metadata = btree_map(text(), text(), 0..MAX_ENTRIES + 4);
    let texts = [text(), text(), text(), text(), text(), text(), text()];
    (texts, metadata, number(), number()).prop_map(|(texts, metadata, min_revision, min_epoch)| {
        let [tenant, service, user, request_key, region, zone, override_version] = texts;
        RouteRequest {
            tenant,
            service,
            metadata,
            user,
            request_key,
            region,
            zone,
            min_revision,
            override_version,
            min_epoch,
        }
    })
}

fn owned(call: &RouteCall<'_>) -> RouteRequest {
    let metadata = match call.metadata {
        Metadata::Map(map) => map.clone(),
        Metadata::Entries(entries) => {
            let map: BTreeMap<String, String> =
                entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            assert_eq!(map.len(), entries.len(), "no key twice");
            map
        }
    };
    RouteRequest {
        tenant: call.tenant.to_owned(),
        service: call.service.to_owned(),
        metadata,
        user: call.user.to_owned(),
        request_key: call.request_key.to_owned(),
        region: call.region.to_owned(),
        zone: call.zone.to_owned(),
        min_revision: call.min_revision,
        override_version: call.override_version.to_owned(),
        min_epoch: call.min_epoch,
    }
}

fn viewed(message: &[u8]) -> Option<RouteRequest> {
    let mut entries = Entries::default();
    RouteCall::decode(message, &mut entries).as_ref().map(owned)
}

/// Fields as an encoder might write them, rightly and wrongly.
fn field() -> impl Strategy<Value = Vec<u8>> {
    let key = prop_oneof![
        proptest::sample::select(vec![0x0a_u8, 0x12, 0x1a, 0x22, 0x2a, 0x32, 0x3a, 0x40, 0x4a, 0x50]),
        any::<u8>()
    ];
    let number = prop_oneof![
        (0..6_u8).prop_map(|number| vec![number]),
        any::<u64>().prop_map(|number| {
            let mut bytes = Vec::new();
            prost::encoding::encode_varint(number, &mut bytes);
            bytes
        }),
        vec(any::<u8>(), 0..12)
    ];
    (key, number, vec(prop_oneof![any::<u8>(), Just(0x0a), Just(0x12), Just(0x01)], 0..6))
        .prop_map(|(key, number, content)| [vec![key], number, content].concat())
}

proptest! {
    #[test]
    fn every_message_of_an_encoder_is_read_as_it_was(request in request()) {
        let message = request.encode_to_vec();
        let read = viewed(&message);
        if request.metadata.len() > MAX_ENTRIES {
            prop_assert_eq!(read, None);
        } else {
            prop_assert_eq!(read.as_ref(), Some(&request));
        }
        prop_assert_eq!(owned(&RouteCall::from(&request)), request);
    }

    #[test]
    fn what_is_read_at_all_is_read_as_the_generated_type_reads_it(fields in vec(field(), 0..8)) {
        let message = fields.concat();
        if let Some(read) = viewed(&message) {
            prop_assert_eq!(Ok(read), RouteRequest::decode(&*message));
        }
    }

    #[test]
    fn a_message_with_changed_bytes_is_read_alike(request in request(), changes in vec((any::<usize>(), any::<u8>()), 1..4)) {
        let mut message = request.encode_to_vec();
        for (at, byte) in changes {
            let length = message.len().max(1);
            if let Some(changed) = message.get_mut(at % length) {
                *changed = byte;
            }
        }
        if let Some(read) = viewed(&message) {
            prop_assert_eq!(Ok(read), RouteRequest::decode(&*message));
        }
    }
}

#[test]
fn the_last_of_a_field_counts() {
    assert_eq!(viewed(b"\x0a\x01a\x0a\x01b").unwrap().tenant, "b");
    assert_eq!(viewed(b"\x40\x01\x40\x02").unwrap().min_revision, 2);
}

#[test]
fn unusual_messages_are_left_to_the_generated_type() {
    let unusual: [&[u8]; 12] = [
        b"\x5a\x01a",                                    // field 11
        b"\x8a\x00\x01a",                                // a key that is longer than it need be
        b"\x0b\x0c",                                     // a group
        b"\x08\x01",                                     // a number in place of a text
        b"\x0a\x81\x00a",                                // a length that is longer than it need be
        b"\x0a\x02a",                                    // cut off
        b"\x0a",                                         // likewise
        b"\x0a\x01\xff",                                 // no UTF-8
        b"\x40\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", // more than 64 bits
        b"\x40\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80", // no end
        b"\x1a\x03\x0a\x01k\x1a\x03\x0a\x01k",           // a key twice
        b"\x1a\x02\x18\x01",                             // an entry with more than key and value
    ];
    for message in unusual {
        assert_eq!(viewed(message), None, "{message:?}");
    }
    assert_eq!(viewed(b""), Some(RouteRequest::default()));
    let most = b"\x40\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    assert_eq!(viewed(most).unwrap().min_revision, u64::MAX);
}
