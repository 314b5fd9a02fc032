//! What stands where something is still to come. Line by line; words about to-dos are none.

const COMMENTS: [&str; 9] = ["//", "#", "--", "/*", "<!--", "*", ";", "%", "\"\"\""];
const WORDS: [&str; 4] = ["TODO", "FIXME", "XXX", "TBD"];

pub(super) fn in_prose(line: &str) -> bool {
    let text = bare(line);
    is_dots(text) || leads(text) || has_marked(line) || has_slot(line)
}

pub(super) fn in_code(line: &str, elides: bool) -> bool {
    let text = line.trim();
    // What an added line of a diff says counts too.
    let text = text.strip_prefix('+').unwrap_or(text).trim_start();
    if elides && is_dots(uncommented(text)) {
        return true;
    }
    let unwritten = ["todo!(", "unimplemented!("].iter().any(|call| text.contains(call));
    unwritten || leads(uncommented(text)) || has_marked(line) || has_comment(line) || has_slot(line)
}

/// Without what Markdown sets before a line.
fn bare(line: &str) -> &str {
    line.trim()
        .trim_start_matches(['-', '*', '+', '>', '#', '`', '_'])
        .trim()
        .trim_end_matches(['`', '*', '_'])
}

fn uncommented(text: &str) -> &str {
    match COMMENTS.iter().find_map(|mark| text.strip_prefix(mark)) {
        Some(rest) => rest
            .trim_start_matches(['/', '#', '*', '-', '!'])
            .trim()
            .trim_end_matches(['*', '/', '>', '-'])
            .trim(),
        None => text,
    }
}

/// Dots alone, or dots that say what they leave out: `... rest of the code ...`.
fn is_dots(text: &str) -> bool {
    let rest = text.trim_matches(['.', '…', ' ']);
    let dotted = text.starts_with("...") || text.starts_with('…');
    if !dotted || rest.len() > 60 {
        return false;
    }
    let folded = rest.to_ascii_lowercase();
    rest.is_empty()
        || [
            "rest of",
            "existing code",
            "remaining code",
            "code here",
            "unchanged",
            "omitted",
            "same as before",
        ]
        .iter()
        .any(|words| folded.contains(words))
}

/// A line that begins with the word: `TODO`, `TODO: x`, `TODO(ann) x`.
fn leads(text: &str) -> bool {
    WORDS.iter().any(|word| {
        text.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '(', '!']))
    })
}

/// `... TODO: x` amid a line.
fn has_marked(line: &str) -> bool {
    WORDS.iter().take(2).any(|word| {
        line.match_indices(word)
            .any(|(at, _)| is_word(line, at, word) && line[at + word.len()..].starts_with(':'))
    })
}

/// `x(); // TODO later`.
fn has_comment(line: &str) -> bool {
    WORDS.iter().any(|word| {
        line.match_indices(word).any(|(at, _)| {
            let before = line[..at].trim_end();
            is_word(line, at, word)
                && ["//", "#", "--", "/*", "<!--"].iter().any(|mark| before.ends_with(mark))
        })
    })
}

fn is_word(line: &str, at: usize, word: &str) -> bool {
    let joins = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    !line[..at].ends_with(joins) && !line[at + word.len()..].starts_with(joins)
}

/// `<your code here>`, `<insert ...>`, `[your name here]`.
fn has_slot(line: &str) -> bool {
    line.match_indices(['<', '[']).any(|(at, open)| {
        let close = if open == "<" { '>' } else { ']' };
        // To the next sign of either kind: each byte is looked at once.
        let rest = &line[at + 1..];
        let Some(end) = rest.find(['<', '>', '[', ']']).filter(|end| rest[*end..].starts_with(close)) else {
            return false;
        };
        let inside = &rest[..end];
        // `<insert id="x">` is a tag.
        if inside.contains('=') {
            return false;
        }
        let starts = |words: &[&str]| words.iter().any(|word| begins(inside, word));
        let yours = starts(&["your ", "your_", "your-"]);
        let insert = starts(&["insert ", "fill in", "add your", "replace with"]);
        let here = ["code here", "implementation here", "goes here", "text here"]
            .iter()
            .any(|word| finishes(inside, word));
        if open == "<" { yours || insert || here } else { (yours || insert) && finishes(inside, "here") }
    })
}

fn begins(text: &str, word: &str) -> bool {
    text.as_bytes().get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes()))
}

fn finishes(text: &str, word: &str) -> bool {
    let end = text.len().checked_sub(word.len()).and_then(|at| text.as_bytes().get(at..));
    end.is_some_and(|end| end.eq_ignore_ascii_case(word.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_in_prose() {
        for line in [
            "...",
            "- TODO",
            "TODO: the tests",
            "> FIXME(ann) later",
            "We do it. TODO: how?",
            "use <your code here>",
            "[insert the plan here]",
            "…",
        ] {
            assert!(in_prose(line), "{line}");
        }
        for line in [
            "I remove the TODO comments",
            "the to-do list",
            "TODO-list of the team",
            "and so on...",
            "... and then it is done",
            "<b>bold</b>",
            "[your docs](http://x)",
            "Vec<T>",
            "A TBD of nobody",
        ] {
            assert!(!in_prose(line), "{line}");
        }
    }

    #[test]
    fn a_placeholder_in_code() {
        for line in [
            "    ...",
            "// ...",
            "  # ... rest of the code ...",
            "// TODO",
            "x(); // TODO later",
            "+    # FIXME: later",
            "key = \"<YOUR_API_KEY>\"",
            "/* TODO */",
            "// … existing code …",
            "<!-- TODO -->",
            "fn a() { todo!() }",
        ] {
            assert!(in_code(line, true), "{line}");
        }
        for line in [
            "a...b",
            "foo(...args)",
            "[...xs]",
            "let todo = 1;",
            "class TODO {}",
            "if a < your && b > c {",
            "f(x, ...)",
            "<insert id=\"x\">",
            "let x: Vec<Insert> = y;",
        ] {
            assert!(!in_code(line, true), "{line}");
        }
        assert!(!in_code("...", false));
    }
}
