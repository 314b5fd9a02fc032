//! What is printed of a message: one line each, for people or for programs.

use std::{
    fmt::Write as _,
    io::{self, Write},
    time::{Duration, SystemTime},
};

use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use fleet_proto::bus::v1::{Header, Message, StoredMessage};
use prost_types::Timestamp;
use serde_json::{Map, Value, json};

/// Writes a line at once; false if nobody reads any more, which is no error.
pub(super) fn print(out: &mut impl Write, line: &str) -> anyhow::Result<bool> {
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("standard output can't be written"),
    }
}

/// For whoever watches; the output itself stays clean.
pub(super) fn note(text: &str) {
    // Where standard error is gone, nobody is there to tell.
    writeln!(io::stderr(), "cofferdam: {text}").unwrap_or_default();
}

/// A message as it came: live, or stored.
#[derive(Debug)]
pub(super) enum Seen {
    Live(Message),
    Stored(StoredMessage),
}

impl Seen {
    /// Time, subject and data; of a live message the time at which it came.
    pub(super) fn text(&self) -> String {
        let (message, time) = match self {
            Seen::Live(message) => (message, SystemTime::now()),
            Seen::Stored(stored) => (message(stored), time(stored.stored_at.as_ref())),
        };
        let time = humantime::format_rfc3339_millis(time);
        format!("{time}  {}  {}", message.subject, shown(&message.data))
    }

    /// One object, with `data` if it is JSON or text, else `data_base64`; of a stored message with its place.
    pub(super) fn json(&self) -> Value {
        let message = match self {
            Seen::Live(message) => message,
            Seen::Stored(stored) => message(stored),
        };
        let mut object = Map::new();
        object.insert("subject".to_owned(), message.subject.clone().into());
        object.insert("headers".to_owned(), headers(&message.headers));
        match (serde_json::from_slice(&message.data), std::str::from_utf8(&message.data)) {
            (Ok(value), _) => object.insert("data".to_owned(), value),
            (_, Ok(text)) => object.insert("data".to_owned(), text.into()),
            _ => object.insert("data_base64".to_owned(), STANDARD.encode(&message.data).into()),
        };
        if let Seen::Stored(stored) = self {
            object.insert("stream".to_owned(), stored.stream.clone().into());
            object.insert("sequence".to_owned(), stored.sequence.into());
            let time = humantime::format_rfc3339_nanos(time(stored.stored_at.as_ref()));
            object.insert("time".to_owned(), time.to_string().into());
        }
        Value::Object(object)
    }
}

fn message(stored: &StoredMessage) -> &Message {
    static NONE: Message = Message { subject: String::new(), headers: Vec::new(), data: bytes::Bytes::new() };
    stored.message.as_ref().unwrap_or(&NONE)
}

pub(super) fn time(at: Option<&Timestamp>) -> SystemTime {
    let since = at.and_then(|t| Some(Duration::new(t.seconds.try_into().ok()?, t.nanos.try_into().ok()?)));
    SystemTime::UNIX_EPOCH + since.unwrap_or_default()
}

/// Name to value; to a list of them where a name is repeated.
fn headers(headers: &[Header]) -> Value {
    let mut all: Map<String, Value> = Map::new();
    for Header { name, value } in headers {
        match all.get_mut(name) {
            None => drop(all.insert(name.clone(), value.as_str().into())),
            Some(Value::Array(values)) => values.push(value.as_str().into()),
            Some(first) => *first = json!([first.take(), value]),
        }
    }
    Value::Object(all)
}

/// As text on one line that no terminal takes for a command.
pub(super) fn shown(data: &[u8]) -> String {
    let mut line = String::new();
    for letter in String::from_utf8_lossy(data).chars() {
        if letter.is_control() || is_unseen(letter) {
            write!(line, "{}", letter.escape_default()).unwrap_or_default();
        } else {
            line.push(letter);
        }
    }
    line
}

/// It has no shape of its own, and what stands beside it may look like something else: format characters, those that turn the
/// direction of writing among them, and separators of lines.
fn is_unseen(letter: char) -> bool {
    matches!(letter,
        '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}' | '\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(headers: &[(&str, &str)], data: &[u8]) -> Message {
        let header = |(name, value): &(&str, &str)| Header { name: (*name).into(), value: (*value).into() };
        Message {
            subject: "a.b".to_owned(),
            headers: headers.iter().map(header).collect(),
            data: data.to_vec().into(),
        }
    }

    fn stored(data: &[u8]) -> Seen {
        Seen::Stored(StoredMessage {
            message: Some(live(&[], data)),
            stream: "S".to_owned(),
            sequence: 7,
            stored_at: Some(Timestamp { seconds: 1_700_000_000, nanos: 42 }),
        })
    }

    #[test]
    fn json_is_an_object_with_all_that_is_known() {
        let seen = Seen::Live(live(&[("a", "1"), ("b", "2"), ("b", "1"), ("b", "3")], b"{\"n\": 1}"));
        assert_eq!(
            seen.json(),
            json!({ "subject": "a.b", "headers": { "a": "1", "b": ["2", "1", "3"] }, "data": { "n": 1 } })
        );
        assert_eq!(
            stored(b"plain").json(),
            json!({
                "subject": "a.b", "headers": {}, "data": "plain", "stream": "S", "sequence": 7,
                "time": "2023-11-14T22:13:20.000000042Z",
            })
        );
        let binary = stored(&[0, 159, 146]).json();
        assert_eq!((&binary["data"], &binary["data_base64"]), (&Value::Null, &json!("AJ+S")));
        assert_eq!(Seen::Live(live(&[], b"")).json()["data"], "");
    }

    #[test]
    fn a_line_for_people_is_one_line() {
        assert_eq!(stored(b"a\n\x1b[2J\tb").text(), "2023-11-14T22:13:20.000Z  a.b  a\\n\\u{1b}[2J\\tb");
    }

    #[test]
    fn what_has_no_shape_or_turns_the_writing_is_escaped() {
        for (text, expected) in [
            ("a\u{202e}b", "a\\u{202e}b"),
            ("\u{200b}\u{2066}\u{feff}", "\\u{200b}\\u{2066}\\u{feff}"),
            ("a\u{2028}b\u{85}", "a\\u{2028}b\\u{85}"),
            ("e\u{301} ü 日本 \u{1f980} नि", "e\u{301} ü 日本 \u{1f980} नि"),
        ] {
            assert_eq!(shown(text.as_bytes()), expected);
        }
    }

    #[test]
    fn a_reader_that_hung_up_is_no_error() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert!(!print(&mut Gone, "x").unwrap());
        let mut out = Vec::new();
        assert!(print(&mut out, "x").unwrap());
        assert_eq!(out, b"x\n");
    }
}
