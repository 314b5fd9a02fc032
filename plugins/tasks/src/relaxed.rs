//! A JSON reader for text that a model wrote: finds where a value ends, forgives trailing commas and raw line ends
//! in strings, and can tell "not JSON" from "cut off". It never recurses deeper than `MAX_DEPTH`.

use serde_json::{Map, Number, Value};

/// A list of tasks is four levels deep. Deeper nesting is an attack on the reader, whose stack is 64 KiB.
pub(crate) const MAX_DEPTH: usize = 32;

#[derive(Debug, PartialEq)]
pub(crate) enum Reading {
    /// A value, and where the text after it begins.
    Value(Value, usize),
    /// The text ended inside the value.
    Unclosed,
    /// Not JSON.
    Malformed {
        /// It had got as far as an object's key, or deeper than `MAX_DEPTH`: meant as data, not as a bracket in prose.
        meant: bool,
        /// How many bytes were looked at.
        seen: usize,
    },
}

/// Reads the value that begins at `start`.
pub(crate) fn read(text: &str, start: usize) -> Reading {
    let mut reader = Reader { text, at: start, keyed: false };
    match reader.value(0) {
        Ok(value) => Reading::Value(value, reader.at),
        Err(Stop::End) => Reading::Unclosed,
        Err(stop) => {
            let meant = reader.keyed || matches!(stop, Stop::TooDeep);
            Reading::Malformed { meant, seen: reader.at - start }
        }
    }
}

/// Where the bracket at `start` is closed again, by counting brackets outside of strings; nothing if it never is.
pub(crate) fn matching(text: &str, start: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut open = Vec::new();
    let mut at = start;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'[' => open.push(b']'),
            b'{' => open.push(b'}'),
            b']' | b'}' => {
                if open.pop() != Some(*byte) {
                    return None;
                }
                if open.is_empty() {
                    return Some(at + 1);
                }
            }
            b'"' => at = string_end(bytes, at)?,
            _ => {}
        }
        at += 1;
    }
    None
}

/// The closing quote of the string whose opening quote is at `start`.
fn string_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        match bytes.get(at)? {
            b'\\' => at += 2,
            b'"' => return Some(at),
            _ => at += 1,
        }
    }
}

enum Stop {
    End,
    Syntax,
    TooDeep,
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    keyed: bool,
}

impl Reader<'_> {
    fn peek(&mut self) -> Result<u8, Stop> {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        bytes.get(self.at).copied().ok_or(Stop::End)
    }

    fn value(&mut self, depth: usize) -> Result<Value, Stop> {
        if depth > MAX_DEPTH {
            return Err(Stop::TooDeep);
        }
        match self.peek()? {
            b'[' => self.array(depth),
            b'{' => self.object(depth),
            b'"' => self.string().map(Value::String),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.word("true", Value::Bool(true)),
            b'f' => self.word("false", Value::Bool(false)),
            b'n' => self.word("null", Value::Null),
            _ => Err(Stop::Syntax),
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, Stop> {
        self.at += 1;
        let mut items = Vec::new();
        loop {
            // After a comma the end may follow as well: the forgiven trailing comma. `[,]` is not forgiven.
            if self.peek()? == b']' {
                break;
            }
            items.push(self.value(depth + 1)?);
            match self.peek()? {
                b',' => self.at += 1,
                b']' => break,
                _ => return Err(Stop::Syntax),
            }
        }
        self.at += 1;
        Ok(Value::Array(items))
    }

    fn object(&mut self, depth: usize) -> Result<Value, Stop> {
        self.at += 1;
        let mut object = Map::new();
        loop {
            match self.peek()? {
                b'}' => break,
                b'"' => {}
                _ => return Err(Stop::Syntax),
            }
            let key = self.string()?;
            if self.peek()? != b':' {
                return Err(Stop::Syntax);
            }
            self.at += 1;
            self.keyed = true;
            let value = self.value(depth + 1)?;
            object.insert(key, value);
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => break,
                _ => return Err(Stop::Syntax),
            }
        }
        self.at += 1;
        Ok(Value::Object(object))
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, Stop> {
        let rest = &self.text.as_bytes()[self.at..];
        if rest.starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(value)
        } else if word.as_bytes().starts_with(rest) {
            self.at = self.text.len();
            Err(Stop::End)
        } else {
            Err(Stop::Syntax)
        }
    }

    fn number(&mut self) -> Result<Value, Stop> {
        let rest = &self.text[self.at..];
        let len =
            rest.bytes().take_while(|b| matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')).count();
        let token = &rest[..len];
        self.at += len;
        if let Ok(number) = serde_json::from_str::<Number>(token) {
            return Ok(Value::Number(number));
        }
        if len == rest.len() {
            return Err(Stop::End);
        }
        // Well-formed but past what a double holds: as large as can be said.
        match token.parse::<f64>() {
            Ok(huge) if huge.is_infinite() => Ok(Value::from(f64::MAX.copysign(huge))),
            _ => Err(Stop::Syntax),
        }
    }

    fn string(&mut self) -> Result<String, Stop> {
        let Some(end) = string_end(self.text.as_bytes(), self.at) else {
            self.at = self.text.len();
            return Err(Stop::End);
        };
        let raw = &self.text[self.at + 1..end];
        self.at = end + 1;
        if raw.contains('\\') { unescape(raw).ok_or(Stop::Syntax) } else { Ok(raw.to_owned()) }
    }
}

/// A JSON string's text. Half a surrogate pair becomes the replacement character.
fn unescape(raw: &str) -> Option<String> {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let mut tail = rest[at + 1..].chars();
        let escape = tail.next()?;
        rest = tail.as_str();
        out.push(match escape {
            '"' | '\\' | '/' => escape,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let first = code_unit(rest)?;
                rest = &rest[4..];
                let second = rest.strip_prefix("\\u").and_then(code_unit);
                match (first, second) {
                    (0xd800..=0xdbff, Some(low @ 0xdc00..=0xdfff)) => {
                        rest = &rest[6..];
                        char::from_u32(0x10000 + ((first - 0xd800) << 10) + (low - 0xdc00))?
                    }
                    _ => char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER),
                }
            }
            _ => return None,
        });
    }
    out.push_str(rest);
    Some(out)
}

