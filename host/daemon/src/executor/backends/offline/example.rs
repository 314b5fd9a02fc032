//! Something that fits a JSON schema, as far as the usual keywords go: what a server that holds to schemas would have answered.

use serde_json::{Map, Value};

use super::{HONEST, plan::Step};

/// Schemas that refer to themselves have no end.
const DEEPEST: usize = 16;

pub(super) fn of(schema: &Value, steps: &[Step]) -> Value {
    Example { root: schema, texts: texts(steps), said: 0 }.of(schema, 0)
}

/// What texts there are to say.
fn texts(steps: &[Step]) -> Vec<String> {
    [format!("offline: {HONEST}")].into_iter().chain(steps.iter().map(|step| step.title.clone())).collect()
}

struct Example<'a> {
    root: &'a Value,
    texts: Vec<String>,
    said: usize,
}

impl<'a> Example<'a> {
    fn of(&mut self, schema: &'a Value, depth: usize) -> Value {
        let list = |name: &str| schema[name].as_array().and_then(|all| all.first());
        if depth > DEEPEST {
            return Value::Null;
        }
        if let Some(reference) = schema["$ref"].as_str() {
            let root = self.root;
            let found = reference.strip_prefix('#').and_then(|place| root.pointer(place));
            return found.map_or(Value::Null, |schema| self.of(schema, depth + 1));
        }
        if let Some(value) = schema.get("const").or_else(|| list("enum")) {
            return value.clone();
        }
        if let Some(schema) = list("anyOf").or_else(|| list("oneOf")).or_else(|| list("allOf")) {
            return self.of(schema, depth + 1);
        }
        let kind = match &schema["type"] {
            Value::Array(kinds) => kinds.first().and_then(Value::as_str),
            kind => kind.as_str(),
        };
        match kind {
            Some("string") => self.text(schema).into(),
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
                (0..least.max(1).min(most)).map(|_| self.of(&schema["items"], depth + 1)).collect()
            }
            Some("object") => self.object(schema, depth),
            None if schema["properties"].is_object() => self.object(schema, depth),
            None if schema.is_object() => self.text(schema).into(),
            _ => Value::Null,
        }
    }

    fn object(&mut self, schema: &'a Value, depth: usize) -> Value {
        let mut object = Map::new();
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            object.insert(name.clone(), self.of(schema, depth + 1));
        }
        object.into()
    }

    /// The next that there is to say, as long as it may be.
    fn text(&mut self, schema: &Value) -> String {
        let mut text = self.texts[self.said % self.texts.len()].clone();
        self.said += 1;
        let length = |name: &str| schema[name].as_u64().and_then(|length| usize::try_from(length).ok());
        while text.chars().count() < length("minLength").unwrap_or(0).min(4096) {
            text.push('.');
        }
        match length("maxLength") {
            Some(most) => text.chars().take(most).collect(),
            None => text,
        }
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
}
