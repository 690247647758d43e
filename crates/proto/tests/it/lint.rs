//! Style of the contracts: what a reader may rely on in every one of them.

use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto};
use std::collections::BTreeMap;

// Field numbers inside descriptor.proto, of which the paths to comments are made.
const PACKAGE: i32 = 2;
const MESSAGES: i32 = 4;
const ENUMS: i32 = 5;
const SERVICES: i32 = 6;
const MEMBERS: i32 = 2; // fields of a message, values of an enum, methods of a service
const NESTED_MESSAGES: i32 = 3;
const NESTED_ENUMS: i32 = 4;
const ONEOFS: i32 = 8;

/// What is wrong with the contracts, one line for each fault.
struct Lint<'a> {
    file: &'a FileDescriptorProto,
    faults: Vec<String>,
}

fn lint(files: &[FileDescriptorProto]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut uses: BTreeMap<&str, usize> = BTreeMap::new();
    for file in files {
        let mut lint = Lint { file, faults: Vec::new() };
        lint.file();
        faults.append(&mut lint.faults);
        for method in file.service.iter().flat_map(|service| &service.method) {
            *uses.entry(method.input_type()).or_default() += 1;
            *uses.entry(method.output_type()).or_default() += 1;
        }
    }
    let shared = uses.into_iter().filter(|(_, count)| *count > 1);
    faults.extend(shared.map(|(message, _)| format!("{message}: used by more than one rpc")));
    faults
}

impl Lint<'_> {
    fn check(&mut self, holds: bool, what: &str, why: &str) {
        if !holds {
            self.faults.push(format!("{what}: {why}"));
        }
    }

    fn documented(&mut self, path: &[i32], what: &str) {
        let locations = self.file.source_code_info.iter().flat_map(|info| &info.location);
        let found = locations.filter(|location| location.path == path);
        let commented = found.into_iter().any(|location| !location.leading_comments().trim().is_empty());
        self.check(commented, what, "has no comment");
    }

    fn file(&mut self) {
        let file = self.file;
        let package = file.package();
        let version = package.rsplit('.').next().and_then(|last| last.strip_prefix('v'));
        let versioned = version.is_some_and(|number| number.parse::<u32>().is_ok_and(|number| number > 0));
        self.check(versioned, package, "the package has no version");
        let directory = file.name().rsplit_once('/').map_or("", |(directory, _)| directory);
        self.check(directory == package.replace('.', "/"), file.name(), "the directory is not the package");
        self.check(file.syntax() == "proto3", file.name(), "is not proto3");
        self.documented(&[PACKAGE], file.name());
        for (message, i) in file.message_type.iter().zip(0..) {
            self.message(message, &[MESSAGES, i], package);
        }
        for (declared, i) in file.enum_type.iter().zip(0..) {
            self.enumeration(declared, &[ENUMS, i], package);
        }
        for (service, i) in file.service.iter().zip(0..) {
            let what = format!("{package}.{}", service.name());
            self.check(service.name().ends_with("Service"), &what, "does not end in Service");
            self.documented(&[SERVICES, i], &what);
            for (method, j) in service.method.iter().zip(0..) {
                let what = format!("{what}.{}", method.name());
                self.documented(&[SERVICES, i, MEMBERS, j], &what);
                let own = |suffix: &str| format!(".{package}.{}{suffix}", method.name());
                self.check(method.input_type() == own("Request"), &what, "takes another rpc's request");
                self.check(method.output_type() == own("Response"), &what, "returns another rpc's response");
            }
        }
    }

    fn message(&mut self, message: &DescriptorProto, path: &[i32], scope: &str) {
        let what = format!("{scope}.{}", message.name());
        self.check(is_pascal(message.name()), &what, "is not in PascalCase");
        self.documented(path, &what);
        for (field, i) in message.field.iter().zip(0..) {
            let what = format!("{what}.{}", field.name());
            self.check(is_snake(field.name()), &what, "is not in snake_case");
            self.documented(&[path, &[MEMBERS, i]].concat(), &what);
        }
        for (oneof, i) in message.oneof_decl.iter().zip(0..) {
            // `optional` is a oneof of its own, which nobody wrote.
            let fields = || message.field.iter().filter(move |field| field.oneof_index == Some(i));
            if fields().any(|field| !field.proto3_optional()) {
                self.documented(&[path, &[ONEOFS, i]].concat(), &format!("{what}.{}", oneof.name()));
            }
        }
        for (nested, i) in message.nested_type.iter().zip(0..) {
            // A map is a message of its own, which nobody wrote.
            if !nested.options.as_ref().is_some_and(|options| options.map_entry()) {
                self.message(nested, &[path, &[NESTED_MESSAGES, i]].concat(), &what);
            }
        }
        for (nested, i) in message.enum_type.iter().zip(0..) {
            self.enumeration(nested, &[path, &[NESTED_ENUMS, i]].concat(), &what);
        }
    }

    fn enumeration(&mut self, declared: &EnumDescriptorProto, path: &[i32], scope: &str) {
        let what = format!("{scope}.{}", declared.name());
        self.check(is_pascal(declared.name()), &what, "is not in PascalCase");
        self.documented(path, &what);
        let prefix = screaming(declared.name());
        let zero = declared.value.iter().find(|value| value.number() == 0);
        let unspecified = zero.is_some_and(|zero| zero.name() == format!("{prefix}_UNSPECIFIED"));
        self.check(unspecified, &what, "its zero is not <ENUM>_UNSPECIFIED");
        for (value, i) in declared.value.iter().zip(0..) {
            let what = format!("{what}.{}", value.name());
            let rest = value.name().strip_prefix(&prefix).and_then(|rest| rest.strip_prefix('_'));
            self.check(rest.is_some_and(is_screaming), &what, "does not begin with its enum's name");
            self.documented(&[path, &[MEMBERS, i]].concat(), &what);
        }
    }
}

