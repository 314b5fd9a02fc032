//! Values as they are written in TOML: durations, sizes, and conversions. Knows nothing of keys.

use std::{path::Path, time::Duration};

use toml::{Value, de::DeValue};

pub(super) fn parse_size(text: &str) -> Option<usize> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let unit = match text[digits.len()..].trim() {
        "B" | "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    digits.parse::<usize>().ok().filter(|n| *n > 0)?.checked_mul(unit)
}

/// For messages: `64MiB`.
pub(super) fn show_size(bytes: usize) -> String {
    match unit(bytes) {
        Some((bits, unit)) => format!("{}{unit}", bytes >> bits),
        None => format!("{bytes} bytes"),
    }
}

fn unit(bytes: usize) -> Option<(u32, &'static str)> {
    let fits = |bits: &u32| bytes != 0 && bytes.trailing_zeros() >= *bits;
    [(30, "GiB"), (20, "MiB"), (10, "KiB")].into_iter().find(|(bits, _)| fits(bits))
}

/// As it would be written in a config.
pub(super) fn size(bytes: &usize) -> Value {
    match unit(*bytes) {
        Some(_) => Value::String(show_size(*bytes)),
        None => integer(bytes),
    }
}

pub(super) fn duration(duration: &Duration) -> Value {
    // It would be written with spaces, which are read as well.
    Value::String(humantime::format_duration(*duration).to_string())
}

/// One that TOML can't write is the greatest that it can.
pub(super) fn integer<N: TryInto<i64> + Copy>(number: &N) -> Value {
    Value::Integer((*number).try_into().unwrap_or(i64::MAX))
}

/// Absolute, so that it holds wherever it is used again.
pub(super) fn path(path: &Path) -> Value {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    Value::String(absolute.display().to_string())
}

/// For messages.
pub(super) fn show(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(s) => format!("{s:?}"),
        DeValue::Integer(n) => n.to_string(),
        DeValue::Float(n) => n.to_string(),
        DeValue::Boolean(b) => b.to_string(),
        DeValue::Datetime(d) => d.to_string(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

pub(super) fn whole(value: &DeValue<'_>) -> Option<i64> {
    let DeValue::Integer(n) = value else { return None };
    i64::from_str_radix(&n.as_str().replace('_', ""), n.radix()).ok()
}

/// Whether one of the strings in it is such.
pub(super) fn any_string(value: &DeValue<'_>, such: &impl Fn(&str) -> bool) -> bool {
    match value {
        DeValue::String(s) => such(s),
        DeValue::Array(items) => items.iter().any(|item| any_string(item.get_ref(), such)),
        DeValue::Table(table) => table.values().any(|item| any_string(item.get_ref(), such)),
        _ => false,
    }
}

/// Whole or not.
pub(super) fn number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Float(n) => float(n.as_str()),
        _ => whole(value).map(|n| n as f64),
    }
}

fn float(text: &str) -> Option<f64> {
    text.replace('_', "").parse().ok()
}

pub(super) fn json(value: &DeValue<'_>) -> serde_json::Value {
    use serde_json::Value;
    match value {
        DeValue::String(s) => Value::String(s.to_string()),
        DeValue::Integer(_) => whole(value).map_or(Value::Null, Value::from),
        DeValue::Float(n) => float(n.as_str()).map_or(Value::Null, Value::from),
        DeValue::Boolean(b) => Value::Bool(*b),
        DeValue::Datetime(d) => Value::String(d.to_string()),
        DeValue::Array(items) => items.iter().map(|i| json(i.get_ref())).collect(),
        DeValue::Table(t) => t.iter().map(|(k, v)| (k.get_ref().to_string(), json(v.get_ref()))).collect(),
    }
}

/// As it stands in the text, but for numbers that are none.
pub(super) fn toml(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(s) => Value::String(s.to_string()),
        DeValue::Integer(n) => {
            whole(value).map_or_else(|| Value::String(n.as_str().to_owned()), Value::Integer)
        }
        DeValue::Float(n) => {
            float(n.as_str()).map_or_else(|| Value::String(n.as_str().to_owned()), Value::Float)
        }
        DeValue::Boolean(b) => Value::Boolean(*b),
        DeValue::Datetime(d) => Value::Datetime(*d),
        DeValue::Array(items) => Value::Array(items.iter().map(|i| toml(i.get_ref())).collect()),
        DeValue::Table(t) => {
            Value::Table(t.iter().map(|(k, v)| (k.get_ref().to_string(), toml(v.get_ref()))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(parse_size("64KiB"), Some(65536));
        assert_eq!(parse_size("1 MiB"), Some(1 << 20));
        assert_eq!(parse_size("12"), Some(12));
        for (bytes, shown) in [(65536, "64KiB"), (3 << 30, "3GiB"), (1025, "1025 bytes"), (0, "0 bytes")] {
            assert_eq!(show_size(bytes), shown);
        }
        for bad in ["", "MiB", "-1KiB", "1 MB", "0"] {
            assert_eq!(parse_size(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_as_the_same() {
        for bytes in [1, 1025, 65536, 3 << 30] {
            let again = match size(&bytes) {
                Value::String(text) => parse_size(&text),
                other => other.as_integer().map(|n| n as usize),
            };
            assert_eq!(again, Some(bytes));
        }
        let time = Duration::from_millis(90_250);
        assert_eq!(humantime::parse_duration(super::duration(&time).as_str().unwrap()).unwrap(), time);
    }
}
