//! JSON of a proposal, held against the schema that the task gives: in the metadata under `schema`, or as its rubric. The words of
//! JSON Schema that are in common use; others are told, and hold of everything.

use std::collections::BTreeSet;

use fleet_proto::orchestrator::v1::TaskConstraints;
use serde_json::{Map, Value};

use super::Report;
use crate::text::{Part, fences, is_deep};

/// Comparisons of one proposal, so that no schema times no value is too much.
const MOST_STEPS: usize = 200_000;
/// A schema may be long, for all proposals it is read again.
const MOST_SCHEMA_BYTES: usize = 64 << 10;

const KNOWN: [&str; 16] = [
    "type",
    "properties",
    "required",
    "items",
    "enum",
    "const",
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "additionalProperties",
    "title",
    "description",
    "$schema",
];

pub(super) fn run(
    content: &str,
    parts: &[Part<'_>],
    constraints: Option<&TaskConstraints>,
    report: &mut Report,
) {
    let Some(schema) = constraints.and_then(|constraints| given(constraints, report)) else { return };
    let whole = read(content.trim());
    let blocks = || fences(parts).filter(|fence| fence.is(&["json", ""]));
    // The first that is JSON: what an agent answers with comes before what it adds.
    let value = whole.or_else(|| blocks().find_map(|fence| read(&fence.dedented())));
    let Some(value) = value else {
        report.ran.push("schema: of the task".into());
        report.faults.add(|| "the task gives a schema, and the proposal has no JSON that can be read".into());
        return;
    };
    let mut against = Against::default();
    let outcome = against.check(&value, &schema, "$");
    let told = match against.unknown.len() {
        0 => String::new(),
        _ => {
            format!("; not checked: {}", against.unknown.into_iter().take(10).collect::<Vec<_>>().join(", "))
        }
    };
    report.ran.push(format!("schema: of the task, against the proposal's JSON{told}"));
    if let Err(fault) = outcome {
        report.faults.add(|| fault);
    }
}

/// Nothing for what is no JSON, or too deep.
fn read(text: &str) -> Option<Value> {
    if is_deep(text) { None } else { serde_json::from_str(text).ok() }
}

/// The task's schema. One that can't be read is the task's fault, not the proposal's.
fn given(constraints: &TaskConstraints, report: &mut Report) -> Option<Value> {
    if let Some(text) = constraints.metadata.get("schema").filter(|text| !text.trim().is_empty()) {
        if text.len() <= MOST_SCHEMA_BYTES
            && let Some(schema @ (Value::Object(_) | Value::Bool(_))) = read(text)
        {
            return Some(schema);
        }
        report.ran.push("schema: the task's can't be read, and is left out".into());
        return None;
    }
    let rubric = constraints.rubric.trim();
    if !rubric.starts_with('{') || rubric.len() > MOST_SCHEMA_BYTES {
        return None;
    }
    let Some(Value::Object(mut rubric)) = read(rubric) else { return None };
    match rubric.remove("schema") {
        Some(schema @ Value::Object(_)) => Some(schema),
        _ if ["properties", "required", "items"].iter().any(|word| rubric.contains_key(*word)) => {
            Some(Value::Object(rubric))
        }
        _ => None,
    }
}

#[derive(Default)]
struct Against {
    steps: usize,
    unknown: BTreeSet<String>,
}

impl Against {
    fn step(&mut self, steps: usize) -> Result<(), String> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > MOST_STEPS {
            return Err(format!(
                "the JSON takes more than {MOST_STEPS} comparisons to hold against the task's schema"
            ));
        }
        Ok(())
    }

    /// Goes no deeper than the schema, which is not deep.
    fn check(&mut self, value: &Value, schema: &Value, at: &str) -> Result<(), String> {
        self.step(1)?;
        let schema = match schema {
            Value::Bool(false) => return Err(format!("{at} may not be there")),
            Value::Object(schema) => schema,
            _ => return Ok(()),
        };
        self.step(schema.len())?;
        for word in schema.keys().filter(|word| !KNOWN.contains(&word.as_str())).take(10) {
            if self.unknown.len() < 10 {
                self.unknown.insert(word.chars().take(40).collect());
            }
        }
        kind(value, schema, at)?;
        self.equal(value, schema, at)?;
        bounds(value, schema, at)?;
        match value {
            Value::Object(object) => self.object(object, schema, at)?,
            Value::Array(items) => {
                if let Some(each) = schema.get("items") {
                    for (n, item) in items.iter().enumerate() {
                        self.check(item, each, &inside(at, &n.to_string()))?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn equal(&mut self, value: &Value, schema: &Map<String, Value>, at: &str) -> Result<(), String> {
        if let Some(wanted) = schema.get("const") {
            self.step(weight(wanted))?;
            if value != wanted {
                return Err(format!("{at} is not the value that is required"));
            }
        }
        if let Some(Value::Array(wanted)) = schema.get("enum") {
            self.step(wanted.iter().map(weight).sum())?;
            if !wanted.contains(value) {
                return Err(format!("{at} is none of the {} values that it may be", wanted.len()));
            }
        }
        Ok(())
    }

    fn object(
        &mut self,
        object: &Map<String, Value>,
        schema: &Map<String, Value>,
        at: &str,
    ) -> Result<(), String> {
        if let Some(Value::Array(required)) = schema.get("required") {
            self.step(required.len())?;
            if let Some(missing) =
                required.iter().filter_map(Value::as_str).find(|name| !object.contains_key(*name))
            {
                return Err(format!("{at} has no {missing:?}"));
            }
        }
        let empty = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        let others = schema.get("additionalProperties");
        for (name, value) in object {
            if let Some(schema) = properties.get(name).or(others) {
                self.check(value, schema, &inside(at, name))?;
            }
        }
        Ok(())
    }
}

/// For people: long paths are cut.
fn inside(at: &str, name: &str) -> String {
    if at.len() > 120 { at.to_owned() } else { format!("{at}.{}", name.chars().take(40).collect::<String>()) }
}

/// How many values there are in one, itself included; texts by their length.
fn weight(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(weight).sum::<usize>(),
        Value::Object(object) => 1 + object.values().map(weight).sum::<usize>(),
        Value::String(text) => 1 + text.len() / 64,
        _ => 1,
    }
}

fn kind(value: &Value, schema: &Map<String, Value>, at: &str) -> Result<(), String> {
    let is = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        _ => true,
    };
    let (fits, wanted) = match schema.get("type") {
        Some(Value::String(name)) => (is(name), name.as_str()),
        Some(Value::Array(names)) => {
            (names.iter().take(8).filter_map(Value::as_str).any(is), "one of its types")
        }
        _ => return Ok(()),
    };
    if fits { Ok(()) } else { Err(format!("{at} is not {}", wanted.chars().take(40).collect::<String>())) }
}

fn bounds(value: &Value, schema: &Map<String, Value>, at: &str) -> Result<(), String> {
    let limit = |word: &str| schema.get(word).and_then(Value::as_f64);
    let (size, least, most) = match value {
        Value::Array(items) => (items.len() as f64, limit("minItems"), limit("maxItems")),
        Value::String(text) if limit("minLength").or(limit("maxLength")).is_some() => {
            (text.chars().count() as f64, limit("minLength"), limit("maxLength"))
        }
        Value::Number(number) => (number.as_f64().unwrap_or_default(), limit("minimum"), limit("maximum")),
        _ => return Ok(()),
    };
    if least.is_some_and(|least| size < least) {
        return Err(format!("{at} is {size}, less than {}", least.unwrap_or_default()));
    }
    if most.is_some_and(|most| size > most) {
        return Err(format!("{at} is {size}, more than {}", most.unwrap_or_default()));
    }
    Ok(())
}