fn is_pascal(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase()) && name.chars().all(|c| c.is_ascii_alphanumeric())
}

fn is_snake(name: &str) -> bool {
    let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    plain
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.contains("__")
        && !name.ends_with('_')
}

fn is_screaming(name: &str) -> bool {
    is_snake(&name.to_ascii_lowercase()) && name.to_ascii_uppercase() == name
}

fn screaming(name: &str) -> String {
    let mut text = String::new();
    for (i, c) in name.chars().enumerate() {
        if i > 0 && c.is_ascii_uppercase() {
            text.push('_');
        }
        text.push(c.to_ascii_uppercase());
    }
    text
}

#[test]
fn the_contracts_keep_their_style() {
    let faults = lint(&crate::contracts());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Breaks the contracts in one place and tells what the lint says about it.
fn broken(file: &str, damage: impl FnOnce(&mut FileDescriptorProto)) -> Vec<String> {
    let mut files = crate::contracts();
    damage(files.iter_mut().find(|found| found.name().ends_with(file)).unwrap());
    lint(&files)
}

#[test]
fn a_planted_fault_is_found() {
    let faults = broken("model.proto", |file| file.package = Some("grey.control".into()));
    assert!(faults.contains(&"grey.control: the package has no version".into()), "{faults:?}");
    assert!(
        faults.contains(&"grey/control/v1/model.proto: the directory is not the package".into()),
        "{faults:?}"
    );

    let faults = broken("model.proto", |file| file.message_type[0].field[0].name = Some("tenantId".into()));
    assert_eq!(faults, ["grey.control.v1.Tenant.tenantId: is not in snake_case"]);

    let faults = broken("model.proto", |file| file.enum_type[0].value[1].name = Some("ACTIVE".into()));
    assert_eq!(faults, ["grey.control.v1.TenantStatus.ACTIVE: does not begin with its enum's name"]);

    let faults =
        broken("model.proto", |file| file.enum_type[0].value[0].name = Some("TENANT_STATUS_NONE".into()));
    assert_eq!(faults, ["grey.control.v1.TenantStatus: its zero is not <ENUM>_UNSPECIFIED"]);

    let faults = broken("router.proto", |file| file.service[0].name = Some("Router".into()));
    assert_eq!(faults, ["grey.router.v1.Router: does not end in Service"]);

    let faults = broken("router.proto", |file| {
        let other = file.service[0].method[1].input_type.clone();
        file.service[0].method[0].input_type = other;
    });
    let expected = [
        "grey.router.v1.RouterService.Route: takes another rpc's request",
        ".grey.router.v1.RouteBatchRequest: used by more than one rpc",
    ];
    assert_eq!(faults, expected);
}

#[test]
fn a_missing_comment_is_found_wherever_it_is() {
    let files = crate::contracts();
    let without = |name: &str, path: &[i32]| {
        broken(name, |file| {
            file.source_code_info.as_mut().unwrap().location.retain(|location| location.path != path);
        })
    };
    for file in &files {
        assert_eq!(without(file.name(), &[PACKAGE]), [format!("{}: has no comment", file.name())]);
    }
    assert_eq!(without("model.proto", &[MESSAGES, 0]), ["grey.control.v1.Tenant: has no comment"]);
    assert_eq!(
        without("model.proto", &[MESSAGES, 0, MEMBERS, 1]),
        ["grey.control.v1.Tenant.name: has no comment"]
    );
    assert_eq!(without("model.proto", &[ENUMS, 0]), ["grey.control.v1.TenantStatus: has no comment"]);
    let value = "grey.control.v1.TenantStatus.TENANT_STATUS_ACTIVE: has no comment";
    assert_eq!(without("model.proto", &[ENUMS, 0, MEMBERS, 1]), [value]);
    assert_eq!(without("router.proto", &[SERVICES, 0]), ["grey.router.v1.RouterService: has no comment"]);
    let method = "grey.router.v1.RouterService.Route: has no comment";
    assert_eq!(without("router.proto", &[SERVICES, 0, MEMBERS, 0]), [method]);
}
