//! What a text is stripped of before anyone looks for tasks in it. Step 1 of reading an answer; knows nothing of tasks.

/// Characters that take no room and that models and editors leave behind: BOM, zero-width space, non-joiner,
/// joiner and word joiner.
const INVISIBLE: [char; 5] = ['\u{feff}', '\u{200b}', '\u{200c}', '\u{200d}', '\u{2060}'];

/// A string in a string in a string: more layers than this are nobody's mistake.
const MAX_WRAPPINGS: usize = 4;

const THINKING: [&str; 2] = ["thinking", "think"];

/// The text without invisible characters, with plain line ends, unwrapped if it was one JSON string as a whole,
/// and without the model's thinking.
pub fn clean(text: &str) -> String {
    let text = unwrap(plain(text));
    let text = without_thinking(&text);
    // What was thought aloud before the answer hid that the answer is a string.
    unwrap(text)
}

/// The text without invisible characters and with plain line ends.
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().filter(|c| !is_invisible(*c)).peekable();
    while let Some(c) = chars.next() {
        if c == '\r' {
            if chars.peek() == Some(&'\n') {
                continue;
            }
            out.push('\n');
        } else {
            out.push(c);
        }
    }
    out
}

pub(crate) fn is_invisible(c: char) -> bool {
    INVISIBLE.contains(&c)
}

fn unwrap(mut text: String) -> String {
    for _ in 0..MAX_WRAPPINGS {
        let trimmed = text.trim();
        if !trimmed.starts_with('"') {
            break;
        }
        match serde_json::from_str::<String>(trimmed) {
            Ok(inner) => text = plain(&inner),
            Err(_) => break,
        }
    }
    text
}

/// Drops each section between an opening and a closing tag; a lone closing tag takes all before it along, a lone
/// opening tag all after it. The two tag names stand for each other, because models mix them.
fn without_thinking(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    let mut thinking = false;
    while let Some((before, closing, after)) = next_tag(rest) {
        match (thinking, closing) {
            (false, false) => {
                kept.push_str(before);
                thinking = true;
            }
            (false, true) => kept.clear(),
            (true, true) => thinking = false,
            (true, false) => {}
        }
        rest = after;
    }
    if !thinking {
        kept.push_str(rest);
    }
    kept
}

/// The next tag of either kind: the text before it, whether it closes, the text after it.
fn next_tag(text: &str) -> Option<(&str, bool, &str)> {
    let mut from = 0;
    while let Some(at) = text[from..].find('<').map(|at| from + at) {
        let inner = &text[at + 1..];
        let (inner, closing) = match inner.strip_prefix('/') {
            Some(inner) => (inner, true),
            None => (inner, false),
        };
        for name in THINKING {
            let named = inner.get(..name.len()).is_some_and(|head| head.eq_ignore_ascii_case(name));
            if !named {
                continue;
            }
            // `<think >` and the like; a few blanks at most, so that this stays linear.
            let tail = &inner[name.len()..];
            let blanks = tail.bytes().take(8).take_while(|b| b.is_ascii_whitespace()).count();
            if let Some(after) = tail[blanks..].strip_prefix('>') {
                return Some((&text[..at], closing, after));
            }
        }
        from = at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, expect: &str) {
        assert_eq!(clean(input), expect, "input {input:?}");
    }

    #[test]
    fn contract_4_parsing_1_invisible_characters_are_dropped() {
        check("\u{feff}TI\u{200b}TLE\u{2060}: a\u{200c}b\u{200d}", "TITLE: ab");
    }

    #[test]
    fn contract_4_parsing_1_every_line_end_becomes_a_newline() {
        check("a\r\nb\rc\nd\r\r\ne", "a\nb\nc\nd\n\ne");
    }

    #[test]
    fn contract_4_parsing_1_a_json_string_around_the_whole_text_is_decoded() {
        check(r#" "TITLE: a\r\nROLE: \u0044EV" "#, "TITLE: a\nROLE: DEV");
        check(r#""\"twice\"""#, "twice");
        check(r#""one" and "two""#, r#""one" and "two""#);
        check(r#""open"#, r#""open"#);
    }

    #[test]
    fn contract_4_parsing_1_thinking_is_dropped() {
        check("<think>a</think>b", "b");
        check("x<thinking>a\nb</thinking>y<THINK>c</Think>z", "xyz");
        check("<think>a<think>b</think>c</think>d", "d");
        check("<think>a</thinking>b", "b");
        check("a < think b <thinker> c", "a < think b <thinker> c");
    }

    #[test]
    fn contract_4_parsing_1_a_lone_closing_tag_drops_all_before_it() {
        check("a\nb</think>\nc", "\nc");
        check("a<think>b</think>c</think>d", "d");
    }

    #[test]
    fn contract_4_parsing_1_a_lone_opening_tag_drops_all_after_it() {
        check("a<think>b", "a");
        check("<think>b", "");
    }

    #[test]
    fn a_string_after_the_thinking_is_decoded_too() {
        check("<think>hm</think>\n\"TITLE: a\"", "TITLE: a");
    }
}
