//! Subjects and filters as NATS defines them: what is valid, what covers what. Pure functions, no bus in sight.

use crate::error::Error;

/// Longer ones are refused: a server closes the connection of a client whose control line is too long (4,096 bytes,
/// reply subject and sizes included).
pub const MAX_LEN: usize = 1024;

/// A subject to store a message under: dot-separated non-empty tokens, no white space, no wildcards.
pub fn check(subject: &str) -> Result<(), Error> {
    if well_formed(subject) && !subject.split('.').any(|t| t == "*" || t == ">") {
        Ok(())
    } else {
        Err(Error::InvalidSubject(subject.to_owned()))
    }
}

/// A subject, or a filter: `*` stands for one token, a last `>` for one or more.
pub fn check_filter(filter: &str) -> Result<(), Error> {
    let misplaced = filter.strip_suffix('>').unwrap_or(filter).split('.').any(|t| t == ">");
    if well_formed(filter) && !misplaced { Ok(()) } else { Err(Error::InvalidSubject(filter.to_owned())) }
}

/// One token of a subject that we make: letters, digits, `-` and `_`.
pub fn is_plain_token(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Whether every subject that `inner` stands for is one that `outer` stands for. Either may be a plain subject.
pub fn covers(outer: &str, inner: &str) -> bool {
    let (mut outer, mut inner) = (outer.split('.'), inner.split('.'));
    loop {
        match (outer.next(), inner.next()) {
            (Some(">"), Some(_)) => return true,
            (Some(_), Some(">")) => return false,
            (Some("*"), Some(_)) => {}
            (Some(o), Some(i)) if o == i => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

/// Whether some subject is one that both stand for.
pub fn overlaps(a: &str, b: &str) -> bool {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        match (a.next(), b.next()) {
            (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some("*"), Some(_)) | (Some(_), Some("*")) => {}
            (Some(x), Some(y)) if x == y => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

fn well_formed(subject: &str) -> bool {
    subject.len() <= MAX_LEN
        && !subject.chars().any(|c| c.is_whitespace() || c.is_control())
        && subject.split('.').all(|t| !t.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_have_tokens_and_no_wildcards() {
        for good in ["a", "a.b", "agent.response.completed", "a.*b", "a.b>c", "ä.ß"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let long = "a".repeat(MAX_LEN + 1);
        for bad in
            ["", ".", "a.", ".a", "a..b", "a b", "a\tb", "a\r\nb", "a.*", "*", ">", "a.>", long.as_str()]
        {
            assert_eq!(check(bad), Err(Error::InvalidSubject(bad.to_owned())), "{bad}");
        }
    }

    #[test]
    fn filters_take_a_full_wildcard_only_at_the_end() {
        for good in ["a.*", "*", ">", "a.>", "*.b.>", "a.*.c"] {
            assert_eq!(check_filter(good), Ok(()), "{good}");
        }
        for bad in ["", "a..>", ">.a", "a.>.b", "> "] {
            assert_eq!(check_filter(bad), Err(Error::InvalidSubject(bad.to_owned())), "{bad}");
        }
    }

    #[test]
    fn covering_is_a_subset_relation() {
        for (outer, inner) in [
            (">", "a"),
            (">", ">"),
            ("a.>", "a.b.c"),
            ("a.*", "a.b"),
            ("a.*", "a.*"),
            ("a.>", "a.*"),
            ("a", "a"),
        ] {
            assert!(covers(outer, inner), "{outer} {inner}");
            assert!(overlaps(outer, inner) && overlaps(inner, outer), "{outer} {inner}");
        }
        for (outer, inner) in [
            ("a.>", "a"),
            ("a.*", "a.b.c"),
            ("a.*", "a.>"),
            ("a.b", "a.*"),
            ("a", "b"),
            ("a", "a.b"),
            ("a.b", "a"),
        ] {
            assert!(!covers(outer, inner), "{outer} {inner}");
        }
    }

    #[test]
    fn filters_may_overlap_without_covering() {
        assert!(overlaps("a.*", "*.b") && overlaps("a.b", "a.*") && overlaps("a.>", "*.c"));
        assert!(!overlaps("a.*", "b.*") && !overlaps("a", "a.b") && !overlaps("a.>", "a"));
    }
}
