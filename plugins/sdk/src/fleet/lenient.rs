//! Reading one JSON value as what its sender will have meant.

use serde_json::Value;

/// A string that holds more than white space, trimmed, or a number as text.
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim()).filter(|text| !text.is_empty()).map(str::to_owned),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// An integer, a float (its fraction dropped), or either as a string.
pub fn int(value: &Value) -> Option<i64> {
    let whole = |number: f64| number.is_finite().then_some(number as i64);
    match value {
        Value::Number(number) => number.as_i64().or_else(|| number.as_f64().and_then(whole)),
        Value::String(text) => {
            let text = text.trim();
            text.parse().ok().or_else(|| text.parse().ok().and_then(whole))
        }
        _ => None,
    }
}

/// A boolean, as such or as `true`, `false`, `1`, `0`, in any case.
pub fn flag(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        other => match text(other)?.to_ascii_lowercase().as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        },
    }
}

/// The texts of a list; a lone text is a list of one, `null` is none at all. What is no text is left out.
pub fn list(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Null => None,
        Value::Array(values) => Some(values.iter().filter_map(text).collect()),
        other => text(other).map(|text| vec![text]),
    }
}

/// The value at a path of keys with dots between, unless it is `null`.
pub fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(object, |value, key| value.get(key)).filter(|value| !value.is_null())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_and_texts_stand_for_each_other() {
        assert_eq!(int(&json!("7")), Some(7));
        assert_eq!(int(&json!(7.9)), Some(7));
        assert_eq!(int(&json!(" 7.5 ")), Some(7));
        assert_eq!(int(&json!("seven")), None);
        assert_eq!(text(&json!(7)), Some("7".into()));
        assert_eq!(text(&json!("  ")), None);
        assert_eq!(flag(&json!("True")), Some(true));
        assert_eq!(flag(&json!(0)), Some(false));
    }

    #[test]
    fn a_list_may_be_a_text_or_null() {
        assert_eq!(list(&json!(["a", "", 1, {}])), Some(vec!["a".into(), "1".into()]));
        assert_eq!(list(&json!("a")), Some(vec!["a".into()]));
        assert_eq!(list(&json!(null)), None);
        assert_eq!(list(&json!([])), Some(vec![]));
    }

    #[test]
    fn a_path_ends_at_what_is_missing_or_null() {
        let object = json!({"a": {"b": 1, "c": null}});
        assert_eq!(at(&object, "a.b"), Some(&json!(1)));
        assert_eq!(at(&object, "a.c"), None);
        assert_eq!(at(&object, "a.b.c"), None);
    }
}
