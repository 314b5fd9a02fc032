//! What is wrong with the words of a command, before anybody is asked. Which words are whose, the daemon knows.

use cofferdam_bus::subject;

/// One subject, to publish to.
pub(super) fn subject(text: &str) -> Result<String, String> {
    if subject::check(text).is_ok() {
        return Ok(text.to_owned());
    }
    Err(match text.split('.').any(|token| token == "*" || token == ">") {
        true => "a message has one subject, without wildcards".to_owned(),
        false => not_tokens(text),
    })
}

/// A subject to show, or a filter.
pub(super) fn filter(text: &str) -> Result<String, String> {
    // The bus would take it for a letter, and nobody means that.
    if let Some(token) = text.split('.').find(|token| token.len() > 1 && token.contains(['*', '>'])) {
        return Err(format!(
            "a wildcard is a whole token: * stands for one and a last > for one or more, and {token:?} is neither"
        ));
    }
    if subject::check_filter(text).is_ok() {
        return Ok(text.to_owned());
    }
    Err(match text.split('.').rev().skip(1).any(|token| token == ">") {
        true => "> stands for the rest of a subject; it can only be the last token".to_owned(),
        false => not_tokens(text),
    })
}

fn not_tokens(text: &str) -> String {
    if text.len() > subject::MAX_LEN {
        return format!("a subject has {} bytes at most, and this has {}", subject::MAX_LEN, text.len());
    }
    "a subject is made of tokens with dots between them, none of them empty, and no white space".to_owned()
}

/// As names of plugins are.
pub(super) fn plugin(text: &str) -> Result<String, String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match !text.is_empty() && text.chars().all(fine) {
        true => Ok(text.to_owned()),
        false => Err("a plugin's name has letters, digits, - and _".to_owned()),
    }
}

/// `NAME=VALUE`.
pub(super) fn header(text: &str) -> Result<(String, String), String> {
    let Some((name, value)) = text.split_once('=') else {
        return Err("a header is written NAME=VALUE".to_owned());
    };
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic() && b != b':') {
        return Err(format!("{name:?} is not a header's name: printable ASCII without spaces and colons"));
    }
    if value.contains(['\r', '\n']) {
        return Err("a header's value has no line breaks".to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_subject_is_said() {
        for (text, wrong) in [
            ("a.*", "without wildcards"),
            ("a..b", "none of them empty"),
            ("", "none of them empty"),
            ("a b", "no white space"),
        ] {
            assert!(subject(text).unwrap_err().contains(wrong), "{text:?}");
        }
        assert_eq!(subject("a.b").unwrap(), "a.b");
        assert!(subject(&"a".repeat(subject::MAX_LEN + 1)).unwrap_err().contains("bytes at most"));
    }

    #[test]
    fn a_wildcard_is_a_whole_token() {
        for (text, wrong) in [
            ("a.b*", "\"b*\" is neither"),
            ("a>", "\"a>\" is neither"),
            ("a.>.b", "only be the last"),
            ("a..>", "none of them empty"),
        ] {
            assert!(filter(text).unwrap_err().contains(wrong), "{text:?}");
        }
        for good in [">", "*", "a.*.b", "a.>", "a"] {
            assert_eq!(filter(good).unwrap(), good);
        }
    }

    #[test]
    fn a_header_has_a_name_and_a_value_on_one_line() {
        assert_eq!(header("a=b=c").unwrap(), ("a".to_owned(), "b=c".to_owned()));
        for bad in ["a", "=b", "a b=c", "a:b=c", "a=b\nc"] {
            assert!(header(bad).is_err(), "{bad:?}");
        }
    }
}
