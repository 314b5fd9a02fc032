//! Text that a guest or a peer wrote, made fit for a line of a log: cut, and without control characters that could forge
//! another line.

use std::borrow::Cow;

/// At most `max` bytes (and a few dots) of one line.
pub fn excerpt(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max && !text.chars().any(char::is_control) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len().min(max) + 8);
    for c in text.chars() {
        if out.len() + c.len_utf8() > max {
            out.push_str("...");
            break;
        }
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_cannot_write_a_line_of_its_own() {
        assert_eq!(excerpt("a\nERROR b\u{1b}[2J", 100), "a\\nERROR b\\u{1b}[2J");
        assert_eq!(excerpt("üüü", 4), "üü...");
    }
}
