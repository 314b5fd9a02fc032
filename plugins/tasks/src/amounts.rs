//! What one task's numbers mean: hours and priority, as numbers or in words. One value in, one number out.

use serde_json::Value;

use crate::fields::without_remark;

/// A working day, in hours.
const DAY: f64 = 8.0;
const TOP_PRIORITY: i32 = 1;
const LAST_PRIORITY: i32 = 10;
/// No quantity or priority is longer than this; what is, is prose.
const LONGEST_QUANTITY: usize = 64;

/// Whole hours, rounded up: `4`, `4.5`, `4h`, `2-4 hours` (the upper), `1 day`. 0 for what says nothing.
pub(crate) fn hours(value: &Value, max: i32) -> i32 {
    let hours = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => spoken_hours(text),
        _ => None,
    };
    let whole = hours.unwrap_or(0.0).ceil();
    if whole >= f64::from(max) {
        max
    } else if whole > 0.0 {
        whole as i32
    } else {
        0
    }
}

fn spoken_hours(text: &str) -> Option<f64> {
    if text.len() > LONGEST_QUANTITY {
        return None;
    }
    let text = without_remark(text).to_lowercase();
    let mut text = text.as_str();
    for about in ["~", "≈", "about ", "around ", "approximately ", "approx. ", "approx "] {
        text = text.strip_prefix(about).unwrap_or(text).trim_start();
    }
    let (low, low_unit, rest) = quantity(text)?;
    if rest.is_empty() {
        return Some(low * low_unit.unwrap_or(1.0));
    }
    let rest = ["-", "–", "—", "to "].iter().find_map(|to| rest.strip_prefix(to))?;
    let (high, high_unit, rest) = quantity(rest.trim_start())?;
    let low_unit = low_unit.or(high_unit).unwrap_or(1.0);
    let high_unit = high_unit.unwrap_or(low_unit);
    rest.is_empty().then(|| f64::max(low * low_unit, high * high_unit))
}

/// A number, the hours in its unit if it has one, and what follows.
fn quantity(text: &str) -> Option<(f64, Option<f64>, &str)> {
    let digits = text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
    let (number, rest) = text.split_at(digits);
    // "4." at the end of a sentence.
    let number = number.strip_suffix('.').unwrap_or(number).parse::<f64>().ok()?;
    let rest = rest.trim_start();
    let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
    let unit = match &rest[..letters] {
        "h" | "hr" | "hrs" | "hour" | "hours" => 1.0,
        "d" | "day" | "days" => DAY,
        "" | "to" => return Some((number, None, rest)),
        _ => return None,
    };
    Some((number, Some(unit), rest[letters..].trim_start_matches('.').trim_start()))
}

/// 1 (highest) to 10; 1 for what says nothing.
pub(crate) fn priority(value: &Value) -> i32 {
    let priority = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => spoken_priority(text),
        _ => None,
    };
    match priority {
        Some(number) if number.fract() == 0.0 => {
            number.clamp(f64::from(TOP_PRIORITY), f64::from(LAST_PRIORITY)) as i32
        }
        _ => TOP_PRIORITY,
    }
}

fn spoken_priority(text: &str) -> Option<f64> {
    if text.len() > LONGEST_QUANTITY {
        return None;
    }
    let text = without_remark(text).to_uppercase();
    let text = text.trim_end_matches('.');
    let named = match text {
        "CRITICAL" => 1.0,
        "HIGH" => 2.0,
        "MEDIUM" | "NORMAL" => 5.0,
        "LOW" => 8.0,
        _ => {
            let level = text.strip_prefix('P').filter(|level| level.len() == 1);
            let number = level.unwrap_or(text);
            let is_number = number.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.'));
            return number.parse().ok().filter(|_| is_number);
        }
    };
    Some(named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn contract_4_per_task_hours_in_every_spelling() {
        let check = |value: Value, expect: i32| assert_eq!(hours(&value, 40), expect, "{value}");
        for (value, expect) in [
            (json!(4), 4),
            (json!(4.5), 5),
            (json!(0.1), 1),
            (json!(40), 40),
            (json!(41), 40),
            (json!(1e300), 40),
            (json!(0), 0),
            (json!(-4), 0),
            (json!(-0.5), 0),
            (json!(null), 0),
            (json!(true), 0),
            (json!([4]), 0),
        ] {
            check(value, expect);
        }
        for (text, expect) in [
            ("4", 4),
            (" 4h ", 4),
            ("4 hours", 4),
            ("4 Hrs.", 4),
            ("4.5", 5),
            ("2-4 h", 4),
            ("2–4h", 4),
            ("2 to 4 hours", 4),
            ("2h - 4h", 4),
            ("4-2", 4),
            ("1 day", 8),
            ("2d", 16),
            ("1-2 days", 16),
            ("0.5 days", 4),
            ("10 days", 40),
            ("1 day - 2 h", 8),
            ("~6 h", 6),
            ("about 6 hours (maybe)", 6),
            ("99999999999999999999", 40),
            ("-4", 0),
            ("-4h", 0),
            ("soon", 0),
            ("four", 0),
            ("30 minutes", 0),
            ("2 weeks", 0),
            ("4 apples", 0),
            ("4-", 0),
            ("1e3", 0),
            ("NaN", 0),
            ("inf", 0),
            ("", 0),
        ] {
            check(json!(text), expect);
        }
        assert_eq!(hours(&json!(30), 16), 16);
        // Prose is no quantity.
        check(json!(format!("4 ({})", "x".repeat(LONGEST_QUANTITY))), 0);
    }

    #[test]
    fn contract_4_per_task_priorities_in_every_spelling() {
        let check = |value: Value, expect: i32| assert_eq!(priority(&value), expect, "{value}");
        for (value, expect) in [
            (json!(3), 3),
            (json!(3.0), 3),
            (json!(0), 1),
            (json!(-2), 1),
            (json!(11), 10),
            (json!(1e30), 10),
            (json!(2.5), 1),
            (json!(null), 1),
            (json!([2]), 1),
        ] {
            check(value, expect);
        }
        for (text, expect) in [
            ("7", 7),
            ("+7", 7),
            ("0", 1),
            ("-3", 1),
            ("99", 10),
            ("99999999999999999999999", 10),
            ("critical", 1),
            ("HIGH", 2),
            ("Medium", 5),
            ("normal", 5),
            ("Low", 8),
            ("low.", 8),
            ("P0", 1),
            ("p1", 1),
            ("P9", 9),
            ("P10", 1),
            ("2 (high)", 2),
            ("urgent", 1),
            ("very high", 1),
            ("2.5", 1),
            ("inf", 1),
            ("P", 1),
            ("", 1),
        ] {
            check(json!(text), expect);
        }
        check(json!(format!("5 ({})", "x".repeat(LONGEST_QUANTITY))), 1);
    }
}
