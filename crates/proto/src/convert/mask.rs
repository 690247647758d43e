//! Writing some fields of a message and leaving the others as they are.

use super::{Checked, InvalidMessage};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The present message with the fields named by `paths` as `given`; a field that `given` leaves out goes back to its
/// default. `fields` are those that may be named, as the contract spells them; `schema.min` is a field of a field, and
/// `labels.*` stands for each entry of a map. An entry that `given` leaves out is removed.
///
/// # Errors
/// When a path names no such field.
pub fn merge<M: Serialize + DeserializeOwned>(
    present: &M,
    given: &M,
    paths: &[String],
    fields: &[&str],
) -> Result<M, InvalidMessage> {
    let (mut merged, given) = (object(present)?, object(given)?);
    for (at, path) in paths.iter().enumerate() {
        let (field, entry) = match path.split_once('.') {
            Some((field, entry)) => (field, Some(entry)),
            None => (path.as_str(), None),
        };
        let of_map = entry.is_some_and(|entry| {
            let any = fields.iter().any(|known| known.strip_suffix(".*") == Some(field));
            any && !entry.is_empty()
        });
        if !of_map && !fields.contains(&path.as_str()) {
            let why = format!("`{path}` names no field that can be set; these can: {}", fields.join(", "));
            return Err(InvalidMessage::new(format!("update_mask[{at}]"), why));
        }
        let name = json_name(field);
        let value = given.get(&name);
        match entry {
            None => set(&mut merged, &name, value),
            Some(entry) => {
                let entry = if of_map { entry.to_owned() } else { json_name(entry) };
                let value = value.and_then(|map| map.get(&entry));
                let map = merged.entry(name).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(map) = map {
                    set(map, &entry, value);
                }
            }
        }
    }
    serde_json::from_value(Value::Object(merged))
        .map_err(|why| InvalidMessage::new("update_mask", why.to_string()))
}

fn set(object: &mut Map<String, Value>, name: &str, value: Option<&Value>) {
    match value {
        Some(value) => object.insert(name.to_owned(), value.clone()),
        None => object.remove(name),
    };
}

fn object<M: Serialize>(message: &M) -> Checked<Map<String, Value>> {
    match serde_json::to_value(message) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(InvalidMessage::new("update_mask", "is for messages with fields")),
        Err(why) => Err(InvalidMessage::new("update_mask", why.to_string())),
    }
}

/// The name of a field in JSON.
fn json_name(field: &str) -> String {
    let mut words = field.split('_');
    let mut name = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        name.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        name.push_str(letters.as_str());
    }
    name
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;
    use crate::control::{Policy, Tenant, UnknownTenant};

    const FIELDS: &[&str] = &["name", "tier", "labels", "labels.*", "unknown_tenant"];

    fn tenant() -> Tenant {
        Tenant {
            id: "acme".to_owned(),
            name: "Acme".to_owned(),
            tier: "gold".to_owned(),
            residency: vec!["eu".to_owned()],
            labels: [("env".to_owned(), "live".to_owned()), ("team".to_owned(), "red".to_owned())].into(),
            ..Tenant::default()
        }
    }

    fn paths(paths: &[&str]) -> Vec<String> {
        paths.iter().map(|path| (*path).to_owned()).collect()
    }

    #[test]
    fn only_what_is_named_changes() {
        let given = Tenant { name: "New".to_owned(), ..Tenant::default() };
        let merged = merge(&tenant(), &given, &paths(&["name"]), FIELDS).unwrap();
        assert_eq!(merged, Tenant { name: "New".to_owned(), ..tenant() });
        let merged = merge(&tenant(), &given, &paths(&["tier"]), FIELDS).unwrap();
        assert_eq!(merged, Tenant { tier: String::new(), ..tenant() });
    }

    #[test]
    fn one_entry_of_a_map_can_be_set_or_removed() {
        let given = Tenant { labels: [("env".to_owned(), "test".to_owned())].into(), ..Tenant::default() };
        let merged = merge(&tenant(), &given, &paths(&["labels.env", "labels.team"]), FIELDS).unwrap();
        assert_eq!(merged.labels, given.labels);
        let merged = merge(&Tenant::default(), &given, &paths(&["labels.env"]), FIELDS).unwrap();
        assert_eq!(merged.labels, given.labels);
    }

    #[test]
    fn names_are_those_of_the_contract() {
        let given = Policy { unknown_tenant: UnknownTenant::UseDefault.into(), ..Policy::default() };
        let present = Policy { stateless: true, ..Policy::default() };
        let merged = merge(&present, &given, &paths(&["unknown_tenant"]), FIELDS).unwrap();
        assert_eq!(merged, Policy { stateless: true, ..given });
    }

    #[test]
    fn what_cannot_be_set_is_refused() {
        for path in ["id", "revision", "residency", "name.first", "", "unknownTenant"] {
            let refused = merge(&tenant(), &tenant(), &paths(&["name", path]), FIELDS).unwrap_err();
            assert_eq!(refused.field, "update_mask[1]", "{path}");
        }
    }
}
