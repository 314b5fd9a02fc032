//! A message as `fleet watch --json` and `cofferdam sub --json` print it, and what can be read of it.

use serde::Deserialize;
use serde_json::{Map, Value};

/// One line. `stream` and `sequence` are there if it is stored.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Message {
    time: String,
    pub(super) subject: String,
    #[serde(default)]
    headers: Map<String, Value>,
    #[serde(default)]
    data: Value,
    #[serde(default)]
    stream: Option<String>,
    #[serde(default)]
    sequence: Option<u64>,
}

impl Message {
    /// None for a line that is something else.
    pub(super) fn read(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }

    /// Where it is stored.
    pub(super) fn place(&self) -> Option<(String, u64)> {
        Some((self.stream.clone()?, self.sequence?))
    }

    /// When it was seen or stored, in microseconds since 1970.
    pub(super) fn epoch_us(&self) -> Option<u64> {
        epoch_us(&self.time)
    }

    /// The plugin that published it; of others the name that they give themselves.
    pub(super) fn publisher(&self) -> String {
        let header = self.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("Cofferdam-Plugin"));
        let header = header.and_then(|(_, value)| Some(value.as_str()?.to_owned()));
        header.or_else(|| self.text("producer")).unwrap_or_else(|| "unknown".to_owned())
    }

    /// A key of the message, or of the payload in its envelope.
    pub(super) fn field(&self, key: &str) -> Option<&Value> {
        let own = self.data.get(key).filter(|value| !value.is_null());
        own.or_else(|| self.data.get("payload")?.get(key))
    }

    pub(super) fn text(&self, key: &str) -> Option<String> {
        self.field(key)?.as_str().map(str::to_owned)
    }

    /// 0 if there is none.
    pub(super) fn count(&self, key: &str) -> usize {
        let count = self.field(key).and_then(Value::as_u64).unwrap_or_default();
        usize::try_from(count).unwrap_or(usize::MAX)
    }

    pub(super) fn list(&self, key: &str) -> &[Value] {
        self.field(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }
}

/// `2026-01-02T03:04:05.678Z` as microseconds since 1970.
fn epoch_us(time: &str) -> Option<u64> {
    let (date, clock) = time.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut clock = clock.splitn(3, ':');
    let (hour, minute) = (clock.next()?.parse::<u64>().ok()?, clock.next()?.parse::<u64>().ok()?);
    let (second, fraction) = clock.next().map(|second| second.split_once('.').unwrap_or((second, "")))?;
    let second = second.parse::<u64>().ok()?;
    let micros = format!("{fraction:0<6}").get(..6)?.parse::<u64>().ok()?;
    // Days since 1970 of the proleptic Gregorian calendar, with years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = (365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day)
        .checked_sub(719_469)?;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000 + micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_from_1970() {
        for (time, expect) in [
            ("1970-01-01T00:00:00.000Z", Some(0)),
            ("2026-01-02T03:04:05.678Z", Some(1_767_323_045_678_000)),
            ("2026-01-02T03:04:05.678901234Z", Some(1_767_323_045_678_901)),
            ("2024-02-29T12:00:00Z", Some(1_709_208_000_000_000)),
            ("2026-01-02T03:04:05.6Z", Some(1_767_323_045_600_000)),
            ("yesterday", None),
        ] {
            assert_eq!(epoch_us(time), expect, "{time}");
        }
    }

    #[test]
    fn a_key_is_found_beside_the_payload_and_in_it() {
        let line = r#"{"time":"1970-01-01T00:00:01Z","subject":"a.b","headers":{"cofferdam-plugin":"p"},"stream":"S",
            "sequence":7,"data":{"task_id":"t","x":null,"payload":{"x":"y","list":[1],"n":3}}}"#;
        let message = Message::read(line).unwrap();
        assert_eq!(message.place(), Some(("S".to_owned(), 7)));
        assert_eq!((message.publisher().as_str(), message.epoch_us()), ("p", Some(1_000_000)));
        assert_eq!(
            (message.text("task_id").as_deref(), message.text("x").as_deref()),
            (Some("t"), Some("y"))
        );
        assert_eq!((message.count("n"), message.list("list").len(), message.list("none").len()), (3, 1, 0));
        assert!(Message::read(r#"{"ready":true}"#).is_none());
    }
}
