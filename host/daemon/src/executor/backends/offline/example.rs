//! Something that fits a JSON schema, as far as the usual keywords go: what a server that holds to schemas would have answered.

use serde_json::{Map, Value};

use super::{HONEST, plan::Step};

/// Schemas that refer to themselves have no end.
const DEEPEST: usize = 16;
/// Or a very late one, for all that: so many values are made, and all others are null. It takes milliseconds.
const MOST: usize = 10_000;
/// Of names and texts in them.
const MOST_BYTES: usize = 256 << 10;
const MOST_ITEMS: u64 = 64;
/// Of what is asked for as the least length of a text.
const LONGEST: usize = 4096;

pub(super) fn of(schema: &Value, steps: &[Step]) -> Value {
    Example { root: schema, texts: texts(steps), said: 0, values: MOST, bytes: MOST_BYTES }.of(schema, 0)
}

/// What texts there are to say.
fn texts(steps: &[Step]) -> Vec<String> {
    [format!("offline: {HONEST}")].into_iter().chain(steps.iter().map(|step| step.title.clone())).collect()
}

struct Example<'a> {
    root: &'a Value,
    texts: Vec<String>,
    said: usize,
    /// What is left to be made.
    values: usize,
    bytes: usize,
}

impl<'a> Example<'a> {
    /// Once there is too little left there is nothing left.
    fn spend(&mut self, bytes: usize) -> bool {
        let left = self.bytes.checked_sub(bytes);
        self.bytes = left.unwrap_or(0);
        self.values = left.map_or(0, |_| self.values);
        left.is_some()
    }

    /// What the schema says word by word.
    fn quoted(&mut self, value: &Value) -> Value {
        if self.spend(value.to_string().len()) { value.clone() } else { Value::Null }
    }

    fn of(&mut self, schema: &'a Value, depth: usize) -> Value {
        let list = |name: &str| schema[name].as_array().and_then(|all| all.first());
        if self.values == 0 {
            return Value::Null;
        }
        self.values -= 1;
        if depth > DEEPEST {
            return Value::Null;
        }
        if let Some(reference) = schema["$ref"].as_str() {
            if !self.spend(reference.len()) {
                return Value::Null;
            }
            let root = self.root;
            let found = reference.strip_prefix('#').and_then(|place| root.pointer(place));
            return found.map_or(Value::Null, |schema| self.of(schema, depth + 1));
        }
        if let Some(value) = schema.get("const").or_else(|| list("enum")) {
            return self.quoted(value);
        }
        if let Some(schema) = list("anyOf").or_else(|| list("oneOf")).or_else(|| list("allOf")) {
            return self.of(schema, depth + 1);
        }
        let kind = match &schema["type"] {
            Value::Array(kinds) => kinds.first().and_then(Value::as_str),
            kind => kind.as_str(),
        };
        match kind {
            Some("string") => self.text(schema),
            Some("integer") => number(schema)
                .ceil()
                .clamp(i64::MIN as f64, i64::MAX as f64)
                .to_string()
                .parse::<i64>()
                .unwrap_or(1)
                .into(),
            Some("number") => number(schema).into(),
            Some("boolean") => true.into(),
            Some("array") => {
                let least = schema["minItems"].as_u64().unwrap_or(1);
                let most = schema["maxItems"].as_u64().unwrap_or(least.max(1));
                let count = least.max(1).min(most).min(MOST_ITEMS);
                (0..count).map(|_| self.of(&schema["items"], depth + 1)).collect()
            }
            Some("object") => self.object(schema, depth),
            None if schema["properties"].is_object() => self.object(schema, depth),
            None if schema.is_object() => self.text(schema),
            _ => Value::Null,
        }
    }

