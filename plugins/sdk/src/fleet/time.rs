//! Points in time on the wire: read in every form that the fleet writes, written as RFC 3339 in UTC with `Z`.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::Value;
use time::{Date, Month, OffsetDateTime, Time, UtcOffset};

use crate::clock;

/// Above this a bare number counts milliseconds, below it seconds.
const MILLISECONDS_FROM: f64 = 1e12;

/// A point in time, to the nanosecond, between the years 1678 and 2262.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The host's clock.
    pub fn now() -> Self {
        Self::from_nanos(clock::now())
    }

    /// Nanoseconds since 1970-01-01T00:00:00Z.
    pub fn from_nanos(nanos: u64) -> Self {
        Self(i64::try_from(nanos).unwrap_or(i64::MAX))
    }

    /// Seconds since 1970-01-01T00:00:00Z, rounded down.
    pub fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1_000_000_000)
    }

    /// Nanoseconds since 1970-01-01T00:00:00Z; 0 for what lies before.
    pub fn nanos(self) -> u64 {
        u64::try_from(self.0).unwrap_or(0)
    }

    /// That many seconds later.
    #[must_use]
    pub fn plus_seconds(self, seconds: u64) -> Self {
        let nanos = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
        Self(self.0.saturating_add(nanos))
    }

    /// Milliseconds from `earlier` to here; 0 if it is later.
    pub fn millis_since(self, earlier: Self) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0) / 1_000_000).unwrap_or(0)
    }

    /// Reads RFC 3339 with `Z`, an offset, both (`+00:00Z`) or neither (UTC), or the time since 1970 as a number of
    /// seconds or milliseconds.
    pub fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => Self::from_number(number.as_f64()?),
            Value::String(text) => {
                let text = text.trim();
                Self::parse(text).or_else(|| Self::from_number(text.parse().ok()?))
            }
            _ => None,
        }
    }

    fn from_number(number: f64) -> Option<Self> {
        let seconds = if number.abs() > MILLISECONDS_FROM { number / 1e3 } else { number };
        // A float holds microseconds of today's seconds; what lies below is noise.
        let micros = (seconds * 1e6).round();
        (number.is_finite() && micros.abs() < 9.2e15).then(|| Self(micros as i64 * 1_000))
    }

    fn parse(text: &str) -> Option<Self> {
        let (date, rest) = text.split_at_checked(10)?;
        let (year, month, day) = (digits(date, 0..4)?, digits(date, 5..7)?, digits(date, 8..10)?);
        if date.as_bytes()[4] != b'-' || date.as_bytes()[7] != b'-' {
            return None;
        }
        let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
        let date =
            Date::from_calendar_date(i32::try_from(year).ok()?, month, u8::try_from(day).ok()?).ok()?;
        let (time, offset) = match rest.strip_prefix(['T', 't', ' ']) {
            Some(rest) => time_and_offset(rest)?,
            None if rest.is_empty() => (Time::MIDNIGHT, UtcOffset::UTC),
            None => return None,
        };
        let at = OffsetDateTime::new_in_offset(date, time, offset);
        i64::try_from(at.unix_timestamp_nanos()).ok().map(Self)
    }
}

/// `HH:MM[:SS[.fraction]]`, then a zone.
fn time_and_offset(text: &str) -> Option<(Time, UtcOffset)> {
    // The fleet's Planning appends a Z to what already has an offset.
    let text = text.strip_suffix(['Z', 'z']).unwrap_or(text);
    let (clock, offset) = match text.find(['+', '-']) {
        Some(at) => (&text[..at], offset(&text[at..])?),
        None => (text, UtcOffset::UTC),
    };
    let (whole, fraction) = clock.split_once(['.', ',']).unwrap_or((clock, ""));
    let mut parts = whole.split(':');
    let hour = u8::try_from(digits(parts.next()?, 0..2)?).ok()?;
    let minute = u8::try_from(digits(parts.next()?, 0..2)?).ok()?;
    let second = match parts.next() {
        Some(text) => u8::try_from(digits(text, 0..2)?).ok()?,
        None => 0,
    };
    if parts.next().is_some() || whole.len() > 8 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    // A leap second counts as the second before it.
    let time = Time::from_hms_nano(hour, minute, second.min(59), nanos.parse().ok()?).ok()?;
    (second <= 60).then_some((time, offset))
}

/// `+HH:MM`, `+HHMM` or `+HH`.
fn offset(text: &str) -> Option<UtcOffset> {
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let numbers: String = text[1..].chars().filter(|c| *c != ':').collect();
    if !matches!(numbers.len(), 2 | 4) || text.len() > 6 {
        return None;
    }
    let hours = i8::try_from(digits(&numbers, 0..2)?).ok()?;
    let minutes = if numbers.len() == 4 { i8::try_from(digits(&numbers, 2..4)?).ok()? } else { 0 };
    UtcOffset::from_hms(sign * hours, sign * minutes, 0).ok()
}

fn digits(text: &str, range: std::ops::Range<usize>) -> Option<u32> {
    let part = text.get(range)?;
    part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok()).flatten()
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = OffsetDateTime::UNIX_EPOCH + time::Duration::nanoseconds(self.0);
        let (year, month, day) = at.to_calendar_date();
        let (hour, minute, second, micro) = at.to_hms_micro();
        // Six digits, because Python's reader takes three or six and no others.
        write!(f, "{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micro:06}Z", u8::from(month))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::read(&value).ok_or_else(|| D::Error::custom(format!("{value} is not a point in time")))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(input: Value, expect: &str) {
        assert_eq!(Timestamp::read(&input).map(|t| t.to_string()).as_deref(), Some(expect), "{input}");
    }

    #[test]
    fn contract_2_1_times_every_form_is_read() {
        let half = "2025-11-06T10:30:00.500000Z";
        check(json!("2025-11-06T10:30:00Z"), "2025-11-06T10:30:00.000000Z");
        check(json!("2025-11-06T10:30:00.5Z"), half);
        check(json!("2025-11-06T12:30:00.5+02:00"), half);
        check(json!("2025-11-06T05:00:00.5-0530"), half);
        check(json!("2025-11-06T11:30:00.5+01"), half);
        check(json!("2025-11-06T10:30:00.500000+00:00Z"), half);
        check(json!("2025-11-06T10:30:00.500"), half);
        check(json!("2025-11-06 10:30:00.5"), half);
        check(json!(" 2025-11-06t10:30:00.500000000z "), half);
        check(json!(1_762_425_000.5), half);
        check(json!(1_762_425_000), "2025-11-06T10:30:00.000000Z");
        check(json!(1_762_425_000_500_u64), half);
        check(json!("1762425000.5"), half);
        check(json!("2025-11-06"), "2025-11-06T00:00:00.000000Z");
        check(json!("2016-12-31T23:59:60Z"), "2016-12-31T23:59:59.000000Z");
        check(json!(-1), "1969-12-31T23:59:59.000000Z");
    }

    #[test]
    fn contract_2_1_times_nonsense_is_none() {
        for input in [
            json!("yesterday"),
            json!(""),
            json!("2025-13-06T10:30:00Z"),
            json!("2025-11-06T25:30:00Z"),
            json!("2025-11-06T10:30:00.5x"),
            json!("2025-11-06T10:30:00+1"),
            json!("2025-11-06T10:30:61Z"),
            json!("2025/11/06T10:30:00Z"),
            json!("2025-11-06T10:30:00é"),
            json!("ééééééééééé"),
            json!(null),
            json!(true),
            json!(1e300),
        ] {
            assert_eq!(Timestamp::read(&input), None, "{input}");
        }
    }
}
