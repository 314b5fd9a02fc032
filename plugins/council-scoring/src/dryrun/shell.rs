//! Blocks of shell: whether every quotation, substitution and here-document that a command opens is closed again. No command is
//! run, and none is looked up.

use super::Report;
use crate::text::{Part, fences};

pub(super) fn run(parts: &[Part<'_>], report: &mut Report) {
    for fence in fences(parts) {
        let body = if fence.is(&["sh", "bash", "shell", "zsh"]) {
            fence.dedented().into_owned()
        } else if fence.is(&["console", "shell-session"]) {
            typed(fence.lines())
        } else {
            continue;
        };
        if report.ran.last().is_none_or(|last| last != RAN) {
            report.ran.push(RAN.into());
        }
        if let Some(open) = open(&body) {
            let line = fence.line + open.line;
            report.faults.add(|| format!("the shell of line {line} opens {} and never closes it", open.what));
        }
    }
}

const RAN: &str = "shell: quotations, substitutions and here-documents";

/// What was typed in a session, and goes on after a prompt.
fn typed<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let mut text = String::new();
    for line in lines {
        if let Some(command) = line.trim_start().strip_prefix("$ ").or_else(|| line.strip_prefix("> ")) {
            text.push_str(command);
        }
        text.push('\n');
    }
    text
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Unclosed {
    /// From 1, in the block.
    line: usize,
    what: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Single,
    Double,
    /// `$(` or, within one, `(`.
    Paren,
    /// `${`.
    Brace,
    Backtick,
}

impl Open {
    fn told(self) -> &'static str {
        match self {
            Self::Single => "a single quotation",
            Self::Double => "a double quotation",
            Self::Paren => "`$(`",
            Self::Brace => "`${`",
            Self::Backtick => "a backtick",
        }
    }
}

/// What is still open at the end: the innermost.
fn open(text: &str) -> Option<Unclosed> {
    let mut shell = Shell::default();
    let mut lines = (1..).zip(text.lines());
    while let Some((number, line)) = lines.next() {
        shell.line(number, line);
        // The bodies of here-documents come below the line that names them.
        for wanted in std::mem::take(&mut shell.documents) {
            if !lines.any(|(_, line)| wanted.ends_at(line)) {
                return Some(Unclosed { line: number, what: format!("the here-document {:?}", wanted.word) });
            }
        }
    }
    shell.open.pop().map(|(open, line)| Unclosed { line, what: open.told().into() })
}

struct Document {
    word: String,
    /// `<<-`: its end may be indented by tabs.
    indented: bool,
}

impl Document {
    fn ends_at(&self, line: &str) -> bool {
        let line = if self.indented { line.trim_start_matches('\t') } else { line };
        line == self.word
    }
}

#[derive(Default)]
struct Shell {
    /// Outermost first, with their lines.
    open: Vec<(Open, usize)>,
    documents: Vec<Document>,
}

impl Shell {
    fn line(&mut self, number: usize, line: &str) {
        let bytes = line.as_bytes();
        let mut at = 0;
        while let Some(byte) = bytes.get(at).copied() {
            let next = bytes.get(at + 1).copied();
            let inner = self.open.last().map(|(open, _)| *open);
            at += match (inner, byte, next) {
                (Some(Open::Single), b'\'', _) => self.close(),
                (Some(Open::Single), ..) => 1,
                (_, b'\\', _) => 2,
                (_, b'$', Some(b'(')) => self.begin(Open::Paren, number, 2),
                (_, b'$', Some(b'{')) => self.begin(Open::Brace, number, 2),
                (Some(Open::Backtick), b'`', _) => self.close(),
                (_, b'`', _) => self.begin(Open::Backtick, number, 1),
                (Some(Open::Double), b'"', _) => self.close(),
                (_, b'"', _) => self.begin(Open::Double, number, 1),
                (Some(Open::Double), ..) => 1,
                (Some(Open::Brace), b'}', _) => self.close(),
                // A quotation in `${a:-it's}` is one only in some shells.
                (Some(Open::Brace), ..) => 1,
                (_, b'\'', _) => self.begin(Open::Single, number, 1),
                (Some(Open::Paren), b')', _) => self.close(),
                (Some(Open::Paren), b'(', _) => self.begin(Open::Paren, number, 1),
                (_, b'#', _) if at == 0 || matches!(bytes[at - 1], b' ' | b'\t' | b';' | b'(' | b')') => {
                    return;
                }
                (Some(Open::Paren) | None, b'<', Some(b'<')) => self.document(&line[at..]),
                _ => 1,
            };
        }
    }

    fn begin(&mut self, open: Open, number: usize, length: usize) -> usize {
        self.open.push((open, number));
        length
    }

    fn close(&mut self) -> usize {
        self.open.pop();
        1
    }

    /// `<<WORD`, `<<-'WORD'`; returns how long it is. `<<<` takes a word of the same line, and `1 << 2` is a sum.
    fn document(&mut self, text: &str) -> usize {
        if text.starts_with("<<<") {
            return 3;
        }
        let rest = &text[2..];
        let (indented, rest) = match rest.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let named = rest.trim_start_matches([' ', '\t', '\\']);
        let quoted = named.starts_with(['\'', '"']);
        let bare = if quoted { &named[1..] } else { named };
        let end =
            bare.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.'))).unwrap_or(bare.len());
        let word = &bare[..end];
        if word.is_empty() || word.starts_with(|c: char| c.is_ascii_digit()) {
            return 2;
        }
        self.documents.push(Document { word: word.to_owned(), indented });
        let closing = usize::from(quoted && bare[end..].starts_with(['\'', '"']));
        text.len() - bare.len() + end + closing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_closed_again_is_fine() {
        for text in [
            "echo 'a b' \"c 'd\" # don't\n",
            "echo \"it's $(date +\"%Y\") (now\"\n",
            "git commit -m \"two\nlines\"\n",
            "cat <<EOF > x\nit's \"open\nEOF\necho done",
            "cat <<-'END' | sh\n\tdon't\n\tEND\n",
            "a=$((1 << 2)); b=${a:-it's}\n",
            "echo \\' \\\"\n",
            "case $x in a) ls ;; esac\n",
            "cat <<<'x'\n",
            "echo `echo \"a\"` \"`echo 'b'`\"",
            "f() { ls; }\n",
            "echo a#'b'",
            "cat <<A <<B\n'\nA\n\"\nB\n",
            "",
        ] {
            assert_eq!(open(text), None, "{text}");
        }
    }

    #[test]
    fn what_stays_open_is_told_with_its_line() {
        for (text, line, what) in [
            ("ls\necho it's\nls", 2, "single"),
            ("echo \"a\nls", 1, "double"),
            ("ls\necho $(date\n", 2, "`$(`"),
            ("echo ${HOME\n", 1, "`${`"),
            ("echo `date\n", 1, "backtick"),
            ("cat <<EOF\nx\n EOF\n", 1, "\"EOF\""),
        ] {
            let found = open(text).unwrap();
            assert!(found.line == line && found.what.contains(what), "{text}: {found:?}");
        }
    }
}