    fn object(&mut self, schema: &'a Value, depth: usize) -> Value {
        let mut object = Map::new();
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            if !self.spend(name.len()) {
                break;
            }
            object.insert(name.clone(), self.of(schema, depth + 1));
        }
        object.into()
    }

    /// The next that there is to say, as long as it may be.
    fn text(&mut self, schema: &Value) -> Value {
        let text = &self.texts[self.said % self.texts.len()];
        self.said += 1;
        let length = |name: &str| schema[name].as_u64().and_then(|length| usize::try_from(length).ok());
        let least = length("minLength").unwrap_or(0).min(LONGEST);
        let dots = 0..least.saturating_sub(text.chars().count());
        let long = text.chars().chain(dots.map(|_| '.'));
        let text: String = long.take(length("maxLength").unwrap_or(usize::MAX)).collect();
        if self.spend(text.len()) { text.into() } else { Value::Null }
    }
}

/// One, or as near to it as it may be.
fn number(schema: &Value) -> f64 {
    let bound = |name: &str| schema[name].as_f64();
    let least = bound("minimum").or_else(|| bound("exclusiveMinimum").map(|least| least + 1.0));
    let most = bound("maximum").or_else(|| bound("exclusiveMaximum").map(|most| most - 1.0));
    let number = least.map_or(1.0, |least| least.max(1.0));
    most.map_or(number, |most| number.min(most))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_it_makes_up_fits() {
        let schema = json!({
            "type": "object",
            "properties": {
                "kind": {"enum": ["dam", "weir"]},
                "size": {"type": "integer", "minimum": 3, "maximum": 9},
                "share": {"type": ["number", "null"], "maximum": 0.5},
                "parts": {"type": "array", "minItems": 2, "items": {"$ref": "#/$defs/part"}},
                "open": {"type": "boolean"},
                "either": {"anyOf": [{"const": 7}, {"type": "string"}]},
            },
            "$defs": {"part": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 7}}}},
        });
        let made = of(&schema, &[]);
        let wanted = json!({
            "kind": "dam", "size": 3, "share": 0.5, "parts": [{"name": "offline"}, {"name": "offline"}], "open": true,
            "either": 7,
        });
        assert_eq!(made, wanted);
    }

    #[test]
    fn a_schema_without_an_end_has_one() {
        let schema = json!({"type": "object", "properties": {"next": {"$ref": "#"}}});
        assert!(of(&schema, &[]).is_object());
        for schema in [json!(true), json!({}), json!({"type": "nonsense"}), json!({"$ref": "elsewhere"})] {
            of(&schema, &[]);
        }
    }

    #[test]
    fn a_schema_that_wants_more_than_there_is_gets_as_much() {
        fn values(value: &Value) -> usize {
            1 + match value {
                Value::Array(all) => all.iter().map(values).sum(),
                Value::Object(all) => all.values().map(values).sum(),
                _ => 0,
            }
        }
        let many = |property: &Value, name: &str| -> Value {
            (0..200).map(|n| (format!("{name}{n}"), property.clone())).collect::<Map<_, _>>().into()
        };
        let root = json!({"$ref": "#"});
        let long = "x".repeat(20_000);
        let mut deep = json!({"const": long});
        for _ in 0..12 {
            deep = json!({"type": "array", "minItems": u64::MAX, "items": deep});
        }
        for (what, schema) in [
            ("items", json!({"type": "array", "minItems": u64::MAX, "items": {"type": "boolean"}})),
            ("items of items", json!({"type": "array", "minItems": 1_000_000, "items": root})),
            ("items of constants", deep),
            ("branches", json!({"type": "object", "properties": many(&root, "p")})),
            ("names", json!({"type": "object", "properties": {long.clone(): root, "z": root}})),
            ("texts", json!({"properties": {"a": {"minLength": u64::MAX}, "b": root, "c": root}})),
            ("constants", json!({"properties": {"a": {"enum": [long]}, "b": root, "c": root}})),
            ("places", json!({"properties": many(&json!({"$ref": format!("#/{long}")}), "p")})),
        ] {
            let began = std::time::Instant::now();
            let made = of(&schema, &[]);
            let (took, count, size) = (began.elapsed(), values(&made), made.to_string().len());
            // Those of the last object or array on each level are counted by nobody.
            assert!(count < 2 * MOST, "{what}: {count} values");
            assert!(size < 2 * MOST_BYTES, "{what}: {size} bytes");
            assert!(took < std::time::Duration::from_secs(2), "{what}: {took:?}");
        }
    }
}
