//! How a model is to answer, as a client says it: the fleet's contract has no fields for it, so it is in a request's metadata.

use std::{collections::BTreeMap, str::FromStr};

use cofferdam_sandbox::{Format, Priority, Sampling};
use serde_json::Value;
use tonic::Status;

use super::request::refused;
use crate::executor::sampling::check;

/// Before the names that mean something here. All others are the client's own, and come back in the result.
const PREFIX: &str = "cofferdam-";
const NAMES: [&str; 6] = ["temperature", "max-tokens", "stop", "seed", "format", "priority"];

pub(in crate::executor) fn read(metadata: &BTreeMap<String, String>) -> Result<(Sampling, Priority), Status> {
    let (mut sampling, mut priority) = (Sampling::default(), Priority::default());
    for (key, value) in metadata {
        let Some(name) = key.strip_prefix(PREFIX) else { continue };
        match name {
            "temperature" => sampling.temperature = Some(parsed(key, value, "a number from 0 to 2")?),
            "max-tokens" => sampling.max_tokens = Some(parsed(key, value, "a number of tokens, at least 1")?),
            "seed" => sampling.seed = Some(parsed(key, value, "a whole number")?),
            "stop" => sampling.stop = stops(key, value)?,
            "format" => sampling.format = format(key, value.trim())?,
            "priority" => {
                priority = match value.trim() {
                    "low" => Priority::Low,
                    "normal" => Priority::Normal,
                    "high" => Priority::High,
                    _ => return Err(wrong(key, value, "low, normal or high")),
                }
            }
            _ => {
                let known: Vec<String> = NAMES.iter().map(|name| format!("{PREFIX}{name}")).collect();
                return Err(Status::invalid_argument(format!(
                    "constraints.metadata has {key:?}, and of the names that begin with {PREFIX:?} only these mean something: \
                     {}; correct it, or name it otherwise",
                    known.join(", ")
                )));
            }
        }
        // Key by key, so that it is known which one is wrong.
        check(&sampling).map_err(|error| within(key, &refused(error)))?;
    }
    Ok((sampling, priority))
}

fn parsed<T: FromStr>(key: &str, value: &str, wanted: &str) -> Result<T, Status> {
    value.trim().parse().map_err(|_| wrong(key, value, wanted))
}

/// One text as it is, with the white space that is its own, or several as a list in JSON.
fn stops(key: &str, value: &str) -> Result<Vec<String>, Status> {
    match value.starts_with('[') {
        true => {
            serde_json::from_str(value).map_err(|_| wrong(key, value, "one text, or a list of texts in JSON"))
        }
        false => Ok(vec![value.to_owned()]),
    }
}

fn format(key: &str, value: &str) -> Result<Format, Status> {
    let wanted = "text, json, or a JSON schema";
    match value {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        schema => match serde_json::from_str(schema) {
            Ok(Value::Object(fields)) => {
                let title =
                    fields.get("title").and_then(Value::as_str).map(name).filter(|name| !name.is_empty());
                let name = title.unwrap_or_else(|| "answer".to_owned());
                Ok(Format::Schema { name, schema: schema.to_owned(), strict: true })
            }
            _ => Err(wrong(key, value, wanted)),
        },
    }
}

/// As endpoints want a schema's name.
fn name(title: &str) -> String {
    let fine = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    title.chars().take(64).map(fine).collect()
}

fn within(key: &str, status: &Status) -> Status {
    Status::new(status.code(), format!("constraints.metadata {key:?}: {}", status.message()))
}

fn wrong(key: &str, value: &str, wanted: &str) -> Status {
    let value = &value[..value.floor_char_boundary(64)];
    Status::invalid_argument(format!(
        "constraints.metadata {key:?} is {value:?}; give {wanted}, or leave it out"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<(Sampling, Priority), String> {
        let metadata = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        read(&metadata).map_err(|status| status.message().to_owned())
    }

    #[test]
    fn metadata_say_how_a_model_answers() {
        let (sampling, priority) = of(&[
            ("mine", "not ours"),
            ("cofferdam-temperature", "0.5"),
            ("cofferdam-max-tokens", "100"),
            ("cofferdam-seed", "-7"),
            ("cofferdam-stop", r#"["END", "---"]"#),
            ("cofferdam-format", "json"),
            ("cofferdam-priority", "low"),
        ])
        .unwrap();
        let expected = Sampling {
            temperature: Some(0.5),
            max_tokens: Some(100),
            stop: vec!["END".into(), "---".into()],
            seed: Some(-7),
            format: Format::Json,
        };
        assert_eq!((sampling, priority), (expected, Priority::Low));
        assert_eq!(of(&[("task_id", "t"), ("attempt", "1")]), Ok((Sampling::default(), Priority::Normal)));
        for stop in ["END", "\n\n", " END "] {
            assert_eq!(of(&[("cofferdam-stop", stop)]).unwrap().0.stop, [stop], "as it is");
        }
        assert_eq!(of(&[("cofferdam-seed", " 7 ")]).unwrap().0.seed, Some(7));
    }

    #[test]
    fn a_schema_is_named_by_its_title() {
        for (schema, expected) in
            [(r#"{"title": "A task!", "type": "object"}"#, "A_task_"), (r#"{"type": "object"}"#, "answer")]
        {
            let format = of(&[("cofferdam-format", schema)]).unwrap().0.format;
            let expected = Format::Schema { name: expected.into(), schema: schema.into(), strict: true };
            assert_eq!(format, expected);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_name() {
        for (key, value, why) in [
            ("cofferdam-temperature", "hot", "a number from 0 to 2"),
            ("cofferdam-temperature", "NaN", "temperature is NaN; it has to be from 0 to 2"),
            ("cofferdam-temperature", "2.1", "temperature is 2.1; it has to be from 0 to 2"),
            ("cofferdam-max-tokens", "0", "at least one"),
            ("cofferdam-max-tokens", "-1", "at least 1"),
            ("cofferdam-seed", "1.5", "a whole number"),
            ("cofferdam-stop", "[1]", "a list of texts in JSON"),
            ("cofferdam-stop", "", "a text of stop is empty"),
            ("cofferdam-stop", r#"["a","b","c","d","e"]"#, "5 texts, more than 4"),
            ("cofferdam-stop", &"x".repeat(257), "257 bytes, more than 256"),
            ("cofferdam-format", "xml", "a JSON schema"),
            ("cofferdam-format", "[]", "a JSON schema"),
            ("cofferdam-priority", "1", "low, normal or high"),
            ("cofferdam-top-p", "1", "only these mean something: cofferdam-temperature"),
        ] {
            let told = of(&[(key, value)]).unwrap_err();
            assert!(told.contains(key) && told.contains(why), "{told}");
        }
    }
}
