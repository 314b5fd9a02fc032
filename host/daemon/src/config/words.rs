//! Names: which there may be, and which word was meant by one that nobody knows.

use std::collections::BTreeSet;

/// Names become tokens of subjects, durables and file names.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

pub(super) fn bad_name(name: &str) -> String {
    format!("{name:?} is not a name; use up to 64 letters, digits, - and _")
}

/// The known word that differs least, if it differs little.
pub(super) fn nearest<'w>(word: &str, known: &'w BTreeSet<String>) -> Option<&'w str> {
    let best = known.iter().map(|k| (distance(word, k), k)).min()?;
    (best.0 <= 1 + word.len() / 4).then_some(best.1.as_str())
}

/// Edits between two words (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(ca != *cb)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}
