//! What an agent says of another's work, as far as a task keeps it: its cell holds 512 KiB.

use std::borrow::Cow;

const KEPT_CHARACTERS: usize = 4_000;

/// Without the space around it, and cut where it is longer than is worth keeping.
pub(crate) fn kept(text: &str) -> Cow<'_, str> {
    let text = text.trim();
    if text.char_indices().nth(KEPT_CHARACTERS).is_none() {
        return text.into();
    }
    let mut short: String = text.chars().take(KEPT_CHARACTERS - 1).collect();
    short.push('\u{2026}');
    short.into()
}
