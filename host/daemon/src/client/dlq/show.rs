//! `cofferdam dlq show`: all of one dead letter.

use std::{
    io::{self, Write},
    time::{Duration, SystemTime},
};

use anyhow::{Context, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use fleet_proto::admin::v1::{ShowRequest, ShowResponse, Summary};
use serde_json::{Map, Value, json};

use super::{
    super::{
        door::Door,
        lines::{print, shown, time},
    },
    ANSWER, ShowArgs,
};

/// A number from here on is a time, in nanoseconds since the epoch: 2001.
const TIME: u64 = 1_000_000_000_000_000_000;

pub(super) async fn show(mut door: Door, args: ShowArgs) -> anyhow::Result<()> {
    let id = args.id;
    let Ok(answer) = tokio::time::timeout(ANSWER, door.letters.show(ShowRequest { id })).await else {
        bail!("no answer within {ANSWER:?}; try again");
    };
    let found = answer.map_err(|status| door.told(&status))?.into_inner();
    let mut out = io::stdout();
    if args.payload {
        let Some(payload) = found.payload else {
            bail!(
                "dead letter {id} has left its payload out: it was too large; `cofferdam dlq show {id}` says where it is"
            );
        };
        return match out.write_all(&payload).and_then(|()| out.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(error).context("standard output can't be written")
            }
            _ => Ok(()),
        };
    }
    let text = if args.json { document(&found)?.to_string() } else { text(&found) };
    print(&mut out, &text).map(drop)
}

/// The letter as it is stored, with its id and time.
fn document(found: &ShowResponse) -> anyhow::Result<Value> {
    let summary = found.summary.clone().unwrap_or_default();
    let letter: Value = serde_json::from_slice(&found.letter).unwrap_or(Value::Null);
    let mut object = Map::new();
    object.insert("id".into(), summary.id.into());
    object.insert("time".into(), stored(&summary).into());
    match letter {
        Value::Object(fields) => object.extend(fields),
        // Whatever it is.
        _ => drop(object.insert("letter_base64".into(), STANDARD.encode(&found.letter).into())),
    }
    Ok(Value::Object(object))
}

fn stored(summary: &Summary) -> String {
    humantime::format_rfc3339_nanos(time(summary.stored_at.as_ref())).to_string()
}

/// What is asked for first stands first, whatever else the letter tells after it, and the payload last.
const ORDER: [&str; 5] = ["plugin", "outcome", "fault", "reason", "attempts"];

fn text(found: &ShowResponse) -> String {
    let summary = found.summary.clone().unwrap_or_default();
    let letter: Value = serde_json::from_slice(&found.letter)
        .unwrap_or_else(|_| json!({ "plugin": summary.plugin, "reason": summary.reason }));
    let empty = Map::new();
    let fields = letter.as_object().unwrap_or(&empty);
    let mut lines =
        Lines(vec![("dead letter".into(), format!("{}, stored {}", summary.id, stored(&summary)))]);
    for name in ORDER {
        lines.add(name, fields.get(name));
    }
    let nested = |name: &&String| matches!(name.as_str(), "event" | "effect");
    for name in fields.keys().filter(|name| !ORDER.contains(&name.as_str()) && !nested(name)) {
        lines.add(name, fields.get(name));
    }
    let mut omitted = None;
    for name in fields.keys().filter(nested) {
        let Some(of) = fields.get(name).and_then(Value::as_object) else { continue };
        for (part, value) in of {
            match part.as_str() {
                "data" => omitted = value["omitted_bytes"].as_u64(),
                "headers" => lines.headers(value),
                _ => lines.add(&format!("{name} {part}"), Some(value)),
            }
        }
    }
    format!("{}\n\n{}", lines.text(), payload(found.payload.as_deref(), omitted))
}

/// Names and values under each other.
struct Lines(Vec<(String, String)>);

