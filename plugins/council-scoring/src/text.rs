//! A proposal's form: prose, and the fenced blocks in it. One pass, and slices of the text.

use std::borrow::Cow;

/// A fenced block, or what stands between two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    Prose(Prose<'a>),
    Fence(Fence<'a>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prose<'a> {
    /// Of its first line, from 1.
    pub(crate) line: usize,
    pub(crate) text: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fence<'a> {
    /// Of the opening fence, from 1.
    pub(crate) line: usize,
    /// Columns before the opening fence.
    indent: usize,
    /// What stands behind the opening fence.
    pub(crate) info: &'a str,
    pub(crate) body: &'a str,
    pub(crate) closed: bool,
    /// The last line of prose above it that is not blank.
    pub(crate) above: &'a str,
}

impl<'a> Fence<'a> {
    /// The language, in lower case; empty if none is named.
    pub(crate) fn label(&self) -> String {
        let word =
            self.info.split([' ', '\t', ',', '{', ':']).find(|word| !word.is_empty()).unwrap_or_default();
        word.trim_start_matches('.').trim_end_matches('}').to_ascii_lowercase()
    }

    pub(crate) fn is(&self, labels: &[&str]) -> bool {
        labels.contains(&self.label().as_str())
    }

    /// The body's lines without the indentation that the fence itself has, as in a list.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &'a str> {
        let indent = self.indent;
        self.body.lines().map(move |line| {
            let blanks = line.bytes().take(indent).take_while(|byte| matches!(byte, b' ' | b'\t')).count();
            &line[blanks..]
        })
    }

    /// These lines as one text.
    pub(crate) fn dedented(&self) -> Cow<'a, str> {
        if self.indent == 0 {
            return Cow::Borrowed(self.body);
        }
        let mut text = String::with_capacity(self.body.len());
        for line in self.lines() {
            text.push_str(line);
            text.push('\n');
        }
        Cow::Owned(text)
    }
}

/// The parts of a text in order. A fence that is never closed runs to the end.
pub(crate) fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut open: Option<(Mark<'_>, usize, usize)> = None;
    // Where the part at hand begins, and its line.
    let (mut start, mut first) = (0, 1);
    let mut above = "";
    let mut at = 0;
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        let end = at + line.len();
        match (&open, Mark::read(line)) {
            (Some((mark, body, opened)), Some(close)) if close.closes(mark) => {
                parts.push(Part::Fence(mark.fence(*opened, &text[*body..at], true, above)));
                open = None;
                (start, first) = (end, number + 1);
                above = "";
            }
            (None, Some(mark)) => {
                if start < at {
                    parts.push(Part::Prose(Prose { line: first, text: &text[start..at] }));
                }
                open = Some((mark, end, number));
            }
            (None, None) if !line.trim().is_empty() => above = line.trim(),
            _ => {}
        }
        at = end;
    }
    match open {
        Some((mark, body, opened)) => {
            parts.push(Part::Fence(mark.fence(opened, &text[body..], false, above)))
        }
        None if start < text.len() => parts.push(Part::Prose(Prose { line: first, text: &text[start..] })),
        None => {}
    }
    parts
}

pub(crate) fn fences<'a, 'b>(parts: &'b [Part<'a>]) -> impl Iterator<Item = &'b Fence<'a>> {
    parts.iter().filter_map(|part| match part {
        Part::Fence(fence) => Some(fence),
        Part::Prose(_) => None,
    })
}

/// What is read into values goes no deeper: a guest's stack is small, and nobody means more.
pub(crate) const MOST_DEPTH: usize = 32;

/// Whether brackets and braces nest deeper than that. Those in quotations count too, which is well below it.
pub(crate) fn is_deep(text: &str) -> bool {
    let mut depth = 0_usize;
    text.bytes().any(|byte| {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > MOST_DEPTH
    })
}

/// A line that opens or closes a block: three backticks or tildes at least.
#[derive(Debug, Clone, Copy)]
struct Mark<'a> {
    indent: usize,
    sign: char,
    length: usize,
    info: &'a str,
}

impl<'a> Mark<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let body = line.trim_start_matches([' ', '\t']);
        let indent = line.len() - body.len();
        let sign = body.chars().next().filter(|sign| matches!(sign, '`' | '~'))?;
        let rest = body.trim_start_matches(sign);
        let length = body.len() - rest.len();
        let info = rest.trim();
        // Else it is code amid prose: ```like this```.
        let opens = length >= 3 && !(sign == '`' && info.contains('`'));
        opens.then_some(Self { indent, sign, length, info })
    }

    fn closes(&self, opening: &Mark<'_>) -> bool {
        self.sign == opening.sign && self.length >= opening.length && self.info.is_empty()
    }

    fn fence(&self, line: usize, body: &'a str, closed: bool, above: &'a str) -> Fence<'a> {
        Fence { line, indent: self.indent, info: self.info, body, closed, above }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `label:first line:body` of each fence; prose as its text.
    fn read(text: &str) -> Vec<String> {
        let told = parts(text).into_iter().map(|part| match part {
            Part::Prose(prose) => format!("{}|{}", prose.line, prose.text.trim()),
            Part::Fence(fence) => {
                let end = if fence.closed { "" } else { "!" };
                format!("{}|{}|{}{end}", fence.line, fence.label(), fence.body.trim_end())
            }
        });
        told.collect()
    }

    #[test]
    fn fences_are_told_from_prose_with_their_lines() {
        assert_eq!(read("a\n```json\n{}\n```\nb\n"), ["1|a", "2|json|{}", "5|b"]);
        assert_eq!(read("~~~ Toml title=\"x\"\na = 1\n~~~~"), ["1|toml|a = 1"]);
        assert_eq!(read("````md\n```sh\nls\n```\n````\n"), ["1|md|```sh\nls\n```"]);
        assert_eq!(read("say ```x``` or\n```x``` here"), ["1|say ```x``` or\n```x``` here"]);
        assert_eq!(read("```\na\n~~~\n"), ["1||a\n~~~!"]);
        assert_eq!(read("```{.rust}\r\nx\r\n```\r\n"), ["1|rust|x"]);
        assert_eq!(read(""), Vec::<String>::new());
    }

    #[test]
    fn a_fence_knows_what_stands_above_it_and_its_indentation() {
        let text = "**src/a.rs**\n\n  ```rust\n  fn a() {\n    b()\n  }\n  ```\n```\nx\n```";
        let parts = parts(text);
        let found: Vec<_> = fences(&parts).collect();
        assert_eq!((found[0].above, found[1].above), ("**src/a.rs**", ""));
        assert_eq!(found[0].dedented(), "fn a() {\n  b()\n}\n");
    }
}
