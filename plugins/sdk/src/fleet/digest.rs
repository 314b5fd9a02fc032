//! Hashes of texts and of JSON, the same whatever the order of keys.

use serde_json::Value;
use sha2::{Digest, Sha256};

/// SHA-256 in lower-case hex.
pub(super) fn hex(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// JSON text with sorted keys and no white space.
pub(super) fn canonical(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Array(values) => {
            out.push('[');
            for (at, value) in values.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write(value, out);
            }
            out.push(']');
        }
        Value::Object(object) => {
            let mut entries: Vec<_> = object.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            out.push('{');
            for (at, (key, value)) in entries.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                out.push_str(&Value::String(key.clone()).to_string());
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_order_of_keys_does_not_matter_and_that_of_values_does() {
        let parse = |text| serde_json::from_str(text).unwrap_or(Value::Null);
        assert_eq!(canonical(&parse(r#"{"b":[1,2],"a":"\""}"#)), r#"{"a":"\"","b":[1,2]}"#);
        assert_ne!(canonical(&json!([1, 2])), canonical(&json!([2, 1])));
    }

    #[test]
    fn hex_is_sha_256() {
        assert!(hex("abc").starts_with("ba7816bf8f01cfea"));
    }
}
