//! When two titles are the same one, and how long a title may be. The rules are the contract's, the same that
//! output-parser applies: titles of other producers, and those that Planning has, pass through here only.

/// Longest title, in characters.
const MAX_TITLE: usize = 80;

/// What titles are compared by: casefolded, single spaces, without `.!:;` at the end.
pub(crate) fn title_key(title: &str) -> String {
    collapse(&fold(title)).trim_end_matches(['.', '!', ':', ';', ' ']).to_owned()
}

/// Text without case. By way of upper case, so that `ß` equals `ss`.
pub(crate) fn fold(text: &str) -> String {
    text.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

pub(crate) fn collapse(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The title as it is stored, and the description: the title where there is none, led by the full title where that
/// was cut.
pub(crate) fn stored(title: &str, description: &str) -> (String, String) {
    let (full, description) = (collapse(title), description.trim());
    let cut = full.char_indices().nth(MAX_TITLE).map(|(end, _)| full[..end].trim_end().to_owned());
    let description = match (&cut, description) {
        (_, "") => full.clone(),
        (Some(_), text) if !text.starts_with(&full) => format!("{full}\n\n{text}"),
        (_, text) => text.to_owned(),
    };
    (cut.unwrap_or(full), description)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn title_keys_forgive_case_space_and_end_marks() {
        let check = |title: &str, expect: &str| assert_eq!(title_key(title), expect, "{title:?}");
        check(" Add  LOGIN. ", "add login");
        check("Add login!:; .", "add login");
        check("Straße", "strasse");
        check("ΟΔΟΣ", "οδοσ");
        check("v1.2: a, b?", "v1.2: a, b?");
    }

    #[test]
    fn a_long_title_is_cut_and_leads_the_description() {
        let check = |title: &str, description: &str, expect: (&str, &str)| {
            let (title, description) = stored(title, description);
            assert_eq!((title.as_str(), description.as_str()), expect);
        };
        check(" A  b ", "", ("A b", "A b"));
        check("A", " c ", ("A", "c"));
        let (long, cut) = ("é".repeat(81), "é".repeat(80));
        check(&long, "", (&cut, &long));
        check(&long, "c", (&cut, &format!("{long}\n\nc")));
        check(&long, &format!("{long} c"), (&cut, &format!("{long} c")));
    }
}
