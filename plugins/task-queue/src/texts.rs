//! What texts take as JSON, and cutting those that take too much: a task rides in a cell and in messages of bounded size.

/// Bytes of a text as JSON, without its quotes.
pub(crate) fn json_bytes(text: &str) -> usize {
    text.chars().map(json_bytes_of).sum()
}

fn json_bytes_of(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        c if c < ' ' => 6,
        c => c.len_utf8(),
    }
}

/// The text, or as much of it as takes so many bytes of JSON, with `…` at its end.
pub(crate) fn cut(text: &str, most: usize) -> String {
    if json_bytes(text) <= most {
        return text.to_owned();
    }
    let mut left = most.saturating_sub('…'.len_utf8());
    let fits = |c: &char| {
        let bytes = json_bytes_of(*c);
        let fits = bytes <= left;
        left = left.saturating_sub(bytes);
        fits
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_measured_as_json_writes_it() {
        for text in ["", "plain", "a \"b\"\\\n\r\t", "\u{1}\u{1f}\u{7f}\u{8}\u{c}", "é … 語 😀"] {
            assert_eq!(json_bytes(text) + 2, serde_json::to_string(text).unwrap().len(), "{text:?}");
        }
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcdefgh", 5), "ab…");
        assert_eq!(cut("ééééé", 8), "éé…");
        assert_eq!(cut("\u{1}\u{1}\u{1}", 14), "\u{1}…");
        assert_eq!(cut("abcd", 0), "…");
    }
}
