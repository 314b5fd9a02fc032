//! Texts of models: without what is no answer, and no longer than there is room for. Sizes are those that a text has in JSON,
//! where it takes the most room.

/// What tells that a text was longer.
const MARK: &str = "\n[cut]";

/// What a model answered, without its thinking and without the white space around. Empty if there is nothing else.
pub(crate) fn clean(text: &str) -> String {
    fleet_tasks::clean(text).trim().to_owned()
}

/// How many bytes the text has within a JSON string.
pub(crate) fn size(text: &str) -> usize {
    text.chars().map(in_json).sum()
}

fn in_json(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        c => c.len_utf8(),
    }
}

/// Cuts the text to `most` bytes of JSON, its mark included; whether it did.
pub(crate) fn cut(text: &mut String, most: usize) -> bool {
    if text.len() <= most / 6 || size(text) <= most {
        return false;
    }
    let mut left = most.saturating_sub(size(MARK));
    let mut end = 0;
    for (at, c) in text.char_indices() {
        let Some(less) = left.checked_sub(in_json(c)) else { break };
        (left, end) = (less, at + c.len_utf8());
    }
    text.truncate(end);
    text.push_str(MARK);
    true
}

/// As [`cut`], of a copy.
pub(crate) fn beginning(text: &str, most: usize) -> String {
    let mut text = text.to_owned();
    cut(&mut text, most);
    text
}

/// On one line, with single spaces.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinking_is_no_answer() {
        assert_eq!(clean("<think>\nhm\n</think>\n\n  Do it.\n"), "Do it.");
        assert_eq!(clean("<think>only this"), "");
        assert_eq!(clean("only this</think>"), "");
        assert_eq!(clean(" \n"), "");
    }

    #[test]
    fn a_text_is_as_long_as_json_makes_it() {
        for text in ["", "plain", "a\"b\\c\n\t\r", "\u{1}\u{8}\u{c}", "é€𝄞"] {
            let json = serde_json::to_string(text).unwrap();
            assert_eq!(size(text), json.len() - 2, "{text:?}");
        }
    }

    #[test]
    fn a_text_is_cut_between_characters_and_says_so() {
        for most in 7..40 {
            let mut text = "\"é€𝄞\n".repeat(20);
            assert!(cut(&mut text, most));
            assert!(size(&text) <= most && text.ends_with(MARK), "{most}: {text:?}");
        }
        let mut short = "as it is".to_owned();
        assert!(!cut(&mut short, 8));
        assert_eq!(short, "as it is");
    }
}
