//! Diffs, applied to the files that the same proposal shows: forward, or backward where it shows what comes out. Of a file that it
//! does not show, the hunks have to go together.

use std::collections::HashMap;

use super::Report;
use crate::{
    diff::{Hunk, Patch, Range, Sign, patches},
    findings::clip,
    text::{Fence, Part, fences},
};

/// Each may copy a whole file.
const MOST_PATCHES: usize = 64;
/// A path in prose.
const LONGEST_PATH: usize = 200;

pub(super) fn run(parts: &[Part<'_>], report: &mut Report) {
    let patches = patches(parts);
    if patches.len() > MOST_PATCHES {
        report.ran.push("diffs".into());
        report.faults.add(|| format!("{} files are patched, more than {MOST_PATCHES}", patches.len()));
        return;
    }
    if patches.is_empty() {
        return;
    }
    let mut shown = shown(parts);
    for patch in patches.iter().filter(|patch| !patch.hunks.is_empty()) {
        one(patch, &mut shown, report);
    }
}

/// A file, as the proposal shows it or as a diff of it has left it.
struct File<'a> {
    lines: Vec<&'a str>,
    /// Where it is shown.
    line: usize,
    patched: bool,
}

fn one<'a>(patch: &Patch<'a>, shown: &mut HashMap<&'a str, File<'a>>, report: &mut Report) {
    let name = clip(patch.path().unwrap_or("a file without a name"), 80);
    let hunks = patch.hunks.len();
    if let Err(fault) = in_order(&patch.hunks) {
        report.ran.push(format!("diff: {name}, {hunks} hunks"));
        report.faults.add(|| format!("the diff of {name}: {fault}"));
        return;
    }
    let known = patch.old.and_then(|path| shown.get_mut(path)).filter(|file| !is_excerpt(patch, &file.lines));
    let Some(file) = known else {
        report.ran.push(format!("diff: {name}, {hunks} hunks, which go together; the file is not shown"));
        return;
    };
    // What is shown below its diff may be what comes of it.
    let below = !file.patched && patch.hunks.first().is_some_and(|hunk| hunk.line < file.line);
    match apply(&file.lines, &patch.hunks, false) {
        Ok(after) if patch.new.is_none() && !after.is_empty() => {
            report.ran.push(format!("diff: {name}, {hunks} hunks"));
            report.faults.add(|| format!("the diff of {name} deletes it, but for {} lines", after.len()));
        }
        Ok(after) => {
            report.ran.push(format!("diff: {name}, {hunks} hunks, applied to the file that is shown"));
            (file.lines, file.patched) = (after, true);
        }
        Err(_) if below && patch.new.is_some() && apply(&file.lines, &patch.hunks, true).is_ok() => {
            report.ran.push(format!("diff: {name}, {hunks} hunks, which lead to the file that is shown"));
        }
        Err(fault) => {
            report.ran.push(format!("diff: {name}, {hunks} hunks"));
            report
                .faults
                .add(|| format!("the diff of {name} does not apply to the file that is shown: {fault}"));
        }
    }
}

/// The proposal shows a part of the file if the diff begins behind its end.
fn is_excerpt(patch: &Patch<'_>, lines: &[&str]) -> bool {
    let shown = lines.len() as u64;
    patch.hunks.first().is_some_and(|hunk| hunk.old.start > shown.saturating_add(1))
}