fn code_unit(text: &str) -> Option<u32> {
    let digits = text.get(..4)?;
    if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(input: &str, expect: Value) {
        match read(input, 0) {
            Reading::Value(value, end) => {
                assert_eq!(value, expect, "input {input}");
                assert_eq!(end, input.len(), "input {input}");
            }
            other => panic!("{input}: {other:?}"),
        }
    }

    #[test]
    fn plain_json_reads_as_it_is() {
        let text = r#"{"a": [1, -2.5, 1e3, true, false, null, "x\n\u00e9\ud83d\ude00"], "b": {}}"#;
        check(text, serde_json::from_str(text).unwrap());
    }

    #[test]
    fn every_escape_is_read() {
        let text = r#"["\" \\ \/ \b \f \n \r \t \u0041"]"#;
        check(text, serde_json::from_str(text).unwrap());
    }

    #[test]
    fn what_only_looks_like_a_number_is_none() {
        for text in ["[01]", "[1.]", "[+1]", "[1-2]", "[-]"] {
            assert!(matches!(read(text, 0), Reading::Malformed { meant: false, .. }), "{text}");
        }
    }

    #[test]
    fn contract_4_parsing_2_trailing_commas_are_forgiven() {
        check("[1, 2, ]", json!([1, 2]));
        check("{\"a\": [ {\"b\": 1,}, ],\n}", json!({"a": [{"b": 1}]}));
        assert!(matches!(read("[,]", 0), Reading::Malformed { .. }));
        assert!(matches!(read("[1,,2]", 0), Reading::Malformed { .. }));
    }

    #[test]
    fn raw_line_ends_in_strings_are_forgiven() {
        check("[\"a\nb\tc\"]", json!(["a\nb\tc"]));
    }

    #[test]
    fn odd_values_do_not_spoil_the_rest() {
        check(r#"["\ud800"]"#, json!(["\u{fffd}"]));
        check(r#"["\ud800\u0041"]"#, json!(["\u{fffd}A"]));
        check("[1e999]", json!([f64::MAX]));
        check("[123456789012345678901234567890]", json!([123456789012345678901234567890.0]));
    }

    #[test]
    fn a_value_cut_off_is_unclosed() {
        for text in
            ["[", "[1", "[1,", "{", "{\"a", "{\"a\"", "{\"a\":", "{\"a\": tr", "[\"x\\", "[{\"a\": 1}"]
        {
            assert_eq!(read(text, 0), Reading::Unclosed, "{text}");
        }
    }

    #[test]
    fn a_bracket_in_prose_is_told_from_spoilt_data() {
        let meant = |text: &str| match read(text, 0) {
            Reading::Malformed { meant, .. } => meant,
            other => panic!("{text}: {other:?}"),
        };
        assert!(!meant("[0, 1)"));
        assert!(!meant("[x] done"));
        assert!(!meant("{name}"));
        assert!(meant("[{\"title\": nope}]"));
        assert!(meant("{\"a\": 1 \"b\": 2}"));
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| format!("{}5{}", "[".repeat(depth), "]".repeat(depth));
        assert!(matches!(read(&nested(MAX_DEPTH), 0), Reading::Value(..)));
        assert!(matches!(read(&nested(MAX_DEPTH + 1), 0), Reading::Malformed { meant: true, .. }));
        let objects = |depth: usize| format!("{}5{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        assert!(matches!(read(&objects(MAX_DEPTH), 0), Reading::Value(..)));
        assert!(matches!(read(&objects(MAX_DEPTH + 1), 0), Reading::Malformed { meant: true, .. }));
        assert!(matches!(read(&"[".repeat(1 << 20), 0), Reading::Malformed { meant: true, .. }));
    }

    #[test]
    fn brackets_are_matched_outside_of_strings() {
        assert_eq!(matching(r#"[{"a": "]}\"]"}] tail"#, 0), Some(16));
        assert_eq!(matching("[[]", 0), None);
        assert_eq!(matching("[}", 0), None);
        assert_eq!(matching("{\"a", 0), None);
        let deep = format!("{}{}", "[".repeat(1 << 19), "]".repeat(1 << 19));
        assert_eq!(matching(&deep, 0), Some(1 << 20));
    }
}
