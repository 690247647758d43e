//! The bytes written by hand are those of the generated type.

#![allow(clippy::unwrap_used, reason = "test code panics")]

use super::{frame, response};
use crate::arbitrary::{instance, overlay_id, schema_version, version};
use grey_core::change::{Epoch, Position, Revision};
use grey_core::decide::{Decision, Detour, Rule};
use grey_core::ids::OverlayId;
use grey_core::instance::Instance;
use grey_core::schema::SchemaVersion;
use grey_core::table::Table;
use grey_core::version::Version;
use proptest::option;
use proptest::prelude::*;
use prost::Message;

/// Everything that a decision borrows.
#[derive(Clone, Debug)]
struct Owned {
    version: Version,
    instance: Instance,
    rule: u8,
    overlay: OverlayId,
    variant: OverlayId,
    detour: Option<(Version, bool)>,
    schema: Option<SchemaVersion>,
    position: Position,
    stale: bool,
}

fn decided() -> impl Strategy<Value = Owned> {
    let number = || prop_oneof![Just(0), any::<u64>(), 0..1_000_u64];
    let choice = (version(), instance(), 0..6_u8, overlay_id(), overlay_id());
    let detour = option::of((version(), any::<bool>()));
    (choice, detour, option::of(schema_version()), number(), number(), any::<bool>()).prop_map(
        |((version, instance, rule, overlay, variant), detour, schema, revision, epoch, stale)| Owned {
            version,
            instance,
            rule,
            overlay,
            variant,
            detour,
            schema,
            position: Position { epoch: Epoch(epoch), revision: Revision(revision) },
            stale,
        },
    )
}

impl Owned {
    fn decision(&self) -> Decision<'_> {
        let (overlay, variant) = (&self.overlay, &self.variant);
        let why = |by_schema: bool| if by_schema { Detour::Schema } else { Detour::Failover };
        Decision {
            version: &self.version,
            instance: &self.instance,
            rule: match self.rule {
                0 => Rule::Pin,
                1 => Rule::Default,
                2 => Rule::UnknownTenant,
                3 => Rule::Override,
                4 => Rule::Experiment { overlay, variant },
                _ => Rule::Canary { overlay },
            },
            detour: self.detour.as_ref().map(|(wanted, by_schema)| (wanted, why(*by_schema))),
            schema: self.schema.as_ref(),
        }
    }
}

proptest! {
    #[test]
    fn a_frame_is_the_encoded_response_with_its_prefix(owned in decided()) {
        let mut table = Table::default();
        table.set_position(owned.position);
        let decision = owned.decision();
        let message = response(&table, &decision, owned.stale).encode_to_vec();
        let mut expected = vec![0];
        expected.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        expected.extend(message);
        prop_assert_eq!(&*frame(&table, &decision, owned.stale), &*expected);
    }
}