/// Whether the hunks follow each other, before and after, without touching the same line.
fn in_order(hunks: &[Hunk<'_>]) -> Result<(), String> {
    for pair in hunks.windows(2) {
        let [one, next] = pair else { continue };
        let follows = |one: Range, next: Range| next.start >= one.start.saturating_add(one.length);
        if !follows(one.old, next.old) || !follows(one.new, next.new) {
            return Err(format!(
                "the hunk of line {} begins before the one of line {} ends",
                next.line, one.line
            ));
        }
    }
    Ok(())
}

/// The file with all hunks applied, each where its header says or else at the next place behind the one before it that has its
/// lines. The search goes on where the last ended, so that all of it is one pass.
fn apply<'a>(lines: &[&'a str], hunks: &[Hunk<'a>], backward: bool) -> Result<Vec<&'a str>, String> {
    let (gone, come) = if backward { (Sign::New, Sign::Old) } else { (Sign::Old, Sign::New) };
    let of = |hunk: &Hunk<'a>, sign: Sign| -> Vec<&'a str> {
        hunk.lines.iter().filter(|(s, _)| *s == Sign::Both || *s == sign).map(|(_, line)| *line).collect()
    };
    let mut after = Vec::with_capacity(lines.len());
    let mut at = 0;
    for hunk in hunks {
        let range = if backward { hunk.new } else { hunk.old };
        let (before, put) = (of(hunk, gone), of(hunk, come));
        let told = usize::try_from(range.start).unwrap_or(usize::MAX);
        let place = if before.is_empty() {
            // Put in behind the line that the header names.
            Some(told).filter(|place| (at..=lines.len()).contains(place))
        } else {
            let exact = told.saturating_sub(1);
            let fits = exact >= at && lines.get(exact..).is_some_and(|rest| rest.starts_with(&before));
            if fits { Some(exact) } else { search(&lines[at..], &before).map(|found| at + found) }
        };
        let Some(place) = place else {
            return Err(format!("the lines of the hunk of line {} are not in it", hunk.line));
        };
        after.extend(&lines[at..place]);
        after.extend(put);
        at = place + before.len();
    }
    after.extend(&lines[at..]);
    Ok(after)
}

/// Where `wanted` begins in `lines`, after Knuth, Morris and Pratt: in linear time, whatever the lines.
fn search(lines: &[&str], wanted: &[&str]) -> Option<usize> {
    let mut fallback = vec![0; wanted.len()];
    let mut length = 0;
    for at in 1..wanted.len() {
        while length > 0 && wanted[at] != wanted[length] {
            length = fallback[length - 1];
        }
        length += usize::from(wanted[at] == wanted[length]);
        fallback[at] = length;
    }
    let mut length = 0;
    for (at, line) in lines.iter().enumerate() {
        while length > 0 && *line != wanted[length] {
            length = fallback[length - 1];
        }
        length += usize::from(*line == wanted[length]);
        if length == wanted.len() {
            return Some(at + 1 - length);
        }
    }
    None
}

/// The files that the proposal shows, by path; of two with one path the first.
fn shown<'a>(parts: &[Part<'a>]) -> HashMap<&'a str, File<'a>> {
    let mut files = HashMap::new();
    let code = fences(parts).filter(|fence| !fence.is(&["diff", "patch", "udiff"]));
    for fence in code {
        if let Some(path) = path_of(fence) {
            let file = || File { lines: fence.lines().collect(), line: fence.line, patched: false };
            files.entry(path).or_insert_with(file);
        }
    }
    files
}

/// The path that stands behind the opening fence, or at the end of the line above it.
fn path_of<'a>(fence: &Fence<'a>) -> Option<&'a str> {
    let words = fence.info.rsplit([' ', '\t', ',', '{', '}']);
    let mut named = words.filter_map(|word| {
        let value = word.split_once('=').map_or(word, |(_, value)| value);
        let value = value.rsplit_once(':').map_or(value, |(_, value)| value);
        path(value)
    });
    named.next().or_else(|| {
        let above = fence.above.trim_end_matches([':', '*', ' ']);
        path(above.rsplit([' ', '\t']).next().unwrap_or_default())
    })
}

fn path(text: &str) -> Option<&str> {
    let path =
        text.trim_matches(['`', '"', '\'', '*', '(', ')', ':', '#', '[', ']']).trim_start_matches("./");
    let fits = path.len() <= LONGEST_PATH
        && path.contains(['.', '/'])
        && !path.ends_with(['.', '/'])
        && path.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '/' | '_' | '-' | '@' | '+'));
    fits.then_some(path)
}
