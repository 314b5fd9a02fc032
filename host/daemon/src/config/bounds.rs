//! What a manifest allows a key of the plugin's config beyond its type: numbers from `min` to `max`, strings that are `one-of` a list.

use serde_json::{Number, Value};

use super::{manifest::ValueKind, reader::Table};

/// Whatever is not said is not bounded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Bounds {
    min: Option<Number>,
    max: Option<Number>,
    one_of: Vec<String>,
}

impl Bounds {
    /// Those of a key that is of this kind, if that is known.
    pub(super) fn read(table: &Table<'_>, kind: Option<ValueKind>) -> Self {
        let bounds = Self {
            min: number(table, "min", kind),
            max: number(table, "max", kind),
            one_of: strings(table, "one-of", kind),
        };
        if let (Some(min), Some(max)) = (&bounds.min, &bounds.max)
            && is_below(max, min)
        {
            table.fault_of("max", format!("{} is {max}, which is below the min of {min}", table.name("max")));
        }
        bounds
    }

    /// What a value should be that is not within.
    pub(super) fn fault(&self, value: &Value) -> Option<String> {
        let within = match value {
            Value::Number(number) => {
                !self.min.as_ref().is_some_and(|min| is_below(number, min))
                    && !self.max.as_ref().is_some_and(|max| is_below(max, number))
            }
            Value::String(text) => self.one_of.is_empty() || self.one_of.contains(text),
            _ => true,
        };
        if within {
            return None;
        }
        Some(match (&self.min, &self.max) {
            (Some(min), Some(max)) => format!("it is from {min} to {max}"),
            (Some(min), None) => format!("it is {min} or more"),
            (None, Some(max)) => format!("it is {max} or less"),
            (None, None) => {
                let words: Vec<String> = self.one_of.iter().map(|word| format!("{word:?}")).collect();
                format!("it is one of {}", words.join(", "))
            }
        })
    }
}

fn number(table: &Table<'_>, name: &str, kind: Option<ValueKind>) -> Option<Number> {
    let (written, kind) = (table.value(name)?, kind?);
    if !matches!(kind, ValueKind::Integer | ValueKind::Number) {
        table.fault_at(&written, misplaced(table, name, "the types integer and number", kind));
        return None;
    }
    match &written.value {
        Value::Number(number) if kind.admits(&written.value) => Some(number.clone()),
        other => {
            let fault = format!("{} is {other}, which is not of the type {}", table.name(name), kind.name());
            table.fault_at(&written, fault);
            None
        }
    }
}

fn strings(table: &Table<'_>, name: &str, kind: Option<ValueKind>) -> Vec<String> {
    let Some(written) = table.value(name) else { return Vec::new() };
    if let Some(kind) = kind.filter(|kind| *kind != ValueKind::String) {
        table.fault_at(&written, misplaced(table, name, "the type string", kind));
        return Vec::new();
    }
    if written.value.as_array().is_some_and(Vec::is_empty) {
        let fault = format!("{} is empty; write the strings that may be, or remove it", table.name(name));
        table.fault_at(&written, fault);
    }
    table.strings(name).into_iter().map(|string| string.value).collect()
}

fn misplaced(table: &Table<'_>, name: &str, place: &str, kind: ValueKind) -> String {
    format!("{} is for {place}, and the type is {}; remove it", table.name(name), kind.name())
}

/// Whole numbers are compared as such: as fractions some great ones are equal.
fn is_below(one: &Number, other: &Number) -> bool {
    match (one.as_i64(), other.as_i64()) {
        (Some(one), Some(other)) => one < other,
        _ => one.as_f64() < other.as_f64(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::manifest::tests::{check, parse},
        *,
    };

    fn fault(lines: &str, value: &Value) -> Option<String> {
        let manifest = parse(&format!("[config.a]\n{lines}\n")).unwrap();
        manifest.config["a"].fault(value)
    }

    #[test]
    fn a_number_lies_from_min_to_max_both_included() {
        let both = "type = \"integer\"\nmin = 0\nmax = 1000";
        assert_eq!(fault(both, &json!(-1)).unwrap(), "-1; it is from 0 to 1000");
        assert_eq!(fault(both, &json!(1001)).unwrap(), "1001; it is from 0 to 1000");
        assert_eq!([0, 7, 1000].map(|fine| fault(both, &json!(fine))), [None, None, None]);
        assert_eq!(fault("type = \"integer\"\nmin = 1", &json!(0)).unwrap(), "0; it is 1 or more");
        assert_eq!(fault("type = \"integer\"\nmax = 1", &json!(2)).unwrap(), "2; it is 1 or less");
        let fraction = "type = \"number\"\nmin = 0\nmax = 1.5";
        assert_eq!(fault(fraction, &json!(1.6)).unwrap(), "1.6; it is from 0 to 1.5");
        assert_eq!(fault(fraction, &json!(2)).unwrap(), "2; it is from 0 to 1.5");
        assert_eq!(
            [json!(1.5), json!(0), json!(-0.0)].map(|fine| fault(fraction, &fine)),
            [None, None, None]
        );
        let great = format!("type = \"integer\"\nmax = {}", i64::MAX - 1);
        assert!(fault(&great, &json!(i64::MAX)).is_some() && fault(&great, &json!(i64::MAX - 1)).is_none());
    }

    #[test]
    fn a_string_is_one_of_those_that_are_listed() {
        let lines = "type = \"string\"\none-of = [\"first\", \"all\"]\ndefault = \"first\"";
        assert_eq!(fault(lines, &json!("frist")).unwrap(), "\"frist\"; it is one of \"first\", \"all\"");
        assert_eq!(fault(lines, &json!("all")), None);
        assert_eq!(fault(lines, &json!(1)).unwrap(), "1, which is not of the type string");
    }

    #[test]
    fn bounds_that_can_not_be_are_told() {
        let check = |lines: &str, line, says: &str| check(&format!("[config.a]\n{lines}\n"), line, says);
        check("type = \"integer\"\nmin = 2\nmax = 1", 4, "config.a.max is 1, which is below the min of 2");
        check("type = \"integer\"\nmin = 0.5", 3, "config.a.min is 0.5, which is not of the type integer");
        check("type = \"number\"\nmax = \"9\"", 3, "config.a.max is \"9\", which is not of the type number");
        check("type = \"number\"\nmax = inf", 3, "config.a.max is null");
        check(
            "type = \"string\"\nmin = 1",
            3,
            "config.a.min is for the types integer and number, and the type is string",
        );
        check(
            "type = \"list\"\none-of = [\"x\"]",
            3,
            "config.a.one-of is for the type string, and the type is list",
        );
        check("type = \"string\"\none-of = []", 3, "config.a.one-of is empty");
        check("type = \"string\"\none-of = [1]", 3, "config.a.one-of is 1, which is not a string");
        check(
            "type = \"integer\"\nmni = 1",
            3,
            "known here: default, description, max, min, one-of, required, type",
        );
    }

    #[test]
    fn a_default_lies_within() {
        let check = |lines: &str, says: &str| check(&format!("[config.a]\n{lines}\n"), 3, says);
        check("type = \"integer\"\ndefault = 0\nmin = 1", "config.a.default is 0; it is 1 or more");
        check(
            "type = \"string\"\ndefault = \"x\"\none-of = [\"y\"]",
            "config.a.default is \"x\"; it is one of \"y\"",
        );
    }
}
