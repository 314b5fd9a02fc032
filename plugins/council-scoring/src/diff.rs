//! Unified diffs in a proposal, taken apart: files, hunks, and where a hunk's header and its lines disagree. What a diff does to a
//! file is for the dry run.

use std::iter::Peekable;

use crate::{
    findings::clip,
    text::{Part, Prose},
};

/// What changes one file.
#[derive(Debug, Default)]
pub(crate) struct Patch<'a> {
    /// Nothing for a file that is new, or of a diff that names none.
    pub(crate) old: Option<&'a str>,
    /// Nothing for a file that is deleted, or of a diff that names none.
    pub(crate) new: Option<&'a str>,
    pub(crate) hunks: Vec<Hunk<'a>>,
    pub(crate) faults: Vec<String>,
}

impl<'a> Patch<'a> {
    pub(crate) fn path(&self) -> Option<&'a str> {
        self.new.or(self.old)
    }
}

#[derive(Debug)]
pub(crate) struct Hunk<'a> {
    pub(crate) line: usize,
    pub(crate) old: Range,
    pub(crate) new: Range,
    pub(crate) lines: Vec<(Sign, &'a str)>,
}

/// As a hunk's header has it; the numbers are whatever somebody wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: u64,
    pub(crate) length: u64,
}

impl Range {
    fn read(text: &str, sign: char) -> Option<Self> {
        let text = text.strip_prefix(sign)?;
        let (start, length) = text.split_once(',').unwrap_or((text, "1"));
        // No sign, which `parse` would take.
        let number =
            |text: &str| text.starts_with(|c: char| c.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        Some(Self { start: number(start)?, length: number(length)? })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    Both,
    Old,
    New,
}

/// The diffs in a proposal: in blocks that say so, and wherever the headers of one are.
pub(crate) fn patches<'a>(parts: &[Part<'a>]) -> Vec<Patch<'a>> {
    let mut found = Vec::new();
    for part in parts {
        match part {
            Part::Fence(fence) => {
                let named = fence.is(&["diff", "patch", "udiff"]);
                if named || fence.label().is_empty() {
                    read((fence.line + 1..).zip(fence.lines()), named, &mut found);
                }
            }
            Part::Prose(Prose { line, text }) => read((*line..).zip(text.lines()), false, &mut found),
        }
    }
    found
}

/// `named`: hunks count even where no file is named above them.
fn read<'a>(lines: impl Iterator<Item = (usize, &'a str)>, named: bool, found: &mut Vec<Patch<'a>>) {
    let mut lines = lines.peekable();
    let mut patch: Option<Patch<'a>> = None;
    while let Some((number, line)) = lines.next() {
        if let Some(old) = line.strip_prefix("--- ")
            && let Some((_, next)) = lines.next_if(|(_, next)| next.starts_with("+++ "))
        {
            found.extend(patch.take());
            patch = Some(Patch { old: path(old), new: path(&next[4..]), ..Patch::default() });
        } else if line.starts_with("diff --git ") {
            found.extend(patch.take());
        } else if line.starts_with("@@") && (named || patch.is_some()) {
            let patch = patch.get_or_insert_default();
            match header(line) {
                Some((old, new)) => {
                    hunk(Hunk { line: number, old, new, lines: Vec::new() }, &mut lines, patch)
                }
                None => {
                    patch.faults.push(format!("line {number}: {:?} is no header of a hunk", clip(line, 60)))
                }
            }
        }
    }
    found.extend(patch);
}

/// `@@ -1,2 +3,4 @@ anything`.
fn header(line: &str) -> Option<(Range, Range)> {
    let (ranges, _) = line.strip_prefix("@@ ")?.split_once(" @@")?;
    let (old, new) = ranges.trim().split_once(' ')?;
    Some((Range::read(old, '-')?, Range::read(new.trim_start(), '+')?))
}

