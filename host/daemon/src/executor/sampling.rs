//! How a model is to answer, whoever asks for it.

use cofferdam_sandbox::{ExecutorError, Format, Sampling};
use serde_json::Value;

use super::limits::within;
use crate::observe::text;

/// More no endpoint takes.
const MAX_STOPS: usize = 4;
const MAX_STOP: usize = 256;
const MAX_SCHEMA: usize = 32 << 10;
const MAX_SCHEMA_NAME: usize = 64;

pub(crate) fn check(sampling: &Sampling) -> Result<(), ExecutorError> {
    // Not a number is in no range.
    if let Some(temperature) = sampling.temperature.filter(|t| !(0.0..=2.0).contains(t)) {
        return invalid(format!("temperature is {temperature}; it has to be from 0 to 2"));
    }
    if sampling.max_tokens == Some(0) {
        return invalid("max-tokens is 0; ask for at least one, or leave it out".into());
    }
    if sampling.stop.len() > MAX_STOPS {
        let count = sampling.stop.len();
        return Err(ExecutorError::Limit(format!("stop has {count} texts, more than {MAX_STOPS}")));
    }
    for stop in &sampling.stop {
        if stop.is_empty() {
            return invalid("a text of stop is empty; nothing would be answered".into());
        }
        within("a text of stop", stop.len(), MAX_STOP)?;
    }
    match &sampling.format {
        Format::Text | Format::Json => Ok(()),
        Format::Schema { name, schema, .. } => check_schema(name, schema),
    }
}

fn check_schema(name: &str, schema: &str) -> Result<(), ExecutorError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if name.is_empty() || name.len() > MAX_SCHEMA_NAME || !name.bytes().all(plain) {
        let shown = text::excerpt(name, MAX_SCHEMA_NAME);
        return invalid(format!(
            "{shown:?} is not the name of a schema; write 1 to {MAX_SCHEMA_NAME} letters, digits, _ and -"
        ));
    }
    within("the schema", schema.len(), MAX_SCHEMA)?;
    match serde_json::from_str::<Value>(schema) {
        Ok(Value::Object(_)) => Ok(()),
        Ok(_) => invalid(format!("the schema {name:?} is not a JSON object")),
        Err(error) => invalid(format!("the schema {name:?} is no JSON: {error}")),
    }
}

fn invalid(why: String) -> Result<(), ExecutorError> {
    Err(ExecutorError::Invalid(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(name: &str, schema: &str) -> Sampling {
        let format = Format::Schema { name: name.into(), schema: schema.into(), strict: true };
        Sampling { format, ..Sampling::default() }
    }

    #[test]
    fn what_no_endpoint_would_take_is_refused_here() {
        let with = |temperature| Sampling { temperature: Some(temperature), ..Sampling::default() };
        let stop = |stop: &[&str]| Sampling {
            stop: stop.iter().map(|s| (*s).to_owned()).collect(),
            ..Sampling::default()
        };
        for (said, sampling) in [
            ("temperature is -0.1", with(-0.1)),
            ("temperature is 2.1", with(2.1)),
            ("temperature is NaN", with(f32::NAN)),
            ("max-tokens is 0", Sampling { max_tokens: Some(0), ..Sampling::default() }),
            ("5 texts, more than 4", stop(&["a"; 5])),
            ("is empty", stop(&["a", ""])),
            ("257 bytes, more than 256", stop(&["x".repeat(257).as_str()])),
            ("not the name of a schema", schema("a name", "{}")),
            ("not the name of a schema", schema("", "{}")),
            ("not a JSON object", schema("list", "[]")),
            ("is no JSON", schema("broken", "{")),
            ("more than 32768", schema("long", &" ".repeat(32769))),
        ] {
            let why = check(&sampling).expect_err(said).to_string();
            assert!(why.contains(said), "{why}");
        }
        for fine in [with(0.0), with(2.0), stop(&["a"; 4]), schema("a_B-1", "{}"), Sampling::default()] {
            assert_eq!(check(&fine), Ok(()), "{fine:?}");
        }
    }
}
