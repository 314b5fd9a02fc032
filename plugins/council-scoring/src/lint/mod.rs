//! The check `lint`: what a proposal's form shows. Errors fail it, warnings are only counted.

mod data;
mod placeholders;
mod tasks;

use fleet_proto::orchestrator::v1::LintResult;
pub(crate) use tasks::are_in as holds_tasks;

use crate::{
    diff,
    findings::Findings,
    text::{Fence, Part, Prose, fences, parts},
};

/// Nobody reads a line to there.
const LONG_LINE: usize = 400;

pub(crate) fn check(content: &str, min_chars: usize) -> LintResult {
    let (mut errors, mut warnings) = (Findings::default(), Findings::default());
    let parts = parts(content);
    length(content, min_chars, &mut errors);
    for part in &parts {
        match part {
            Part::Prose(prose) => lines(prose, &mut errors),
            Part::Fence(fence) => block(fence, &mut errors),
        }
    }
    for patch in diff::patches(&parts) {
        for fault in patch.faults {
            errors.add(|| format!("a diff whose hunks don't add up: {fault}"));
        }
    }
    tasks::check(content, &mut errors, &mut warnings);
    untidy(content, &parts, &mut warnings);
    LintResult {
        passed: errors.is_empty(),
        error_count: errors.count(),
        warning_count: warnings.count(),
        errors: errors.finish(),
    }
}

fn length(content: &str, min_chars: usize, errors: &mut Findings) {
    let shown = content.trim();
    if shown.is_empty() {
        errors.add(|| "it is empty".into());
    } else if shown.chars().take(min_chars).count() < min_chars {
        errors.add(|| format!("it has less than {min_chars} characters"));
    } else if !shown.contains(char::is_alphanumeric) {
        errors.add(|| "it has no word in it".into());
    }
}

fn lines(prose: &Prose<'_>, errors: &mut Findings) {
    for (number, line) in (prose.line..).zip(prose.text.lines()).filter(|(_, line)| !line.is_empty()) {
        conflict(number, line, errors);
        if placeholders::in_prose(line) {
            errors.add(|| format!("line {number} has a placeholder: {}", line.trim()));
        }
    }
}

fn block(fence: &Fence<'_>, errors: &mut Findings) {
    if !fence.closed {
        errors.add(|| format!("the code fence of line {} is never closed", fence.line));
    }
    // `...` ends a document in YAML, and lines of a diff are somebody else's.
    let elides = !fence.is(&["yaml", "yml", "diff", "patch", "console", "text", "txt"]);
    for (number, line) in (fence.line + 1..).zip(fence.body.lines()).filter(|(_, line)| !line.is_empty()) {
        conflict(number, line, errors);
        if placeholders::in_code(line, elides) {
            errors.add(|| format!("line {number} has a placeholder: {}", line.trim()));
        }
    }
    if let Some(fault) = data::fault(fence) {
        errors.add(|| format!("the {} of line {} can't be read: {fault}", fence.label(), fence.line));
    }
}

/// What a merge left behind.
fn conflict(number: usize, line: &str, errors: &mut Findings) {
    let marks =
        |sign: &str| line.strip_prefix(sign).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
    if marks("<<<<<<<") || marks(">>>>>>>") {
        errors.add(|| format!("line {number} is a conflict marker"));
    }
}

fn untidy(content: &str, parts: &[Part<'_>], warnings: &mut Findings) {
    for (number, line) in (1..).zip(content.lines()) {
        let trailing = line.len() - line.trim_end().len();
        // Two blanks are Markdown's line break.
        if trailing > 0 && !(trailing == 2 && line.ends_with("  ")) {
            warnings.add(|| format!("line {number} ends in white space"));
        }
        if line.len() > LONG_LINE {
            warnings.add(|| format!("line {number} has {} bytes", line.len()));
        }
    }
    for fence in fences(parts).filter(|fence| fence.body.trim().is_empty()) {
        warnings.add(|| format!("the block of line {} is empty", fence.line));
    }
}
