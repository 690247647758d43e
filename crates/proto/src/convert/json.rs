//! What is wrong with a JSON text, in the words of those who wrote it.

/// Says why a JSON text cannot be taken, without naming the types that it was read into.
#[must_use]
pub fn json_fault(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let (fault, place) = match text.rsplit_once(" at line ") {
        Some((fault, place)) => (fault, format!(" at line {place}")),
        None => (text.as_str(), String::new()),
    };
    if fault.starts_with("data did not match any variant") {
        return format!("a value is not of the right kind{place}");
    }
    let fault = fault.replacen("unknown variant", "unknown word", 1);
    // The wanted kind is the last thing that such a text says.
    match fault.rsplit_once("expected ") {
        Some((before, wanted)) => format!("{before}expected {}{place}", kind(wanted)),
        None => format!("{fault}{place}"),
    }
}

/// A kind of value as JSON has it.
fn kind(wanted: &str) -> &str {
    match wanted.split(' ').next().unwrap_or_default() {
        "struct" | "tuple" | "map" | "unit" => "an object",
        "enum" | "variant" => "one of the known words",
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, not below 0",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "option" => "a value",
        _ => wanted,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code panics")]
    use super::*;
    use crate::control::{ApplyChangeSetRequest, Overlay, Policy, Tenant};
    use serde::Deserialize;
    use serde::de::DeserializeOwned;

    fn fault<T: DeserializeOwned + std::fmt::Debug>(text: &str) -> String {
        json_fault(&serde_json::from_str::<T>(text).unwrap_err())
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only read")]
    struct Inner {
        number: u16,
        word: Word,
    }

    #[derive(Debug, Deserialize)]
    enum Word {
        Yes,
    }

    #[test]
    fn no_fault_names_a_type_of_ours() {
        let faults = [
            fault::<Tenant>("[]"),
            fault::<Tenant>("7"),
            fault::<Tenant>(r#"{"id": 7}"#),
            fault::<Tenant>(r#"{"revision": -1}"#),
            fault::<Tenant>(r#"{"revision": {}}"#),
            fault::<Tenant>(r#"{"labels": []}"#),
            fault::<Tenant>(r#"{"status": "ASLEEP"}"#),
            fault::<Tenant>(r#"{"status": []}"#),
            fault::<Policy>(r#"{"stateless": "very"}"#),
            fault::<Policy>(r#"{"failover": []}"#),
            fault::<Overlay>(r#"{"order": 1.5, "canary": {}}"#),
            fault::<Overlay>(r#"{"order": "x"}"#),
            fault::<Overlay>(r#"{"canary": [], "experiment": {}}"#),
            fault::<ApplyChangeSetRequest>(r#"{"changes": {}}"#),
            fault::<ApplyChangeSetRequest>(r#"{"changes": [{"change": 1}]}"#),
            fault::<ApplyChangeSetRequest>(r#"{"write": {"wait": 3}}"#),
            fault::<Inner>("[]"),
            fault::<Inner>("3"),
            fault::<Inner>(r#"{"number": 70000}"#),
            fault::<Inner>(r#"{"number": 7, "word": 3}"#),
            fault::<Inner>(r#"{"number": 7, "word": "No"}"#),
        ];
        for fault in faults {
            for inner in
                ["struct", "enum", "::", "v1", "Inner", "Word", " u1", " u6", " u3", " i3", "variant "]
            {
                assert!(!fault.contains(inner), "`{fault}` names `{inner}`");
            }
        }
        assert!(fault::<Tenant>("[]").starts_with("invalid type: sequence, expected an object at line 1 "));
        assert_eq!(fault::<Tenant>("{"), "EOF while parsing an object at line 1 column 1");
        let unknown = fault::<Inner>(r#"{"numbre": 7}"#);
        assert_eq!(unknown, "unknown field `numbre`, expected `number` or `word` at line 1 column 9");
    }
}