impl Lines {
    fn add(&mut self, name: &str, value: Option<&Value>) {
        let text = match value {
            None | Some(Value::Null) => return,
            Some(Value::Object(parts)) => {
                for (part, value) in parts {
                    self.add(&format!("{name} {part}"), Some(value));
                }
                return;
            }
            Some(Value::String(text)) => shown(text.as_bytes()),
            Some(Value::Number(number)) => match number.as_u64().filter(|n| *n >= TIME) {
                Some(nanos) => {
                    let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos);
                    humantime::format_rfc3339_nanos(at).to_string()
                }
                None => number.to_string(),
            },
            Some(other) => shown(other.to_string().as_bytes()),
        };
        self.0.push((name.replace('_', " "), text));
    }

    fn headers(&mut self, headers: &Value) {
        for pair in headers.as_array().into_iter().flatten() {
            let (name, value) = (pair[0].as_str().unwrap_or_default(), pair[1].as_str().unwrap_or_default());
            self.0.push(("header".into(), shown(format!("{name}: {value}").as_bytes())));
        }
    }

    fn text(&self) -> String {
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let lines: Vec<String> =
            self.0.iter().map(|(name, value)| format!("{name:width$}  {value}")).collect();
        lines.join("\n")
    }
}

/// JSON is laid out, text is text, and the rest base64.
fn payload(payload: Option<&[u8]>, omitted: Option<u64>) -> String {
    let Some(payload) = payload else {
        return match omitted {
            Some(bytes) => format!("payload: {bytes} bytes, left out; its stream may still hold it"),
            None => "payload: none is known".to_owned(),
        };
    };
    let size = payload.len();
    if let Ok(json @ (Value::Object(_) | Value::Array(_))) = serde_json::from_slice::<Value>(payload) {
        let laid_out = serde_json::to_string_pretty(&json).unwrap_or_default();
        return format!("payload: {size} bytes, JSON\n{}", plain(&laid_out));
    }
    match std::str::from_utf8(payload) {
        Ok("") => "payload: empty".to_owned(),
        Ok(text) => format!("payload: {size} bytes, text\n{}", plain(text)),
        Err(_) => format!("payload: {size} bytes, in base64\n{}", STANDARD.encode(payload)),
    }
}

/// In its lines, each as no terminal takes it for a command.
fn plain(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| shown(line.as_bytes())).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(letter: &Value, payload: Option<&'static [u8]>) -> ShowResponse {
        let summary = Summary { id: 7, ..Summary::default() };
        ShowResponse {
            summary: Some(summary),
            letter: letter.to_string().into(),
            payload: payload.map(bytes::Bytes::from_static),
        }
    }

    #[test]
    fn everything_is_shown_under_its_name_and_the_payload_last() {
        let letter = json!({
            "attempts": 2, "outcome": "rejected", "plugin": "p", "reason": "no\u{1b}", "new_thing": [1], "times": { "b_c": "x", "d": null },
            "fault": null,
            "event": { "id": "0a.1", "headers": [["A", "1"]], "timestamp": 1_700_000_000_000_000_001_u64,
                       "data": { "text": "..." } },
        });
        assert_eq!(
            text(&found(&letter, Some(b"{\"a\":\"\\u001b\"}"))),
            "dead letter      7, stored 1970-01-01T00:00:00.000000000Z\n\
             plugin           p\n\
             outcome          rejected\n\
             reason           no\\u{1b}\n\
             attempts         2\n\
             new thing        [1]\n\
             times b c        x\n\
             header           A: 1\n\
             event id         0a.1\n\
             event timestamp  2023-11-14T22:13:20.000000001Z\n\
             \n\
             payload: 14 bytes, JSON\n{\n  \"a\": \"\\u001b\"\n}"
        );
    }

    #[test]
    fn a_payload_is_shown_as_what_it_is() {
        for (data, shown) in [
            (&b""[..], "payload: empty"),
            (b"a\n\x07b", "payload: 4 bytes, text\na\n\\u{7}b"),
            (&[0, 255], "payload: 2 bytes, in base64\nAP8="),
            (b"7", "payload: 1 bytes, text\n7"),
        ] {
            assert_eq!(payload(Some(data), None), shown);
        }
        assert!(payload(None, Some(5)).starts_with("payload: 5 bytes, left out"));
    }

    #[test]
    fn json_is_the_letter_as_it_is_stored() {
        let told = document(&found(&json!({ "plugin": "p" }), None)).unwrap();
        assert_eq!((&told["id"], &told["plugin"]), (&json!(7), &json!("p")));
        let odd = ShowResponse { letter: bytes::Bytes::from_static(b"\xff"), ..found(&json!({}), None) };
        assert_eq!(document(&odd).unwrap()["letter_base64"], "/w==");
    }
}
