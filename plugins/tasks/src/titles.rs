//! When two titles are the same one, and how long a title may be. The rules are the contract's, for titles of whatever
//! origin: models, people, Planning.

/// Longest title, in characters.
pub const LONGEST: usize = 80;

/// What titles are compared by: casefolded, single spaces, without `.!:;` at the end.
pub fn key(title: &str) -> String {
    collapse(&fold(title)).trim_end_matches(['.', '!', ':', ';', ' ']).to_owned()
}

/// Text without case. By way of upper case, so that `ß` equals `ss`.
pub fn fold(text: &str) -> String {
    text.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

/// Text with single spaces.
pub fn collapse(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A collapsed title as it is stored.
pub fn cut(full: &str) -> &str {
    match full.char_indices().nth(LONGEST) {
        Some((end, _)) => full[..end].trim_end(),
        None => full,
    }
}

/// The description of a task with this collapsed title: the title where there is none, led by the title where that was cut.
pub fn described(full: &str, description: &str) -> String {
    let description = description.trim();
    let is_cut = full.chars().nth(LONGEST).is_some();
    if description.is_empty() {
        full.to_owned()
    } else if is_cut && !description.starts_with(full) {
        format!("{full}\n\n{description}")
    } else {
        description.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contract_4_batch_a_title_keys_forgive_case_space_and_end_marks() {
        let check = |title: &str, expect: &str| assert_eq!(key(title), expect, "{title:?}");
        check(" Add  LOGIN. ", "add login");
        check("Add login!:; .", "add login");
        check("Straße", "strasse");
        check("ΟΔΟΣ", "οδοσ");
        check("v1.2: a, b?", "v1.2: a, b?");
    }

    #[test]
    fn contract_4_per_task_a_long_title_is_cut_and_leads_the_description() {
        let check = |title: &str, description: &str, expect: (&str, &str)| {
            let full = collapse(title);
            assert_eq!((cut(&full), described(&full, description).as_str()), expect);
        };
        check(" A  b ", "", ("A b", "A b"));
        check("A", " c ", ("A", "c"));
        check(&format!("{} b", "a".repeat(79)), "", (&"a".repeat(79), &format!("{} b", "a".repeat(79))));
        let (long, cut) = ("é".repeat(81), "é".repeat(80));
        check(&long, "", (&cut, &long));
        check(&long, "c", (&cut, &format!("{long}\n\nc")));
        check(&long, &format!("{long} c"), (&cut, &format!("{long} c")));
    }
}
