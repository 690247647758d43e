//! Instances from a file, for deployments without a registry.
//!
//! The file is TOML, or JSON if its first character is a brace: `instances = [...]`, each entry with the fields of
//! `grey.router.v1.Instance` and, where the file is about several services, its `service`.

use std::collections::BTreeMap;

use grey_core::ids::ServiceId;
use grey_core::instance::Instance;
use grey_proto::convert::InvalidMessage;
use grey_proto::router;
use grey_state::instances::ServiceInstances;
use serde::Deserialize;
use serde_json::{Map, Value};

/// Weight of an instance that does not state one.
const DEFAULT_WEIGHT: u32 = 100;

/// Why a file is not a list of instances.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It is neither the JSON nor the TOML that it should be.
    #[error("read instances: {0}")]
    Syntax(String),
    /// An entry says something wrong.
    #[error("read instances[{index}]: {why}")]
    Entry {
        /// Counted from 0.
        index: usize,
        /// What is wrong.
        why: String,
    },
    /// Entries of one service contradict each other.
    #[error("read instances of `{service}`: {why}")]
    Service {
        /// The service.
        service: ServiceId,
        /// What is wrong.
        why: InvalidMessage,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    instances: Vec<Map<String, Value>>,
}

/// Reads a file about several services: every entry names its own.
///
/// # Errors
/// The first fault, with its place.
pub fn of_services(text: &str) -> Result<Vec<ServiceInstances>, Error> {
    read(text, None)
}

/// Reads a file about one service: an entry need not name it, and cannot name another.
///
/// # Errors
/// The first fault, with its place.
pub fn of_service(text: &str, service: &ServiceId) -> Result<ServiceInstances, Error> {
    let mut lists = read(text, Some(service))?;
    Ok(lists.pop().unwrap_or_else(|| ServiceInstances { service: service.clone(), instances: Vec::new() }))
}

fn read(text: &str, of: Option<&ServiceId>) -> Result<Vec<ServiceInstances>, Error> {
    let file: File = if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|error| Error::Syntax(error.to_string()))?
    } else {
        toml::from_str(text).map_err(|error| Error::Syntax(error.message().to_owned()))?
    };
    let mut by_service: BTreeMap<ServiceId, Vec<router::Instance>> = BTreeMap::new();
    for (index, entry) in file.instances.into_iter().enumerate() {
        let (service, instance) = read_entry(entry, of).map_err(|why| Error::Entry { index, why })?;
        by_service.entry(service).or_default().push(instance);
    }
    by_service.into_iter().map(|(service, instances)| check(service, instances)).collect()
}

fn read_entry(
    mut entry: Map<String, Value>,
    of: Option<&ServiceId>,
) -> Result<(ServiceId, router::Instance), String> {
    let named = match entry.remove("service") {
        Some(Value::String(text)) => Some(text.parse::<ServiceId>().map_err(|why| why.to_string())?),
        Some(_) => return Err("service: must be a text".to_owned()),
        None => None,
    };
    let service = match (named, of) {
        (Some(named), Some(of)) if named != *of => return Err(format!("is of `{named}`, not of `{of}`")),
        (Some(named), _) => named,
        (None, Some(of)) => of.clone(),
        (None, None) => return Err("service: is required".to_owned()),
    };
    // On the wire no weight is 0, which would take the instance out: not what its absence means in a file.
    entry.entry("weight").or_insert_with(|| DEFAULT_WEIGHT.into());
    let instance = serde_json::from_value(Value::Object(entry)).map_err(|error| error.to_string())?;
    Ok((service, instance))
}

fn check(service: ServiceId, instances: Vec<router::Instance>) -> Result<ServiceInstances, Error> {
    let message = router::ServiceInstances { service: service.to_string(), instances };
    let (_, instances) = <(ServiceId, Vec<Instance>)>::try_from(message)
        .map_err(|why| Error::Service { service: service.clone(), why })?;
    Ok(ServiceInstances { service, instances })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "test code panics")]
mod tests {
    use super::*;

    const TOML: &str = r#"
        instances = [
            { service = "payment", id = "p-1", version = "v1.0", address = "127.0.0.1:9001", zone = "a" },
            { service = "orders", id = "o-1", version = "v1.0", address = "127.0.0.1:9002", weight = 5 },
            { service = "payment", id = "p-0", version = "2.1", address = "[::1]:9003" },
        ]
    "#;

    #[test]
    fn toml_and_json_say_the_same() {
        let lists = of_services(TOML).unwrap();
        let shown: Vec<_> = lists.iter().map(|list| (list.service.as_str(), list.instances.len())).collect();
        assert_eq!(shown, [("orders", 1), ("payment", 2)]);
        let payment = &lists[1].instances;
        assert_eq!((payment[0].id.as_str(), payment[0].weight), ("p-0", 100));
        let value: Value = toml::from_str(TOML).unwrap();
        assert_eq!(of_services(&value.to_string()).unwrap(), lists);
    }

    #[test]
    fn an_empty_list_removes_all_instances() {
        let service: ServiceId = "payment".parse().unwrap();
        assert!(of_service("instances = []", &service).unwrap().instances.is_empty());
    }

    #[test]
    fn faults_are_told_with_their_place() {
        let service: ServiceId = "payment".parse().unwrap();
        let fault = |text: &str| of_service(text, &service).unwrap_err().to_string();
        insta::assert_snapshot!(fault("instance = []"), @"read instances: unknown field `instance`, expected `instances`");
        insta::assert_snapshot!(fault("{"), @"read instances: EOF while parsing an object at line 1 column 1");
        insta::assert_snapshot!(fault(r#"instances = [{ service = "orders" }]"#), @"read instances[0]: is of `orders`, not of `payment`");
        insta::assert_snapshot!(fault(r#"instances = [{ id = "p-1", versoin = "v1" }]"#), @"read instances[0]: unknown field `versoin`, expected one of `id`, `address`, `version`, `region`, `zone`, `weight`, `disabled`, `unhealthy`, `metadata`");
        insta::assert_snapshot!(fault(r#"instances = [{ id = "p-1", version = "v1", address = "nowhere" }]"#), @"read instances of `payment`: instances[0].address: must be host:port");
        let twice = r#"instances = [
            { id = "p", version = "v1", address = "a:1" }, { id = "p", version = "v1", address = "a:2" }]"#;
        insta::assert_snapshot!(fault(twice), @"read instances of `payment`: instances: `p` is there twice");
        insta::assert_snapshot!(of_services(r#"instances = [{ id = "p-1" }]"#).unwrap_err().to_string(), @"read instances[0]: service: is required");
    }
}