/// Reads as many lines as the header says, and those too many.
fn hunk<'a>(
    mut hunk: Hunk<'a>,
    lines: &mut Peekable<impl Iterator<Item = (usize, &'a str)>>,
    patch: &mut Patch<'a>,
) {
    let (mut old, mut new) = (0_u64, 0_u64);
    while let Some((_, line)) = lines.peek().copied() {
        let complete = old >= hunk.old.length && new >= hunk.new.length;
        let mut chars = line.chars();
        let sign = match chars.next() {
            Some(' ') => Sign::Both,
            // The next file's headers, unless there is one line still to be deleted.
            Some('-') if complete && line.starts_with("--- ") => break,
            Some('-') => Sign::Old,
            Some('+') => Sign::New,
            // `\ No newline at end of file`.
            Some('\\') => {
                lines.next();
                continue;
            }
            // Editors drop the blank of an empty line.
            None if !complete => Sign::Both,
            Some(_) | None => break,
        };
        lines.next();
        old += u64::from(sign != Sign::New);
        new += u64::from(sign != Sign::Old);
        hunk.lines.push((sign, chars.as_str()));
    }
    // Blank lines between the hunk and what follows it are none of it, if it did not need them.
    while (old > hunk.old.length || new > hunk.new.length) && hunk.lines.last() == Some(&(Sign::Both, "")) {
        hunk.lines.pop();
        (old, new) = (old - 1, new - 1);
    }
    if (old, new) != (hunk.old.length, hunk.new.length) {
        patch.faults.push(format!(
            "line {}: its header says {} lines before and {} after, there are {old} and {new}",
            hunk.line, hunk.old.length, hunk.new.length
        ));
    }
    patch.hunks.push(hunk);
}

/// A file's path as the diff has it, without `a/`, `b/` and a time behind it.
fn path(text: &str) -> Option<&str> {
    let path = text.split('\t').next().unwrap_or_default().trim().trim_matches('"');
    let path = path.strip_prefix("a/").or_else(|| path.strip_prefix("b/")).unwrap_or(path);
    (path != "/dev/null" && !path.is_empty()).then_some(path.trim_start_matches("./"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::parts;

    /// `path: hunks` of each patch, then its faults.
    #[track_caller]
    fn check(text: &str, expect: &[&str]) {
        let parts = parts(text);
        let told: Vec<String> = patches(&parts)
            .into_iter()
            .flat_map(|patch| {
                let path = patch.path().unwrap_or("-");
                [format!("{path}: {}", patch.hunks.len())].into_iter().chain(patch.faults)
            })
            .collect();
        let fits =
            told.len() == expect.len() && told.iter().zip(expect).all(|(told, want)| told.contains(want));
        assert!(fits, "{told:?}, wanted {expect:?}");
    }

    const ONE: &str = "--- a/src/x.rs\t2026-01-01\n+++ b/src/x.rs\n@@ -1,3 +1,3 @@ fn x\n a\n-b\n+c\n d\n";

    #[test]
    fn diffs_are_found_in_blocks_and_in_prose() {
        check(&format!("```diff\n{ONE}```"), &["src/x.rs: 1"]);
        check(&format!("```\n{ONE}```"), &["src/x.rs: 1"]);
        check(&format!("So:\n{ONE}\nDone."), &["src/x.rs: 1"]);
        check(
            &format!(
                "1. so\n   ```diff\n{}   ```",
                ONE.replace('\n', "\n   ").trim_end_matches(' ').replacen("---", "   ---", 1)
            ),
            &["src/x.rs: 1"],
        );
        check(
            &format!("```diff\ndiff --git a/x b/x\nindex 1..2\n{ONE}{}```", ONE.replace("x.rs", "y.rs")),
            &["src/x.rs: 1", "src/y.rs: 1"],
        );
        check("```diff\n@@ -1 +1 @@\n-a\n+b\n```", &["-: 1"]);
        check(
            "```diff\n--- /dev/null\n+++ b/new\n@@ -0,0 +1,2 @@\n+a\n+b\n\\ No newline at end of file\n```",
            &["new: 1"],
        );
        check("```diff\n- a\n+ b\n```\n```rust\n@@ -1 +1 @@\n```\n---\n@@ x", &[]);
        check("```diff\n@@ -1,4 +1,3 @@\n a\n--- b\n\n c\n@@ -9 +8 @@\n-x\n+y\n\n```", &["-: 2"]);
    }

    #[test]
    fn hunks_that_do_not_add_up_are_told() {
        check(
            "```diff\n@@ -1,3 +1,3 @@\n a\n-b\n+c\n```",
            &["-: 1", "3 lines before and 3 after, there are 2 and 2"],
        );
        check(
            "```diff\n@@ -1 +1 @@\n-b\n+c\n+d\n```",
            &["-: 1", "1 lines before and 1 after, there are 1 and 2"],
        );
        check("```diff\n@@ ... @@\n-b\n+c\n```", &["-: 0", "no header"]);
        check("```diff\n@@ -99999999999999999999999,1 +1 @@\n-b\n```", &["-: 0", "no header"]);
        check("```diff\n@@ -1,9999999999999999999 +1,2 @@\n-b\n+c\n```", &["-: 1", "there are 1 and 1"]);
        check("```diff\n@@ --1 ++1 @@\n-b\n```", &["-: 0", "no header"]);
    }
}
