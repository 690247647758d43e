//! What is on the wire never changes its meaning: numbers, types and signatures are held by a file.

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto};
use std::collections::BTreeSet;
use std::path::Path;

/// One line for each field, enum value and rpc, in order.
fn wire_form(files: &[FileDescriptorProto]) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for file in files {
        let package = file.package();
        file.message_type.iter().for_each(|m| add_message(&mut lines, m, package));
        file.enum_type.iter().for_each(|e| add_enum(&mut lines, e, package));
        for service in &file.service {
            for method in &service.method {
                let stream = |streams| if streams { "stream " } else { "" };
                lines.insert(format!(
                    "{package}.{}.{}({}{}) returns ({}{})",
                    service.name(),
                    method.name(),
                    stream(method.client_streaming()),
                    method.input_type().trim_start_matches('.'),
                    stream(method.server_streaming()),
                    method.output_type().trim_start_matches('.'),
                ));
            }
        }
    }
    lines
}

fn add_message(lines: &mut BTreeSet<String>, message: &DescriptorProto, scope: &str) {
    let name = format!("{scope}.{}", message.name());
    for field in &message.field {
        lines.insert(format!("{name}.{}={} {}", field.name(), field.number(), kind(message, field)));
    }
    message.nested_type.iter().for_each(|nested| add_message(lines, nested, &name));
    message.enum_type.iter().for_each(|nested| add_enum(lines, nested, &name));
}

fn kind(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let label = match field.label() {
        Label::Repeated => "repeated ",
        _ if field.proto3_optional() => "optional ",
        _ => "",
    };
    let base = match field.r#type() {
        Type::Message | Type::Enum => field.type_name().trim_start_matches('.').to_owned(),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_ascii_lowercase(),
    };
    let oneof = field.oneof_index.filter(|_| !field.proto3_optional());
    let oneof = oneof.and_then(|i| message.oneof_decl.get(usize::try_from(i).ok()?));
    let oneof = oneof.map(|oneof| format!(" in {}", oneof.name())).unwrap_or_default();
    format!("{label}{base}{oneof}")
}

fn add_enum(lines: &mut BTreeSet<String>, declared: &EnumDescriptorProto, scope: &str) {
    for value in &declared.value {
        lines.insert(format!("{scope}.{}.{}={}", declared.name(), value.name(), value.number()));
    }
}

/// Once released, lines of the file are neither changed nor removed; new ones are added with
/// `GREY_UPDATE_FIELD_NUMBERS=1 cargo test -p grey-proto field_numbers`.
#[test]
fn field_numbers_and_types_stay_as_they_are() {
    let path = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../proto/field-numbers.txt");
    let present = wire_form(&crate::contracts());
    if std::env::var_os("GREY_UPDATE_FIELD_NUMBERS").is_some() {
        let text: String = present.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(&path, text).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let held: BTreeSet<String> = text.lines().map(str::to_owned).collect();
    let changed: Vec<_> = held.difference(&present).map(|line| format!("- {line}")).collect();
    let added: Vec<_> = present.difference(&held).map(|line| format!("+ {line}")).collect();
    assert!(
        changed.is_empty() && added.is_empty(),
        "proto/field-numbers.txt does not hold the contracts:\n{}\n{}",
        changed.join("\n"),
        added.join("\n")
    );
}

#[test]
fn a_renumbered_and_a_retyped_field_change_their_line() {
    let before = wire_form(&crate::contracts());
    assert!(before.contains("grey.control.v1.Tenant.id=1 string"));
    assert!(before.contains("grey.control.v1.WriteOptions.expected_revision=1 optional uint64"));
    assert!(before.contains("grey.control.v1.Overlay.canary=9 grey.control.v1.Canary in kind"));
    assert!(before.contains("grey.control.v1.TenantStatus.TENANT_STATUS_ACTIVE=1"));
    let rpc = "grey.router.v1.RouterService.Watch(grey.router.v1.WatchRequest) returns (stream grey.router.v1.WatchResponse)";
    assert!(before.contains(rpc));
    let lost = |damage: fn(&mut FieldDescriptorProto)| {
        let mut files = crate::contracts();
        let tenant =
            files.iter_mut().flat_map(|f| &mut f.message_type).find(|m| m.name() == "Tenant").unwrap();
        damage(&mut tenant.field[0]);
        let after = wire_form(&files);
        before.difference(&after).cloned().collect::<Vec<_>>()
    };
    assert_eq!(lost(|field| field.number = Some(99)), ["grey.control.v1.Tenant.id=1 string"]);
    assert_eq!(lost(|field| field.set_type(Type::Bytes)), ["grey.control.v1.Tenant.id=1 string"]);
    assert_eq!(lost(|field| field.set_label(Label::Repeated)), ["grey.control.v1.Tenant.id=1 string"]);
}
