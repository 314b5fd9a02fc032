//! Names that a caller chooses: of streams, durables, cells and buckets. What is refused here is refused by every bus.

use std::time::Duration;

use crate::{
    api::{ConsumerSpec, StreamSpec},
    error::Error,
    subject,
};

const MAX_SPACE: usize = 128;
const MAX_CELL: usize = 1024;

pub(crate) fn check_stream(spec: &StreamSpec) -> Result<(), Error> {
    for filter in &spec.subjects {
        subject::check_filter(filter)?;
    }
    if spec.subjects.is_empty() || !subject::is_plain_token(&spec.name) {
        return Err(Error::Refused(format!(
            "stream {:?} of subjects {:?}: a name is made of letters, digits, - and _, and there is at least one subject",
            spec.name, spec.subjects
        )));
    }
    let limits = [("max_messages", spec.max_messages == Some(0)), ("max_bytes", spec.max_bytes == Some(0))];
    let times = [("max_age", spec.max_age), ("duplicate_window", spec.duplicate_window)]
        .map(|(n, t)| (n, t == Some(Duration::ZERO)));
    match limits.into_iter().chain(times).find(|(_, zero)| *zero) {
        Some((limit, _)) => Err(Error::Refused(format!(
            "stream {:?}: a {limit} of 0 keeps nothing; leave it out for none",
            spec.name
        ))),
        None => Ok(()),
    }
}

/// The name of the stream is not looked at: it is to exist.
pub(crate) fn check_durable(spec: &ConsumerSpec) -> Result<(), Error> {
    subject::check_filter(&spec.filter)?;
    if !subject::is_plain_token(&spec.durable) {
        return Err(Error::Refused(format!(
            "durable {:?}: a name is made of letters, digits, - and _",
            spec.durable
        )));
    }
    if spec.max_ack_pending == 0 || spec.ack_wait.is_zero() || spec.max_deliver == Some(0) {
        return Err(Error::Refused(format!(
            "durable {:?}: ack_wait, max_ack_pending and max_deliver are above 0",
            spec.durable
        )));
    }
    Ok(())
}

/// Of [`crate::Point::Cell`].
pub(crate) fn check_cell(space: &str, cell: &str) -> Result<(), Error> {
    if !subject::is_plain_token(space) || space.len() > MAX_SPACE {
        return Err(Error::Refused(format!(
            "state space {space:?}: a name has up to {MAX_SPACE} letters, digits, - and _"
        )));
    }
    if cell.is_empty() || cell.len() > MAX_CELL {
        return Err(Error::Refused(format!("a cell's name has 1 to {MAX_CELL} bytes, not {}", cell.len())));
    }
    Ok(())
}

pub(crate) fn check_bucket(bucket: &str) -> Result<(), Error> {
    if !subject::is_plain_token(bucket) {
        return Err(Error::Refused(format!("bucket {bucket:?}: a name is made of letters, digits, - and _")));
    }
    Ok(())
}

/// A key of a bucket, which is where NATS clients look for it: part of a subject.
pub(crate) fn check_key(bucket: &str, key: &str) -> Result<(), Error> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_/=.".contains(c);
    if key.chars().all(fine) && subject::check(&key_subject(bucket, key)).is_ok() {
        Ok(())
    } else {
        Err(Error::InvalidSubject(key.to_owned()))
    }
}

/// Where NATS clients store a key.
pub(crate) fn key_subject(bucket: &str, key: &str) -> String {
    format!("$KV.{bucket}.{key}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_are_one_token_and_cells_any_name() {
        assert_eq!(check_cell("derivation", "plan/7 – ü"), Ok(()));
        let long = "a".repeat(MAX_CELL + 1);
        for (space, cell) in
            [("", "a"), ("a.b", "a"), ("*", "a"), ("a b", "a"), ("a", ""), (&long, "a"), ("a", &long)]
        {
            assert!(check_cell(space, cell).is_err(), "{space:?} {cell:?}");
        }
    }

    #[test]
    fn streams_have_a_plain_name_and_valid_subjects() {
        let check = |name: &str, subjects: &[&str]| {
            check_stream(&StreamSpec {
                name: name.into(),
                subjects: subjects.iter().map(|s| (*s).to_owned()).collect(),
                max_age: None,
                max_messages: None,
                max_bytes: None,
                duplicate_window: None,
            })
        };
        assert_eq!(check("S-1_a", &["a.>", "b"]), Ok(()));
        assert_eq!(check("S", &["a..b"]), Err(Error::InvalidSubject("a..b".into())));
        for (name, subjects) in [("S", &[][..]), ("", &["a"]), ("a.b", &["a"]), ("a b", &["a"])] {
            assert!(matches!(check(name, subjects), Err(Error::Refused(_))), "{name:?} {subjects:?}");
        }
    }

    #[test]
    fn keys_are_tokens_of_plain_letters() {
        for fine in ["a", "a.b", "plan/7=x", "A-1_b"] {
            assert_eq!(check_key("b", fine), Ok(()), "{fine}");
        }
        let long = "a".repeat(subject::MAX_LEN);
        for bad in ["", ".a", "a.", "a..b", "a b", "*", ">", "ä", long.as_str()] {
            assert_eq!(check_key("b", bad), Err(Error::InvalidSubject(bad.into())), "{bad}");
        }
        assert_eq!(check_bucket("b-1"), Ok(()));
        for bad in ["", "a.b", "a b"] {
            assert!(matches!(check_bucket(bad), Err(Error::Refused(_))), "{bad}");
        }
    }
}
